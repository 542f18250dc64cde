"""Certificates for TLS listeners, from an authority of their own, good and bad."""

import enum
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificate(enum.Enum):
    """What is wrong with a server's certificate."""

    GOOD = "good"  # from the authority, for the right host, in time
    EXPIRED = "expired"  # since yesterday
    WRONG_HOST = "wrong host"  # made out to gitlab.example.org
    SELF_SIGNED = "self-signed"  # from no authority at all


class Authority:
    """A certificate authority whose files lie in a folder: `pem` is its certificate, `file` where that is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stand-in authority")])
        now = datetime.now(UTC)
        certificate = (
            self._builder(self._name, self._key, now + timedelta(days=30))
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.file = folder / "ca.pem"
        self.file.write_text(self.pem)

    def context(self, kind: Certificate, hosts: set[str]) -> ssl.SSLContext:
        """What a server needs to present a certificate of this kind for these hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = {"gitlab.example.org"} if kind is Certificate.WRONG_HOST else {*hosts, "localhost"}
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, min(names))])
        days = -1 if kind is Certificate.EXPIRED else 30
        signed_by_itself = kind is Certificate.SELF_SIGNED
        certificate = (
            self._builder(name, key, datetime.now(UTC) + timedelta(days=days))
            .issuer_name(name if signed_by_itself else self._name)
            .add_extension(x509.SubjectAlternativeName([_name(host) for host in sorted(names)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(key if signed_by_itself else self._key, hashes.SHA256())
        )
        file = self._folder / f"{kind.name.lower()}-{len(list(self._folder.iterdir()))}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(until - timedelta(days=60))
            .not_valid_after(until)
        )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _ca_usage() -> x509.KeyUsage:
    off = dict.fromkeys(
        (
            "content_commitment",
            "data_encipherment",
            "decipher_only",
            "digital_signature",
            "encipher_only",
            "key_agreement",
            "key_encipherment",
        ),
        False,
    )
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **off)

"""Makes keys and certificates, and knows no files. ECDSA with P-256; extensions as RFC 5280 wants them."""

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
AUTHORITY_NAME = "ModelHost development CA"
CLOCKS_DIFFER = timedelta(hours=1)  # so much earlier than now what is made becomes valid
MOST_NAME = 64  # characters in a common name


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    expires: datetime


class Authority:
    """Signs certificates."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls, now: datetime) -> "Authority":
        """Make one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(AUTHORITY_NAME)
        certificate = (
            _builder(name, key, now, now + timedelta(days=AUTHORITY_DAYS))
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> "Authority":
        """Read one from its PEM. Raises `ValueError` for what is none, and for one whose key is another's."""
        try:
            authority = x509.load_pem_x509_certificate(certificate)
            private = load_pem_private_key(key, None)
        except (ValueError, TypeError):
            raise ValueError("the authority's certificate or its key is damaged, or has a passphrase") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != authority.public_key():
            raise ValueError("the authority's key is not that of its certificate")
        return cls(authority, private)

    @property
    def pair(self) -> Pair:
        """Its own certificate and key."""
        return _pair(self._certificate, self._key)

    def server(self, hosts: list[str], days: int, now: datetime) -> Pair:
        """Make a certificate for a server that is reached by these names and IP addresses. Raises `ValueError`."""
        names = [_host(host) for host in dict.fromkeys(hosts)]
        return self._sign(hosts[0][:MOST_NAME], names, ExtendedKeyUsageOID.SERVER_AUTH, days, now)

    def client(self, name: str, days: int, now: datetime) -> Pair:
        """Make a certificate for a client, which the server knows by this name. Raises `ValueError`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            raise ValueError(f"a client's name has 1 to 63 letters, digits, dots, dashes or underscores, not {name!r}")
        return self._sign(name, [x509.DNSName(name)], ExtendedKeyUsageOID.CLIENT_AUTH, days, now)

    def _sign(
        self, name: str, names: list[x509.GeneralName], purpose: x509.ObjectIdentifier, days: int, now: datetime
    ) -> Pair:
        """Sign what is valid for so many days, but no longer than the authority is."""
        last = self._certificate.not_valid_after_utc
        if last <= now:
            raise ValueError(f"the authority has expired on {last:%Y-%m-%d}; have another one made in another folder")
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._key.public_key()
        certificate = (
            _builder(_name(name), key, now, min(now + timedelta(days=days), last))
            .issuer_name(self._certificate.subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pair(certificate, key)


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if len(host) > 253 or not re.fullmatch(rf"(\*\.)?{label}(\.{label})*", host):
        raise ValueError(f"{host!r} is no host name and no IP address")
    return x509.DNSName(host)


def _usage(**on: bool) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{**dict.fromkeys(every, False), **on})


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM), private, certificate.not_valid_after_utc)


def now() -> datetime:
    """What time it is, with its zone."""
    return datetime.now(UTC)

"""Certificates for tests of TLS: an authority, and pairs of files that it has signed, good and bad."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from modelhost.server.certs.making import Authority, Pair
from modelhost.server.tls import TlsFiles
from modelhost.server.transport import Transport

HOSTS = ["localhost", "127.0.0.1"]


class Tls:
    """A folder with a server's certificate, its key, and the authority of both the server and its clients."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.hosts = list(hosts) or HOSTS
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.ca_file = folder / "ca.pem"
        self.change_authority()
        self.rotate()

    @property
    def ca(self) -> bytes:
        """The authority's certificate."""
        return self.authority.pair.certificate

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.certificate, self.key)

    @property
    def transport(self) -> Transport:
        """Settings of a server."""
        return Transport(tls_cert=self.certificate, tls_key=self.key)

    @property
    def mutual(self) -> Transport:
        """Settings of a server whose clients must have a certificate."""
        return Transport(tls_cert=self.certificate, tls_key=self.key, tls_client_ca=self.ca_file)

    @property
    def options(self) -> list[str]:
        """The same for its command line."""
        return ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]

    def pair(self, *, days: int = 90, ago: int = 0) -> Pair:
        """A new pair for the hosts, made some days ago."""
        return self.authority.server(self.hosts, days, datetime.now(UTC) - timedelta(days=ago))

    def client(self, name: str) -> tuple[bytes, bytes]:
        """What a client of that name shows."""
        pair = self.authority.client(name, 90, datetime.now(UTC))
        return pair.certificate, pair.key

    def change_authority(self) -> None:
        """Have another authority from here on."""
        self.authority = Authority.new(datetime.now(UTC) - timedelta(days=2000))
        self.ca_file.write_bytes(self.ca)

    def rotate(self) -> Pair:
        """Put a new pair in the place of the old one; returns it."""
        pair = self.pair()
        self.put(pair.certificate, pair.key)
        return pair

    def put(self, certificate: bytes | None = None, key: bytes | None = None) -> None:
        """Replace one file or both, as people do who have heard of rename."""
        for path, content in ((self.certificate, certificate), (self.key, key)):
            if content is not None:
                draft = path.with_suffix(".new")
                draft.touch(mode=0o600)
                draft.write_bytes(content)
                draft.rename(path)


def serial(certificate: bytes) -> int:
    """The serial number in PEM."""
    return x509.load_pem_x509_certificate(certificate).serial_number


def serial_shown(address: str) -> int:
    """That of the certificate which a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whatever it is
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw, context.wrap_socket(raw) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number

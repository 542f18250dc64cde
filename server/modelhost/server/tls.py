"""The server's certificate, key and authority for clients: from files, checked, and read again when they change.

Only what works is ever served. Files are replaced one after the other, so there are moments in which certificate and
key do not fit: then, and whenever the files cannot be used, what was read before goes on being served.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

WARNING_DAYS = 30
LOOK_SECONDS = 24 * 3600.0
RETRY = timedelta(seconds=10)  # after which what cannot be used is tried again, though the files look the same
LEAST_RSA_BITS = 2048

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class TlsUnusable(ValueError):
    """A file for TLS cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the certificate and those that signed it, its key, and the authority that clients must be of."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Identity:
    """What is served, as PEM; `name` is one that the certificate has been made out to, "" if it has none."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    expires: datetime
    name: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"Identity(name={self.name!r}, expires={self.expires:%Y-%m-%d})"


class Certificates:
    """What the files hold. `clock` says what time it is, with its zone. For any thread."""

    def __init__(self, files: TlsFiles, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises `TlsUnusable`."""
        self.files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._look()
        self._current = read(files, clock())
        self._problem = ""
        self._retry_at: datetime | None = None
        self._warn_of_mode()

    def current(self) -> Identity:
        """What to serve to a new connection: the same object until the files have changed. Never raises."""
        with self._lock:
            seen = self._look()
            if seen != self._seen or (self._retry_at is not None and self._clock() >= self._retry_at):
                self._seen = seen
                self._read_again()
            return self._current

    async def run(self) -> None:
        """Warn, now and once a day, of a certificate that ends soon, until cancelled."""
        while True:
            await asyncio.to_thread(self.check_expiry)
            await asyncio.sleep(LOOK_SECONDS)

    def check_expiry(self) -> None:
        """Warn if the certificate has expired, or will within `WARNING_DAYS`."""
        expires, now = self.current().expires, self._clock()
        if expires <= now:
            log.error("the TLS certificate has expired, clients do not take it", **self._described(expires))
        elif expires - now <= timedelta(days=WARNING_DAYS):
            log.warning("the TLS certificate expires soon", days=(expires - now).days, **self._described(expires))

    def _read_again(self) -> None:
        try:
            found = read(self.files, self._clock())
        except TlsUnusable as error:
            self._retry_at = self._clock() + RETRY
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("the files for TLS cannot be used, the certificate from before is", problem=self._problem)
            return
        self._problem, self._retry_at = "", None
        if found != self._current:
            self._current = found
            log.info("a new TLS certificate is used for new connections", **self._described(found.expires))
            self._warn_of_mode()

    def _described(self, expires: datetime) -> dict[str, str]:
        return {"file": str(self.files.certificate), "expires": expires.isoformat()}

    def _warn_of_mode(self) -> None:
        try:
            mode = self.files.key.stat().st_mode & 0o777
        except OSError:  # gone between two looks; the next one tells
            return
        if mode & 0o077:
            log.warning(
                "the key for TLS is open to other users; chmod 600 closes it",
                file=str(self.files.key),
                mode=f"{mode:04o}",
            )

    def _look(self) -> tuple[object, ...]:
        """What changes when a file does."""
        return tuple(map(_stamp, (self.files.certificate, self.files.key, self.files.client_ca)))


def read(files: TlsFiles, now: datetime) -> Identity:
    """Read and check the files. Raises `TlsUnusable`."""
    chain = _read("--tls-cert", files.certificate)
    own = _certificates("--tls-cert", files.certificate, chain)[0]
    _check_time("--tls-cert", files.certificate, own, now)
    key = _read("--tls-key", files.key)
    _check_pair(own, key, files)
    client_ca = _read_authorities(files.client_ca, now) if files.client_ca else None
    return Identity(chain, key, client_ca, own.not_valid_after_utc, _name(own))


def _read_authorities(path: Path, now: datetime) -> bytes:
    """The file, one of whose certificates must be valid."""
    pem = _read("--tls-client-ca", path)
    longest = max(_certificates("--tls-client-ca", path, pem), key=lambda certificate: certificate.not_valid_after_utc)
    _check_time("--tls-client-ca", path, longest, now)
    return pem


def _certificates(flag: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsUnusable(f"{flag}: there is no certificate in {path}, or a damaged one; PEM is expected") from None


def _check_time(flag: str, path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        day = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise TlsUnusable(f"{flag}: the certificate in {path} expired on {day}; have a new one made")
    if certificate.not_valid_before_utc > now:
        begin = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise TlsUnusable(
            f"{flag}: the certificate in {path} is not valid before {begin}; wait, or set this host's clock"
        )


def _check_pair(own: x509.Certificate, pem: bytes, files: TlsFiles) -> None:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:  # so `cryptography` says that a passphrase is needed
        raise TlsUnusable(
            f"--tls-key: the key in {files.key} is encrypted, and there is nobody to ask for its passphrase; "
            f"`openssl pkey -in {files.key} -out NEW` writes it without"
        ) from None
    except ValueError:
        raise TlsUnusable(
            f"--tls-key: there is no private key in {files.key}, or a damaged one; PEM is expected"
        ) from None
    if not _is_common(key):
        raise TlsUnusable(
            f"--tls-key: clients do not take the kind of key that is in {files.key}; "
            f"use ECDSA with P-256 or P-384, or RSA with {LEAST_RSA_BITS} bits or more"
        )
    if key.public_key() != own.public_key():
        raise TlsUnusable(
            f"--tls-key: the key in {files.key} is not that of the first certificate in {files.certificate}; "
            "give both of one pair, the server's own certificate before those that signed it"
        )


def _is_common(key: object) -> bool:
    """Whether TLS clients, gRPC's among them, offer signatures by such a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise TlsUnusable(f"{flag}: this server's user may not read {path}; let it") from None
    except OSError as error:
        raise TlsUnusable(
            f"{flag}: cannot read {path}: {error.strerror}; `modelhost certs` makes certificates for a try"
        ) from None


def _name(certificate: x509.Certificate) -> str:
    """A name to look for in the certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return next(
        iter([*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]), ""
    )


def _stamp(path: Path | None) -> object:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

"""Secrets at rest: AES-256-GCM under the key in `secret.key`, which is made at the server's first start.

The key can be changed while the server runs: what was sealed under the one before still opens until it ends, for it may
be on its way from the database to its use.
"""

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modelhost.server.errors import Conflict
from modelhost.server.private import read_or_make
from modelhost.v1.error_reason_pb2 import ErrorReason

KEY_BYTES = 32
NONCE_BYTES = 12  # random; NIST SP 800-38D allows 2^32 messages under one key
FORMAT = "v1:"
CHECK = "key check"  # what a database has sealed so that a key can be tried


class Vault:
    """Encrypts short texts. `purpose` says what a text is for; it opens only for the same purpose."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ciphers = [AESGCM(key)]

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """Read the key, or make one, readable by the server's user alone. Raises `OSError`, `ValueError`."""
        text = read_or_make(path, lambda: encoded(new_key()))
        try:
            key = b64decode(text, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"{path} does not hold a key of {KEY_BYTES} bytes; put the right one in its place")
        return cls(key)

    def use(self, key: bytes) -> Callable[[], None]:
        """Seal with another key from now on; what is returned takes that back. From any thread."""
        before = self._key, self._ciphers
        self._key, self._ciphers = key, [AESGCM(key), *self._ciphers]

        def back() -> None:
            self._key, self._ciphers = before

        return back

    def close(self, text: str, purpose: str) -> str:
        """Encrypt."""
        return self.close_bytes(text.encode(), purpose)

    def close_bytes(self, data: bytes, purpose: str) -> str:
        """Encrypt what is no text."""
        nonce = os.urandom(NONCE_BYTES)
        return FORMAT + b64encode(nonce + self._ciphers[0].encrypt(nonce, data, purpose.encode())).decode()

    def open(self, sealed: str, purpose: str) -> str:
        """Decrypt. Raises `Conflict` SECRET_UNREADABLE for what was sealed under another key or for another purpose."""
        return self.open_bytes(sealed, purpose).decode()

    def open_bytes(self, sealed: str, purpose: str) -> bytes:
        """Decrypt what is no text. Raises as `open`."""
        try:
            data = b64decode(sealed.removeprefix(FORMAT), validate=True)
        except ValueError:
            data = b""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], purpose.encode())
            except (InvalidTag, ValueError):
                continue
        raise Conflict(
            ErrorReason.ERROR_REASON_SECRET_UNREADABLE,
            "the stored secret of {purpose} does not open with this server's secret.key",
            purpose=purpose,
        )

    def is_key(self, path: Path) -> bool:
        """Whether a file holds the key in use. Raises `OSError`."""
        return hmac.compare_digest(path.read_bytes().strip(), encoded(self._key).encode())

    def check(self) -> str:
        """A text by which this key is known again."""
        return self.close(CHECK, CHECK)

    def passes(self, check: str) -> bool:
        """Whether a check was made with this key, or with one that was in use before."""
        try:
            return self.open(check, CHECK) == CHECK
        except Conflict:
            return False

    def derived(self, purpose: bytes) -> bytes:
        """A key of 32 bytes for something else (HKDF, RFC 5869): it tells nothing of this one."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(self._key)

    def fingerprint(self, data: bytes) -> str:
        """The same for the same data; without the key nobody can try what the data may have been. 64 hex digits."""
        return hmac.digest(hmac.digest(self._key, b"fingerprint", "sha256"), data, "sha256").hex()


def new_key() -> bytes:
    """A key that nobody can guess."""
    return os.urandom(KEY_BYTES)


def encoded(key: bytes) -> str:
    """A key as its file has it."""
    return b64encode(key).decode()

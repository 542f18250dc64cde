"""Secrets at rest: AES-256-GCM under the key in `secret.key`, which is made at the server's first start."""

import hmac
import os
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelhost.server.errors import Conflict
from modelhost.server.private import read_or_make
from modelhost.v1.error_reason_pb2 import ErrorReason

KEY_BYTES = 32
NONCE_BYTES = 12  # random; NIST SP 800-38D allows 2^32 messages under one key
FORMAT = "v1:"


class Vault:
    """Encrypts short texts. `purpose` says what a text is for; it opens only for the same purpose."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._fingerprint_key = hmac.digest(key, b"fingerprint", "sha256")

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """Read the key, or make one, readable by the server's user alone. Raises `OSError`, `ValueError`."""
        text = read_or_make(path, lambda: b64encode(os.urandom(KEY_BYTES)).decode())
        try:
            key = b64decode(text, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"{path} does not hold a key of {KEY_BYTES} bytes; put the right one in its place")
        return cls(key)

    def close(self, text: str, purpose: str) -> str:
        """Encrypt."""
        nonce = os.urandom(NONCE_BYTES)
        return FORMAT + b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())).decode()

    def open(self, sealed: str, purpose: str) -> str:
        """Decrypt. Raises `Conflict` SECRET_UNREADABLE for what was sealed under another key or for another purpose."""
        try:
            data = b64decode(sealed.removeprefix(FORMAT), validate=True)
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError):
            raise Conflict(
                ErrorReason.ERROR_REASON_SECRET_UNREADABLE,
                "the stored secret of {purpose} does not open with this server's secret.key",
                purpose=purpose,
            ) from None

    def fingerprint(self, data: bytes) -> str:
        """The same for the same data; without the key nobody can try what the data may have been. 64 hex digits."""
        return hmac.digest(self._fingerprint_key, data, "sha256").hex()

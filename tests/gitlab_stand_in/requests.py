"""A request as it came in, kept for assertions."""

import base64
import binascii
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import parse_qsl


@dataclass
class Request:
    """What a client sent. `status` is what it was answered; 0 until then, and for those that were hung up on."""

    method: str
    path: str
    """As sent, percent-encoded, without the query."""
    raw_query: str
    """As sent; empty if there was none."""
    headers: Message
    """Asked without regard to case: `request.headers["private-token"]`."""
    body: bytes = b""
    host: str = ""
    """The listener that got it: `gitlab`, `plain` (the one that redirects to https) or `elsewhere`."""
    status: int = field(default=0, compare=False)

    @property
    def query(self) -> dict[str, str]:
        """The parameters, decoded; of one that was given several times the last value."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def target(self) -> str:
        """Path and query as sent."""
        return f"{self.path}?{self.raw_query}" if self.raw_query else self.path

    @property
    def token(self) -> str:
        """The token that came along, in whichever header; empty if none did."""
        if token := self.headers.get("Private-Token"):
            return token
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self.basic[1]
        return credentials.strip()

    @property
    def basic(self) -> tuple[str, str]:
        """User and password of basic authentication; empty ones if there are none."""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        try:
            user, _, password = base64.b64decode(credentials).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password

    def __str__(self) -> str:
        return f"{self.method} {self.target} -> {self.status}"

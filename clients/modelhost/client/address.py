"""Where a server is: the one place that reads addresses."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORT = 8470
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Address:
    """A host and a port, and whether TLS is spoken there."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host`, `host:port`, `[v6]:port`, or one of these after `http://` or `https://` (TLS).

        Raises ValueError with a sentence that says what is wrong.
        """
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme not in {"http", "https"}:
            raise ValueError(f"{text!r} is no address: begin it with https:// for TLS, else just host:port")
        if not parts.hostname or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"{text!r} is no address: give host:port")
        return cls(parts.hostname, _port(parts, text), parts.scheme == "https")

    @property
    def target(self) -> str:
        """The address as gRPC wants it, and as people read it: `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can be meant."""
        return self.host == "localhost" or (_is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback)

    @property
    def is_wildcard(self) -> bool:
        """Whether a server that listens here listens on loopback too, among others."""
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_unspecified


def _port(parts: SplitResult, text: str) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{text!r} is no address: the port is a number from 1 to 65535")
    return DEFAULT_PORT if port is None else port


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

"""What a door hands over with each call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from modelhost.server.access.callers import NOBODY, Caller
from modelhost.server.serving.router import Service


@dataclass(slots=True)
class Call:
    """A call as a door received it. `deadline` is in the event loop's time; a caller's cancel cancels the task.

    `identities` are the names in the certificate that the client has shown, none without mutual TLS. Before any
    handler, the dispatcher names the call (`request_id`), says whose it is (`caller`), and how many bytes its request
    has (`size`). The handler says of which prediction service it is, once that is known and its caller let in; that of
    a stream also how to find out whether it still is: `check_still_admitted` raises what is to end the stream.
    """

    method: str
    metadata: Mapping[str, str | bytes]
    find_peer: Callable[[], str]
    deadline: float | None
    request_id: str = ""
    identities: tuple[str, ...] = ()
    caller: Caller = NOBODY
    size: int = 0
    service: Service | None = None
    check_still_admitted: Callable[[], None] = lambda: None

    @property
    def peer(self) -> str:
        """Where it comes from, as gRPC has it: `ipv4:127.0.0.1:41234`. Found out when it is asked for."""
        return self.find_peer()

    @property
    def host(self) -> str:
        """The host that it comes from: `127.0.0.1` of that."""
        peer = self.peer
        kind, _, rest = peer.partition(":")
        return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer

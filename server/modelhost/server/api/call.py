"""What a door hands over with each call."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """A call as a door received it. `deadline` is in the event loop's time; a caller's cancel cancels the task.

    `identities` are the names in the certificate that the client has shown, none without mutual TLS. `request_id` is
    named by the dispatcher, before any handler.
    """

    method: str
    metadata: Mapping[str, str | bytes]
    peer: str
    deadline: float | None
    request_id: str = ""
    identities: tuple[str, ...] = ()

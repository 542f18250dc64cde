"""The id of a call: what the caller sent as `x-request-id`, or one made here."""

import itertools
import secrets

from modelhost.server.api.call import Call

METADATA_KEY = "x-request-id"
LONGEST = 64  # characters


class RequestIds:
    """Ids that no other server has made; made without asking anybody, for this is on every call's way."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def of(self, call: Call) -> str:
        """The caller's id if it has 1 to 64 printable ASCII characters and no blanks, else a new one."""
        given = call.metadata.get(METADATA_KEY)
        if isinstance(given, str) and 0 < len(given) <= LONGEST and all("!" <= letter <= "~" for letter in given):
            return given
        return f"{self._prefix}-{next(self._numbers):x}"

"""When keys and tokens were last used, on its way to the database."""

from collections.abc import Callable, Mapping

from modelhost.server.store import accounts, operators
from modelhost.server.store.database import Transaction

Note = Callable[[Transaction, str, float], None]


class Use:
    """When something was last used, in seconds since the epoch; 0 for not since the start of the server."""

    __slots__ = ("last", "noted")

    def __init__(self) -> None:
        self.last = 0.0
        self.noted = 0.0


class Uses:
    """The last uses of credentials and of operators' tokens, by their ids. A `Ledger`."""

    def __init__(
        self, of_credentials: Callable[[], Mapping[str, Use]], of_operators: Callable[[], Mapping[str, Use]]
    ) -> None:
        self._sources: tuple[tuple[Callable[[], Mapping[str, Use]], Note], ...] = (
            (of_credentials, accounts.note_use),
            (of_operators, operators.note_use),
        )

    def take(self) -> "UseBatch | None":
        """Those that are newer than what was taken before."""
        taken = []
        for uses, note in self._sources:
            for key, use in uses().items():
                if use.last != use.noted:
                    use.noted = use.last
                    taken.append((key, use, use.last, note))
        return UseBatch(taken) if taken else None

    def put_back(self, batch: "UseBatch") -> None:
        """They could not be stored: have them taken again."""
        for _, use, _, _ in batch.taken:
            use.noted = 0.0


class UseBatch:
    """Times to be stored."""

    def __init__(self, taken: list[tuple[str, Use, float, Note]]) -> None:
        self.taken = taken

    def write(self, tx: Transaction) -> None:
        """Store them; those of what is no more are of no effect."""
        for key, _, last, note in self.taken:
            note(tx, key, last)

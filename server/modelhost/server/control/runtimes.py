"""The runtimes of this host: what its interpreters say of themselves, remembered until asked to look again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from modelhost.envs import Interpreter, find_interpreters
from modelhost.server.errors import Conflict, NotFound
from modelhost.v1.error_reason_pb2 import ErrorReason


class Runtimes:
    """Interpreters by runtime id. `configured` are programs to look at first."""

    def __init__(self, configured: Sequence[Path]) -> None:
        self._configured = configured
        self._found: dict[str, Interpreter] | None = None
        self._lock = asyncio.Lock()

    async def all(self, *, refresh: bool = False) -> list[Interpreter]:
        """Every runtime, by id; `refresh` looks again."""
        async with self._lock:
            if self._found is None or refresh:
                found = await asyncio.to_thread(find_interpreters, self._configured)
                self._found = {interpreter.name: interpreter for interpreter in found}
        return sorted(self._found.values(), key=lambda interpreter: interpreter.name)

    async def get(self, name: str) -> Interpreter:
        """The runtime of that id. Raises `NotFound` RUNTIME_NOT_FOUND, which lists those there are."""
        await self.all()
        found = (self._found or {}).get(name)
        if found is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_RUNTIME_NOT_FOUND,
                "this host has no runtime {runtime}; it has: {available}",
                runtime=name,
                available=", ".join(sorted(self._found or {})) or "none",
            )
        return found

    async def usable(self, name: str) -> Interpreter:
        """The runtime of that id, ready to be built for. Raises also `Conflict` RUNTIME_UNUSABLE."""
        found = await self.get(name)
        if not found.usable:
            raise Conflict(
                ErrorReason.ERROR_REASON_RUNTIME_UNUSABLE,
                "runtime {runtime} at {path} cannot be used: {problem}",
                runtime=name,
                path=found.path,
                problem=found.problem,
            )
        return found

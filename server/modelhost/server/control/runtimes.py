"""The runtimes of this host: what its interpreters say of themselves, remembered until asked to look again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from modelhost.envs import Interpreter, Language, find_interpreters
from modelhost.server.errors import Conflict, NotFound
from modelhost.v1.error_reason_pb2 import ErrorReason


class Runtimes:
    """Interpreters by runtime id. `configured` are programs to look at first.

    Each language is looked for by itself: an R takes seconds to say what it is, a Python is known at once, and after a
    start of the server every deployment waits for its own.
    """

    def __init__(self, configured: Sequence[Path]) -> None:
        self._configured = configured
        self._found: dict[Language, dict[str, Interpreter]] = {}
        self._locks = {language: asyncio.Lock() for language in Language}

    async def all(self, *, refresh: bool = False) -> list[Interpreter]:
        """Every runtime, by id; `refresh` looks again."""
        found = await asyncio.gather(*(self._of(language, refresh=refresh) for language in Language))
        return sorted((each for those in found for each in those.values()), key=lambda interpreter: interpreter.name)

    async def _of(self, language: Language, *, refresh: bool = False) -> dict[str, Interpreter]:
        async with self._locks[language]:
            if language not in self._found or refresh:
                found = await asyncio.to_thread(find_interpreters, self._configured, languages=(language,))
                self._found[language] = {interpreter.name: interpreter for interpreter in found}
            return self._found[language]

    async def get(self, name: str) -> Interpreter:
        """The runtime of that id. Raises `NotFound` RUNTIME_NOT_FOUND, which lists those there are."""
        if name.startswith("python") and (python := (await self._of(Language.PYTHON)).get(name)):
            return python
        known = {interpreter.name: interpreter for interpreter in await self.all()}
        found = known.get(name)
        if found is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_RUNTIME_NOT_FOUND,
                "this host has no runtime {runtime}; it has: {available}",
                runtime=name,
                available=", ".join(known) or "none",
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

"""Checks a wish against the world without storing it: what `validate_only` promises beyond the database."""

from modelhost.envs import Job
from modelhost.server.control.runtimes import Runtimes
from modelhost.server.control.sources import Sources
from modelhost.server.resources import ModelSettings, ModelSource
from modelhost.server.sources import Selection, Source
from modelhost.server.sources.paths import choose


class Preview:
    """Asks data source and host."""

    def __init__(self, data_sources: Sources, runtimes: Runtimes) -> None:
        self._sources = data_sources
        self._runtimes = runtimes

    async def check(self, source: ModelSource, settings: ModelSettings) -> None:
        """Raise what a start would fail with, as far as it can be told without fetching or building."""
        if settings.runtime:
            await self._runtimes.usable(settings.runtime)

        def look(place: Source, job: Job) -> None:
            commit = place.resolve(source.project, source.ref, job)
            choose(place.tree(source.project, commit, job), Selection(source.directory, source.paths))

        await self._sources.ask(await self._sources.get(source.data_source), look)

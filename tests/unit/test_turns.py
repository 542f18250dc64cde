"""Who loads when: a few at a time, each deployment in its turn, nobody for long."""

import asyncio

from modelhost.server.serving.turns import Turns


class Loads:
    """Loads that begin in some order, and end when they are told to."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def wait(self, who: str, name: str) -> None:
        """Have somebody ask for a turn."""
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._load(who, name))
        await self.settle()

    async def _load(self, who: str, name: str) -> None:
        async with self.turns.turn(who):
            self.begun.append(name)
            await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_no_more_load_at_once_than_there_are_places() -> None:
    loads = Loads(Turns(2))
    for name in ("a1", "b1", "c1"):
        await loads.wait(name[0], name)
    assert loads.begun == ["a1", "b1"]
    assert loads.turns.are_taken

    await loads.end("b1")
    assert loads.begun == ["a1", "b1", "c1"]
    await loads.end("a1")
    await loads.end("c1")
    assert not loads.turns.are_taken


async def test_a_deployment_with_many_workers_does_not_keep_the_others_waiting() -> None:
    loads = Loads(Turns(1))
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        await loads.wait(name[0], name)

    for name in ("a1", "a2", "b1", "c1", "a3", "c2"):
        assert loads.begun[-1] == name
        await loads.end(name)


async def test_what_loads_for_long_gives_its_place_on_once() -> None:
    loads = Loads(Turns(1, seconds=0.01))
    await loads.wait("a", "hangs")
    await loads.wait("b", "waits")
    await asyncio.sleep(0.05)
    assert loads.begun == ["hangs", "waits"]

    await loads.end("hangs")
    await loads.end("waits")
    await loads.wait("c", "one")
    await loads.wait("d", "two")
    assert loads.begun[2:] == ["one"]
    await loads.end("one")
    await loads.end("two")


async def test_who_goes_away_takes_no_place_with_him() -> None:
    loads = Loads(Turns(1))
    for name in ("a", "b", "c"):
        await loads.wait(name, name)
    loads.tasks["b"].cancel()
    await loads.settle()

    await loads.end("a")
    assert loads.begun == ["a", "c"]
    loads.tasks["c"].cancel()
    await loads.settle()
    assert not loads.turns.are_taken


async def test_a_place_that_is_given_to_somebody_who_goes_away_in_that_moment_is_handed_on() -> None:
    loads = Loads(Turns(1))
    for name in ("a", "b", "c"):
        await loads.wait(name, name)

    loads.ends["a"].set()
    await asyncio.sleep(0)  # the place is b's, who has not woken yet
    loads.tasks["b"].cancel()
    await loads.settle()

    assert loads.begun == ["a", "c"]
    await loads.end("c")

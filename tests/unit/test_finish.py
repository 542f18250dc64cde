"""What must come to its end comes to its end, and whoever was cancelled meanwhile is told so afterwards."""

import asyncio

import pytest

from modelhost.server.serving.finish import finish


class Work:
    """Something to do in two halves, with a door between them."""

    def __init__(self) -> None:
        self.door = asyncio.Event()
        self.done = False

    async def do(self) -> str:
        await self.door.wait()
        await asyncio.sleep(0)
        self.done = True
        return "result"


async def test_work_that_nobody_interrupts_returns_its_result() -> None:
    work = Work()
    work.door.set()

    assert await finish(work.do()) == "result"


async def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await finish(fail())


@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_work_goes_to_its_end_however_often_the_caller_is_cancelled(cancels: int) -> None:
    work = Work()
    caller = asyncio.create_task(finish(work.do()))
    for _ in range(cancels):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()

    work.door.set()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert work.done


async def test_the_work_of_a_caller_who_was_cancelled_may_fail_unheard() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    door = asyncio.Event()

    async def fail() -> None:
        await door.wait()
        raise KeyError("x")

    caller = asyncio.create_task(finish(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    door.set()

    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    await asyncio.sleep(0)
    assert faults == []


async def test_a_timeout_around_it_is_one_after_the_work_is_done() -> None:
    work = Work()
    asyncio.get_running_loop().call_later(0.05, work.door.set)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await finish(work.do())

    assert work.done

"""Work that several want at once: done once, told to all, ended when nobody wants it any more."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from modelhost.envs import Cancelled, Job, Stream
from modelhost.envs.sharing import SharedWork

WAIT = 30.0  # seconds; only a hang reaches it


class Caller:
    """A job that remembers its lines and lets a test wait for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.job = Job(self._emit, marker={"FIRST": str(id(self))})

    def _emit(self, stream: Stream, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def wait_for(self, line: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: line in self.lines, WAIT), f"no {line!r} in {self.lines}"


class Work:
    """Goes on until it is told to end; counts how often it was started."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = 0
        self.ended = threading.Event()
        self.marker: object = None

    def __call__(self, job: Job) -> str:
        self.started += 1
        self.marker = job.marker
        job.say("first")
        try:
            while not self.go.wait(0.01):
                job.check()
            job.say("second")
        finally:
            self.ended.set()
        return f"result {self.started}"


Run = Callable[[SharedWork[str], Work, Caller], "Future[str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    with ThreadPoolExecutor(8) as pool:
        yield lambda shared, work, caller: pool.submit(shared.run, "key", work, caller.job)


def test_the_second_joins_and_hears_the_rest(run: Run) -> None:
    shared, work, one, two = SharedWork[str](), Work(), Caller(), Caller()
    first = run(shared, work, one)
    one.wait_for("first")
    second = run(shared, work, two)
    two.wait_for("joined a build already under way")
    work.go.set()
    assert first.result(WAIT) == second.result(WAIT) == "result 1"
    assert one.lines == ["first", "second"]
    assert two.lines == ["joined a build already under way", "second"]
    assert work.marker == one.job.marker


def test_a_cancelled_first_does_not_end_the_work_of_the_second(run: Run) -> None:
    shared, work, one, two = SharedWork[str](), Work(), Caller(), Caller()
    first = run(shared, work, one)
    one.wait_for("first")
    second = run(shared, work, two)
    two.wait_for("joined a build already under way")
    one.job.cancel()
    with pytest.raises(Cancelled):
        first.result(WAIT)
    assert not work.ended.is_set()
    work.go.set()
    assert second.result(WAIT) == "result 1"
    assert work.started == 1


def test_the_last_one_cancelled_ends_the_work_before_it_leaves(run: Run) -> None:
    shared, work, one, two = SharedWork[str](), Work(), Caller(), Caller()
    futures = [run(shared, work, one)]
    one.wait_for("first")
    futures.append(run(shared, work, two))
    two.wait_for("joined a build already under way")
    for caller, future in zip((one, two), futures, strict=True):
        caller.job.cancel()
        with pytest.raises(Cancelled):
            future.result(WAIT)
    assert work.ended.is_set()


def test_who_comes_while_abandoned_work_ends_starts_anew(run: Run) -> None:
    shared, one, two = SharedWork[str](), Caller(), Caller()
    ending, may_end = threading.Event(), threading.Event()

    def slow_to_end(job: Job) -> str:
        job.say("first")
        try:
            while not may_end.wait(0.01):
                job.check()
            return "never cancelled"
        finally:
            ending.set()
            may_end.wait(WAIT)

    first = run(shared, slow_to_end, one)  # type: ignore[arg-type]
    one.wait_for("first")
    one.job.cancel()
    assert ending.wait(WAIT)
    again = Work()
    again.go.set()
    second = run(shared, again, two)
    may_end.set()
    with pytest.raises(Cancelled):
        first.result(WAIT)
    assert second.result(WAIT) == "result 1"
    assert two.lines == ["first", "second"]


def test_a_failure_is_everybodys(run: Run) -> None:
    shared, one, two = SharedWork[str](), Caller(), Caller()
    go = threading.Event()

    def fail(job: Job) -> str:
        job.say("first")
        go.wait(WAIT)
        raise ValueError("no")

    first = run(shared, fail, one)  # type: ignore[arg-type]
    one.wait_for("first")
    second = run(shared, fail, two)  # type: ignore[arg-type]
    two.wait_for("joined a build already under way")
    go.set()
    for future in (first, second):
        with pytest.raises(ValueError, match="no"):
            future.result(WAIT)


def test_a_listener_that_raises_leaves_alone(run: Run) -> None:
    shared, work, one = SharedWork[str](), Work(), Caller()

    def emit(stream: Stream, line: str) -> None:
        raise OSError("the log is full")

    first = run(shared, work, one)
    one.wait_for("first")
    with pytest.raises(OSError, match="the log is full"):
        shared.run("key", work, Job(emit))
    work.go.set()
    assert first.result(WAIT) == "result 1"


def test_finished_work_is_forgotten(run: Run) -> None:
    shared, work = SharedWork[str](), Work()
    work.go.set()
    assert run(shared, work, Caller()).result(WAIT) == "result 1"
    assert run(shared, work, Caller()).result(WAIT) == "result 2"


def test_many_at_once_share_one(run: Run) -> None:
    shared, work = SharedWork[str](), Work()
    callers = [Caller() for _ in range(8)]
    futures = [run(shared, work, callers[0])]
    callers[0].wait_for("first")
    futures += [run(shared, work, caller) for caller in callers[1:]]
    for caller in callers:
        caller.wait_for("first" if caller is callers[0] else "joined a build already under way")
    work.go.set()
    assert {future.result(WAIT) for future in futures} == {"result 1"}

"""A short run, and that a run would see what it is there to see."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from modelhost.client import Client, Prediction
from tests.chaos.causes import DIED, NOT_RUNNING, OF_POISONS, OVERRAN, Cause, Causes, Kind
from tests.chaos.journal import Journal
from tests.chaos.judge import Call, Judge
from tests.chaos.models import MODELS, STREAM_POISONS, fault_of
from tests.chaos.plan import DECK, plan
from tests.chaos.run import Run, fault_in
from tests.chaos.tally import Tally

SEED = 4
SECONDS = 15.0


def test_a_short_run_finds_nothing_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)

    tally = Run(SEED, SECONDS, tmp_path, print).execute()

    assert tally.problems == []
    assert tally.ok > 100
    assert min(tally.streams, tally.tensors) > 50
    assert tally.items > tally.streams
    assert tally.last_line().startswith(f"chaos: seed={SEED} calls={tally.calls} streams={tally.streams} items=")
    assert f" tensors={tally.tensors} ok={tally.ok} failed=" in tally.last_line()
    assert " wrong=0 hung=0 lost=0 orphans=0 recover_p50_ms=" in tally.last_line()


# ---- the plan


def test_the_same_seed_makes_the_same_plan_and_another_one_another() -> None:
    assert list(islice(plan(7), 200)) == list(islice(plan(7), 200))
    assert list(islice(plan(7), 200)) != list(islice(plan(8), 200))


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_everything_in_it_and_starts_what_it_stops(seed: int) -> None:
    deeds = list(islice(plan(seed), 2 * sum(DECK.values()) + 10))
    done = Counter(deed.what for deed in deeds)

    assert set(done) == {*DECK, "start"}
    assert {deed.target for deed in deeds} == {*MODELS, "server"}
    assert all(deed.poison in MODELS[deed.target].poisons for deed in deeds if deed.what == "poison")
    assert {deed.poison for deed in deeds if deed.what == "poison stream"} == set(STREAM_POISONS)
    assert 0 <= done["stop"] - done["start"] <= 3


def test_every_poison_has_an_end_that_is_expected() -> None:
    assert {poison for model in MODELS.values() for poison in model.poisons} <= set(OF_POISONS)


# ---- answers


@pytest.fixture
def judge() -> Iterator[Judge]:
    with Client("127.0.0.1:1") as client:
        yield Judge(Tally(0), Causes(), Journal(client))


def call() -> Call:
    return Call("python36", {"x": 2, "echo": "it"}, time.monotonic() + 5)


def prediction(**changed: object) -> Prediction:
    return Prediction({"constant": 3, "echo": "it", "value": 65, "pid": 1, "opened": 0, **changed}, 1)


def test_a_right_answer_is_none_of_the_wrong_ones(judge: Judge) -> None:
    judge.answered(call(), prediction())

    assert (judge.tally.ok, judge.tally.problems) == (1, [])


@pytest.mark.parametrize("wrong", [{"value": 66}, {"echo": "another"}, {"constant": 4}, {"more": 1}])
def test_a_wrong_answer_is_seen(judge: Judge, wrong: dict[str, object]) -> None:
    judge.answered(call(), prediction(**wrong))

    assert len(judge.tally.wrong) == 1
    assert fault_of(call().sent, prediction(**wrong).result)


def test_an_answer_of_a_revision_that_computes_otherwise_is_seen(judge: Judge) -> None:
    judge._journal.entry("python36").revisions[1] = 5

    judge.answered(call(), prediction())

    assert len(judge.tally.wrong) == 1


def test_an_answer_of_a_revision_that_was_never_acknowledged_is_seen_in_the_end(judge: Judge) -> None:
    judge.answered(call(), prediction())
    judge.look_at_revisions()

    assert len(judge.tally.wrong) == 1


def test_an_answer_of_a_revision_that_serves_no_more_is_seen(judge: Judge) -> None:
    entry = judge._journal.entry("python36")
    entry.revisions.update({1: 3, 2: 4})
    entry.settled = (2, time.monotonic())

    judge.answered(call(), prediction())

    assert len(judge.tally.wrong) == 1


def test_a_call_that_is_not_answered_hangs(judge: Judge) -> None:
    late = Call("python36", {}, time.monotonic() - 6)
    judge._under_way.add(late)

    judge.look_for_hung()
    judge.look_for_hung()

    assert len(judge.tally.hung) == 1


# ---- failures


def test_a_call_may_fail_only_as_what_was_done_to_its_deployment_allows(judge: Judge) -> None:
    judge._causes.open(Cause(Kind.KILLED, "python36", lambda: True, victim=5))
    judge.failed(call(), DIED, "")
    assert judge.tally.unexpected == []

    judge.failed(call(), OVERRAN, "")
    judge.failed(Call("python27", {}, 0), DIED, "")
    judge.failed(call(), NOT_RUNNING, "")
    assert len(judge.tally.unexpected) == 3


def test_a_cause_is_over_when_another_worker_has_answered(judge: Judge) -> None:
    cause = Cause(Kind.KILLED, "python36", lambda: True, victim=5)
    judge._causes.open(cause)

    judge.answered(call(), prediction(pid=5))
    assert judge._causes.unfinished() == [cause]

    judge.answered(call(), prediction(pid=6))
    assert judge._causes.unfinished() == []


def test_faults_in_the_servers_log_are_seen() -> None:
    assert fault_in('{"level": "error", "event": "a call failed in the server"}')
    assert fault_in("Traceback (most recent call last):")
    assert not fault_in('{"level": "warning", "event": "worker ended"}')

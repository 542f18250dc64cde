"""What a killed server had counted: all but the last seconds is there again, and after a clean end all of it."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import usage_pb2
from tests.e2e.daemon import Daemon
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import eventually

MOST_LOST_SECONDS = 10.0  # what is promised


@pytest.fixture
def model(operator: Operator, repo: Repo) -> str:
    repo.commit(OBEDIENT)
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    return "model"


def usage_of(operator: Operator, name: str) -> Any:
    return operator.admin.GetServiceUsage(usage_pb2.GetServiceUsageRequest(service=name))


def stored_bytes(daemon: Daemon) -> int:
    """How many bytes of requests the database says there were, read beside the server."""
    with closing(sqlite3.connect(f"file:{daemon.state_dir / 'modelhost.db'}?mode=ro", uri=True)) as database:
        (found,) = database.execute("SELECT coalesce(sum(received), 0) FROM usage WHERE span = 86400").fetchone()
    return int(found)


def wait_until_stored(daemon: Daemon, operator: Operator, name: str) -> None:
    wanted = usage_of(operator, name).past_week.counts.request_bytes
    assert wanted > 0
    eventually(lambda: stored_bytes(daemon) == wanted, seconds=MOST_LOST_SECONDS)


def call(operator: Operator, name: str, times: int) -> None:
    for _ in range(times):
        operator.predict(name, do("nothing"))


def test_after_a_kill_all_is_there_that_was_counted_seconds_before(
    daemon: Daemon, operator: Operator, model: str
) -> None:
    call(operator, model, 5)
    with pytest.raises(ModelHostError):
        operator.predict(model, do("raise"))
    wait_until_stored(daemon, operator, model)
    before = usage_of(operator, model)
    call(operator, model, 3)  # which may be lost

    daemon.restart()

    after = usage_of(operator, model)
    assert 6 <= after.past_week.counts.requests <= 9
    assert list(after.past_week.counts.failures) == list(before.past_week.counts.failures)
    operator.predict_when_up(model, do("nothing"))
    wait_until_stored(daemon, operator, model)
    assert usage_of(operator, model).past_week.counts.requests > after.past_week.counts.requests


def test_killed_again_and_again_it_counts_nothing_twice(daemon: Daemon, operator: Operator, model: str) -> None:
    for times in range(1, 4):
        operator.predict_when_up(model, do("nothing"))
        call(operator, model, 4)
        wait_until_stored(daemon, operator, model)
        before = usage_of(operator, model).past_week.counts

        daemon.restart()

        after = usage_of(operator, model).past_week.counts
        assert after == before
        # While it is not up again, calls of it fail; those count, too.
        assert after.requests - sum(each.count for each in after.failures) == 5 * times


def test_a_clean_end_stores_the_last_call(daemon: Daemon, operator: Operator, model: str) -> None:
    call(operator, model, 5)
    before = usage_of(operator, model).past_week.counts

    assert daemon.stop() == 0
    daemon.start()

    assert usage_of(operator, model).past_week.counts == before
    assert before.requests == 5

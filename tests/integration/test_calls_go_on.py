"""Calls at a steady rate while a deployment is updated, and while its only worker is killed."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually, reason_of
from tests.steady import SteadyCalls

# More places than calls come while a worker is started, however slow that is here.
QUEUE = {"queue_size": 10_000}


def model(word: str) -> bytes:
    return f"import os\ndef predict(number):\n    return [{word!r}, number, os.getpid()]\n".encode()


def steady(server: RunningServer, name: str, rate: float, parameters: object = None) -> SteadyCalls:
    return SteadyCalls(server.address, server.token, name, rate, parameters)


def test_no_call_of_200_a_second_fails_while_revisions_change(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": model("1")})
    server.deploy(name, source, limits=QUEUE)

    with steady(server, name, 200) as calls:
        for word in ("2", "3", "4"):
            repo.commit({"main.py": model(word)})
            server.update(name, ref="main")
            now = len(calls.answered)
            eventually(lambda now=now: len(calls.answered) > now + 50)

    assert calls.failures == {}
    answers = [each.answer for each in calls.ended]
    assert sorted(answer.result[1] for answer in answers if answer) == list(range(len(answers)))
    assert {answer.result[0]: answer.revision for answer in answers if answer} == {"1": 1, "2": 2, "3": 3, "4": 4}
    assert all(answer.result[0] == str(answer.revision) for answer in answers if answer)


def test_a_killed_worker_costs_no_more_than_the_call_that_is_in_it(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": model("1")})
    server.deploy(name, source, limits=QUEUE)

    with steady(server, name, 100) as calls:
        eventually(lambda: len(calls.answered) > 20)
        pid = calls.answered[-1].answer.result[2]  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: calls.answered[-1].answer.result[2] != pid)  # type: ignore[union-attr]

    assert calls.failures["WORKER_DIED"] <= 1
    assert len(calls.answered) >= len(calls.ended) - 1


def test_the_call_that_kills_its_worker_fails_and_all_others_are_answered(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(OBEDIENT)
    server.deploy(name, source, limits=QUEUE)

    with steady(server, name, 100, do("nothing")) as calls:
        eventually(lambda: len(calls.answered) > 20)
        first = calls.answered[-1].answer
        assert reason_of(lambda: server.predict(name, do("die"))) == "WORKER_DIED"
        eventually(lambda: calls.answered[-1].answer.result != first.result)  # type: ignore[union-attr]

    assert calls.failures == {}


def test_a_call_that_waits_for_a_worker_of_the_old_revision_goes_to_the_new_one(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path
) -> None:
    """The old revision's worker overruns its call, and its successor never comes to load."""
    loads = f"import os, time\nif os.path.exists({str(shared / 'loaded')!r}):\n    time.sleep(600)\n"
    loads += f"open({str(shared / 'loaded')!r}, 'w').close()\n"
    repo.commit({"main.py": f"{loads}def predict(p):\n    time.sleep(p)\n    return 'old'\n".encode()})
    server.deploy(name, source, limits={"call_timeout": {"seconds": 2}})

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(reason_of, lambda: server.predict(name, 600))
        eventually(lambda: server.get(name).observed.running_calls == 1)
        waiting = threads.submit(server.predict, name, 0, timeout=60)
        eventually(lambda: server.get(name).observed.queued_calls == 1)
        repo.commit({"main.py": b"def predict(p):\n    return 'new'\n"})
        assert server.update(name, ref="main").active_revision == 2

        assert waiting.result() == "new"
        assert running.result() == "MODEL_TIMED_OUT"

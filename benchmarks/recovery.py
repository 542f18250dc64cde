"""How soon a deployment answers again whose only worker was killed, at 100 calls a second: `make bench-recovery`.

A real `modelhost serve` and a trivial model on Python 3.6. The last line has the sums over all kills of the calls that
were answered and that failed, and the median of the milliseconds from a SIGKILL to the first answer of the next worker.
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.daemon import Daemon, find_python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.running import eventually
from tests.steady import SteadyCalls

KILLS = 7
RATE = 100
MODEL = b"import os\ndef predict(number):\n    return os.getpid()\n"


def main() -> int:
    """Measure; returns the exit code."""
    interpreter = find_python("3.6")
    if interpreter is None:
        print("no Python 3.6: `pyenv install 3.6.15` builds one", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="modelhost-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        repo = Repo(folder / "model.git")
        repo.commit({"main.py": MODEL})
        daemon = Daemon(folder / "host", "--interpreter", str(interpreter))
        try:
            daemon.start()
            operator = Operator(daemon)
            operator.add_source("models", repo)
            operator.deploy("model", "models")
            answered = failed = 0
            back: list[float] = []
            for _ in range(KILLS):
                ended, ms = kill_once(daemon)
                answered, failed = answered + len(ended.answered), failed + ended.failures.total()
                back.append(ms)
                print(f"  back after {ms:.0f} ms; failed: {dict(ended.failures) or 'none'}", flush=True)
                operator.stop("model")
                eventually(lambda: operator.state("model") == "STOPPED")
                operator.start("model")  # a worker that dies soon after another one is replaced more slowly
                operator.wait_until_running("model")
        finally:
            daemon.close()
    after = round(statistics.median(back))
    print(f"killed at {RATE} calls/s: answered={answered} failed={failed} back_after_ms={after}")
    return 0


def kill_once(daemon: Daemon) -> tuple[SteadyCalls, float]:
    """Kill the worker under load; returns the calls, and the milliseconds until the next worker has answered."""
    with SteadyCalls(daemon.address, daemon.token, "model", RATE) as calls:
        eventually(lambda: len(calls.answered) > RATE)
        pid = worker_of(calls)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: worker_of(calls) != pid)
        many = len(calls.answered) + RATE
        eventually(lambda: len(calls.answered) > many)
    first = min(each.over for each in calls.answered if each.answer and each.answer.result != pid)
    return calls, (first - killed) * 1000


def worker_of(calls: SteadyCalls) -> int:
    """The process that gave the last answer."""
    answer = calls.answered[-1].answer
    assert answer is not None
    return int(answer.result)


if __name__ == "__main__":
    sys.exit(main())

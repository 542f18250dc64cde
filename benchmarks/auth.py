"""What access costs: `make bench-auth`.

One model on two real servers: a token, a grant with every limit and usage on the one, an open service and none of it on
the other. Both are measured in turn, round after round; the last line has the median of the rounds' ratios.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.frames import frame
from benchmarks.load import Shape, Target, need_h2load, throughput
from modelhost.client import Client
from modelhost.client.signing import ServiceAccountKey, signed_request
from modelhost.v1 import predict_pb2, service_account_pb2, service_pb2
from tests.e2e.daemon import Daemon, find_python
from tests.e2e.steps import Operator
from tests.git_repos import Repo

METHOD = "modelhost.v1.Predict/Predict"
NEEDED = 0.9
ROUNDS = 15
SECONDS = 1
SHAPE = Shape(connections=4, streams=8)
CHECKED_CALLS = 200
MODEL = b"def predict(numbers):\n    return sum(numbers)\n"
NUMBERS = [number + 0.5 for number in range(30)]
LIMITS = service_account_pb2.GrantLimits(
    requests_per_second=1_000_000,
    burst=1_000_000,
    requests_per_day=10**12,
    concurrent_calls=1_000_000,
    request_bytes=10**9,
)


def main() -> int:
    """Measure; returns the exit code."""
    interpreter = find_python("3.6")
    if interpreter is None:
        print("no Python 3.6: `pyenv install 3.6.15` builds one", file=sys.stderr)
        return 2
    if not need_h2load():
        return 2
    with tempfile.TemporaryDirectory(prefix="modelhost-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        repo = Repo(folder / "model.git")
        repo.commit({"main.py": MODEL})
        on = Daemon(folder / "on", "--interpreter", str(interpreter), "--log-level", "warning")
        off = Daemon(folder / "off", "--interpreter", str(interpreter), "--log-level", "warning", "--no-usage")
        try:
            targets = [_with_all(on, repo, folder), _with_none(off, repo, folder)]
            measured = _measure(targets)
        finally:
            on.close()
            off.close()
    verdict = "ok" if measured >= NEEDED else "short"
    print(f"bar auth_overhead measured={measured:.3f} needed={NEEDED} {verdict}")
    return 0


def _measure(targets: list[Target]) -> float:
    for target in targets:
        throughput(target, SHAPE, SECONDS)  # warm
    ratios = []
    for number in range(ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        rates = dict(zip(order, (throughput(targets[each], SHAPE, SECONDS) for each in order), strict=True))
        ratios.append(rates[0] / rates[1])
        print(f"  with access {rates[0]:.0f}/s, without {rates[1]:.0f}/s, ratio {ratios[-1]:.3f}", flush=True)
    return statistics.median(ratios)


def _with_all(daemon: Daemon, repo: Repo, folder: Path) -> Target:
    operator = _deployed(daemon, repo)
    admin = operator.admin
    account = admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id="bench"))
    admin.GrantService(service_account_pb2.GrantServiceRequest(service_account="bench", service="model", limits=LIMITS))
    with Client(daemon.address) as client:
        key = ServiceAccountKey(account.access_key, account.secret_key)
        token = client.predict_stub.IssueToken(signed_request(key)).token
    _check(daemon, token)
    return _target(daemon, folder / "on.body", f"authorization: Bearer {token}")


def _with_none(daemon: Daemon, repo: Repo, folder: Path) -> Target:
    operator = _deployed(daemon, repo)
    operator.admin.OpenService(service_pb2.OpenServiceRequest(name="model"))
    _check(daemon, None)
    return _target(daemon, folder / "off.body")


def _deployed(daemon: Daemon, repo: Repo) -> Operator:
    daemon.start()
    operator = Operator(daemon)
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    return operator


def _check(daemon: Daemon, token: str | None) -> None:
    """Have answers looked at, which h2load does not."""
    with Client(daemon.address, token) as client:
        for _ in range(CHECKED_CALLS):
            assert client.predict("model", NUMBERS).result == sum(NUMBERS)


def _target(daemon: Daemon, body: Path, *headers: str) -> Target:
    body.write_bytes(frame(predict_pb2.PredictRequest(service="model", parameters_json=str(NUMBERS))))
    return Target(daemon.address, METHOD, body, headers)


if __name__ == "__main__":
    sys.exit(main())

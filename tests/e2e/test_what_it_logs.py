"""What `modelhost serve` writes to stderr: lines that say which deployment, revision and call they are about."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import Client, ModelHostError
from modelhost.v1 import deployment_pb2
from tests.e2e.daemon import Daemon, python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.raw_http2 import status_of_call
from tests.running import eventually
from tests.scraping import get, scrape

MakeDaemon = Callable[..., Daemon]
MODEL = b"import os\ndef predict(parameters):\n    os.kill(os.getpid(), 9) if parameters == 'die' else None\n"
BROKEN = b"raise RuntimeError('no')\n"
PYTHON = ("--interpreter", str(python("3.6")))


def lines(daemon: Daemon) -> list[dict[str, Any]]:
    """All that it wrote, each line of which must be JSON with what every line has."""
    entries = [json.loads(line) for line in daemon.log_text().splitlines()]
    for entry in entries:
        assert list(entry)[:3] == ["timestamp", "level", "event"], entry
        assert entry["level"] in ("debug", "info", "warning", "error", "critical")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", entry["timestamp"])
    return entries


def about(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """The lines of an event, without what every line has."""
    common = ("timestamp", "level", "event")
    return [{k: v for k, v in line.items() if k not in common} for line in lines(daemon) if line["event"] == event]


def ids(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in ("deployment", "revision", "request_id") if key in line}


def test_a_line_about_a_deployment_has_its_id_and_the_revision(make_daemon: MakeDaemon, repo: Repo) -> None:
    daemon = make_daemon("host", *PYTHON).start()
    operator = Operator(daemon)
    repo.commit({"main.py": MODEL})
    operator.add_source("models", repo)
    operator.deploy("model", "models")

    assert [ids(line) for line in about(daemon, "revision is served")] == [{"deployment": "model", "revision": 1}]

    for deaths in (1, 2):  # the second worker was started by what noticed the death of the first
        with pytest.raises(ModelHostError):
            operator.predict("model", "die")
        eventually(lambda: operator.predict("model") is None)
        eventually(lambda: len(about(daemon, "worker ended")) == deaths)  # noqa: B023
    for line in about(daemon, "worker ended"):
        assert ids(line) == {"deployment": "model", "revision": 1}
        assert line["worker"]

    repo.commit({"main.py": BROKEN})
    request = deployment_pb2.UpdateDeploymentRequest(
        deployment=deployment_pb2.Deployment(name="deployments/model", source=deployment_pb2.ModelSource(ref="main")),
        update_mask={"paths": ["source.ref"]},
    )
    operator.admin.UpdateDeployment(request)
    (failed,) = eventually(lambda: about(daemon, "revision failed"))
    assert ids(failed) == {"deployment": "model", "revision": 2}
    assert failed["error"]
    assert failed["reason"]


def test_a_line_written_while_a_request_is_handled_has_its_id(make_daemon: MakeDaemon, repo: Repo) -> None:
    daemon = make_daemon("host", *PYTHON, "--log-level", "debug").start()
    operator = Operator(daemon)
    request = deployment_pb2.ListDeploymentsRequest()

    operator.admin.ListDeployments(request, metadata=[("x-request-id", "mine-1")])
    operator.admin.ListDeployments(request)
    with Client(daemon.address, "mha_wrong") as stranger, pytest.raises(ModelHostError):
        stranger.admin.ListDeployments(request)

    first, second, refused = [line for line in about(daemon, "call ended") if "ListDeployments" in line["method"]]
    assert first == {
        "request_id": "mine-1", "method": "/modelhost.v1.Admin/ListDeployments", "code": "OK", "reason": ""
    }  # fmt: skip
    assert (refused["code"], refused["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert len({first["request_id"], second["request_id"], refused["request_id"]}) == 3

    repo.commit({"main.py": MODEL})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    (served,) = about(daemon, "revision is served")
    assert ids(served) == {"deployment": "model", "revision": 1}, "what a request has set going outlives it"


def test_what_libraries_warn_of_is_a_line_like_any_other(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    # Python imports it before anything else; what it does later stands for a library in trouble.
    (site / "sitecustomize.py").write_text(
        "import logging, threading, warnings\n"
        "def trouble():\n"
        "    logging.getLogger('asyncio').info('of no interest')\n"
        "    logging.getLogger('urllib3').warning('retrying %s\\nagain', 'it')\n"
        "    warnings.warn('old')\n"
        "    raise RuntimeError('a thread fails')\n"
        "import sys\n"
        "if 'serve' in getattr(sys, 'orig_argv', ()):\n"
        "    timer = threading.Timer(3, trouble)\n"
        "    timer.daemon = True\n"
        "    timer.start()\n"
    )
    daemon = make_daemon("host", environment={"PYTHONPATH": str(site)}).start()

    (failed,) = eventually(lambda: [line for line in lines(daemon) if line["level"] == "critical"])

    assert failed["exception"][0]["exc_value"] == "a thread fails"
    assert "locals" not in failed["exception"][0]["frames"][0]
    assert about(daemon, "retrying it\nagain") == [{"logger": "urllib3"}]
    assert [line["level"] for line in lines(daemon) if "UserWarning: old" in line["event"]] == ["warning"]
    assert "of no interest" not in daemon.log_text()


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_format_is_what_it_is_told_to_be_and_not_what_stderr_is(make_daemon: MakeDaemon, by: str) -> None:
    if by == "option":
        daemon = make_daemon("host", "--log-format", "human").start()
    else:
        daemon = make_daemon("host", environment={"MODELHOST_LOG_FORMAT": "HUMAN"}).start()

    daemon.stop()

    shown = daemon.log_text()
    assert re.search(r"^\S+ \[info +\] serving +.*address=127\.0\.0\.1:", shown, re.MULTILINE)
    assert "\x1b" not in shown, "colours are for terminals"
    assert "{" not in shown


def test_less_can_be_asked_for(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--log-level", "error").start()

    assert daemon.stop() == 0

    assert daemon.log_text() == ""


@pytest.mark.parametrize("option", ["--log-format", "--log-level"])
def test_a_format_or_level_that_there_is_not_is_refused(make_daemon: MakeDaemon, option: str) -> None:
    ended = make_daemon("host", option, "loud").refused()

    assert ended.returncode == 2
    assert "loud" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_log_that_cannot_be_written_does_not_stop_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host")
    daemon.log.symlink_to("/dev/full")

    daemon.start()

    assert Operator(daemon).names() == []
    assert daemon.stop() == 0


# ---- metrics


def test_metrics_are_read_where_the_log_says(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--metrics", "127.0.0.1:0").start()
    (serving,) = about(daemon, "serving")
    with Client(daemon.address, daemon.token) as client, pytest.raises(ModelHostError):
        client.predict("nobody", 1)

    calls = scrape(serving["metrics"]).by("code", "modelhost_calls_total")

    assert calls == {"NOT_FOUND": 1}
    assert daemon.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        get(serving["metrics"])


def test_the_address_of_metrics_may_come_from_a_variable_and_be_had_again_after_a_kill(make_daemon: MakeDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    daemon = make_daemon("host", environment={"MODELHOST_METRICS": address}).start()
    assert scrape(address).value("modelhost_build_info") == 1

    daemon.restart()

    assert scrape(address).value("modelhost_build_info") == 1


def test_without_the_option_nothing_listens_for_metrics(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()

    of_host = [Path(f"/proc/{daemon.pid}/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    listening = {f"socket:[{line.split()[9]}]" for lines in of_host for line in lines if line.split()[3] == "0A"}
    descriptors = {os.readlink(path) for path in Path(f"/proc/{daemon.pid}/fd").iterdir()}
    assert len(listening & descriptors) == 1
    assert "metrics" not in about(daemon, "serving")[0]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("9100", "--metrics must be host:port, the port from 0 to 65535, not '9100'"),
        ("127.0.0.1:99999", "--metrics must be host:port, the port from 0 to 65535, not '127.0.0.1:99999'"),
        (
            "0.0.0.0:9100",
            "0.0.0.0 is not a loopback address, and metrics would travel unencrypted; "
            "listen on 127.0.0.1, or say --insecure if the network is trusted",
        ),
    ],
)
def test_an_address_of_metrics_that_cannot_or_should_not_be_is_refused(
    make_daemon: MakeDaemon, metrics: str, words: str
) -> None:
    ended = make_daemon("host", "--metrics", metrics).refused()

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"error: {words}\n")


def test_with_insecure_metrics_may_be_read_from_everywhere(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--metrics", "0.0.0.0:0", "--insecure").start()

    (serving,) = about(daemon, "serving")
    assert scrape("127.0.0.1:" + serving["metrics"].rpartition(":")[2]).value("modelhost_build_info") == 1


def test_a_port_in_use_is_a_sentence(make_daemon: MakeDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = make_daemon("host", "--metrics", address).refused()

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: cannot listen on {address} for metrics: Address already in use\n"


def test_asked_to_end_it_ends_while_somebody_holds_a_connection_for_metrics(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--metrics", "127.0.0.1:0").start()
    host, _, port = about(daemon, "serving")[0]["metrics"].rpartition(":")

    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(b"GET /met")
        assert daemon.stop(signal.SIGTERM) == 0


def test_a_token_that_comes_with_a_wrong_byte_is_in_no_line(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--log-level", "debug").start()
    header = f"Bearer {daemon.token}".encode()

    for junk in (b"\xff", b"\xc3\xa4", b"\0"):
        call = status_of_call(
            daemon.address, "/modelhost.v1.Admin/ListDeployments", [(b"authorization", header + junk)]
        )
        assert call == 16  # UNAUTHENTICATED

    assert daemon.stop() == 0
    assert about(daemon, "stopped")
    assert daemon.token.removeprefix("mha_") not in daemon.log_text()

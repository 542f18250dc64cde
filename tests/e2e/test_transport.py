"""`modelhost certs` and `modelhost serve` with TLS, as people use them, and what models get to see of it."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import Client
from tests.e2e.command import Command
from tests.e2e.daemon import Daemon, python
from tests.e2e.steps import Operator
from tests.e2e.test_serve import refusal
from tests.git_repos import Repo
from tests.running import eventually
from tests.tls_files import Tls, serial, serial_shown

MODELS = Path(__file__).parents[1] / "models"
MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls", "models.example.com")


def logged(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, daemon.log_text().splitlines())
    return [line for line in lines if line["event"] == event]


def test_from_certs_to_a_call_by_the_lines_that_certs_prints(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    daemon.listen = "0.0.0.0:0"
    folder = tmp_path / "certs"
    made = Command(make_daemon("elsewhere").start(), tmp_path).ok(f"certs {folder} --client alice").lines
    serve, call = (line.strip() for line in made if line.startswith("  modelhost "))
    daemon.options = (*daemon.options, *shlex.split(serve)[2:])

    daemon.start()

    port = daemon.address.rpartition(":")[2]
    elsewhere = Command(daemon, tmp_path, {"XDG_RUNTIME_DIR": "", "MODELHOST_TOKEN": daemon.token})
    assert "--listen" not in serve, "localhost is for this host"
    assert elsewhere.ok(call.removeprefix("modelhost ").replace(":8470", f":{port}")).code == 0
    without = elsewhere(f"list --address localhost:{port} --ca-file {folder / 'ca.pem'}")
    assert without.code == 5
    assert "hint: give one of its authority: --client-cert and --client-key" in without.err
    assert logged(daemon, "serving")[0]["tls"] == "mutual"


def test_on_the_servers_own_host_the_command_needs_no_options(
    make_daemon: MakeDaemon, tls: Tls, tmp_path: Path
) -> None:
    daemon = make_daemon("host", *tls.options).start()
    command = Command(daemon, tmp_path)

    assert command.ok("list --json").document["deployments"] == []
    command.ok("list", "--address", daemon.address.replace("127.0.0.1", "localhost"))
    verified = command(f"list --ca-file {tls.ca_file}")
    assert f"the certificate of the server at {daemon.address} is made out to other names" in verified.err

    pair = tls.rotate()
    assert command.ok("list --json").document["deployments"] == []
    assert serial_shown(daemon.address) == serial(pair.certificate)
    (line,) = logged(daemon, "a new TLS certificate is used for new connections")
    assert line["expires"] == pair.expires.isoformat()


def test_operators_have_a_listener_of_their_own(make_daemon: MakeDaemon, tls: Tls, tmp_path: Path) -> None:
    daemon = make_daemon("host", *tls.options, "--admin-listen", "127.0.0.1:0").start()
    (line,) = eventually(lambda: logged(daemon, "serving"))
    public, admin = (Command(daemon, tmp_path, {"MODELHOST_ADDRESS": line[name]}) for name in ("address", "admin"))

    assert admin.ok("list --json").document["deployments"] == []
    refused = public("list")
    assert refused.code == 1
    assert "or one whose operators have an address of their own (--admin-listen)" in refused.err
    assert "SERVICE_NOT_FOUND" in public("predict nothing 1 --json").err
    published = Path(daemon.environment["XDG_RUNTIME_DIR"], "modelhost")
    assert len(list(published.iterdir())) == 2
    assert daemon.stop() == 0
    assert list(published.iterdir()) == []


def test_with_tls_every_address_is_listened_on(make_daemon: MakeDaemon, tls: Tls) -> None:
    daemon = make_daemon("host", *tls.options)
    daemon.listen = "0.0.0.0:0"
    daemon.start()

    port = daemon.address.rpartition(":")[2]
    with Client(
        f"127.0.0.1:{port}", daemon.token, root_certificates=tls.ca, server_name="models.example.com"
    ) as client:
        assert client.admin.ListDeployments(Operator.list_request()).deployments == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert", "server.pem"], "--tls-cert and --tls-key go together: a certificate and its key"),
        (
            ["--tls-cert", "/no/pem", "--tls-key", "/no/key"],
            "--tls-cert: cannot read /no/pem: No such file or directory",
        ),
        (["--admin-listen", "0.0.0.0:0"], "0.0.0.0 is not a loopback address, and calls would travel unencrypted"),
        (["--keepalive", "-1"], "--keepalive must be 0 or more seconds"),
    ],
)
def test_options_about_connections_that_make_no_sense_are_refused(
    make_daemon: MakeDaemon, options: list[str], words: str
) -> None:
    daemon = make_daemon("host", *options)
    assert words in refusal(daemon)
    assert not daemon.state_dir.exists()


def test_a_certificate_that_ends_soon_and_a_key_that_others_can_read_are_warned_of(
    make_daemon: MakeDaemon, tls: Tls
) -> None:
    pair = tls.pair(days=20)
    tls.put(pair.certificate, pair.key)
    tls.key.chmod(0o644)

    daemon = make_daemon("host", *tls.options).start()

    (ends,) = eventually(lambda: logged(daemon, "the TLS certificate expires soon"))
    assert (ends["level"], ends["days"], ends["file"]) == ("warning", 19, str(tls.certificate))
    (open_,) = logged(daemon, "the key for TLS is open to other users; chmod 600 closes it")
    assert (open_["level"], open_["mode"], open_["file"]) == ("warning", "0644", str(tls.key))


def test_no_model_reads_the_key(make_daemon: MakeDaemon, tls: Tls, repo: Repo) -> None:
    options = ("--require-isolation", "--interpreter", str(python("3.6")))
    daemon = make_daemon("host", *options, *tls.options).start()
    operator = Operator(daemon)
    repo.commit({"main.py": (MODELS / "prowls.py").read_bytes()})
    operator.add_source("models", repo)
    operator.deploy("prowler", "models")

    assert operator.predict("prowler", {"do": "read", "path": str(tls.key)}) in ("EACCES", "ENOENT")


def test_a_key_that_models_could_read_is_no_isolation(make_daemon: MakeDaemon, shared: Path) -> None:
    tls = Tls(shared / "tls")
    (shared / "tls").chmod(0o755)
    tls.key.chmod(0o644)

    ended = make_daemon("host", "--require-isolation", *tls.options).refused()

    assert ended.returncode == 1
    warning, sentence = ended.stderr.splitlines()
    assert "is open to other users" in warning
    assert sentence.startswith("error: --require-isolation: ")
    assert f"a model can read {tls.key}" in sentence

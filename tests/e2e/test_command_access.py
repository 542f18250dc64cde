"""A model handed to an application, and taken away again: accounts, grants, tokens, usage, operators and the audit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.client import AccessDenied, Client, NotFound, ServiceAccountKey
from tests.e2e.command import Command
from tests.e2e.daemon import Daemon, python
from tests.git_repos import Repo
from tests.running import eventually

MODEL = b"""
def predict(parameters):
    return 2 * parameters
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("access") / "host", "--interpreter", str(python("3.6")))
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def model(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command as the admin of a server on which `double` runs."""
    folder = tmp_path_factory.mktemp("folder")
    Repo(folder / "models.git").commit({"main.py": MODEL})
    command = Command(daemon, folder)
    command.ok("source add models models.git")
    command.ok("deploy --quiet --name double --source models --runtime python3.6")
    return command


@pytest.fixture
def modelhost(model: Command, tmp_path: Path) -> Command:
    """The same in a folder of the test's own."""
    return model.within(tmp_path)


@pytest.fixture
def shop(modelhost: Command) -> Iterator[Command]:
    """The command as an application has it: with the keys of the account `shop`, which may call `double`."""
    created = modelhost.ok("account create shop --secret-file shop.secret --json").document
    modelhost.ok("grant shop double")
    secret = (modelhost.folder / "shop.secret").read_text().strip()
    yield modelhost.having(MODELHOST_ACCESS_KEY=created["access_key"], MODELHOST_SECRET_KEY=secret)
    modelhost("account delete shop --yes")


def with_token(shop: Command) -> Command:
    """The command with a token of `shop`, and no other."""
    path = shop.folder / "shop.token"
    path.write_text(shop.ok("account token").out)
    return shop.having(MODELHOST_TOKEN_FILE=str(path))


def key_of(shop: Command) -> ServiceAccountKey:
    return ServiceAccountKey(shop.variables["MODELHOST_ACCESS_KEY"], shop.variables["MODELHOST_SECRET_KEY"])


def test_a_model_is_handed_to_an_application_and_taken_away_again(modelhost: Command) -> None:
    created = modelhost.ok('account create story --description "the checkout" --expires 90d')
    access_key = created.lines[1].split()[-1]
    secret = created.lines[2].split()[-1]
    app = modelhost.having(MODELHOST_ACCESS_KEY=access_key, MODELHOST_SECRET_KEY=secret)

    before = with_token(app)("predict double 21")
    modelhost.ok("grant story double --rate 100/s --daily 1000 --request-bytes 64KiB")
    called = with_token(app)
    answer = called.ok("predict double 21")
    too_large = called("predict double - --json", stdin=json.dumps("x" * 70_000))
    eventually(lambda: "serviceAccounts/story" in modelhost.ok("usage double").out, seconds=30)
    shown = modelhost.ok("account show story").out
    modelhost.ok("revoke story double")
    revoked = called("predict double 21")
    modelhost.ok("account disable story")
    disabled = app("account token"), called("predict double 21")
    modelhost.ok("account delete story --yes")

    assert before.code == 3
    assert answer.out == "42\n"
    assert (too_large.code, json.loads(too_large.err)["error"]["reason"]) == (4, "REQUEST_TOO_LARGE")
    assert "the checkout" in shown
    assert "double" in shown
    assert secret not in shown
    assert revoked.code == 3
    assert [each.code for each in disabled] == [6, 6]
    assert modelhost("account show story").code == 3


def test_usage_tells_requests_failures_and_callers(modelhost: Command, shop: Command) -> None:
    caller = with_token(shop)
    for _ in range(3):
        caller.ok("predict double 1")
    assert caller("predict double null").code == 7

    def counted() -> bool:
        counts = modelhost.ok("usage double --caller shop --json").document["past_hour"]["counts"]
        return counts["requests"] == "4" and sum(int(each["count"]) for each in counts["failures"]) == 1

    eventually(counted, seconds=30)
    lines = modelhost.ok("usage double --caller shop").lines
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["past", "hour", "4", "75.0%"],
        ["past", "24", "hours", "4"],
        ["past", "7", "days", "4"],
    ]
    assert modelhost("usage nope").code == 3


def test_an_api_key_is_a_token_until_it_is_deleted(modelhost: Command, shop: Command) -> None:
    modelhost.ok("account key shop --description dashboard --expires 1d --key-file dashboard.key")
    dashboard = modelhost.having(MODELHOST_TOKEN_FILE=str(modelhost.folder / "dashboard.key"))

    assert dashboard.ok("predict double 3").out == "6\n"
    [key] = modelhost.ok("account show shop --json").document["service_account"]["api_keys"]
    modelhost.ok(f"account delete-key {key['name']}")
    assert dashboard("predict double 3").code == 6


def test_a_rotated_key_works_on_until_it_is_ended(modelhost: Command, shop: Command) -> None:
    modelhost.ok("account rotate shop --overlap 1h --secret-file second.secret")
    assert shop("account token").code == 0
    assert shop("account token --secret-key-file second.secret").code == 0
    modelhost.ok("account rotate shop --now --secret-file third.secret")
    assert shop("account token").code == 6
    assert shop("account token --secret-key-file second.secret").code == 6
    assert shop("account token --secret-key-file third.secret").code == 0


def test_an_application_is_no_operator(shop: Command) -> None:
    answer = with_token(shop)("list")

    assert answer.code == 8
    assert "hint: that takes the token of an operator with the role viewer" in answer.err


def test_the_client_gets_its_tokens_by_itself_also_after_a_new_key_of_the_server(
    modelhost: Command, shop: Command
) -> None:
    stale = with_token(shop)
    with Client(modelhost.daemon.address, account=key_of(shop)) as client:
        assert client.predict("double", 4).result == 8
        modelhost.ok("rekey --yes")
        assert client.predict("double", 5).result == 10
    assert stale("predict double 4").code == 6
    assert with_token(shop).ok("predict double 4").out == "8\n"


def test_a_service_that_is_open_needs_no_token(modelhost: Command) -> None:
    with Client(modelhost.daemon.address) as anybody:
        with pytest.raises((AccessDenied, NotFound)):
            anybody.predict("double", 2)
        modelhost.ok("service open double --yes")
        assert anybody.predict("double", 2).result == 4
        assert "everybody" in modelhost.ok("service show double").out
        modelhost.ok("service close double")
        with pytest.raises((AccessDenied, NotFound)):
            anybody.predict("double", 2)


def test_a_viewer_looks_and_does_not_deploy(modelhost: Command) -> None:
    modelhost.ok("operator add vera --role viewer --new-token-file vera.token")
    vera = modelhost.having(MODELHOST_TOKEN_FILE=str(modelhost.folder / "vera.token"))

    assert vera.ok("list --json").document["deployments"][0]["name"] == "deployments/double"
    refused = vera("deploy --name other --source models --runtime python3.6")
    assert refused.code == 8
    assert "hint: that takes the role deployer, and vera has the role viewer" in refused.err
    assert vera("predict double 1").code in {3, 8}

    modelhost.ok("operator update vera --role deployer")
    vera.ok("deploy --no-start --name other --source models --runtime python3.6")
    assert vera("audit").code == 8
    modelhost.ok("operator update vera --role viewer")
    assert vera("stop double").code == 8
    modelhost.ok("operator update vera --disable")
    assert vera("list").code == 6
    modelhost.ok("operator delete vera --yes")
    modelhost.ok("delete other --yes")


def test_the_audit_says_who_changed_what(modelhost: Command) -> None:
    modelhost.ok("operator add otto --role admin --new-token-file otto.token")
    otto = modelhost.having(MODELHOST_TOKEN_FILE=str(modelhost.folder / "otto.token"))
    created = otto.ok("account create seen")
    otto.ok("account disable seen")
    otto.ok("account delete seen --yes")

    events = otto.ok("audit --resource serviceAccounts/seen")
    methods = [line.split()[2:5] for line in events.lines]
    assert [method[:2] for method in methods] == [
        ["otto", "CreateServiceAccount"],
        ["otto", "UpdateServiceAccount"],
        ["otto", "DeleteServiceAccount"],
    ]
    assert "disabled" in events.lines[1]
    assert "from 127.0.0.1" in events.lines[1]
    secret = created.lines[2].split()[-1]
    everything = modelhost.ok("audit --last 1000 --json")
    assert secret not in everything.out
    assert (modelhost.folder / "otto.token").read_text().strip() not in everything.out
    assert [json.loads(line)["operator"] for line in everything.lines][-1] == "operators/otto"
    assert (
        otto.ok("audit --operator otto --method DeleteServiceAccount --since 1h --last 1").lines[0].count("seen") == 1
    )

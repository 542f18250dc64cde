"""Service accounts: made, listed, shown, taken away; their keys are in test_account_keys.py."""

import resource
import stat

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.v1.service_account_pb2 import ApiKey
from tests.unit.client.fake_access import NOW
from tests.unit.client.fake_answers import Code

WARNING = "the secret key 1 expires on 2026-12-05, in 7 days: `modelhost account rotate` makes another"


@pytest.fixture
def shop(server):
    """An account with a secret key, an API key and a grant."""
    account = server.add_account("shop", description="the checkout", warnings=[WARNING])
    account.secret_keys[0].expire_time.FromSeconds(NOW + 7 * 86400)
    account.last_use_time.FromSeconds(NOW - 60)
    account.api_keys.append(
        ApiKey(
            name="serviceAccounts/shop/apiKeys/7",
            description="the dashboard",
            create_time=Timestamp(seconds=NOW - 86400),
            expire_time=Timestamp(seconds=NOW + 86400),
        )
    )
    server.add_deployment("churn")
    server.add_grant("shop", "churn", requests_per_second=10, requests_per_day=1000)
    return account


def test_an_account_is_created_and_its_secret_key_shown_this_once(server, cli):
    result = cli("account", "create", "shop", "--description", "the checkout", "--expires", "90d")
    assert result.out.splitlines() == [
        "service account shop created",
        "access key  ak-shop",
        "secret key  secret-of-shop",
    ]
    assert "The secret key is shown this once and never again: keep it now.\n" in result.err
    assert "`modelhost grant shop SERVICE` lets it call a service" in result.err
    [request] = server.requests("CreateServiceAccount")
    assert (request.service_account_id, request.service_account.description) == ("shop", "the checkout")
    assert request.secret_lifetime.seconds == 90 * 86400


def test_without_an_end_none_is_asked_for(server, cli):
    cli("account", "create", "shop")
    assert not server.requests("CreateServiceAccount")[0].HasField("secret_lifetime")


def test_with_json_the_secret_key_is_in_the_document_alone(cli):
    result = cli("account", "create", "shop", "--json")
    assert (result.document["secret_key"], result.document["access_key"]) == ("secret-of-shop", "ak-shop")
    assert result.err == ""


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_secret_key_that_goes_into_a_file_is_shown_nowhere(cli, tmp_path, flags):
    file = tmp_path / "shop.secret"
    result = cli("account", "create", "shop", "--secret-file", str(file), *flags)
    assert result.code == 0
    assert "secret-of-shop" not in result.out + result.err
    assert file.read_text() == "secret-of-shop\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in result.out or flags


def test_a_file_that_is_there_is_not_overwritten_and_nothing_is_created(server, cli, tmp_path):
    file = tmp_path / "shop.secret"
    file.write_text("mine")
    result = cli("account", "create", "shop", "--secret-file", str(file))
    assert (result.code, file.read_text(), server.calls) == (2, "mine", [])
    assert f"error: {file} is there already, and is not overwritten" in result.err


def test_where_no_file_can_be_made_nothing_is_created(server, cli, tmp_path):
    result = cli("account", "create", "shop", "--secret-file", str(tmp_path / "nope" / "shop.secret"))
    assert result.code == 2
    assert "error: cannot write" in result.err
    assert server.calls == []


def test_a_link_is_not_followed(server, cli, tmp_path):
    link = tmp_path / "shop.secret"
    link.symlink_to(tmp_path / "elsewhere")
    assert cli("account", "create", "shop", "--secret-file", str(link)).code == 2
    assert not (tmp_path / "elsewhere").exists()
    assert server.calls == []


def test_a_file_for_a_secret_that_is_not_told_is_taken_away(server, cli, tmp_path):
    file = tmp_path / "shop.secret"
    server.refuse("CreateServiceAccount", Code.ALREADY_EXISTS, "no", "SERVICE_ACCOUNT_EXISTS")
    assert cli("account", "create", "shop", "--secret-file", str(file)).code == 4
    assert not file.exists()


def test_a_secret_key_that_its_file_has_no_room_for_is_shown_after_all(cli, tmp_path):
    file = tmp_path / "shop.secret"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        result = cli("account", "create", "shop", "--secret-file", str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.out.splitlines()[-1] == "secret key  secret-of-shop"
    assert f"warning: {file} cannot be written: File too large" in result.err
    assert not file.exists()


def test_a_list_says_what_is_to_be_looked_at(server, cli, shop):
    server.add_account("till", disabled=True)
    result = cli("account", "list")
    heading, first, second = result.out.splitlines()
    assert heading.split("  ")[0] == "ACCOUNT"
    assert first.split() == [
        *["shop", "enabled", "1", "secret,", "1", "API", "2026-11-29", "10:00:00", "2026-11-28", "09:59:00"],
        *["1", "the", "checkout"],
    ]
    assert second.split() == ["till", "disabled", "1", "secret", "-", "-", "0", "-"]
    assert result.err == f"warning: shop: {WARNING}\n"


def test_a_list_has_all_pages_and_is_one_document(server, cli):
    for name in ("a", "b", "c"):
        server.add_account(name)
    accounts = cli("account", "list", "--json").document["service_accounts"]
    assert [account["name"] for account in accounts] == [f"serviceAccounts/{name}" for name in ("a", "b", "c")]


def test_one_is_shown_with_all_its_keys_and_what_it_may_call(cli, shop):
    result = cli("account", "show", "shop")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[:4] == ["account shop", "description the checkout", "state enabled", "access key ak-shop"]
    assert "secret key 1 2026-11-27 10:00:00 2026-12-05 10:00:00 never -" in lines
    assert "API key 7 2026-11-27 10:00:00 2026-11-29 10:00:00 never the dashboard" in lines
    assert "shop churn svc-churn 10/s - 17 of 1000 - - 2026-11-28 10:00:00" in lines
    assert f"warning: shop: {WARNING}" in result.err
    assert "secret-of" not in result.out


def test_one_that_is_shown_as_json_has_its_grants(cli, shop):
    document = cli("account", "show", "shop", "--json").document
    assert document["service_account"]["access_key"] == "ak-shop"
    assert [grant["deployment"] for grant in document["grants"]] == ["deployments/churn"]


def test_one_that_is_not_there_is_3(cli):
    for verb in ("show", "disable", "enable", "rotate", "key"):
        assert cli("account", verb, "nobody").code == 3


def test_an_account_is_disabled_and_enabled(server, cli, shop):
    assert cli("account", "disable", "shop").out == "service account shop disabled\n"
    assert server.accounts["shop"].disabled
    assert server.accounts["shop"].description == "the checkout"
    assert cli("account", "enable", "serviceAccounts/shop").out == "service account shop enabled\n"
    assert not server.accounts["shop"].disabled
    assert cli("account", "disable", "shop", "--json").document["disabled"] is True


def test_an_account_is_deleted(server, cli, shop):
    assert cli("account", "delete", "shop").out == "service account shop deleted\n"
    assert server.accounts == {}


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 1)])
def test_a_deletion_is_asked_for_first(server, terminal, shop, answer, code, left):
    command = terminal("account", "delete", "shop")
    command.wait_for("delete shop with its keys and grants?")
    command.type(f"{answer}\n")
    assert command.finish()[0] == code
    assert len(server.accounts) == left

"""Who may call what: grants, and services that are open."""

import pytest


@pytest.fixture(autouse=True)
def there(server):
    """Two accounts and two services."""
    for account in ("shop", "till"):
        server.add_account(account)
    for deployment in ("churn", "fraud"):
        server.add_deployment(deployment)


def test_a_grant_says_what_is_allowed(server, cli):
    result = cli(
        *("grant", "shop", "churn", "--rate", "600/m", "--burst", "20", "--daily", "1000"),
        *("--concurrent", "4", "--request-bytes", "1MiB"),
    )
    assert result.out == (
        "shop may call churn (svc-churn): 10/s, 20 at once, 1000 a day, 4 at a time, requests up to 1.0 MB\n"
    )
    [request] = server.requests("GrantService")
    assert (request.service_account, request.service) == ("shop", "churn")
    limits = request.limits
    assert (limits.requests_per_second, limits.burst, limits.requests_per_day) == (10, 20, 1000)
    assert (limits.concurrent_calls, limits.request_bytes) == (4, 2**20)


def test_what_is_not_said_is_not_limited(server, cli):
    assert cli("grant", "shop", "svc-churn").out == "shop may call churn (svc-churn): no limits\n"
    assert server.requests("GrantService")[0].limits.ByteSize() == 0
    assert cli("grant", "shop", "churn", "--json").document["name"] == "serviceAccounts/shop/grants/svc-churn"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate", "10"], "--rate: '10' is no rate"),
        (["--rate", "0/s"], "--rate: '0/s' is no rate"),
        (["--rate", "ten/s"], "--rate: 'ten/s' is no rate"),
        (["--request-bytes", "much"], "--request-bytes: 'much' is no size"),
        (["--burst", "0"], "invalid value for '--burst'"),
        (["--daily", "-1"], "invalid value for '--daily'"),
    ],
)
def test_a_limit_that_is_none_is_refused_before_anything_is_sent(server, cli, flags, message):
    result = cli("grant", "shop", "churn", *flags)
    assert result.code == 2
    assert message in result.err
    assert server.calls == []


def test_a_grant_is_taken_back_once(cli):
    cli("grant", "shop", "churn")
    assert cli("revoke", "shop", "churn").out == "shop may no longer call churn\n"
    assert cli("revoke", "shop", "churn").code == 3


def test_grants_are_listed_with_their_limits(server, cli):
    server.add_grant("shop", "churn", requests_per_second=0.5, burst=3, requests_per_day=1000)
    server.add_grant("till", "churn", requests_per_second=0.001, concurrent_calls=4, request_bytes=2_000_000)
    server.add_grant("till", "fraud")
    heading, *rows = cli("grants").out.splitlines()
    assert heading.split("  ")[0] == "ACCOUNT"
    assert [" ".join(row.split()) for row in rows] == [
        "shop churn svc-churn 30/m 3 17 of 1000 - - 2026-11-28 10:00:00",
        "till churn svc-churn 3.6/h - 17 4 2.0 MB 2026-11-28 10:00:00",
        "till fraud svc-fraud - - 17 - - 2026-11-28 10:00:00",
    ]


def test_grants_of_an_account_or_to_a_service_can_be_listed(server, cli):
    server.add_grant("shop", "churn")
    server.add_grant("till", "churn")
    server.add_grant("till", "fraud")
    of_till = cli("grants", "--account", "till", "--json").document["grants"]
    assert [grant["deployment"] for grant in of_till] == ["deployments/churn", "deployments/fraud"]
    to_churn = cli("grants", "--service", "churn", "--json").document["grants"]
    assert [grant["service_account"] for grant in to_churn] == ["serviceAccounts/shop", "serviceAccounts/till"]


# ---- services


def test_services_are_listed_with_who_may_call_them(server, cli):
    server.add_deployment("old", active_revision=0)
    server.add_grant("shop", "churn")
    server.open_services.add("services/svc-fraud")
    _, *rows = cli("service", "list").out.splitlines()
    assert [" ".join(row.split()) for row in rows] == [
        "svc-churn churn serving 1 1 account 2026-11-28 10:00:00",
        "svc-fraud fraud serving 1 everybody 2026-11-28 10:00:00",
        "svc-old old not serving - nobody 2026-11-28 10:00:00",
    ]
    services = cli("service", "list", "--json").document["services"]
    assert [service["open"] for service in services] == [False, True, False]


@pytest.mark.parametrize("name", ["churn", "svc-churn", "services/svc-churn"])
def test_a_service_is_shown_by_its_id_or_its_deployment(server, cli, name):
    server.add_grant("shop", "churn", requests_per_second=10)
    result = cli("service", "show", name)
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[:5] == ["service svc-churn", "deployment churn", "state serving", "revision 1", "callers 1 account"]
    assert lines[-1].startswith("shop churn svc-churn 10/s")
    document = cli("service", "show", name, "--json").document
    assert (document["service"]["name"], len(document["grants"])) == ("services/svc-churn", 1)


def test_a_service_that_is_not_there_is_3(cli):
    for verb in ("show", "open", "close"):
        assert cli("service", verb, "nope").code == 3


def test_a_service_is_opened_and_closed(server, cli):
    assert cli("service", "open", "churn").out == "everybody may call churn (svc-churn), without a token\n"
    assert server.open_services == {"services/svc-churn"}
    assert cli("service", "close", "churn").out == "none but those whom it was granted may call churn (svc-churn)\n"
    assert server.open_services == set()
    assert cli("service", "open", "churn", "--json").document["open"] is True


@pytest.mark.parametrize(("answer", "code", "is_open"), [("y", 0, True), ("n", 1, False)])
def test_opening_is_asked_for_first(server, terminal, answer, code, is_open):
    command = terminal("service", "open", "churn")
    command.wait_for("without a token and without limits?")
    command.type(f"{answer}\n")
    assert command.finish()[0] == code
    assert bool(server.open_services) is is_open


def test_opening_that_is_sure_is_not_asked_for(server, terminal):
    code, shown = terminal("service", "open", "churn", "--yes").finish()
    assert (code, "y/N" in shown, len(server.open_services)) == (0, False, 1)

"""What was built on the server's host."""

import pytest

from modelhost.v1.runtime_pb2 import CollectEnvironmentsResponse, Environment

ONE, OTHER = "3f9c" + "0" * 60, "3faa" + "1" * 60


@pytest.fixture
def two(server):
    server.environments = [
        Environment(
            name=f"environments/{ONE}",
            runtime="runtimes/python3.6",
            runtime_version="3.6.15",
            lock=["numpy==1.16.6", "scipy==1.2.3"],
            requirements=["numpy", "scipy"],
            size_bytes=2_500_000,
            build_seconds=61,
            used_by=[f"deployments/{name}" for name in ("churn/revisions/1", "churn/revisions/3", "fraud/revisions/2")],
        ),
        Environment(name=f"environments/{OTHER}", runtime="runtimes/r3.6", runtime_version="3.6.3"),
    ]


def test_a_list_says_how_large_each_is_and_who_uses_it(cli, two):
    heading, one, other = cli("environments", "list").out.splitlines()
    assert heading.split() == ["ENVIRONMENT", "RUNTIME", "PACKAGES", "SIZE", "USED", "BY", "BUILT"]
    assert one.split("  ")[0] == "3f9c00000000"
    assert "python3.6 (3.6.15)" in one
    assert "2.5 MB  churn 1, 3; fraud 2" in one
    assert other.split() == ["3faa11111111", "r3.6", "(3.6.3)", "0", "0", "B", "-", "-"]


def test_a_list_is_one_document(cli, two):
    document = cli("environments", "list", "--json").document
    assert [environment["name"] for environment in document["environments"]] == [
        f"environments/{digest}" for digest in (ONE, OTHER)
    ]


def test_one_is_shown_by_how_its_digest_begins(cli, two):
    shown = cli("environments", "show", "3f9").out
    for words in (ONE, "churn 1, 3; fraud 2", "numpy, scipy", "scipy==1.2.3", "in 61 s"):
        assert words in shown
    assert cli("environments", "show", f"environments/{ONE}", "--json").document["size_bytes"] == "2500000"


def test_one_that_nothing_uses_says_so(cli, two):
    assert "nothing: `modelhost environments collect` removes it" in cli("environments", "show", OTHER).out


def test_one_that_is_not_there_is_3(cli, two):
    result = cli("environments", "show", "ffff")
    assert (result.code, result.err.splitlines()[0]) == (3, "error: there is no environment ffff")


def test_a_beginning_that_is_not_unique_is_2(cli, two):
    result = cli("environments", "show", "3f")
    assert (result.code, result.err.splitlines()[0]) == (2, "error: 2 environments begin with 3f")


@pytest.mark.parametrize(
    ("flags", "done", "freed"), [([], "removed", "freed"), (["--dry-run"], "would be removed", "would be freed")]
)
def test_collecting_says_what_went_and_how_much_it_was(server, cli, flags, done, freed):
    server.collected = CollectEnvironmentsResponse(environments=[ONE], snapshots=[OTHER], freed_bytes=2_500_000)
    assert cli("environments", "collect", *flags).out.splitlines() == [
        f"environment  3f9c00000000  {done}",
        f"files        3faa11111111  {done}",
        f"2.5 MB {freed}",
    ]
    assert server.requests("CollectEnvironments")[0].validate_only is bool(flags)
    assert cli("environments", "collect", *flags, "--json").document["freed_bytes"] == "2500000"


def test_where_all_is_used_nothing_is_removed(cli):
    assert cli("environments", "collect").out == "nothing to remove: kept revisions use all there is\n"

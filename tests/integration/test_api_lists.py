"""Lists come in pages: none is left out or told twice, whatever the page's size, and no token fits another list."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2, runtime_pb2, service_pb2
from tests.checks import refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually

FILES = 1_001
LINES = 10_001

Page = tuple[Sequence[Any], str]
List = Callable[[int, str], Page]  # page size and token


@pytest.fixture(scope="session")
def lists(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, List]:
    """Every list there is, each with more than one thing in it."""
    repo = Repo(tmp_path_factory.mktemp("api-lists") / "repo")
    repo.commit({**OBEDIENT, **{f"data/{number:04}.csv": b"" for number in range(FILES)}})
    for number in range(12):
        repo.tag(f"v{number}")
    for name in ("lists-1", "lists-2"):
        server.add_source(name, repo)
        server.deploy(name, "lists-1", paths=["main.py"])
    server.deploy("lists-3", "lists-1", paths=["main.py"], requirements=["--prefer-binary"])
    for _ in range(3):
        server.update("lists-1", env={"A": "1"})
    assert server.predict("lists-2", do("say", lines=LINES)) == LINES
    admin = server.client.admin

    def plain(method: str, request: type, of: str, key: Callable[[Any], Any], **fields: str) -> List:
        def page(size: int, token: str) -> Page:
            answer = getattr(admin, method)(request(page_size=size, page_token=token, **fields))
            return [key(item) for item in getattr(answer, of)], answer.next_page_token

        return page

    def line(entry: log_pb2.LogEntry) -> tuple[int, str]:
        return entry.time.ToNanoseconds(), entry.text

    found = {
        "sources": plain(
            "ListDataSources", data_source_pb2.ListDataSourcesRequest, "data_sources", lambda one: one.name
        ),
        "refs": plain(
            "ListRefs", data_source_pb2.ListRefsRequest, "refs", lambda one: (one.kind, one.name), data_source="lists-1"
        ),
        "refs of another": plain(
            "ListRefs", data_source_pb2.ListRefsRequest, "refs", lambda one: (one.kind, one.name), data_source="lists-2"
        ),
        "refs by prefix": plain(
            "ListRefs", data_source_pb2.ListRefsRequest, "refs", lambda one: (one.kind, one.name),
            data_source="lists-1", prefix="v1",
        ),
        "files": plain(
            "ListFiles", data_source_pb2.ListFilesRequest, "files", lambda one: one.path,
            data_source="lists-1", directory="data",
        ),
        "runtimes": plain("ListRuntimes", runtime_pb2.ListRuntimesRequest, "runtimes", lambda one: one.name),
        "environments": plain(
            "ListEnvironments", runtime_pb2.ListEnvironmentsRequest, "environments", lambda one: one.name
        ),
        "deployments": plain(
            "ListDeployments", deployment_pb2.ListDeploymentsRequest, "deployments", lambda one: one.name
        ),
        "revisions": plain(
            "ListRevisions", deployment_pb2.ListRevisionsRequest, "revisions", lambda one: one.number, parent="lists-1"
        ),
        "services": plain("ListServices", service_pb2.ListServicesRequest, "services", lambda one: one.name),
        "build log": plain("ReadLog", log_pb2.ReadLogRequest, "entries", line, deployment="lists-1"),
        "another build log": plain("ReadLog", log_pb2.ReadLogRequest, "entries", line, deployment="lists-2"),
    }  # fmt: skip
    eventually(lambda: len(run_log(server, "lists-2", page_size=10_000, pages=2)) >= LINES)
    return found


def pages(page: List, size: int) -> list[Any]:
    """Everything, page by page; no page but the last is shorter than asked for."""
    items, token = page(size, "")
    everything = [*items]
    while token:
        assert len(items) == size
        items, token = page(size, token)
        everything += items
    return everything


def run_log(server: RunningServer, name: str, *, page_size: int, pages: int) -> list[str]:
    """So many pages of a run log."""
    lines: list[str] = []
    token = ""
    for _ in range(pages):
        answer = server.client.admin.ReadLog(
            log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, page_size=page_size, page_token=token)
        )
        lines += [entry.text for entry in answer.entries]
        token = answer.next_page_token
    return lines


NAMES = (
    "sources", "refs", "refs of another", "refs by prefix", "runtimes", "environments", "deployments", "revisions",
    "services", "build log", "another build log",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_list_is_complete_and_without_duplicates_in_pages_of_any_size(
    lists: dict[str, List], name: str, size: int
) -> None:
    everything, token = lists[name](1000, "")

    assert not token
    assert len(everything) > 1
    assert pages(lists[name], size) == everything
    assert name.endswith("log") or len(set(everything)) == len(everything)


def test_revisions_are_newest_first_and_all_other_lists_in_order(lists: dict[str, List]) -> None:
    assert lists["revisions"](0, "")[0] == [4, 3, 2, 1]
    for name in ("sources", "runtimes", "environments", "deployments", "services", "files"):
        items = lists[name](1000, "")[0]
        assert items == sorted(items)


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (3, 3), (1_000, 1_000), (5_000, 1_000), (2**31 - 1, 1_000)])
def test_a_page_has_fifty_items_unless_told_and_never_over_a_thousand(
    lists: dict[str, List], asked: int, given: int
) -> None:
    items, token = lists["files"](asked, "")

    assert len(items) == given
    assert token


def test_files_are_listed_page_by_page_from_the_commit_that_the_first_page_was_of(
    server: RunningServer, repo: Repo, source: str
) -> None:
    first = repo.commit({"a": b"", "b": b"", "c": b""})
    request = data_source_pb2.ListFilesRequest(data_source=source, page_size=1)
    answer = server.client.admin.ListFiles(request)
    repo.commit({"z": b""})

    request.page_token = answer.next_page_token
    then = server.client.admin.ListFiles(request)

    assert (answer.commit, then.commit) == (first, first)
    assert [file.path for file in then.files] == ["b"]


@pytest.mark.parametrize("name", [*NAMES, "files"])
def test_a_negative_page_size_is_refused_by_every_list(lists: dict[str, List], name: str) -> None:
    with refused("FIELD_INVALID") as caught:
        lists[name](-1, "")

    assert [each.subject for each in caught.value.violations] == ["page_size"]


@pytest.mark.parametrize("name", [*NAMES, "files"])
def test_a_token_fits_only_the_list_it_was_made_for(lists: dict[str, List], name: str) -> None:
    _, token = lists[name](1, "")

    for other, page in lists.items():
        if other != name:
            with refused("PAGE_TOKEN_INVALID") as caught:
                page(1, token)
            assert [each.subject for each in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize("name", [*NAMES, "files"])
def test_a_token_that_nobody_made_is_refused(lists: dict[str, List], name: str) -> None:
    real = base64.urlsafe_b64decode(lists[name](1, "")[1])
    listing = real.partition(b"\0")[0]
    forged = [listing + b"\0x y z", listing + b"\0" + b"9" * 30, listing + b"\0-1 -1", real[:-1]]
    numbered = name == "revisions" or name.endswith("log")

    for token in ("x", "====", "ü", "AAAA", "A" * 100_000, lists[name](1, "")[1] + "!"):
        with refused("PAGE_TOKEN_INVALID"):
            lists[name](1, token)
    for token in forged[:3] if numbered else []:
        with refused("PAGE_TOKEN_INVALID"):
            lists[name](1, base64.urlsafe_b64encode(token).decode())


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_page_of_a_log_has_a_thousand_lines_unless_told_and_never_over_ten_thousand(
    server: RunningServer, lists: dict[str, List]
) -> None:
    assert len(run_log(server, "lists-2", page_size=0, pages=1)) == 1_000
    assert len(run_log(server, "lists-2", page_size=20_000, pages=1)) == 10_000

    everything = run_log(server, "lists-2", page_size=3_000, pages=4)

    assert everything == [f"line {number}" for number in range(LINES)]


def test_a_run_log_is_read_by_revision_and_a_build_log_is_of_one(server: RunningServer, lists: dict[str, List]) -> None:
    server.predict("lists-1", do("say", lines=1))
    log = log_pb2.ReadLogRequest(deployment="lists-1", kind=log_pb2.LOG_KIND_RUN, revision=4)
    eventually(lambda: server.client.admin.ReadLog(log).entries)

    assert {entry.revision for entry in server.client.admin.ReadLog(log).entries} == {4}
    log.revision = 3
    assert not server.client.admin.ReadLog(log).entries
    for number in (1, 4):
        build = log_pb2.ReadLogRequest(deployment="lists-1", revision=number)
        assert {entry.revision for entry in server.client.admin.ReadLog(build).entries} == {number}
    newest = server.client.admin.ReadLog(log_pb2.ReadLogRequest(deployment="lists-1")).entries
    assert {entry.revision for entry in newest} == {4}


def test_the_log_of_a_revision_that_is_not_there_is_not_found(server: RunningServer, lists: dict[str, List]) -> None:
    for kind in (log_pb2.LOG_KIND_BUILD, log_pb2.LOG_KIND_RUN):
        for number in (5, -1):
            with refused("REVISION_NOT_FOUND") as caught:
                server.client.admin.ReadLog(log_pb2.ReadLogRequest(deployment="lists-1", kind=kind, revision=number))
            assert "its newest is 4" in caught.value.message
    with refused("DEPLOYMENT_NOT_FOUND"):
        server.client.admin.ReadLog(log_pb2.ReadLogRequest(deployment="nothing-here"))


def test_there_is_no_third_kind_of_log(server: RunningServer, lists: dict[str, List]) -> None:
    with refused("FIELD_INVALID") as caught:
        server.client.admin.ReadLog(log_pb2.ReadLogRequest(deployment="lists-1", kind=3))
    assert [each.subject for each in caught.value.violations] == ["kind"]
    with refused("FIELD_INVALID"):
        next(server.client.admin.TailLog(log_pb2.TailLogRequest(deployment="lists-1", kind=3)))


def test_a_build_log_names_step_and_time_of_every_line(server: RunningServer, lists: dict[str, List]) -> None:
    entries = server.client.admin.ReadLog(log_pb2.ReadLogRequest(deployment="lists-1", revision=1)).entries

    assert [*dict.fromkeys(entry.step for entry in entries)] == ["fetch", "provision", "load"]
    assert all(entry.time.ToNanoseconds() for entry in entries)
    assert [entry.step for entry in entries if entry.seconds] == ["fetch", "provision", "load"]

"""Hosts that are unreachable, refuse or are slow; and what they are never told."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Cancelled, Job
from modelhost.server.errors import Conflict, NotFound, Unavailable
from modelhost.server.sources import Source
from modelhost.server.sources.git.source import GitSource
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Repo
from tests.git_web import PASSWORD, Web, serving
from tests.integration.git.files import FILES, Log, contents
from tests.local_hosts import LOCAL


def test_a_closed_port_is_an_unreachable_host(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("git", "http", "ssh"):
            url = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}/x"
            with pytest.raises(Unavailable, match="cannot be reached") as failure:
                GitSource(url, tmp_path / "cache", LOCAL).test("", Job())
            assert failure.value.reason == ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE


@pytest.mark.parametrize("project", ["nope", "group"])
def test_a_project_that_is_not_there_is_missing_over_every_transport(
    place: str, repo: Repo, tmp_path: Path, project: str
) -> None:  # fmt: skip
    with pytest.raises(NotFound) as missing:
        GitSource(place, tmp_path / "cache", LOCAL).refs(project, Job())
    assert missing.value.reason == ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND
    assert project in missing.value.message
    assert PASSWORD not in repr(missing.value.values)


@pytest.mark.parametrize("userinfo", ["", "ada@", "ada:wrong-pony@", "wrong-pony@"])
def test_wrong_credentials_are_told_and_never_shown(repo: Repo, tmp_path: Path, log: Log, userinfo: str) -> None:
    with serving(Web(repo.path.parent)) as web:
        source = GitSource(web.url(userinfo) + "/model.git", tmp_path / "cache", LOCAL)
        with pytest.raises(Conflict, match="refused access") as refusal:
            source.test("", log.job())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED
    everything = repr((refusal.value.message, refusal.value.values, refusal.value.hint, refusal.value.__cause__, log))
    assert "wrong-pony" not in everything


def test_a_password_is_not_among_the_arguments_of_any_process(repo: Repo, tmp_path: Path) -> None:
    repo.commit(FILES)
    repo.git("update-server-info")
    with serving(Web(repo.path.parent)) as web:
        contents(
            source := GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache", LOCAL),
            source.resolve("", "main", Job()),
        )
        assert any(web.authorizations)
        assert not web.seen_in_arguments
    assert not any(PASSWORD.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_redirect_to_another_host_does_not_get_the_password(repo: Repo, tmp_path: Path) -> None:
    with serving(Web(repo.path.parent)) as other, serving(Web(repo.path.parent, redirect=other.url())) as web:
        with pytest.raises(Conflict, match="refused access"):
            GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache", LOCAL).test("", Job())
        assert other.authorizations
        assert not any(other.authorizations)


@pytest.fixture
def silent_host() -> Iterator[str]:
    """A host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"git://127.0.0.1:{server.getsockname()[1]}/x"


def test_a_host_that_does_not_answer_is_given_up(silent_host: str, tmp_path: Path) -> None:
    source = GitSource(silent_host, tmp_path / "cache", LOCAL, fetch_timeout=0.2, list_timeout=0.1)
    with pytest.raises(Unavailable, match=r"did not answer within 0.1 s"):
        source.refs("", Job())
    with pytest.raises(Unavailable, match=r"did not answer within 0.2 s"):
        source.tree("", "1" * 40, Job())


@pytest.mark.parametrize(
    "ask", [lambda source, job: source.refs("", job), lambda source, job: source.tree("", "1" * 40, job)]
)
def test_waiting_for_a_host_can_be_cancelled(
    silent_host: str, tmp_path: Path, ask: Callable[[Source, Job], object]
) -> None:  # fmt: skip
    job = Job()
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(Cancelled):
        ask(GitSource(silent_host, tmp_path / "cache", LOCAL), job)


def test_waiting_for_another_fetch_can_be_cancelled(source: GitSource, repo: Repo) -> None:
    first, second = repo.commit({"a": b"1"}), repo.commit({"a": b"2"})
    reading = source.blobs("", first, source.tree("", first, Job()), Job())
    next(reading)  # holds the copy for reading, so that nothing can be fetched
    job = Job()
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(Cancelled):
        source.tree("", second, job)
    reading.close()
    assert contents(source, second) == {"a": b"2"}

"""A GitLab is spoken to, and followed to where it keeps its files, only where the server may go."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.sources.outgoing import Outgoing
from tests.git_repos import Content
from tests.gitlab_sources import CONTENTS, FILES, a_source, contents, refusal
from tests.gitlab_stand_in import GitLab, Project, Redirect

PATH = "energy/forecasting/turbine"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"  # the stand-in, and where it keeps files
ONLY_HERE, BOTH = Outgoing([HERE]), Outgoing([HERE, ELSEWHERE])


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


def leading(*answers: str) -> Callable[[str, int], list[str]]:
    """Looks every name up, each time with the next of these answers, the last one again and again."""
    left = list(answers)

    def resolve(host: str, port: int) -> list[str]:
        return (left.pop(0) if len(left) > 1 else left[0]).split()

    return resolve


def named(gitlab: GitLab, name: str) -> str:
    return gitlab.url.replace(HERE, name)


class TestTheHost:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
    def test_loopback_is_not_gone_to_unless_it_is_listed(self, gitlab: GitLab, tmp_path: Path, host: str) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, url=named(gitlab, host), outgoing=Outgoing()).test("", Job())
        assert refused.reason == "HOST_NOT_ALLOWED"
        assert "127.0.0.1" in refused.message
        assert gitlab.requests == []
        listed = Outgoing(["localhost"], leading(HERE))
        assert a_source(gitlab, tmp_path, url=named(gitlab, host), outgoing=listed).test("", Job())

    def test_others_than_those_that_are_listed_get_nothing(self, gitlab: GitLab, tmp_path: Path) -> None:
        outgoing = Outgoing(["gitlab.example.com", f"{HERE}:1"], leading(HERE))
        for url in (gitlab.url, named(gitlab, "gitlab.test")):
            with refusal() as refused:
                a_source(gitlab, tmp_path, url=url, outgoing=outgoing).test("", Job())
            assert refused.reason == "HOST_NOT_ALLOWED"
        assert gitlab.requests == []

    @pytest.mark.parametrize("addresses", [HERE, f"192.0.2.1 {HERE}"])
    def test_a_name_that_leads_to_loopback_gets_nothing(self, gitlab: GitLab, tmp_path: Path, addresses: str) -> None:
        outgoing = Outgoing(["gitlab.test"], leading(addresses))
        with refusal() as refused:
            a_source(gitlab, tmp_path, url=named(gitlab, "gitlab.test"), outgoing=outgoing).test("", Job())
        assert refused.reason == "HOST_NOT_ALLOWED"
        assert refused.message.startswith("gitlab.test is at 127.0.0.1, a loopback address")
        assert gitlab.requests == []

    def test_a_name_that_leads_there_only_the_second_time_gets_nothing(self, gitlab: GitLab, tmp_path: Path) -> None:
        outgoing = Outgoing(["localhost:1", "*", ELSEWHERE], leading(ELSEWHERE, HERE))
        source = a_source(gitlab, tmp_path, url=named(gitlab, "gitlab.test"), outgoing=outgoing)
        for reason in ("SOURCE_UNREACHABLE", "HOST_NOT_ALLOWED"):
            with refusal() as refused:
                source.test("", Job())
            assert refused.reason == reason
        assert gitlab.requests == []

    def test_the_system_is_not_asked_again(self, gitlab: GitLab, tmp_path: Path) -> None:
        outgoing = Outgoing(["*", ELSEWHERE], leading(ELSEWHERE))  # the system itself knows where `localhost` is
        with refusal() as refused:
            a_source(gitlab, tmp_path, url=named(gitlab, "localhost"), outgoing=outgoing).test("", Job())
        assert refused.reason == "SOURCE_UNREACHABLE"
        assert gitlab.requests == []

    def test_the_next_address_is_tried(self, gitlab: GitLab, tmp_path: Path) -> None:
        outgoing = Outgoing(["localhost"], leading(f"{ELSEWHERE} {HERE}"))
        assert a_source(gitlab, tmp_path, url=named(gitlab, "gitlab.test"), outgoing=outgoing).test("", Job())

    def test_certificates_are_held_against_the_name_and_not_the_address(self, tmp_path: Path) -> None:
        with GitLab(tmp_path / "tls", tls=True) as gitlab:
            outgoing = Outgoing(["localhost"], leading(HERE))
            ours = {"ca_certificates": gitlab.ca_pem, "outgoing": outgoing}
            assert a_source(gitlab, tmp_path, url=named(gitlab, "localhost"), **ours).test("", Job())  # type: ignore[arg-type]
            with refusal() as refused:
                a_source(gitlab, tmp_path, url=named(gitlab, "gitlab.test"), **ours).test("", Job())  # type: ignore[arg-type]
            assert refused.reason == "SOURCE_CERTIFICATE_INVALID"


class TestWhereItLeads:
    @pytest.mark.parametrize("pattern", ["*/repository/archive*", "*/blobs/*"])
    def test_files_are_redirected_to_hosts_that_are_allowed_and_to_no_others(
        self, gitlab: GitLab, project: Project, tmp_path: Path, pattern: str
    ) -> None:
        commit = project.repo.commit(FILES if "archive" in pattern else {"a": b"1"})
        gitlab.faults.always(pattern, Redirect(gitlab.elsewhere_url))
        with refusal() as refused:
            contents(a_source(gitlab, tmp_path, outgoing=ONLY_HERE), PATH, commit)
        assert refused.reason == "HOST_NOT_ALLOWED"
        assert refused.message.startswith(ELSEWHERE)
        assert not [request for request in gitlab.requests if request.host == "elsewhere"]
        with contextlib.suppress(Exception):  # it has no archives and no blobs, but is asked for them
            contents(a_source(gitlab, tmp_path, outgoing=BOTH), PATH, commit)
        assert [request for request in gitlab.requests if request.host == "elsewhere"]

    def test_answers_are_redirected_nowhere(self, gitlab: GitLab, tmp_path: Path) -> None:
        gitlab.faults.always("/api/*", Redirect(gitlab.elsewhere_url))
        with refusal() as refused:
            a_source(gitlab, tmp_path, outgoing=ONLY_HERE).test("", Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert not [request for request in gitlab.requests if request.host == "elsewhere"]

    @pytest.mark.parametrize("storage", ["redirect", "direct"])
    def test_git_lfs_leads_to_hosts_that_are_allowed_and_to_no_others(
        self, gitlab: GitLab, project: Project, tmp_path: Path, storage: str
    ) -> None:
        gitlab.lfs_storage = storage  # type: ignore[assignment]
        files: dict[str, Content] = {"large.bin": project.lfs_object(b"1" * 5000)}
        commit = project.repo.commit({".gitattributes": b"*.bin filter=lfs\n", **files})
        with refusal() as refused:
            contents(a_source(gitlab, tmp_path, outgoing=ONLY_HERE), PATH, commit)
        assert refused.reason == "HOST_NOT_ALLOWED"
        assert not [request for request in gitlab.requests if request.host == "elsewhere"]
        found = contents(a_source(gitlab, tmp_path, outgoing=BOTH), PATH, commit)
        assert found["large.bin"] == b"1" * 5000

    def test_what_leads_nowhere_else_needs_nothing_else(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        commit = project.repo.commit(FILES)
        assert contents(a_source(gitlab, tmp_path, outgoing=ONLY_HERE), PATH, commit) == CONTENTS


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that keeps what it is asked for, and gives nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            server: Proxy

            def do_GET(self) -> None:
                self.server.asked.append(self.path)
                self.send_error(404)

            def do_CONNECT(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__((HERE, 0), Handler)


class TestProxies:
    @pytest.fixture
    def proxy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
        with Proxy() as proxy:
            thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"http://{HERE}:{proxy.server_address[1]}")
            yield proxy
            proxy.shutdown()
            thread.join()

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_they_are_asked_for_what_is_allowed(
        self, gitlab: GitLab, proxy: Proxy, tmp_path: Path, scheme: str
    ) -> None:
        outgoing = Outgoing(["gitlab.test"], unknown)
        with refusal():
            a_source(gitlab, tmp_path, url=f"{scheme}://gitlab.test", outgoing=outgoing).test("", Job())
        assert all("gitlab.test" in asked for asked in proxy.asked)
        assert proxy.asked

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_they_are_not_asked_for_what_is_not(
        self, gitlab: GitLab, proxy: Proxy, tmp_path: Path, scheme: str
    ) -> None:
        metadata = Outgoing((), leading("169.254.169.254"))
        for outgoing in (Outgoing(["other.test"], unknown), Outgoing(["10.0.0.0/8"], unknown), metadata):
            with refusal() as refused:
                a_source(gitlab, tmp_path, url=f"{scheme}://gitlab.test", outgoing=outgoing).test("", Job())
            assert refused.reason == "HOST_NOT_ALLOWED"
        assert proxy.asked == []


def unknown(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

"""A GitLab that is away, slow, busy, hostile or something else: each in a sentence, and never with the token."""

import logging
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Cancelled, Job
from modelhost.server.errors import DomainError, InvalidRequest
from modelhost.server.sources import Selection
from modelhost.server.sources.gitlab.place import parse_place
from modelhost.server.sources.gitlab.source import GitLabSource
from modelhost.server.sources.snapshots import SnapshotStore
from tests.gitlab_sources import CONTENTS, FILES, QUICK, a_source, contents, refusal
from tests.gitlab_stand_in import (
    Answer,
    Certificate,
    CutOff,
    GitLab,
    HangUp,
    Huge,
    Instead,
    LoginPage,
    Malformed,
    Project,
    Redirect,
    Slow,
    Status,
    Trickle,
)
from tests.gitlab_stand_in.answers import json_answer
from tests.local_hosts import LOCAL

PATH = "energy/forecasting/turbine"
HOLD = 30.0  # seconds that nobody waits for


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


@pytest.fixture
def source(gitlab: GitLab, tmp_path: Path) -> GitLabSource:
    return a_source(gitlab, tmp_path)


def elsewhere(url: str, tmp_path: Path) -> GitLabSource:
    return GitLabSource(parse_place(url), "glpat-nobody", tmp_path / "cache", LOCAL, limits=QUICK)


class TestUnreachable:
    def test_an_unknown_host(self, tmp_path: Path) -> None:
        with refusal() as refused:
            elsewhere("https://gitlab.invalid", tmp_path).test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNREACHABLE", "the host of https://gitlab.invalid has no known address",
        )  # fmt: skip

    def test_a_port_that_nobody_listens_on(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with refusal() as refused:
                elsewhere(url, tmp_path).test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNREACHABLE", f"{url} refuses the connection: nothing listens there",
        )  # fmt: skip

    def test_a_server_that_says_nothing(self, gitlab: GitLab, tmp_path: Path) -> None:
        gitlab.faults.always("*", Slow(HOLD))
        with refusal() as refused:
            a_source(gitlab, tmp_path, read_timeout=0.2).test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNREACHABLE", f"{gitlab.url} did not answer in time (0.2 s)",
        )  # fmt: skip

    def test_a_server_that_trickles(self, gitlab: GitLab, tmp_path: Path) -> None:
        gitlab.faults.always("*", Trickle(1, 0.05))
        with refusal() as refused:
            a_source(gitlab, tmp_path, answer_timeout=0.3).test("", Job())
        assert refused.reason == "SOURCE_UNREACHABLE"

    def test_a_file_that_trickles(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        commit = project.repo.commit({"a": bytes(10_000)})
        gitlab.faults.always("*/blobs/*", Trickle(1, 0.05))
        with refusal() as refused:
            contents(a_source(gitlab, tmp_path, download_timeout=0.3), PATH, commit)
        assert refused.reason == "SOURCE_UNREACHABLE"

    def test_a_server_that_always_hangs_up(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.always("*", HangUp())
        with refusal() as refused:
            source.test("", Job())
        assert refused.reason == "SOURCE_UNREACHABLE"
        assert len(gitlab.requests) == QUICK.attempts


class TestNotAGitLab:
    @pytest.mark.parametrize(
        "fault",
        [
            LoginPage(),
            LoginPage(404),
            Malformed(),
            Malformed("[]"),
            Malformed("17"),
            Malformed("{}"),
            Instead(Answer(404, b"404 page not found\n", content_type="text/plain")),
            Instead(Answer(200, b"", content_type="application/json")),
        ],
    )
    def test_says_so(self, gitlab: GitLab, source: GitLabSource, fault: object) -> None:
        gitlab.faults.always("*", fault)  # type: ignore[arg-type]
        with refusal() as refused:
            source.test("", Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert refused.message.startswith(f"{gitlab.url} does not answer as a GitLab does: ")

    def test_says_so_of_what_asks_to_sign_in(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.always("/api/*", Redirect("http://sso.example.com/users/sign_in"))
        with refusal() as refused:
            source.test("", Job())
        assert refused.message.endswith("it asks to sign in where GitLab has its API")

    def test_a_gitlab_without_a_version(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.always("*/version", Instead(json_answer({"error": "404 Not Found"}, 404)))
        with refusal() as refused:
            source.test("", Job())
        assert refused.message == f"{gitlab.url} does not answer as a GitLab does: it has no version"

    def test_a_group_in_the_address(self, gitlab: GitLab, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, url=f"{gitlab.url}/energy/forecasting").test("", Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert "a group is given as the namespace" in refused.error.hint

    @pytest.mark.parametrize(
        "call",
        [
            lambda source: source.projects("", "", 10, Job()),
            lambda source: source.refs(PATH, Job()),
            lambda source: source.resolve(PATH, "main", Job()),
            lambda source: source.tree(PATH, "1" * 40, Job()),
        ],
    )
    @pytest.mark.parametrize("text", ["[[]]", '{"a": 1}', "[17]", '"x"', "null", '[{"id": "x"}]'])
    def test_answers_of_another_form(
        self, gitlab: GitLab, project: Project, source: GitLabSource, call: Callable[[GitLabSource], object], text: str
    ) -> None:
        project.repo.commit(FILES)
        gitlab.faults.always(lambda request: not request.path.endswith("turbine"), Malformed(text))
        with refusal() as refused:
            call(source)
        assert refused.reason == "SOURCE_UNAVAILABLE"

    def test_an_answer_without_end(self, gitlab: GitLab, tmp_path: Path) -> None:
        gitlab.faults.always("*", Huge(100 * 1024**2))
        with refusal() as refused:
            a_source(gitlab, tmp_path, max_answer_bytes=1_000_000).test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNAVAILABLE", f"{gitlab.url} answers with more bytes than any good answer has",
        )  # fmt: skip

    def test_an_answer_that_is_cut_off(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.times(2, "*/version", CutOff())
        assert source.test("", Job())
        gitlab.faults.always("*/version", CutOff())
        with refusal() as refused:
            source.test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNAVAILABLE", f"{gitlab.url} ends its answers before they are whole",
        )  # fmt: skip


class TestCertificates:
    @pytest.mark.parametrize(
        ("certificate", "problem"),
        [
            (Certificate.EXPIRED, "has expired"),
            (Certificate.WRONG_HOST, "is for another host"),
            (Certificate.SELF_SIGNED, "is from no authority that is trusted here"),
        ],
    )
    def test_what_is_wrong_with_one(self, tmp_path: Path, certificate: Certificate, problem: str) -> None:
        with GitLab(tmp_path / "gitlab", tls=certificate) as gitlab:
            with refusal() as refused:
                a_source(gitlab, tmp_path, ca_certificates=gitlab.ca_pem).test("", Job())
            assert (refused.reason, refused.message) == (
                "SOURCE_CERTIFICATE_INVALID", f"the certificate of {gitlab.url} {problem}",
            )  # fmt: skip
            assert gitlab.requests == []
            assert a_source(gitlab, tmp_path, insecure_skip_verify=True).test("", Job())

    def test_an_own_authority_is_trusted_if_it_is_given(self, tmp_path: Path) -> None:
        with GitLab(tmp_path / "gitlab", tls=True) as gitlab:
            project = gitlab.project(PATH)
            gitlab.lfs_storage = "direct"
            commit = project.repo.commit(FILES | {"large": project.lfs_object(b"1" * 5000)})
            with refusal() as refused:
                a_source(gitlab, tmp_path).test("", Job())
            assert refused.reason == "SOURCE_CERTIFICATE_INVALID"
            assert "give that one's certificate" in refused.error.hint
            source = a_source(gitlab, tmp_path, ca_certificates=gitlab.ca_pem)
            assert contents(source, PATH, commit) == CONTENTS | {"large": b"1" * 5000}

    def test_no_variable_of_the_environment_adds_an_authority(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with GitLab(tmp_path / "gitlab", tls=True) as gitlab:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(gitlab.ca_file))
            with refusal() as refused:
                a_source(gitlab, tmp_path).test("", Job())
            assert refused.reason == "SOURCE_CERTIFICATE_INVALID"

    def test_tls_where_there_is_none(self, gitlab: GitLab, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, url=gitlab.url.replace("http:", "https:")).test("", Job())
        assert refused.reason == "SOURCE_UNREACHABLE"
        assert refused.message.startswith("there is no TLS at ")

    def test_plain_http_is_not_led_to_https(self, tmp_path: Path) -> None:
        with GitLab(tmp_path / "gitlab", tls=True) as gitlab:
            with refusal() as refused:
                a_source(gitlab, tmp_path, url=gitlab.plain_url, ca_certificates=gitlab.ca_pem).test("", Job())
            assert refused.reason == "SOURCE_UNAVAILABLE"
            assert f"redirects to {gitlab.url}/api/v4/" in refused.message
            assert refused.error.hint == "If that is the GitLab, register its address."


class TestTryingAgain:
    @pytest.mark.parametrize(
        "fault", [Status(429, retry_after=0), Status(429), Status(500), Status(502), Status(503, 0), Status(504)]
    )
    def test_after_what_passes(self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object) -> None:
        commit = project.repo.commit(FILES)
        for pattern in ("*/projects/*turbine", "*/tree", "*/archive*"):
            gitlab.faults.times(3, pattern, fault)  # type: ignore[arg-type]
        assert contents(source, PATH, commit) == CONTENTS

    @pytest.mark.parametrize("fault", [HangUp(), CutOff(after=3)])
    def test_after_a_lost_connection(
        self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object
    ) -> None:
        commit = project.repo.commit(FILES)
        for pattern in ("*/projects/*turbine", "*/tree"):
            gitlab.faults.times(3, pattern, fault)  # type: ignore[arg-type]
        assert contents(source, PATH, commit) == CONTENTS

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (Status(429, 0), "has had too many requests, also after waiting"),
            (Status(500), "answers with status 500: 500 Internal Server Error"),
            (Status(503), "answers with status 503"),
        ],
    )
    def test_has_an_end(self, gitlab: GitLab, source: GitLabSource, fault: object, message: str) -> None:
        gitlab.faults.always("*/self", fault)  # type: ignore[arg-type]
        with refusal() as refused:
            source.test("", Job())
        assert (refused.reason, refused.message) == ("SOURCE_UNAVAILABLE", f"{gitlab.url} {message}")
        assert len(gitlab.requests) == QUICK.attempts

    def test_is_left_where_the_wait_would_be_too_long(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.always("*", Status(429, retry_after=3600))
        with refusal() as refused:
            source.test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_UNAVAILABLE", f"{gitlab.url} answers 429 and wants to be asked again only in 3600 s",
        )  # fmt: skip
        assert len(gitlab.requests) == 1

    def test_says_in_the_log_what_it_waits_for(self, gitlab: GitLab, source: GitLabSource) -> None:
        gitlab.faults.once("*/self", Status(502))
        lines: list[str] = []
        source.test("", Job(lambda stream, line: lines.append(line)))
        assert lines == ["GitLab answers 502; the next try is in 0.0 s"]

    @pytest.mark.parametrize("fault", [Status(429, retry_after=100), Slow(HOLD), Trickle(1, 0.05)])
    def test_and_waiting_end_when_the_job_is_cancelled(
        self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object
    ) -> None:
        commit = project.repo.commit({"a": bytes(10_000)})
        gitlab.faults.always("*/blobs/*", fault)  # type: ignore[arg-type]
        job = Job()
        entries = source.tree(PATH, commit, job)

        def cancel_once_asked() -> None:
            while not gitlab.requests_to("*/blobs/*"):
                time.sleep(0.01)
            job.cancel()

        threading.Thread(target=cancel_once_asked).start()
        with pytest.raises(Cancelled):
            list(source.blobs(PATH, commit, entries, job))
        assert len(gitlab.requests_to("*/blobs/*")) == 1


class TestTheToken:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_is_not_carried_to_another_host(
        self, gitlab: GitLab, project: Project, tmp_path: Path, status: int
    ) -> None:
        token = gitlab.token()
        commit = project.repo.commit(FILES | {"large": project.lfs_object(b"1" * 5000)})
        source = a_source(gitlab, tmp_path, token=token)
        entries = source.tree(PATH, commit, Job())
        gitlab.faults.always("*", Redirect(gitlab.elsewhere_url, status))
        for call in (
            lambda: source.test(PATH, Job()),
            lambda: source.projects("", "", 10, Job()),
            lambda: source.read_file(PATH, commit, "main.py", 10, Job()),
            lambda: list(source.blobs(PATH, commit, entries, Job())),
            lambda: list(source.blobs(PATH, commit, entries[:2], Job())),
        ):
            with refusal() as refused:
                call()
            assert refused.reason in ("SOURCE_UNAVAILABLE", "PATH_NOT_FOUND", "REF_NOT_FOUND")
        assert gitlab.requests
        for request in gitlab.requests:
            if request.host == "elsewhere":
                assert str(token) not in str(request.headers)
                assert request.token == ""

    def test_is_not_carried_along_by_links_of_pages(
        self, gitlab: GitLab, project: Project, source: GitLabSource
    ) -> None:
        commit = project.repo.commit(FILES)
        entry = {"id": "1" * 40, "name": "a", "type": "blob", "path": "a", "mode": "100644"}

        def lead_to(path: str) -> None:
            link = f'<{gitlab.elsewhere_url}{path}>; rel="next"'
            gitlab.faults.once("*/repository/tree", Instead(json_answer([entry], headers=(("Link", link),))))

        lead_to(f"/api/v4/projects/1/repository/tree?ref={commit}")  # a GitLab that is wrong about its address
        assert len(source.tree(PATH, commit, Job())) > 1
        lead_to("/tree")
        with refusal() as refused:
            source.tree(PATH, commit, Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert {request.host for request in gitlab.requests} == {"gitlab"}

    def test_is_nowhere_but_in_headers(
        self, gitlab: GitLab, project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in messages, values, chains of exceptions, tracebacks, reprs, logs, job lines, names or files."""
        caplog.set_level(logging.DEBUG)
        token = gitlab.token()
        commit = project.repo.commit(FILES | {"large": project.lfs_object(b"1" * 5000)})
        echo = Instead(json_answer({"message": f"bad token {token}", "error": str(token)}, 400))
        lines: list[str] = []
        seen: list[str] = []
        source = a_source(gitlab, tmp_path, token=token, read_timeout=0.2)
        store = SnapshotStore(tmp_path / "snapshots")
        job = Job(lambda stream, line: lines.append(line))
        to_itself = Redirect(f"{gitlab.elsewhere_url}/?private_token={token}")
        faults = (echo, Status(401), Status(403), Status(500), LoginPage(), Malformed(), HangUp(), CutOff(), to_itself)
        for fault in (*faults, Slow(0.4), None):
            gitlab.faults.clear()
            if fault is not None:
                for pattern in ("*/self", "*/archive*", "*/blobs/*", "*/objects/*"):
                    gitlab.faults.always(pattern, fault)
            for call in (lambda: source.test("", job), lambda: store.take(source, PATH, commit, Selection(), job)):
                try:
                    seen.append(repr(call()))
                except DomainError as error:
                    seen += [*traceback.format_exception(error), error.message, error.hint, repr(error)]
                    seen += [repr(vars(each)) for each in chain(error)]
            seen.append(repr(vars(source)))
        token.expire()
        with refusal() as refused:
            source.test("", Job())
        seen.append(repr(vars(refused.error)))
        assert len(gitlab.requests) > 20
        assert len(lines) > 2
        text = "\n".join([*seen, *lines, *(record.getMessage() for record in caplog.records)])
        assert str(token) not in text
        files = [path for path in tmp_path.rglob("*") if gitlab.world.root not in path.parents]
        assert not [path for path in files if str(token) in str(path)]
        assert not [path for path in files if path.is_file() and str(token).encode() in path.read_bytes()]

    @pytest.mark.parametrize("token", ["", "glpat abc", "glpat\n", "glpät", "x" * 2000])
    def test_that_is_none_is_refused_without_being_shown(self, tmp_path: Path, token: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            GitLabSource(parse_place("https://gitlab.example.com"), token, tmp_path, LOCAL)
        assert caught.value.field == "gitlab.token"
        assert not token or token not in str(caught.value)

    def test_is_not_replaced_by_a_netrc(
        self, gitlab: GitLab, project: Project, source: GitLabSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hunter2\nmachine 127.0.0.2 login me password hunter2\n")
        monkeypatch.setenv("NETRC", str(netrc))
        gitlab.lfs_storage = "direct"
        commit = project.repo.commit(FILES | {"large": project.lfs_object(b"1" * 5000)})
        assert contents(source, PATH, commit)["large"] == b"1" * 5000
        assert "hunter2" not in {password for request in gitlab.requests for password in request.basic}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_the_reasons_are_those_of_the_api() -> None:
    import modelhost.server.sources.gitlab.errors as module

    text = module.__doc__ or ""
    assert set(re.findall(r"SOURCE_\w+", text)) == {
        "SOURCE_UNREACHABLE",
        "SOURCE_CERTIFICATE_INVALID",
        "SOURCE_TOKEN_EXPIRED",
        "SOURCE_ACCESS_DENIED",
        "SOURCE_UNAVAILABLE",
    }

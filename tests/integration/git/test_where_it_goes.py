"""Git goes to hosts that are allowed, at the addresses that were checked: not where a name leads a moment later, nor
where a redirect does."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import Conflict, DomainError, Unavailable, reason_name
from modelhost.server.sources.git.source import GitSource
from modelhost.server.sources.outgoing import Outgoing
from tests.git_repos import Repo
from tests.git_web import PASSWORD, Web, serving
from tests.gitlab_stand_in.certificates import Authority, Certificate
from tests.integration.git.conftest import git_daemon
from tests.integration.git.files import CONTENTS, FILES, contents

HERE, THERE = "127.0.0.1", "127.0.0.2"


def leading(**names: str) -> Callable[[str, int], list[str]]:
    """Looks names up: `_` stands for a dot, addresses are parted by blanks. No other has any."""
    known = {name.replace("_", "."): addresses.split() for name, addresses in names.items()}

    def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known[host]

    return resolve


def refusal(source: GitSource) -> DomainError:
    with pytest.raises(DomainError) as refused:
        source.test("", Job())
    return refused.value


def reason_of(source: GitSource) -> str:
    return reason_name(refusal(source).reason)


class Listening:
    """A port that takes connections and keeps what is said first on each."""

    def __init__(self, host: str) -> None:
        self._server = socket.create_server((host, 0))
        self.port = self._server.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Listening":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection:
                    length = connection.recv(4, socket.MSG_WAITALL)  # Git may send this by itself
                    self.heard.append(length + connection.recv(1000))


@pytest.fixture
def published(repo: Repo) -> Repo:
    """The repository, ready to be served as plain files."""
    repo.commit(FILES)
    repo.git("update-server-info")
    return repo


@pytest.fixture
def web(published: Repo) -> Iterator[Web]:
    with serving(Web(published.path.parent)) as web:
        yield web


class TestWithoutAList:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
    @pytest.mark.parametrize("scheme", ["http", "https", "git", "ssh"])
    def test_nobody_gets_to_loopback(self, web: Web, tmp_path: Path, scheme: str, host: str) -> None:
        url = f"{scheme}://{host}:{web.server_address[1]}/model.git"
        refused = refusal(GitSource(url, tmp_path / "cache", Outgoing()))
        assert reason_name(refused.reason) == "HOST_NOT_ALLOWED"
        assert "127.0.0.1" in refused.message
        assert "--git-host 127.0.0.1" in refused.hint
        assert web.hosts == []

    @pytest.mark.parametrize("url", ["git@127.0.0.1:model.git", "localhost:model.git", "git@[::1]:model.git"])
    def test_nor_by_the_short_form_of_ssh(self, tmp_path: Path, url: str) -> None:
        assert reason_of(GitSource(url, tmp_path / "cache", Outgoing())) == "HOST_NOT_ALLOWED"

    def test_a_name_that_leads_there_gets_no_password(self, web: Web, tmp_path: Path) -> None:
        url = f"http://ada:{PASSWORD}@git.test:{web.server_address[1]}/model.git"
        refused = refusal(GitSource(url, tmp_path / "cache", Outgoing((), leading(git_test=f"192.0.2.1 {HERE}"))))
        assert refused.message.startswith("git.test is at 127.0.0.1, a loopback address")
        assert web.hosts == []
        assert PASSWORD not in repr((refused.values, refused.hint))

    def test_repositories_in_folders_are_read(self, repo: Repo, tmp_path: Path) -> None:
        commit = repo.commit(FILES)
        for place in (str(repo.path), repo.path.as_uri()):
            assert contents(GitSource(place, tmp_path / "cache", Outgoing()), commit) == CONTENTS


class TestWithAList:
    def test_a_listed_host_is_read(self, web: Web, published: Repo, tmp_path: Path) -> None:
        outgoing = Outgoing([f"git.test:{web.server_address[1]}", HERE], leading(git_test=HERE))
        url = f"http://ada:{PASSWORD}@git.test:{web.server_address[1]}/model.git"
        source = GitSource(url, tmp_path / "cache", outgoing)
        assert contents(source, source.resolve("", "main", Job())) == CONTENTS
        assert set(web.hosts) == {f"git.test:{web.server_address[1]}"}

    def test_a_password_goes_along_however_the_address_is_spelt(self, web: Web, tmp_path: Path) -> None:
        url = f"http://ada:{PASSWORD}@127.1:{web.server_address[1]}/model.git"
        assert GitSource(url, tmp_path / "cache", Outgoing([HERE])).test("", Job()).ref_count == 1

    def test_others_are_not_and_neither_are_folders(self, web: Web, published: Repo, tmp_path: Path) -> None:
        outgoing = Outgoing(["git.test"], leading(git_test=HERE))
        for place in (web.url() + "/model.git", str(published.path), published.path.as_uri(), "git@host:x"):
            assert reason_of(GitSource(place, tmp_path / "cache", outgoing)) == "HOST_NOT_ALLOWED"
        with pytest.raises(Conflict, match="whose folders are not among"):
            GitSource(str(published.path.parent), tmp_path / "cache", outgoing).projects("", "", 10, Job())
        assert web.hosts == []

    def test_what_was_fetched_before_is_not_given_out_where_the_place_is_no_longer_allowed(
        self, repo: Repo, tmp_path: Path
    ) -> None:
        commit = repo.commit(FILES)
        contents(GitSource(str(repo.path), tmp_path / "cache", Outgoing()), commit)
        with pytest.raises(Conflict, match="whose folders are not among"):
            GitSource(str(repo.path), tmp_path / "cache", Outgoing(["git.test"])).tree("", commit, Job())


class TestNamesThatLeadElsewhereLater:
    """The system itself knows `localhost`: a command that looked it up again would get to 127.0.0.1."""

    def test_over_http(self, published: Repo, tmp_path: Path) -> None:
        outgoing = Outgoing(["*", THERE], leading(localhost=THERE))
        with serving(Web(published.path.parent)) as trap:
            url = f"http://ada:{PASSWORD}@localhost:{trap.server_address[1]}/model.git"
            assert reason_of(GitSource(url, tmp_path / "cache", outgoing)) == "SOURCE_UNREACHABLE"
            assert trap.hosts == []
        with serving(Web(published.path.parent, host=THERE)) as meant:
            url = f"http://ada:{PASSWORD}@localhost:{meant.server_address[1]}/model.git"
            assert GitSource(url, tmp_path / "cache", outgoing).test("", Job()).ref_count == 1

    def test_over_git(self, tmp_path: Path) -> None:
        outgoing = Outgoing(["*", THERE], leading(localhost=THERE))
        with Listening(HERE) as trap:
            source = GitSource(f"git://localhost:{trap.port}/model.git", tmp_path / "cache", outgoing)
            assert reason_of(source) == "SOURCE_UNREACHABLE"
        assert trap.heard == []
        with Listening(THERE) as meant:
            refusal(GitSource(f"git://localhost:{meant.port}/model.git", tmp_path / "cache", outgoing))
        assert f"host=localhost:{meant.port}".encode() in meant.heard[0]

    def test_over_ssh(self, tmp_path: Path) -> None:
        outgoing = Outgoing(["*", THERE], leading(localhost=THERE))
        with Listening(HERE) as trap:
            source = GitSource(f"ssh://git@localhost:{trap.port}/model.git", tmp_path / "cache", outgoing)
            assert reason_of(source) == "SOURCE_UNREACHABLE"
        assert trap.heard == []
        with Listening(THERE) as meant:
            refusal(GitSource(f"ssh://git@localhost:{meant.port}/model.git", tmp_path / "cache", outgoing))
        assert meant.heard[0].startswith(b"SSH-2.0-")

    def test_a_name_that_has_no_address_is_not_looked_up_again(self, published: Repo, tmp_path: Path) -> None:
        with Listening(HERE) as trap:
            for scheme in ("http", "git", "ssh"):
                url = f"{scheme}://localhost:{trap.port}/model.git"
                source = GitSource(url, tmp_path / "cache", Outgoing(["*", "localhost"], leading()))
                with pytest.raises(Unavailable, match="has no known address"):
                    source.test("", Job())
        assert trap.heard == []

    def test_of_several_addresses_one_that_answers_will_do(self, repo: Repo, tmp_path: Path) -> None:
        commit = repo.commit(FILES)
        outgoing = Outgoing(["localhost"], leading(git_test=f"{THERE} {HERE}"))
        with git_daemon(repo.path.parent) as url:
            source = GitSource(url.replace(HERE, "git.test") + "/model.git", tmp_path / "cache", outgoing)
            assert contents(source, commit) == CONTENTS


class TestRedirects:
    def test_to_the_name_that_ends_in_git_they_are_followed(self, published: Repo, tmp_path: Path) -> None:
        with serving(Web(published.path.parent, adds_suffix=True)) as web:
            source = GitSource(web.url(f"ada:{PASSWORD}@") + "/model", tmp_path / "cache", Outgoing([HERE]))
            assert contents(source, source.resolve("", "main", Job())) == CONTENTS

    def test_to_a_host_that_is_not_allowed_they_are_not(self, published: Repo, tmp_path: Path) -> None:
        with serving(Web(published.path.parent, host=THERE)) as other:
            with serving(Web(published.path.parent, redirect=other.url())) as web:
                url = web.url(f"ada:{PASSWORD}@") + "/model.git"
                refused = refusal(GitSource(url, tmp_path / "cache", Outgoing([HERE])))
            assert reason_name(refused.reason) == "HOST_NOT_ALLOWED"
            assert refused.message.startswith(THERE)
            assert other.hosts == []

    def test_to_a_host_that_is_allowed_they_are_without_the_password(self, published: Repo, tmp_path: Path) -> None:
        with serving(Web(published.path.parent, host=THERE)) as other:
            with serving(Web(published.path.parent, redirect=other.url())) as web:
                url = web.url(f"ada:{PASSWORD}@") + "/model.git"
                refused = refusal(GitSource(url, tmp_path / "cache", Outgoing([HERE, THERE])))
            assert reason_name(refused.reason) == "SOURCE_ACCESS_DENIED"
            assert other.authorizations
            assert not any(other.authorizations)

    def test_in_circles_they_are_given_up(self, published: Repo, tmp_path: Path) -> None:
        with serving(Web(published.path.parent, redirect="/x")) as web:
            refused = refusal(GitSource(web.url() + "/model.git", tmp_path / "cache", Outgoing([HERE])))
        assert refused.message.endswith("is redirected too often")

    def test_to_what_is_no_repository_they_are_told(self, published: Repo, tmp_path: Path) -> None:
        with serving(Web(published.path.parent, redirect="/users/sign_in?from=")) as web:
            refused = refusal(GitSource(web.url() + "/model.git", tmp_path / "cache", Outgoing([HERE])))
        assert refused.message.endswith(f" redirects to {web.url()}/users/sign_in, where no repository is")

    def test_of_a_host_with_an_authority_of_its_own_but_never_out_of_tls(
        self, published: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = Authority(tmp_path / "tls")
        monkeypatch.setenv("GIT_SSL_CAINFO", str(authority.file))
        for redirect, adds_suffix in (("", True), ("http://127.0.0.1:9", False)):
            secure = Web(published.path.parent, redirect=redirect, adds_suffix=adds_suffix)
            context = authority.context(Certificate.GOOD, {"git.test"})
            secure.socket = context.wrap_socket(secure.socket, server_side=True)
            outgoing = Outgoing(["git.test", HERE], leading(git_test=HERE))
            with serving(secure):
                url = f"https://ada:{PASSWORD}@git.test:{secure.server_address[1]}/model"
                source = GitSource(url, tmp_path / "cache", outgoing)
                if adds_suffix:
                    assert source.test("", Job()).ref_count == 1
                else:
                    assert refusal(source).message.endswith(", where nothing is encrypted")


class TestProxies:
    """They are whoever runs the server's, and are gone to as they are; what they are asked for is checked."""

    @pytest.fixture
    def proxy(self, published: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
        with serving(Web(published.path.parent)) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url())
            yield proxy

    def test_what_only_the_proxy_can_look_up_is_asked_of_it(self, proxy: Web, tmp_path: Path) -> None:
        refusal(GitSource("http://git.test/x.git", tmp_path / "cache", Outgoing((), leading())))
        assert set(proxy.hosts) == {"git.test"}

    @pytest.mark.parametrize("entries", [(), ("other.test",), ("10.0.0.0/8",)])
    def test_what_is_not_allowed_is_not_asked_of_it(self, proxy: Web, tmp_path: Path, entries: tuple[str, ...]) -> None:
        resolve = leading(git_test="169.254.169.254") if not entries else leading()
        assert reason_of(GitSource("http://git.test/x.git", tmp_path / "cache", Outgoing(entries, resolve))) == (
            "HOST_NOT_ALLOWED"
        )
        assert proxy.hosts == []

    @pytest.mark.parametrize("exempt", ["git.test", ".test", "other,TEST", "*"])
    def test_hosts_that_need_none_are_gone_to_directly(
        self, proxy: Web, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exempt: str
    ) -> None:
        monkeypatch.setenv("no_proxy", exempt)
        url = f"http://ada:{PASSWORD}@git.test:{web.server_address[1]}/model.git"
        outgoing = Outgoing(["git.test", HERE], leading(git_test=HERE))
        assert GitSource(url, tmp_path / "cache", outgoing).test("", Job()).ref_count == 1
        assert proxy.hosts == []

    def test_a_network_may_need_none(
        self, proxy: Web, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        url = web.url(f"ada:{PASSWORD}@") + "/model.git"
        assert GitSource(url, tmp_path / "cache", Outgoing([HERE])).test("", Job()).ref_count == 1
        assert proxy.hosts == []


class TestSsh:
    """SSH's own configuration may say that a host is another one; a program before it on PATH hands one in."""

    @pytest.fixture
    def configure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
        """Gives ssh that configuration; returns the file that says how it is called, a line each time."""

        def configure(text: str) -> Path:
            folder, calls = tmp_path / "bin", tmp_path / "calls"
            folder.mkdir()
            (folder / "config").write_text(text)
            program = folder / "ssh"
            program.write_text(
                f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n'
            )
            program.chmod(0o755)
            monkeypatch.setenv("PATH", str(folder), prepend=":")
            return calls

        return configure

    def test_keys_of_hosts_are_known_by_the_name_as_ever(
        self, configure: Callable[[str], Path], tmp_path: Path
    ) -> None:
        calls = configure("Host b.test\n Port 2222\nHost c.test\n HostKeyAlias farm\n")
        outgoing = Outgoing(["*", THERE], lambda host, port: [THERE])
        for url in ("git@a.test:x", "b.test:x", "c.test:x", "ssh://git@a.test:99/x"):
            refusal(GitSource(url, tmp_path / "cache", outgoing))
        called = [line for line in calls.read_text().splitlines() if " -G " not in line]
        assert [line.partition("HostKeyAlias=")[2].split()[0] for line in called] == [
            "a.test", "[b.test]:2222", "farm", "[a.test]:99",
        ]  # fmt: skip
        assert all("HostName=127.0.0.2" in line for line in called)

    def test_an_alias_is_checked_by_its_name_and_by_where_it_leads(
        self, configure: Callable[[str], Path], tmp_path: Path
    ) -> None:
        with Listening(HERE) as meant:
            configure(f"Host alias\n HostName 127.0.0.1\n Port {meant.port}\n")
            source = GitSource("git@alias:x", tmp_path / "cache", Outgoing((), leading()))
            assert refusal(source).message.startswith("alias is at 127.0.0.1, a loopback address")
            assert reason_of(GitSource("git@alias:x", tmp_path / "cache", Outgoing(["b"]))) == "HOST_NOT_ALLOWED"
            assert meant.heard == []
            refusal(GitSource("git@alias:x", tmp_path / "cache", Outgoing(["alias", HERE], leading())))
        assert meant.heard[0].startswith(b"SSH-2.0-")

    def test_behind_others_a_host_that_is_known_to_them_alone_is_checked_by_its_name(
        self, configure: Callable[[str], Path], tmp_path: Path
    ) -> None:
        proof = tmp_path / "proof"
        configure(f"Host *\n ProxyCommand touch {proof}.%h\n")
        for outgoing in (Outgoing(["b.test"], leading()), Outgoing((), leading(a_test=HERE))):
            assert reason_of(GitSource("git@a.test:x", tmp_path / "cache", outgoing)) == "HOST_NOT_ALLOWED"
        assert not proof.with_name("proof.a.test").exists()
        refusal(GitSource("git@a.test:x", tmp_path / "cache", Outgoing(["a.test"], leading())))
        assert proof.with_name("proof.a.test").exists()


def test_a_git_that_would_look_names_up_again_is_not_used_for_them(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    old = tmp_path / "git"
    git = shutil.which("git")
    old.write_text(f'#!/bin/sh\ntest "$2" = version && exec echo "git version 2.34.1"\nexec {git} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    outgoing = Outgoing(["git.test", HERE], leading(git_test=HERE))
    refused = refusal(GitSource(f"http://git.test:{web.server_address[1]}/x", tmp_path / "cache", outgoing))
    assert "Git 2.34.1" in refused.message
    assert "Git 2.37 or newer" in refused.hint
    assert web.hosts == []
    url = web.url(f"ada:{PASSWORD}@") + "/model.git"
    assert GitSource(url, tmp_path / "cache", outgoing).test("", Job()).ref_count == 1

"""Which places Git is used with."""

from pathlib import Path

import pytest

from modelhost.server.errors import Conflict, InvalidRequest, NotFound
from modelhost.server.sources.git.place import parse_url
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Repo


@pytest.mark.parametrize(
    "url",
    [
        *("https://git.example.com/group/model.git", "http://git_host:8080/x", "https://[2001:db8::1]:8443/x"),
        *("https://git.example.com", "https://user:p%40ss@git.example.com/x", "https://token@git.example.com/x"),
        *("ssh://git@git.example.com:2222/x.git", "ssh://host/~ada/x", "git@git.example.com:group/x", "host:x"),
        *("git://127.0.0.1:9418/x", "git@[2001:db8::1]:x", "file:///srv/a%20b", "/srv/git/a b", "/", "/srv/ü:x"),
    ],
)
def test_known_forms_are_taken(url: str) -> None:
    parse_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "characters"),
        ("https://h/" + "x" * 2_000, "characters"),
        ("--upload-pack=touch /tmp/x", "dash"),
        ("-", "dash"),
        ("ext::sh -c touch% /tmp/x", "transport helper"),
        ("fd::17", "transport helper"),
        ("foo::https://h/x", "transport helper"),
        ("::x", "transport helper"),
        ("ext://x", "scheme ext"),
        ("ftp://h/x", "scheme ftp"),
        ("git+ssh://h/x", r"scheme git\+ssh"),
        ("HTTPS://h/x", "scheme https"),
        ("h:1://x", "scheme"),
        ("model", "absolute path"),
        ("./model", "absolute path"),
        ("../model", "absolute path"),
        ("~/model", "absolute path"),
        ("file://host/x", "absolute path"),
        ("ada:password@host", "absolute path"),
        ("ssh://-oProxyCommand=touch/x", "host"),
        ("ssh://-oProxyCommand=touch@h/x", "user"),
        ("ssh://[-oProxyCommand=x]/x", "well-formed|host"),
        ("-oProxyCommand=x:y", "dash"),
        ("u@-oProxyCommand=x:y", "host"),
        ("-u@h:x", "dash"),
        ("h:-x", "dash"),
        ("ssh:///x", "host"),
        ("https:///x", "host"),
        ("https://h:port/x", "well-formed"),
        ("https://h/x?private_token=s", "query"),
        ("https://h/x#f", "query"),
        ("ssh://ada:secret@h/x", "password"),
        ("git://ada@h/x", "user"),
        ("https://h/\nx", "control"),
        ("https://h/%0ax", "control"),
        ("https://a%0a@h/x", "control"),
        (" https://h/x", "blanks"),
        ("/srv/\0x", "control"),
    ],
)
def test_other_forms_are_refused_with_the_field_and_the_rule(url: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as refusal:
        parse_url(url, "data_source.git.url")
    assert refusal.value.field == "data_source.git.url"


@pytest.mark.parametrize(
    "url",
    ["https://ada:hunter2@h/x?y", "ftp://ada:hunter2@h/x", "https://ada:hunter2@h:x/", "ada:hunter2@h", "hunter2://x"],
)
def test_a_refusal_never_repeats_a_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_url(url)
    assert "hunter2" not in refusal.value.message.replace("scheme hunter2", "")


def test_credentials_are_taken_out_of_the_url() -> None:
    place = parse_url("https://ada:p%40ss%2F@git.example.com:8443/group")
    assert place.url == "https://git.example.com:8443/group"
    assert place.credentials is not None
    assert (place.credentials.username, place.credentials.password) == ("ada", "p@ss/")
    assert place.credentials.scope == "https://git.example.com:8443"
    assert "p@ss" not in repr(place)


@pytest.mark.parametrize(
    ("url", "project", "joined"),
    [
        ("https://h/group", "team/model", "https://h/group/team/model"),
        ("https://h/group/", "model/", "https://h/group/model"),
        ("https://h", "a b?c#d", "https://h/a%20b%3Fc%23d"),
        ("git@h:group", "a b", "git@h:group/a b"),
        ("https://h/group/", "", "https://h/group/"),
    ],
)
def test_a_project_is_joined_to_its_place(url: str, project: str, joined: str) -> None:
    assert parse_url(url).repository(project).url == joined


@pytest.mark.parametrize("project", ["..", "a/../b", "/a", "-x", "a\nb", "a//b", "."])
def test_a_project_that_is_no_plain_path_is_refused(project: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_url("https://h/group").repository(project)
    assert refusal.value.field == "project"


def test_a_project_on_this_machine_is_found_as_git_would_find_it(tmp_path: Path) -> None:
    Repo(tmp_path / "bare")
    Repo(tmp_path / "suffixed.git")
    Repo(tmp_path / "checked-out" / ".git")
    place = parse_url(str(tmp_path))
    assert place.repository("bare").git_dir == tmp_path / "bare"
    assert place.repository("suffixed").git_dir == tmp_path / "suffixed.git"
    assert place.repository("checked-out").git_dir == tmp_path / "checked-out" / ".git"
    assert parse_url((tmp_path / "bare").as_uri()).repository("").git_dir == tmp_path / "bare"


def test_a_project_that_leads_out_of_its_place_through_a_link_is_refused(tmp_path: Path) -> None:
    Repo(tmp_path / "elsewhere" / "secret")
    place = tmp_path / "place"
    place.mkdir()
    (place / "secret").symlink_to("../elsewhere/secret")
    (place / "model").mkdir()
    (place / "model" / ".git").symlink_to("../../elsewhere/secret")
    for project in ("secret", "model"):
        with pytest.raises(Conflict, match="leads out") as refusal:
            parse_url(str(place)).repository(project)
        assert refusal.value.reason == ErrorReason.ERROR_REASON_PATH_REFUSED


def test_a_link_within_the_place_is_followed(tmp_path: Path) -> None:
    Repo(tmp_path / "model-2")
    (tmp_path / "model").symlink_to("model-2")
    assert parse_url(str(tmp_path)).repository("model").git_dir == tmp_path / "model-2"


@pytest.mark.parametrize(("project", "problem"), [("nope", "is not there"), ("folder", "is not a Git repository")])
def test_a_project_that_is_none_is_said_to_be_none(tmp_path: Path, project: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotFound, match=problem) as missing:
        parse_url(str(tmp_path)).repository(project)
    assert missing.value.reason == ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND

"""Where a stand-in is: TLS and what is wrong with it, a path of its own, and its command line."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gitlab as python_gitlab
import pytest
import requests
from requests.exceptions import SSLError

from tests.gitlab_stand_in import Certificate, GitLab, HangUp

ROOT = Path(__file__).parents[3]


@contextmanager
def connected(gitlab: GitLab, **options: object) -> Iterator[python_gitlab.Gitlab]:
    with python_gitlab.Gitlab(gitlab.url, private_token=gitlab.token(), **options) as client:
        yield client


def test_a_certificate_of_its_own_authority_is_trusted_by_those_who_know_it(tmp_path: Path) -> None:
    with GitLab(tmp_path, tls=True) as gitlab:
        assert gitlab.url.startswith("https://127.0.0.1:")
        assert gitlab.ca_file.read_text() == gitlab.ca_pem
        with connected(gitlab, ssl_verify=str(gitlab.ca_file)) as client:
            client.auth()
        with connected(gitlab) as client, pytest.raises(SSLError, match="unable to get local issuer"):
            client.auth()


@pytest.mark.parametrize(
    ("certificate", "complaint"),
    [
        (Certificate.EXPIRED, "certificate has expired"),
        (Certificate.WRONG_HOST, "IP address mismatch"),
        (Certificate.SELF_SIGNED, "self-signed certificate"),
    ],
)
def test_a_bad_certificate_is_refused_for_what_is_wrong_with_it(
    tmp_path: Path, certificate: Certificate, complaint: str
) -> None:
    with GitLab(tmp_path, tls=certificate) as gitlab:
        with connected(gitlab, ssl_verify=str(gitlab.ca_file)) as client, pytest.raises(SSLError, match=complaint):
            client.auth()
        assert gitlab.requests == []


def test_plain_http_is_redirected_to_https(tmp_path: Path) -> None:
    with GitLab(tmp_path, tls=True) as gitlab, requests.Session() as session:
        answer = session.get(f"{gitlab.plain_url}/api/v4/projects?search=a%20b", verify=str(gitlab.ca_file))
        assert answer.url == f"{gitlab.url}/api/v4/projects?search=a%20b"
        assert [(request.host, request.status) for request in gitlab.requests] == [("plain", 301), ("gitlab", 200)]


def test_a_client_that_never_shakes_hands_holds_up_nobody(tmp_path: Path) -> None:
    with GitLab(tmp_path, tls=True) as gitlab:
        host, port = gitlab.url.removeprefix("https://").split(":")
        silent = socket.create_connection((host, int(port)))
        with silent, connected(gitlab, ssl_verify=str(gitlab.ca_file)) as client:
            client.auth()


def test_object_storage_has_tls_too(tmp_path: Path) -> None:
    with GitLab(tmp_path, tls=True) as gitlab, requests.Session() as session:
        gitlab.lfs_storage = "redirect"
        project = gitlab.project("energy/model")
        project.repo.commit({"model.bin": project.lfs_object(b"weights")})
        url = f"{gitlab.url}/api/v4/projects/1/repository/files/model.bin/raw?lfs=true"
        answer = session.get(url, headers={"PRIVATE-TOKEN": gitlab.token()}, verify=str(gitlab.ca_file))
        assert answer.content == b"weights"
        assert answer.url.startswith("https://127.0.0.2:")


def test_a_gitlab_can_lie_below_a_path(tmp_path: Path) -> None:
    with GitLab(tmp_path, prefix="/tools/gitlab") as gitlab:
        for number in range(3):
            gitlab.project(f"energy/model-{number}")
        with connected(gitlab) as client:
            assert len(client.projects.list(get_all=True, per_page=1)) == 3
        assert gitlab.url.endswith("/tools/gitlab")
        assert {request.path for request in gitlab.requests} == {"/tools/gitlab/api/v4/projects"}
        with requests.Session() as session:
            assert session.get(gitlab.url.removesuffix("/tools/gitlab") + "/api/v4/version").status_code == 404


def test_a_mistake_in_the_stand_in_fails_the_test_that_met_it(tmp_path: Path) -> None:
    def mistake(request: object) -> bool:
        raise ZeroDivisionError

    gitlab = GitLab(tmp_path).__enter__()
    gitlab.faults.always(mistake, HangUp())
    with requests.Session() as session:
        assert session.get(f"{gitlab.url}/api/v4/version").json() == {"message": "500 Internal Server Error"}
    with pytest.raises(AssertionError, match="the stand-in itself failed"):
        gitlab.__exit__()


def test_it_can_be_started_by_hand_with_projects_from_folders(tmp_path: Path) -> None:
    (tmp_path / "model" / "lib").mkdir(parents=True)
    (tmp_path / "model" / "lib" / "x.py").write_bytes(b"x = 1\n")
    command = [sys.executable, "-m", "tests.gitlab_stand_in", "--port", "0", "--root", str(tmp_path / "root")]
    command += ["--project", f"energy/model={tmp_path / 'model'}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = dict(re.findall(r"(\w+) (\S+)", "".join(iter(process.stdout.readline, "ready\n"))))
        with python_gitlab.Gitlab(told["url"], private_token=told["token"]) as client:
            project = client.projects.get("energy/model")
            assert project.files.raw("lib/x.py", ref="main") == b"x = 1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

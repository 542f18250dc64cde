"""Tokens and passwords of data sources are sealed in the state directory, and are shown nowhere."""

import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.server.vault import Vault
from modelhost.v1 import data_source_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.checks import refused
from tests.git_repos import Repo
from tests.git_web import PASSWORD, Web, serving
from tests.gitlab_operators import get, register, try_out, update
from tests.gitlab_stand_in import GitLab, Instead, Status
from tests.gitlab_stand_in.answers import json_answer
from tests.running import Deployment, RunningServer, eventually

PATH = "energy/forecasting/turbine"
MODEL = {"main.py": b"def predict(parameters):\n    return 'served'\n"}


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        running.project(PATH).repo.commit(MODEL)
        yield running


def holders(folder: Path, secret: str) -> list[Path]:
    """The files that have the secret in them, or in their name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert folder / "modelhost.db" in files
    return [path for path in files if secret.encode() in path.read_bytes() or secret in str(path)]


def told(call: Any) -> str:
    """All that a call said: its answer, or its error with every detail."""
    try:
        return str(call())
    except ModelHostError as error:
        return f"{error!r} {error.__cause__!r}"


def test_a_token_is_in_no_file_no_answer_no_error_and_no_log(
    gitlab: GitLab, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    token = gitlab.token()
    said: list[str] = []
    with RunningServer(tmp_path / "state") as server:
        made = register(server, "energy", gitlab, token=token)
        said.append(str(made))
        request = pb.UpdateDataSourceRequest(
            data_source=pb.DataSource(name="energy", gitlab=pb.GitLabLocation(token=str(token))),
            request_id="5b0f4d0e-7c35-4a2a-9a31-6a0d8f5e1c11",
        )
        said += [told(lambda: server.client.admin.UpdateDataSource(request)) for _ in range(2)]
        said.append(told(lambda: register(server, "energy", gitlab, token=token)))
        said.append(told(lambda: register(server, "other", gitlab, token=f"{token} and a blank")))
        said.append(told(lambda: update(server, "energy", mask=["x"], token=token)))
        said.append(str(server.deploy("turbine", "energy", project=PATH)))
        echo = Instead(json_answer({"message": f"bad token {token}", "error": str(token)}, 400))
        for fault in (None, echo, Status(401), Status(403)):
            gitlab.faults.clear()
            if fault is not None:
                gitlab.faults.always("*", fault)
            said.append(str(try_out(server, "energy")))
            said.append(told(lambda: server.client.admin.ListProjects(pb.ListProjectsRequest(data_source="energy"))))
            said.append(str(server.update("turbine", ref="main")))
            said.append(server.build_log("turbine"))
        said.append(str(get(server, "energy")))
        said.append(str(server.client.admin.ListDataSources(pb.ListDataSourcesRequest())))
        assert holders(server.state_dir, token) == []
    assert holders(server.state_dir, token) == []
    assert gitlab.requests
    assert {request.token for request in gitlab.requests} == {token}
    out, err = capfd.readouterr()
    said += [out, err]
    assert sum("SOURCE_ACCESS_DENIED" in text or "refuses access" in text for text in said) > 1
    assert [text for text in said if token in text] == []


def test_the_key_is_for_the_servers_user_alone(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as server:
        assert stat.S_IMODE((server.state_dir / "secret.key").stat().st_mode) == 0o600


def test_with_another_key_a_data_source_says_so_and_can_be_given_its_token_anew(gitlab: GitLab, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as server:
        register(server, "energy", gitlab)
        server.deploy("turbine", "energy", project=PATH)
    (tmp_path / "state" / "secret.key").write_text(b64encode(os.urandom(32)).decode())
    gitlab.requests.clear()
    with RunningServer(tmp_path / "state") as server:
        eventually(lambda: server.get("turbine").observed.live_workers)
        assert server.predict("turbine", 0) == "served"

        answer = try_out(server, "energy")
        assert (answer.ok, answer.reason) == (False, "SECRET_UNREADABLE")
        assert answer.message == (
            "the stored token of data source energy does not open with this server's secret.key."
            " Give it anew with `modelhost source update`, or restore the state directory's secret.key."
        )
        with refused("SECRET_UNREADABLE"):
            server.client.admin.ListProjects(pb.ListProjectsRequest(data_source="energy"))
        failed = server.update("turbine", ref="main")
        assert failed.failure.reason == ErrorReason.ERROR_REASON_SECRET_UNREADABLE
        assert "modelhost source update" in failed.failure.hint
        assert gitlab.requests == []

        update(server, "energy", token=gitlab.token())

        assert try_out(server, "energy").ok
        assert server.update("turbine", ref="main").update_state == Deployment.UPDATE_STATE_DONE


def test_a_key_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("abc")

    with pytest.raises(ValueError, match=r"secret\.key does not hold a key of 32 bytes; put the right one"):
        Vault.from_file(tmp_path / "secret.key")


class TestPasswordsInGitUrls:
    @pytest.fixture
    def web(self, tmp_path: Path) -> Iterator[Web]:
        repo = Repo(tmp_path / "web" / "model.git")
        repo.commit(MODEL)
        repo.git("update-server-info")
        with serving(Web(tmp_path / "web")) as running:
            yield running

    def test_they_open_the_place_and_are_shown_nowhere(
        self, web: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        url = web.url(f"ada:{PASSWORD}@")
        with RunningServer(tmp_path / "state") as server:
            add(server, "models", url)

            shown = get(server, "models")
            assert shown.git.url == web.url()
            assert try_out(server, "models", "model.git").ok
            server.deploy("turbine", "models", project="model.git")
            assert server.predict("turbine", 0) == "served"
            said = [str(shown), server.build_log("turbine"), str(server.get("turbine"))]
            assert holders(server.state_dir, PASSWORD) == []
        assert holders(server.state_dir, PASSWORD) == []
        assert [text for text in (*said, *capfd.readouterr()) if PASSWORD in text] == []

    def test_they_stay_while_the_url_does_and_go_with_it(self, web: Web, tmp_path: Path) -> None:
        with RunningServer(tmp_path / "state") as server:
            add(server, "models", web.url(f"ada:{PASSWORD}@"))

            shown = get(server, "models")
            shown.description = "of the team"
            server.client.admin.UpdateDataSource(pb.UpdateDataSourceRequest(data_source=shown))
            assert try_out(server, "models", "model.git").ok

            change(server, "models", f"{web.url()}/model.git")
            assert try_out(server, "models").reason == "SOURCE_ACCESS_DENIED"
            change(server, "models", f"{web.url(f'ada:{PASSWORD}@')}/model.git")
            assert try_out(server, "models").ok
            assert holders(server.state_dir, PASSWORD) == []


def add(server: RunningServer, source_id: str, url: str) -> None:
    source = pb.DataSource(git=pb.GitLocation(url=url))
    server.client.admin.CreateDataSource(pb.CreateDataSourceRequest(data_source_id=source_id, data_source=source))


def change(server: RunningServer, source_id: str, url: str) -> None:
    source = pb.DataSource(name=source_id, git=pb.GitLocation(url=url))
    server.client.admin.UpdateDataSource(pb.UpdateDataSourceRequest(data_source=source))

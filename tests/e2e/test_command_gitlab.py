"""The real command, the real server and the stand-in for GitLab: register, look around, deploy, renew the token."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.command import Command
from tests.e2e.daemon import Daemon
from tests.gitlab_stand_in import GitLab

MAIN = b"def predict(parameters):\n    return {'sum': sum(parameters)}\n"
FILES = {"main.py": MAIN, "modelhost.toml": b'runtime = "python3.6"\n'}


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab", tls=True) as running:
        running.project("energy/forecasting/turbine").repo.commit(FILES)
        yield running


def test_a_model_is_found_in_a_gitlab_deployed_and_kept_up_to_date(
    daemon: Daemon, gitlab: GitLab, tmp_path: Path
) -> None:
    modelhost = Command(daemon, tmp_path)
    expires = datetime.now(UTC).date() + timedelta(days=9)
    first, second = gitlab.token(expires=expires), gitlab.token()

    added = modelhost.ok(f"source add energy --gitlab {gitlab.url} --namespace energy", stdin=first)
    assert added.lines == [f"data source energy added: GitLab {gitlab.url}/energy"]
    assert "warning: it cannot be used yet: the certificate of" in added.err
    trusted = modelhost.ok(f"source update energy --gitlab-ca-file {gitlab.ca_file}")
    assert trusted.lines[1].startswith(f"ok: {gitlab.url} is GitLab 18.2.1-ee and knows ada")
    assert trusted.err.startswith(f"warning: the token expires on {expires}, in ")
    listed = modelhost.ok("source list")
    assert re.search(rf"^energy +GitLab {re.escape(gitlab.url)}/energy +- +20", listed.out, re.M)
    assert listed.err.startswith(f"warning: energy: the token expires on {expires}, in ")

    [project] = modelhost.ok("source projects energy --search turb --json").document["projects"]
    where = f"--project {project['id']}"
    assert project["path"] == "forecasting/turbine"
    assert [line.split()[0] for line in modelhost.ok(f"source refs energy {where}").lines] == ["NAME", "main"]
    files = modelhost.ok(f"source files energy {where}").lines
    assert [line.split() for line in files[1:]] == [["-", "file", "main.py"], ["-", "file", "modelhost.toml"]]
    assert modelhost.ok(f"source cat energy main.py {where}").out == MAIN.decode()

    modelhost.ok(f"deploy --quiet --name turbine --source energy {where} --ref main")
    assert json.loads(modelhost.ok("predict turbine", "[1, 2]").out) == {"sum": 3}

    first.expire()
    failed = modelhost("update turbine --quiet")
    assert failed.code == 1
    assert "has expired" in failed.err
    renewed = modelhost.having(MODELHOST_GITLAB_TOKEN=str(second)).ok("source update energy --new-token")
    assert renewed.err == ""
    modelhost.ok("update turbine --quiet")
    assert json.loads(modelhost.ok("predict turbine", "[2]").out) == {"sum": 2}
    for token in (first, second):
        assert token not in daemon.log_text()

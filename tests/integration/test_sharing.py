"""What is had once is not got again: a commit's files, an environment; and what is damaged is had anew."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelhost.v1 import deployment_pb2, runtime_pb2
from tests.git_repos import Content, Repo
from tests.running import Deployment, RunningServer

FILES: dict[str, Content] = {
    "main.py": b"def predict(parameters):\n    return open('data/weight').read()\n",
    "data/weight": b"42",
    "README": b"read me\n",
}


def empty(repo: Repo) -> None:
    """Leave a repository of which nothing can be read any more, where the old one was."""
    shutil.rmtree(repo.path)
    Repo(repo.path)


def revision(server: RunningServer, name: str, number: int = 1) -> deployment_pb2.Revision:
    request = deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/{number}")
    return server.client.admin.GetRevision(request)


def environments(server: RunningServer) -> dict[str, runtime_pb2.Environment]:
    listed = server.client.admin.ListEnvironments(runtime_pb2.ListEnvironmentsRequest(page_size=1000)).environments
    return {each.name: each for each in listed}


def folders(server: RunningServer) -> set[str]:
    """Environments as they lie on the disk."""
    return {path.name for path in (server.state_dir / "environments").iterdir() if path.is_dir()}


def file_on_disk(server: RunningServer, name: str, path: str) -> Path:
    return server.state_dir / "snapshots" / revision(server, name).snapshot_digest / "files" / path


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


# -- commits -----------------------------------------------------------------------------------------------------------


def test_a_commit_that_was_fetched_is_deployed_again_without_its_repository(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    commit = repo.commit(FILES)
    server.deploy(name, source, ref="main")
    empty(repo)

    server.deploy(f"{name}-2", source, ref=commit)

    assert server.predict(f"{name}-2", 0) == "42"
    assert revision(server, f"{name}-2").snapshot_digest == revision(server, name).snapshot_digest


def test_other_files_of_a_fetched_commit_need_no_repository_either(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    commit = repo.commit(FILES)
    server.deploy(name, source, ref="main", paths=["main.py", "data"])
    empty(repo)

    server.deploy(f"{name}-2", source, ref=commit)

    assert [file.path for file in revision(server, name).files] == ["data/weight", "main.py"]
    assert [file.path for file in revision(server, f"{name}-2").files] == ["README", "data/weight", "main.py"]


def test_a_branch_is_resolved_once_and_a_restart_stays_with_its_commit(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    commit = repo.commit(FILES)
    server.deploy(name, source, ref="main")
    repo.commit({**FILES, "data/weight": b"43"})
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)

    server.start(name)

    assert (revision(server, name).commit, server.predict(name, 0)) == (commit, "42")
    server.update(name, ref="main")
    assert server.predict(name, 0) == "43"


def test_the_same_files_of_two_commits_lie_on_the_disk_once(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    first = repo.commit(FILES)
    second = repo.commit(FILES, message="nothing changed")
    server.deploy(name, source, ref=first)
    server.deploy(f"{name}-2", source, ref=second)

    one, other = revision(server, name), revision(server, f"{name}-2")

    assert one.commit != other.commit
    assert one.snapshot_digest == other.snapshot_digest


def test_workers_have_copies_of_their_own(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    spoils = b"def predict(p):\n    open('data/weight', 'w').write('spoilt')\n    return open('data/weight').read()\n"
    repo.commit({**FILES, "spoil.py": spoils})
    server.deploy(name, source)
    server.deploy(f"{name}-2", source, main_file="spoil.py")

    assert server.predict(f"{name}-2", 0) == "spoilt"

    assert server.predict(name, 0) == "42"
    assert file_on_disk(server, name, "data/weight").read_bytes() == b"42"


# -- damage ------------------------------------------------------------------------------------------------------------


def test_damaged_files_are_noticed_at_a_start_and_fetched_again(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(FILES)
    server.deploy(name, source)
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)
    weight = file_on_disk(server, name, "data/weight")
    flip_a_byte(weight)

    server.start(name)

    assert server.predict(name, 0) == "42"
    assert weight.read_bytes() == b"42"
    assert 'damaged and are fetched again: "data/weight" has other bytes' in server.build_log(name)


def test_damaged_files_are_not_deployed_a_second_time(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(FILES)
    server.deploy(name, source)
    flip_a_byte(file_on_disk(server, name, "data/weight"))

    server.deploy(f"{name}-2", source)

    assert server.predict(f"{name}-2", 0) == "42"
    assert "damaged" in server.build_log(f"{name}-2")
    assert server.predict(name, 0) == "42"


def test_damaged_files_that_cannot_be_fetched_again_fail_the_start_and_are_not_run(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(FILES)
    server.deploy(name, source)
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)
    flip_a_byte(file_on_disk(server, name, "data/weight"))
    shutil.rmtree(server.state_dir / "cache" / "sources")
    empty(repo)

    failed = server.start(name)

    assert failed.state == Deployment.STATE_FAILED
    assert failed.failure.step == "fetch"
    assert failed.failure.hint


# -- environments ------------------------------------------------------------------------------------------------------


def test_deployments_with_one_spec_share_one_environment(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(FILES)
    names = [name, f"{name}-2"]
    for each in names:
        server.deploy(each, source)

    (environment,) = {revision(server, each).environment for each in names}

    used_by = environments(server)[environment].used_by
    assert {f"deployments/{each}/revisions/1" for each in names} <= set(used_by)
    assert "found the environment" in server.build_log(names[1])


def test_another_spec_has_another_environment(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({**FILES, "requirements.txt": b"# only words\n"})
    server.deploy(name, source)
    server.deploy(f"{name}-2", source, requirements=["--no-index"])

    one, other = revision(server, name), revision(server, f"{name}-2")

    assert one.environment != other.environment
    assert one.environment_digest != other.environment_digest
    assert environments(server)[other.environment].requirements == ["--no-index"]


def test_deployments_that_are_started_together_build_their_environment_once(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit(FILES)
    names = [f"{name}-{number}" for number in range(4)]
    for each in names:
        server.create(each, source, requirements=["--prefer-binary", "--no-index"])
    before = folders(server)

    with ThreadPoolExecutor(len(names)) as threads:
        started = [*threads.map(server.start, names)]

    assert {each.state for each in started} == {Deployment.STATE_RUNNING}
    assert len(folders(server) - before) == 1
    (environment,) = {revision(server, each).environment for each in names}
    assert len(environments(server)[environment].used_by) == len(names)
    logs = [server.build_log(each) for each in names]
    builders = [log for log in logs if "joined a build" not in log and "found the environment" not in log]
    assert len(builders) == 1
    assert {server.predict(each, 0) for each in names} == {"42"}

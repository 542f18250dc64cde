"""On a full disk a step fails and says so, what runs goes on, and once there is room the same step works."""

import json
import random
import secrets
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from modelhost.server.backup.restore import restore
from modelhost.server.backup.save import save
from modelhost.server.errors import reason_name
from modelhost.v1 import deployment_pb2
from tests.checks import Gate, leftovers, refused
from tests.full_disk import MIB, Disk, small_disk
from tests.git_repos import Repo
from tests.revisions import revisions
from tests.running import Deployment, RunningServer, eventually, reason_of

CHATTY = b"def predict(parameters):\n    print('said %s' % parameters)\n    return parameters\n"
SIZE = 160 * MIB


class Neighbour:
    """Somebody who calls a model all the time."""

    def __init__(self, server: RunningServer, name: str) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(server, name))
        self._thread.start()

    def _call(self, server: RunningServer, name: str) -> None:
        while not self._stop.is_set():
            try:
                assert server.predict(name, self.answered) == self.answered
            except Exception as error:
                self.failures.append(str(error))
            self.answered += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with small_disk(tmp_path_factory.mktemp("disk") / "small", SIZE) as disk:
        yield disk


@pytest.fixture(scope="module")
def server(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on the small disk, with a neighbour that runs in the environment that all models here need."""
    repo = Repo(tmp_path_factory.mktemp("neighbour") / "repo")
    repo.commit({"main.py": b"def predict(parameters):\n    return parameters\n"})
    with RunningServer(disk.path / "state") as server:
        server.add_source("neighbour", repo)
        server.deploy("neighbour", "neighbour")
        try:
            yield server
        finally:
            disk.clear()


@pytest.fixture(autouse=True)
def neighbour(server: RunningServer, disk: Disk) -> Iterator[Neighbour]:
    """Nobody else's model fails a single call, whatever the disk does."""
    neighbour = Neighbour(server, "neighbour")
    eventually(lambda: neighbour.answered > 10)
    try:
        yield neighbour
    finally:
        disk.clear()
        neighbour.stop()
    assert neighbour.failures == []


@pytest.fixture
def name(server: RunningServer, repo: Repo) -> str:
    """A source and, once there is one, a deployment of that name."""
    name = f"t-{secrets.token_hex(4)}"
    server.add_source(name, repo)
    return name


def noise(size: int) -> bytes:
    """Bytes that nothing makes smaller."""
    return random.Random(size).randbytes(size)


def shrink_log(server: RunningServer) -> None:
    """Leave no room in the database's log, which is used again and again: the next commit needs some of the disk's."""
    connection = apsw.Connection(str(server.state_dir / "modelhost.db"))
    try:
        connection.set_busy_timeout(10_000)
        eventually(lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0] == 0)
    finally:
        connection.close()


def widen_log(server: RunningServer) -> None:
    """Have room in the database's log, so that the database is not what fails."""
    connection = apsw.Connection(str(server.state_dir / "modelhost.db"))
    try:
        connection.set_busy_timeout(10_000)
        with connection:
            connection.execute("CREATE TABLE wide (content BLOB)")
            connection.execute("INSERT INTO wide VALUES (zeroblob(1000000))")
        connection.execute("DROP TABLE wide")
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    finally:
        connection.close()


def failed_for_room(deployment: Deployment, step: str) -> None:
    assert deployment.state == Deployment.STATE_FAILED
    failure = deployment.failure
    assert (reason_name(failure.reason), failure.step) == ("DISK_FULL", step), failure
    assert "Make room" in failure.hint


def stop(server: RunningServer, name: str) -> None:
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)


def nothing_half_made(server: RunningServer) -> bool:
    packs = list((server.state_dir / "cache" / "sources").glob("*/*/repository.git/objects/pack/tmp_*"))
    left = {each for each in leftovers(server.state_dir) if not each.startswith(("worker", "process"))}
    workers = list((server.state_dir / "workers").iterdir())
    live = sum(
        deployment.observed.live_workers
        for deployment in server.client.admin.ListDeployments(deployment_pb2.ListDeploymentsRequest()).deployments
    )
    assert (packs, left) == ([], set())
    return len(workers) == live


# ---- the steps


@pytest.mark.parametrize("room", [2 * MIB, 12 * MIB], ids=["no room for Git's copy", "no room for the files"])
def test_fetching(server: RunningServer, repo: Repo, name: str, disk: Disk, room: int) -> None:
    repo.commit({"main.py": CHATTY, "weights.bin": noise(8 * MIB)})
    server.create(name, name)
    with disk.filled(leave=room):
        failed_for_room(server.start(name), "fetch")
        assert eventually(lambda: nothing_half_made(server))

    assert server.start(name).state == Deployment.STATE_RUNNING
    assert server.predict(name, 1) == 1
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))


@pytest.mark.parametrize("runtime", ["python2.7", "python3.13"])
def test_building_an_environment(server: RunningServer, repo: Repo, name: str, disk: Disk, runtime: str) -> None:
    repo.commit({"main.py": CHATTY})
    server.create(name, name, runtime=runtime)
    with disk.filled(leave=5 * MIB):
        failed_for_room(server.start(name), "provision")
        assert nothing_half_made(server)

    started = server.start(name)
    assert started.state == Deployment.STATE_RUNNING, (started.failure, server.build_log(name))
    assert server.predict(name, 1) == 1


def test_writing_the_build_log(server: RunningServer, repo: Repo, name: str, disk: Disk) -> None:
    repo.commit({"main.py": CHATTY})
    server.deploy(name, name)
    stop(server, name)
    repo.commit({"main.py": CHATTY})
    server.update(name, unbox=True)
    widen_log(server)
    with disk.filled():
        failed_for_room(server.start(name), "fetch")

    assert server.start(name).state == Deployment.STATE_RUNNING
    assert "load done in" in server.build_log(name)


def test_the_copy_of_a_worker(server: RunningServer, repo: Repo, name: str, disk: Disk) -> None:
    repo.commit({"main.py": CHATTY, "weights.bin": noise(4 * MIB + 1)})
    server.deploy(name, name)
    stop(server, name)
    with disk.filled(leave=2 * MIB):
        failed_for_room(server.start(name), "load")
        assert eventually(lambda: nothing_half_made(server))

    assert server.start(name).state == Deployment.STATE_RUNNING


def test_an_update_that_finds_no_room_leaves_the_revision_that_serves(
    server: RunningServer, repo: Repo, name: str, disk: Disk
) -> None:
    repo.commit({"main.py": CHATTY})
    server.deploy(name, name)
    repo.commit({"main.py": CHATTY, "weights.bin": noise(8 * MIB + 2)})
    with disk.filled(leave=2 * MIB):
        updated = server.update(name, unbox=True)
        assert (updated.update_state, updated.active_revision) == (Deployment.UPDATE_STATE_FAILED, 1)
        assert reason_name(updated.failure.reason) == "DISK_FULL"
        assert server.predict(name, 1) == 1


# ---- logs


def test_what_a_model_says_is_lost_while_there_is_no_room_and_then_written_again(
    server: RunningServer, repo: Repo, name: str, disk: Disk
) -> None:
    repo.commit({"main.py": CHATTY})
    server.deploy(name, name)
    long = "x" * 5000
    with disk.filled():
        for number in range(20):
            assert server.predict(name, f"lost {number} {long}") == f"lost {number} {long}"
    assert server.predict(name, "again") == "again"

    eventually(lambda: "said again" in server.run_log(name))
    lines = server.run_log(name).splitlines()
    assert not any("lost 19" in line for line in lines)
    run_log = (server.state_dir / "logs").glob(f"{revisions_uid(server, name)}/run-*.jsonl")
    assert all(
        is_json(line) or line.startswith(b'{"time"') for path in run_log for line in path.read_bytes().splitlines()
    )


def revisions_uid(server: RunningServer, name: str) -> str:
    return server.get(name).uid


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


# ---- the database


def test_a_change_that_cannot_be_stored_is_refused_and_the_same_call_works_later(
    server: RunningServer, repo: Repo, name: str, disk: Disk
) -> None:
    repo.commit({"main.py": CHATTY})
    server.deploy(name, name)
    create = deployment_pb2.CreateDeploymentRequest(
        deployment_id=f"{name}-2",
        deployment=Deployment(
            source=deployment_pb2.ModelSource(data_source=name),
            settings=deployment_pb2.ModelSettings(runtime="python3.6", env={"LONG": "x" * 60_000}),
        ),
        request_id=str(uuid.uuid4()),
    )
    update = deployment_pb2.UpdateDeploymentRequest(
        deployment=Deployment(name=name, settings=deployment_pb2.ModelSettings(env={"LONG": "x" * 60_000})),
        update_mask={"paths": ["settings.env"]},
        request_id=str(uuid.uuid4()),
    )
    stopped = deployment_pb2.StopDeploymentRequest(name=name, request_id=str(uuid.uuid4()))
    before = server.get(name)
    shrink_log(server)
    with disk.filled():
        for _ in range(2):
            with refused("DISK_FULL") as caught:
                server.client.admin.CreateDeployment(create)
            assert caught.value.code.name == "RESOURCE_EXHAUSTED"
            with refused("DISK_FULL"):
                server.client.admin.UpdateDeployment(update)
            with refused("DISK_FULL"):
                server.client.admin.StopDeployment(stopped)
        assert server.get(name) == before, "nothing of it has happened, and reading works"
        assert reason_of(lambda: server.get(f"{name}-2")) == "DEPLOYMENT_NOT_FOUND"
        assert server.predict(name, 1) == 1

    created = server.client.admin.CreateDeployment(create)
    assert server.client.admin.CreateDeployment(create) == created
    assert server.client.admin.UpdateDeployment(update).target_revision == 2
    eventually(lambda: server.get(name).active_revision == 2, seconds=60)
    server.client.admin.StopDeployment(stopped)
    server.wait(name, Deployment.STATE_STOPPED)


def test_a_state_that_cannot_be_stored_is_stored_as_soon_as_there_is_room(
    server: RunningServer, repo: Repo, name: str, disk: Disk
) -> None:
    gate = Gate(server.shared / name)
    waits = f"import os, time\nwhile not os.path.exists({gate.path!r}):\n    time.sleep(0.01)\n"
    repo.commit({"main.py": waits.encode() + CHATTY})
    server.create(name, name)
    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
    eventually(lambda: revisions(server, name)[1].state == deployment_pb2.Revision.STATE_LOADING)
    shrink_log(server)
    with disk.filled(), capture_logs() as said:
        Path(gate.path).symlink_to("/dev/null")  # needs no room
        eventually(lambda: [entry for entry in said if entry["event"] == "trying again"])
        assert revisions(server, name)[1].state == deployment_pb2.Revision.STATE_LOADING
        assert server.get(name).state == Deployment.STATE_STARTING

    assert server.wait(name, Deployment.STATE_RUNNING, Deployment.STATE_FAILED).state == Deployment.STATE_RUNNING
    assert server.predict(name, 1) == 1


# ---- backups


def test_a_backup_or_a_restore_that_finds_no_room_leaves_nothing(
    server: RunningServer, disk: Disk, tmp_path: Path
) -> None:
    save(server.state_dir, tmp_path / "good.tar", with_key=True, overwrite=False)
    with disk.filled():
        with pytest.raises(OSError, match="No space left"):
            save(server.state_dir, disk.path / "backup.tar", with_key=True, overwrite=False)
        with pytest.raises(OSError, match="No space left"):
            restore(tmp_path / "good.tar", disk.path / "restored", None)

    assert sorted(path.name for path in disk.path.iterdir()) == ["shared", "state"]

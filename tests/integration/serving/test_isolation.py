"""What a model cannot do to the server, to other workers and to the host, each way that workers are confined here."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhost.envs.marked import end_owned, is_owner
from modelhost.server.app import NotIsolated
from modelhost.server.errors import StepFailed
from modelhost.server.serving import confinement as confinements
from modelhost.server.serving.confinement import (
    Confined,
    Confinement,
    LandlockOnly,
    OwnUsers,
    Unconfined,
    end_users_of,
)
from modelhost.server.serving.isolation import establish, landlock_abi
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.uids import Uids
from tests.integration.serving.stage import Stage, ask, is_running, until
from tests.running import RunningServer

_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # of those that run tests at the same time
UIDS = range(300_000 + 500 * _PROCESS, 300_500 + 500 * _PROCESS)
DENIED = ("EACCES", "EPERM", "ENOENT", "EROFS")
IS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give a worker another user")
needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="the kernel has no Landlock: Linux 5.13 and newer do")
USERS = [pytest.param(way, marks=needs_root) for way in ("users", "users alone")]
WAYS = [*USERS, pytest.param("landlock", marks=needs_landlock)]


def confinement(way: str, folder: Path, shared: tuple[Path, ...] = ()) -> Confinement:
    if way == "unconfined":
        return Unconfined()
    if way == "landlock":
        return LandlockOnly(folder, shared, landlock_abi())
    return OwnUsers(Uids(UIDS), shared, landlock_abi() if way == "users" else 0)


@pytest.fixture(params=["closed", "open"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Stands for the state directory: one that no stranger can get to, and one that he can pass through."""
    if request.param == "closed":
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp())
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stage(folder: Path, way: str) -> AsyncIterator[Stage]:
    (folder / "workers").mkdir(mode=0o711)
    for name in ("secret.key", "modelhost.db"):
        (folder / name).write_text("secret")
        (folder / name).chmod(0o600)
    (folder / "snapshots").mkdir(mode=0o700)
    (folder / "snapshots" / "main.py").write_text("somebody else's")
    stage = Stage(folder, confinement(way, folder))
    yield stage
    await stage.close()


async def me(pool: Pool) -> dict[str, Any]:
    """What the worker says of itself."""
    found: dict[str, Any] = await ask(pool, {"do": "me"})
    return found


# ---- files


@pytest.mark.parametrize("path", ["secret.key", "modelhost.db", "snapshots/main.py"])
async def test_a_model_cannot_read_what_is_the_servers(stage: Stage, path: str) -> None:
    pool = await stage.pool("prowls")

    assert await ask(pool, {"do": "read", "path": str(stage.folder / path)}) in DENIED
    assert await ask(pool, {"do": "read", "path": f"/proc/{os.getpid()}/root{stage.folder / path}"}) in DENIED


@pytest.mark.parametrize("name", ["environ", "mem", "fd/0", "root/etc/passwd"])
async def test_a_model_cannot_look_into_the_server(stage: Stage, name: str) -> None:
    pool = await stage.pool("prowls")

    assert await ask(pool, {"do": "read", "path": f"/proc/{os.getpid()}/{name}"}) in DENIED


async def test_a_model_can_neither_read_nor_write_what_is_another_workers(stage: Stage) -> None:
    first, second = await stage.pool("prowls"), await stage.pool("prowls")
    others = Path((await me(second))["cwd"])

    assert await ask(second, {"do": "read", "path": str(others / "main.py")}) == 100
    assert await ask(first, {"do": "read", "path": str(others / "main.py")}) in DENIED
    assert await ask(first, {"do": "write", "path": str(others / "main.py")}) in DENIED
    assert await ask(first, {"do": "list", "path": str(others)}) in DENIED
    assert others.parent.name not in await ask(first, {"do": "list", "path": str(others.parents[1])})


async def test_a_model_writes_in_its_own_directory_alone(stage: Stage, way: str) -> None:
    pool = await stage.pool("prowls")
    own = await me(pool)
    elsewhere = ["/etc/modelhost-was-here", "/usr/modelhost-was-here", str(stage.folder / "was-here")]
    elsewhere += ["/tmp/modelhost-was-here", "/var/tmp/modelhost-was-here"] if way != "users alone" else []

    for path in elsewhere:
        assert await ask(pool, {"do": "write", "path": path}) in DENIED, path
    for path in (own["cwd"] + "/new", own["home"] + "/new", "/dev/null"):
        assert await ask(pool, {"do": "write", "path": path}) is None, path


async def test_a_model_may_open_its_output_by_name(stage: Stage) -> None:
    pool = await stage.pool("prowls")

    assert await ask(pool, {"do": "say", "path": "/dev/stdout", "text": "by name\n"}) is None

    await until(lambda: ("stdout", "by name") in stage.lines)


async def test_what_models_share_with_the_host_is_for_reading_and_writing(
    folder: Path, way: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o777)
    (shared / "data").write_text("data")
    stage = Stage(folder, confinement(way, folder, (shared,)))
    pool = await stage.pool("prowls")

    assert await ask(pool, {"do": "read", "path": str(shared / "data")}) == 4
    assert await ask(pool, {"do": "write", "path": str(shared / "new")}) is None
    assert (shared / "new").read_text() == "x"
    await stage.close()


@pytest.mark.skipif(not os.stat("/dev/shm").st_mode & 0o002, reason="this host lets nobody but root into /dev/shm")
async def test_what_describes_a_way_says_so_where_models_share_a_folder(stage: Stage) -> None:
    first, second = await stage.pool("prowls"), await stage.pool("prowls")
    left = f"/dev/shm/modelhost-test-{os.getpid()}"

    assert await ask(first, {"do": "write", "path": left}) is None
    can_read = await ask(second, {"do": "read", "path": left}) not in DENIED
    os.unlink(left)

    assert can_read == ("but for /dev/shm, which models share" in stage.host.confinement.describe())


# ---- processes


async def test_a_model_cannot_signal_the_server_nor_another_worker(stage: Stage) -> None:
    first, second = await stage.pool("prowls"), await stage.pool("prowls")
    other = (await me(second))["pid"]

    assert await ask(first, {"do": "kill", "pid": os.getpid()}) == "EPERM"
    assert await ask(first, {"do": "kill", "pid": other}) == "EPERM"
    assert is_running(other)


async def test_a_model_has_no_descriptor_but_its_link(stage: Stage) -> None:
    own = await me(await stage.pool("prowls"))

    null, *others = sorted(own["descriptors"].values())
    assert null.endswith("/dev/null")  # a root that is not the host's has a longer name in its mount namespace
    assert others == ["pipe", "pipe", "socket"]


async def test_a_model_has_no_power_and_gets_none(stage: Stage) -> None:
    program = stage.folder / "workers" / "whoami"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    pool = await stage.pool("prowls", needs=(program,))
    own = await me(pool)
    status = dict(line.split(":", 1) for line in own["status"].splitlines())

    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if IS_ROOT else [])):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert await ask(pool, {"do": "run", "argv": [str(program), "-u"]}) == f"{own['uid']}\n"
    assert await ask(pool, {"do": "become", "uid": 1}) == "EPERM"
    assert await ask(pool, {"do": "device", "path": own["home"] + "/device"}) in DENIED
    program.unlink()


async def test_a_model_leaves_no_core(stage: Stage) -> None:
    own = await me(await stage.pool("prowls"))

    (core,) = (line for line in own["limits"].splitlines() if line.startswith("Max core"))
    assert core.split()[4:6] == ["0", "0"]


# ---- a user for each worker


@pytest.mark.parametrize("way", USERS, indirect=True)
async def test_each_worker_has_a_user_of_its_own_and_gives_it_back(stage: Stage) -> None:
    pools = [await stage.pool("prowls") for _ in range(3)]
    owns = [await me(pool) for pool in pools]

    assert len({own["uid"] for own in owns} & set(UIDS)) == 3
    assert all(own["groups"] == [] for own in owns)
    for pool in pools:
        await pool.close()
    assert not any(is_owner(own["uid"]) for own in owns)
    uids = Uids(UIDS)
    assert all(uids.take_back(own["uid"]) for own in owns)
    for own in owns:
        uids.give_back(own["uid"])


@pytest.mark.parametrize("way", [*WAYS, "unconfined"], indirect=True)
async def test_a_child_that_has_left_group_session_and_environment_goes_with_its_worker(stage: Stage) -> None:
    pool = await stage.pool("leaves_children")
    child = await ask(pool, "stranger")
    assert is_running(child)

    await pool.close()

    assert not is_running(child)


@needs_root
async def test_a_worker_for_which_there_is_no_user_is_refused_with_what_to_do(tmp_path: Path) -> None:
    stage = Stage(tmp_path, OwnUsers(Uids(UIDS[:1]), (), 0))
    await stage.pool("prowls")

    with pytest.raises(StepFailed) as caught:
        await stage.pool("prowls")

    assert "all 1 uids for workers are in use" in caught.value.message
    assert "--worker-uids" in caught.value.hint
    await stage.close()


@needs_root
def test_the_users_of_a_killed_server_are_known_by_the_directories_that_it_left(tmp_path: Path) -> None:
    (tmp_path / "of-a-worker").mkdir()
    os.chown(tmp_path / "of-a-worker", UIDS[7], UIDS[7])
    with subprocess.Popen(["/bin/sleep", "600"], user=UIDS[7], env={}, start_new_session=True) as orphan:
        assert end_users_of(tmp_path, Uids(UIDS)) == [orphan.pid]
    assert end_users_of(tmp_path / "missing", Uids(UIDS)) == []


@needs_root
def test_a_user_that_another_server_has_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "of-a-worker").mkdir()
    os.chown(tmp_path / "of-a-worker", UIDS[8], UIDS[8])
    other = Uids(UIDS)
    assert other.take_back(UIDS[8])
    with subprocess.Popen(["/bin/sleep", "600"], user=UIDS[8], env={}, start_new_session=True) as worker:
        assert end_users_of(tmp_path, Uids(UIDS)) == []
        assert worker.poll() is None
        worker.kill()
    other.give_back(UIDS[8])


@needs_root
def test_two_servers_with_the_same_range_never_have_the_same_user(tmp_path: Path) -> None:
    one, two = (Uids(UIDS[30:34], tmp_path / "uids") for _ in range(2))
    taken = [uids.take() for uids in (one, two, one, two)]

    assert len(set(taken)) == 4
    for uids in (one, two):
        with pytest.raises(StepFailed):
            uids.take()
    one.give_back(taken[0])
    assert two.take() == taken[0]


@needs_root
def test_a_user_with_a_process_is_not_given_to_a_worker(tmp_path: Path) -> None:
    uids = Uids(UIDS[20:22], tmp_path / "uids")
    with subprocess.Popen(["/bin/sleep", "600"], user=UIDS[20], env={}, start_new_session=True) as left_over:
        assert uids.take() == UIDS[21]
        left_over.kill()


@needs_root
@pytest.mark.parametrize("sandbox", ["every user has a process", "nothing is said"])
def test_a_kernel_that_does_not_tell_whose_processes_there_are_is_no_hindrance(
    sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getpriority(which: int, who: int) -> int:
        if sandbox == "nothing is said":
            raise OSError(errno.EINVAL, "")
        return 0

    monkeypatch.setattr(os, "getpriority", getpriority)

    assert not is_owner(UIDS[24])
    with subprocess.Popen(["/bin/sleep", "600"], user=UIDS[24], env={}, start_new_session=True) as left_over:
        assert is_owner(UIDS[24])
        left_over.kill()


@pytest.mark.parametrize("way", ["users"], indirect=True)
async def test_a_user_is_given_back_though_clearing_away_does_not_succeed_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await stage.pool("prowls")
    uid = (await me(pool))["uid"]
    failed: list[int] = []

    def fail_once(uid: int) -> list[int]:
        if not failed:
            failed.append(uid)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return end_owned(uid)

    monkeypatch.setattr(confinements, "end_owned", fail_once)

    await pool.close()

    assert failed == [uid]
    uids = Uids(UIDS)
    assert uids.take_back(uid)
    uids.give_back(uid)


@needs_root
def test_what_a_user_left_in_shared_memory_is_gone_before_another_gets_it(tmp_path: Path) -> None:
    users = OwnUsers(Uids(UIDS), (), 0)
    confined = users.enter(tmp_path, ())
    left = Path("/dev/shm", f"modelhost-test-{os.getpid()}")
    left.write_text("left")
    os.chown(left, confined.uid or 0, -1)

    users.leave(confined)

    assert not left.exists()


# ---- what the server can establish


def test_the_best_way_that_works_is_taken_and_told(tmp_path: Path) -> None:
    isolation = establish(_workers(tmp_path), [_secret(tmp_path)], Uids(UIDS))

    assert isolation.is_complete == bool(IS_ROOT or landlock_abi() >= 6)
    if IS_ROOT:
        assert isolation.describe().startswith(f"workers are isolated: a uid each, of {UIDS[0]} to {UIDS[-1]}")
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_way_that_does_not_keep_a_secret_is_told_so(tmp_path: Path) -> None:
    workers = _workers(tmp_path)

    isolation = establish(workers, [Path("/etc/passwd")], Uids(UIDS))

    assert not isolation.is_complete
    assert "a model can read /etc/passwd" in isolation.describe()
    assert isolation.describe().startswith("workers are not isolated from the server: ")


@needs_root
def test_users_that_cannot_be_given_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: OwnUsers, directory: Path, needs: object) -> Confined:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(OwnUsers, "enter", refuse)

    isolation = establish(_workers(tmp_path), [_secret(tmp_path)], Uids(UIDS))

    assert any("Invalid argument" in each for each in isolation.obstacles) or isolation.is_complete
    assert "a uid each" not in isolation.confinement.describe()


def test_a_host_that_has_nothing_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    isolation = establish(_workers(tmp_path), [_secret(tmp_path)], Uids(UIDS))

    assert not isolation.is_complete
    assert "a model can read its files, secrets included, and signal it" in isolation.describe()
    assert "exit code 1" in isolation.describe()


def test_a_server_that_must_isolate_models_and_cannot_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with (
        pytest.raises(NotIsolated, match=r"^--require-isolation: workers are not isolated from the server: "),
        RunningServer(tmp_path / "state", require_isolation=True),
    ):
        pass


def _workers(folder: Path) -> Path:
    (folder / "workers").mkdir(mode=0o711)
    return folder / "workers"


def _secret(folder: Path) -> Path:
    secret = folder / "secret.key"
    secret.write_text("secret")
    secret.chmod(0o600)
    return secret

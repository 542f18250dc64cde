"""Another secret.key, while the server runs: what was sealed opens with it, and a server that is killed on the way
comes back with one of the two and all of its secrets.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelhost.client.signing import ServiceAccountKey, signed_request
from modelhost.server.access import issuing
from modelhost.server.access.account_commands import AccountCommands
from modelhost.server.access.accounts import Accounts
from modelhost.server.backup import save as backup_save
from modelhost.server.backup.archive import BackupProblem
from modelhost.server.backup.save import save
from modelhost.server.control import sources
from modelhost.server.errors import Conflict
from modelhost.server.rekeying import Rekeying, settled
from modelhost.server.store import seals
from modelhost.server.store.database import Database, Transaction
from modelhost.server.vault import Vault
from modelhost.v1 import operator_pb2, service_account_pb2
from tests.git_repos import Repo
from tests.running import RunningServer, eventually, reason_of

SECRET_MODEL = b"import os\ndef predict(p):\n    return os.environ['WORD']\n"


def login(server: RunningServer, account: service_account_pb2.ServiceAccount) -> str:
    key = ServiceAccountKey(account.access_key, account.secret_key)
    with server.connect(None) as client:
        return client.predict_stub.IssueToken(signed_request(key)).token


def test_everything_that_is_sealed_opens_with_the_new_key_also_after_a_restart(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": SECRET_MODEL})
    state = tmp_path / "state"
    request = service_account_pb2.CreateServiceAccountRequest(
        service_account_id="shop", request_id="6a1a6d5e-6f4c-4b55-8c36-0f3b4b0f6a5b"
    )
    with RunningServer(state) as server:
        server.add_source("models", repo)
        server.deploy("model", "models", secret_env={"WORD": "hush"})
        account = server.client.admin.CreateServiceAccount(request)
        server.client.admin.GrantService(
            service_account_pb2.GrantServiceRequest(service_account="shop", service="model")
        )
        token = login(server, account)
        before = (state / "secret.key").read_text()

        again = operator_pb2.RotateSecretKeyRequest(request_id="0b0cb5ad-1e36-4b4b-9d6c-9f8e3a4f1f10")
        # A variable of the deployment and twice of its revision, a secret key, an answer.
        assert server.client.admin.RotateSecretKey(again).resealed == 5

        assert (state / "secret.key").read_text() != before
        assert not (state / "secret.key.next").exists()
        assert (state / "secret.key").stat().st_mode & 0o777 == 0o600
        with server.connect(token) as client:
            assert reason_of(lambda: client.predict("model", 0)) == "UNAUTHENTICATED"
        with server.connect(login(server, account)) as client:
            assert client.predict("model", 0).result == "hush"
        assert server.client.admin.CreateServiceAccount(request) == account
        server.scale("model", 2)  # opens the variable for another worker

    with RunningServer(state) as server:
        eventually(lambda: not reason_of(lambda: server.predict("model", 0)))
        assert server.predict("model", 0) == "hush"
        with server.connect(login(server, account)) as client:
            assert client.predict("model", 0).result == "hush"
        assert server.client.admin.CreateServiceAccount(request) == account
        now = (state / "secret.key").read_text()
        assert server.client.admin.RotateSecretKey(again).resealed == 5
        assert (state / "secret.key").read_text() == now


# -- in the middle -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "modelhost.db")
    yield database
    database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret.key"


def sealed_source(vault: Vault) -> Callable[[Transaction], None]:
    def insert(tx: Transaction) -> None:
        tx.insert(
            "data_sources", uid="uid", id="id", kind="gitlab", url="", description="", version=1, created=0.0,
            updated=0.0, secret=vault.close("hush", sources.purpose("uid")), options="{}",
        )  # fmt: skip

    return insert


def stored(tx: Transaction) -> str:
    row = tx.one("SELECT secret FROM data_sources")
    assert row is not None
    return str(row[0])


async def started(database: Database, path: Path) -> Vault:
    """The vault as the next server has it."""
    return await database.run(lambda tx: settled(path, tx))


async def opened(database: Database, vault: Vault) -> str:
    return vault.open(await database.run(stored), sources.purpose("uid"))


def files(path: Path) -> dict[str, str]:
    """The keys that there are."""
    return {each.name: each.read_text() for each in path.parent.glob("secret.key*")}


def lose(path: Path) -> None:
    path.unlink()


class Killed(BaseException):
    pass


async def test_killed_before_all_is_sealed_anew_the_key_is_the_one_before(database: Database, path: Path) -> None:
    vault = await started(database, path)
    await database.run(sealed_source(vault))
    before = files(path)

    def change(tx: Transaction) -> None:
        Rekeying(path, vault, lambda: None).change(tx)
        raise Killed

    with pytest.raises(Killed):
        await database.run(change)
    assert set(files(path)) == {"secret.key", "secret.key.next"}

    assert await opened(database, await started(database, path)) == "hush"
    assert files(path) == before


async def test_killed_before_the_file_has_its_name_the_key_is_the_new_one(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = await started(database, path)
    await database.run(sealed_source(vault))
    before = files(path)

    def refuse(*_: object) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", lambda old, new: refuse() if new == path else os.replace(old, new))
        await database.run(Rekeying(path, vault, lambda: None).change)
        await asyncio.sleep(0)
    upcoming = files(path)["secret.key.next"]
    assert files(path) == {**before, "secret.key.next": upcoming}
    assert await opened(database, vault) == "hush"  # the server that was not killed goes on, too

    assert await opened(database, await started(database, path)) == "hush"
    assert files(path) == {"secret.key": upcoming}


async def test_what_is_sealed_while_the_loop_has_no_time_for_it_is_sealed_with_the_new_key(
    database: Database, path: Path
) -> None:
    vault = await started(database, path)
    accounts = Accounts()
    commands = AccountCommands(accounts, vault, lambda: None)
    await database.run(sealed_source(vault))

    database.run_now(Rekeying(path, vault, lambda: None).change)  # and nothing that is to follow has happened yet
    database.run_now(lambda tx: commands.create(tx, "shop", description="", disabled=False, lifetime=None))
    await asyncio.sleep(0)

    later = await started(database, path)
    (stored_account,) = await database.run(accounts.load)
    (key,) = stored_account.credentials
    assert later.open(key.sealed, issuing.purpose(key.id)).startswith("mhs_")
    assert await opened(database, later) == "hush"


async def test_a_change_that_is_rolled_back_leaves_the_key_before_in_force(database: Database, path: Path) -> None:
    vault = await started(database, path)

    def change(tx: Transaction) -> None:
        Rekeying(path, vault, lambda: None).change(tx)
        raise Killed

    with pytest.raises(Killed):
        await database.run(change)
    await database.run(sealed_source(vault))

    assert await opened(database, await started(database, path)) == "hush"


async def test_a_key_that_could_not_be_given_its_name_is_not_overwritten_by_another_one(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = await started(database, path)
    await database.run(sealed_source(vault))

    def refuse(old: Path, new: Path) -> None:
        if new == path:
            raise OSError(5, "Input/output error")
        os.replace(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        await database.run(Rekeying(path, vault, lambda: None).change)
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match=r"secret\.key\.next could not be put in the place"):
            await database.run(Rekeying(path, vault, lambda: None).change)
    assert await opened(database, await started(database, path)) == "hush"


async def test_what_the_key_does_not_open_stays_as_it_is(database: Database, path: Path) -> None:
    vault = await started(database, path)
    await database.run(sealed_source(Vault(b"x" * 32)))
    lost = await database.run(stored)

    assert await database.run(Rekeying(path, vault, lambda: None).change) == 0
    assert await database.run(stored) == lost


async def test_without_the_key_that_all_is_sealed_with_a_server_starts_all_the_same(
    database: Database, path: Path
) -> None:
    await database.run(sealed_source(await started(database, path)))
    lose(path)

    vault = await started(database, path)

    with pytest.raises(Conflict):
        await opened(database, vault)
    check = await database.run(seals.check)
    assert check is not None
    assert vault.open(check, "key check") == "key check"


# -- and backups -------------------------------------------------------------------------------------------------------


async def test_a_backup_has_the_key_that_opens_what_is_in_it(database: Database, path: Path, tmp_path: Path) -> None:
    vault = await started(database, path)
    await database.run(sealed_source(vault))
    await database.run(Rekeying(path, vault, lambda: None).change)
    await asyncio.sleep(0)
    target = tmp_path / "backup.tar"

    saved = await asyncio.to_thread(lambda: save(tmp_path, target, with_key=True, overwrite=False))

    assert saved.description.has_key
    assert saved.contents.data_sources == 1


async def test_a_key_that_is_not_the_databases_makes_no_backup(
    database: Database, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(database, path)
    lose(path)
    Vault.from_file(path)
    monkeypatch.setattr(backup_save, "TRY_SECONDS", 0.01)
    target = tmp_path / "backup.tar"

    with pytest.raises(BackupProblem, match="not the key of the secrets"):
        await asyncio.to_thread(lambda: save(tmp_path, target, with_key=True, overwrite=False))

    assert not [name for name in os.listdir(tmp_path) if "backup" in name]

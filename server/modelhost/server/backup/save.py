"""Taking a backup: of a running server as of one that is not, into a file that is whole as soon as it has its name."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from modelhost.envs.files import sync_file
from modelhost.server.backup.archive import (
    COMPRESSED,
    DATABASE,
    FORMAT,
    KEY,
    BackupProblem,
    Description,
    copy_key,
    digest_of,
    pack,
)
from modelhost.server.backup.drafts import draft_folder
from modelhost.server.store.copies import Contents, copy_database, key_check
from modelhost.server.vault import Vault

FINGERPRINTED = b"backup"
TRIES = 5
TRY_SECONDS = 0.3  # a change of the key is done sooner
DRAFT_PREFIX = ".modelhost-backup-"


@dataclass(frozen=True)
class Saved:
    """A backup that was taken, its size in bytes."""

    description: Description
    contents: Contents
    size: int


def save(state_dir: Path, target: Path, *, with_key: bool, overwrite: bool) -> Saved:
    """Write a backup of a state directory to `target`. A failure leaves nothing.

    Raises `BackupProblem`, `DatabaseUnusable`, `SchemaTooNew`, `OSError`.
    """
    database, key = state_dir / DATABASE, state_dir / KEY
    if not database.is_file():
        raise BackupProblem(f"there is no state of a server in {state_dir}; --state-dir says where it is")
    if not key.is_file():
        raise BackupProblem(f"{key} is missing, which opens the secrets in the database; put it back first")
    if target.is_dir() or (target.exists() and not overwrite):
        raise BackupProblem(f"{target} is there already; name another file, or overwrite it with --force")
    if not target.parent.is_dir():
        raise BackupProblem(f"there is no folder {target.parent} to write {target.name} to")
    with draft_folder(target.parent, DRAFT_PREFIX) as folder:
        contents = _copy_both(database, key, folder)
        fingerprint = fingerprint_of(folder / KEY)
        if not with_key:
            (folder / KEY).unlink()
        names = (DATABASE, KEY) if with_key else (DATABASE,)
        description = Description(
            format=FORMAT,
            modelhost=version("modelhost"),
            schema=contents.schema,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            key_fingerprint=fingerprint,
            sha256={name: digest_of(folder / name) for name in names},
        )
        draft = folder / target.name
        pack(folder, description, draft, compress=target.suffix in COMPRESSED)
        size = draft.stat().st_size
        _put(draft, target, overwrite=overwrite)
    return Saved(description, contents, size)


def _copy_both(database: Path, key: Path, folder: Path) -> Contents:
    """The database, and the key that opens what is sealed in it: a server that runs may be changing that just now."""
    for attempt in range(TRIES):
        if attempt:
            (folder / DATABASE).unlink()
            (folder / KEY).unlink()
            time.sleep(TRY_SECONDS)
        contents = copy_database(database, folder / DATABASE)
        copy_key(key, folder / KEY)
        check = key_check(folder / DATABASE)
        if check is None or Vault.from_file(folder / KEY).passes(check):
            return contents
    raise BackupProblem(
        f"{key} is not the key of the secrets in the database; put the right one in its place, or start the server"
        " once, which completes a change of the key that was cut off"
    )


def fingerprint_of(key: Path) -> str:
    """Tells a key from others, and nothing of what it is. Raises `OSError`, `ValueError` for what is no key."""
    return Vault.from_file(key).fingerprint(FINGERPRINTED)


def _put(draft: Path, target: Path, *, overwrite: bool) -> None:
    """Give the file its name; what came there meanwhile is not overwritten either."""
    if overwrite:
        draft.rename(target)
    else:
        try:
            os.link(draft, target)
        except FileExistsError:
            raise BackupProblem(f"{target} is there already; name another file, or overwrite it with --force") from None
        except OSError:  # a file system without links
            draft.rename(target)
    with suppress(OSError):  # a folder that may be written to and not be read
        sync_file(target.parent)

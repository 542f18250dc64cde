"""A state directory from a backup: all of it or nothing."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.files import sync_file
from modelhost.server.backup.archive import DATABASE, KEY, BackupProblem, Description, copy_key, unpack
from modelhost.server.backup.drafts import draft_folder
from modelhost.server.backup.save import fingerprint_of
from modelhost.server.statedir import StateDir
from modelhost.server.store.copies import Contents, inspect

_BESIDE = (f"{DATABASE}-wal", f"{DATABASE}-journal")  # changes of a database that are not in its file
DRAFT_PREFIX = ".restore-"


@dataclass(frozen=True)
class Restored:
    """What was restored. Without its key, nothing that is sealed opens any more."""

    description: Description
    contents: Contents
    has_key: bool


def restore(source: Path, state_dir: Path, key: Path | None) -> Restored:
    """Make the state of a server from a backup, in a directory that has none. `key` is one that was kept elsewhere.

    What else lies in the directory stays: environments that are there need not be built again.

    Raises `BackupProblem`, `StateDirBusy`, `DatabaseUnusable`, `SchemaTooNew`, `OSError`, `ValueError`.
    """
    if not source.is_file():
        raise BackupProblem(f"there is no file {source}")
    made = [folder for folder in (state_dir, *state_dir.parents) if not folder.exists()]
    state = StateDir(state_dir)
    lock = state.root / "lock"
    was_there = lock.exists()
    try:
        state.lock()
        return _restore(source, state, key)
    except BaseException:
        if not was_there:
            lock.unlink(missing_ok=True)
        with suppress(OSError):  # all was in place already
            for folder in made:
                folder.rmdir()
        raise
    finally:
        state.unlock()


def _restore(source: Path, state: StateDir, key: Path | None) -> Restored:
    if taken := [name for name in (DATABASE, *_BESIDE) if _holds_something(state.root / name)]:
        raise BackupProblem(
            f"{state.root} has a database already ({', '.join(taken)}), which is not overwritten; restore to another"
            " --state-dir, or move it away"
        )
    with draft_folder(state.root, DRAFT_PREFIX) as folder:
        description = unpack(source, folder)
        contents = inspect(folder / DATABASE, shown=source)
        has_key = _choose_key(source, description, state, folder / KEY, key)
        _put(folder, state, with_key=has_key)
    return Restored(description, contents, has_key)


def _put(folder: Path, state: StateDir, *, with_key: bool) -> None:
    """Give both their names, or neither."""
    had_key = state.secret_key.exists()
    try:
        if with_key:
            os.rename(folder / KEY, state.secret_key)
        sync_file(state.root)
        os.rename(folder / DATABASE, state.database)  # last: with it, all is there
        sync_file(state.root)
    except BaseException:
        if not had_key and not state.database.exists():
            state.secret_key.unlink(missing_ok=True)
        raise


def _holds_something(path: Path) -> bool:
    return path.exists() and (path.name == DATABASE or path.stat().st_size > 0)


def _choose_key(source: Path, description: Description, state: StateDir, chosen: Path, given: Path | None) -> bool:
    """Have the right key at `chosen`; false if there is none."""
    for path in (given, state.secret_key):
        if path is None or (path is state.secret_key and not path.exists()):
            continue
        if not path.is_file():
            raise BackupProblem(f"there is no key {path}")
        if fingerprint_of(path) != description.key_fingerprint:
            raise BackupProblem(f"{path} is not the key of the secrets in {source}; nothing was restored")
        if not chosen.exists():
            copy_key(path, chosen)
    return chosen.exists()

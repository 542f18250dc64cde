"""What is different between two revisions: files, settings in force, packages."""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from modelhost.envs import EnvironmentStore
from modelhost.server.errors import Conflict
from modelhost.server.resources import Revision
from modelhost.server.sources.git.command import ENVIRONMENT
from modelhost.server.sources.paths import shown
from modelhost.server.sources.snapshots import Snapshot, SnapshotFile, SnapshotStore
from modelhost.v1.error_reason_pb2 import ErrorReason

TEXT_LIMIT = 256 * 1024  # of one file, bytes
DIFF_LIMIT = 4 * 1024 * 1024  # of all unified diffs together, characters
DIFF_SECONDS = 10.0  # for all of them

_HEADING = re.compile(r"^(@@ [^@]+ @@).*$", re.MULTILINE)  # git adds the line of the function


@dataclass(frozen=True)
class Change:
    """A value before and after; empty where it is not there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class FileDiff:
    """A file before and after, by SHA-256; `unified` for text that is not too long."""

    path: str
    before: str
    after: str
    unified: str


@dataclass(frozen=True)
class Difference:
    """What is different between two revisions."""

    files: Sequence[FileDiff]
    settings: Sequence[Change]
    packages: Sequence[Change]


class Differ:
    """Compares revisions. `compare` blocks."""

    def __init__(self, snapshots: SnapshotStore, environments: EnvironmentStore) -> None:
        self._snapshots = snapshots
        self._environments = environments

    def compare(self, before: Revision, after: Revision) -> Difference:
        """Compare as far as the two were built: if one was never fetched, no files, and settings as asked for.

        Raises `Conflict` where what was built is lost.
        """
        old, new = self._files(before), self._files(after)
        both_fetched = before.settings is not None and after.settings is not None
        return Difference(
            files=_file_diffs(old, new) if old and new else (),
            settings=_changes(_plain(before, in_force=both_fetched), _plain(after, in_force=both_fetched)),
            packages=_changes(self._packages(before), self._packages(after))
            if before.environment and after.environment
            else (),
        )

    def _files(self, revision: Revision) -> Snapshot | None:
        if not revision.snapshot_digest:
            return None
        return self._snapshots.find(revision.snapshot_digest) or _lost(revision, "files")

    def _packages(self, revision: Revision) -> dict[str, str]:
        """Packages and their versions; a line of the lock that is no `name==version` is its own name."""
        environment = self._environments.find(revision.environment) or _lost(revision, "environment")
        pairs = (line.partition("==") for line in environment.lock)
        return {name: version or "present" for name, _, version in pairs}


def _lost(revision: Revision, what: str) -> NoReturn:
    raise Conflict(
        ErrorReason.ERROR_REASON_STATE_CONFLICT,
        "the {what} of revision {revision} is not on this host any more, so nothing can be compared with it",
        what=what,
        revision=revision.number,
        hint="A rollback to it, or a start, brings it back.",
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [
        Change(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name, "") != after.get(name, "")
    ]


def _file_diffs(before: Snapshot, after: Snapshot) -> list[FileDiff]:
    one = {file.path: file for file in before.files}
    other = {file.path: file for file in after.files}
    found: list[FileDiff] = []
    left = DIFF_LIMIT
    deadline = time.monotonic() + DIFF_SECONDS
    for path in sorted(one.keys() | other.keys()):
        old, new = one.get(path), other.get(path)
        if old and new and (old.sha256, old.kind) == (new.sha256, new.kind):
            continue
        unified = ""
        if any(file.link_target for file in (old, new) if file):
            unified = _link_diff(shown(path), old, new)
        elif left > 0 and all(file.size <= TEXT_LIMIT for file in (old, new) if file):
            unified = _unified(
                shown(path), before.root / path if old else None, after.root / path if new else None, deadline
            )
        left -= len(unified)
        found.append(FileDiff(path, old.sha256 if old else "", new.sha256 if new else "", unified))
    return found


def _plain(revision: Revision, *, in_force: bool) -> dict[str, str]:
    """Source and settings as texts by name; the settings in force, or as asked for."""
    source = revision.source
    settings = revision.settings if in_force and revision.settings else revision.requested
    plain = {
        "data_source": source.data_source,
        "project": source.project,
        "ref": source.ref,
        "directory": source.directory,
        "paths": "\n".join(source.paths),
    }
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "secret_env":
            plain |= {f"secret_env.{name}": f"secret {_print(sealed)}" for name, sealed in (value or {}).items()}
        elif field.name == "env":
            plain |= {f"env.{name}": text for name, text in (value or {}).items()}
        elif field.name == "test_call" and value:
            plain |= {"test.parameters": value.parameters_json, "test.expected": value.expected_json}
        elif isinstance(value, tuple):
            plain[field.name] = "\n".join(map(str, value))
        elif value not in (None, ""):
            plain[field.name] = str(value)
    return plain


def _print(sealed: str) -> str:
    """Tells a secret that was set anew from one that was not, and nothing of its value: sealing is never the same."""
    return sha256(sealed.encode()).hexdigest()[:8]


def _unified(path: str, before: Path | None, after: Path | None, deadline: float) -> str:
    """The difference in unified format, by git, which a large file does not make slow; "" where it is no short text."""
    command = [
        "git", "diff", "--no-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--",
        str(before or os.devnull), str(after or os.devnull),
    ]  # fmt: skip
    left = deadline - time.monotonic()
    if left <= 0:
        return ""
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT},
            capture_output=True,
            timeout=left,
            check=False,
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return ""
    _, hunk, rest = done.stdout.partition(b"\n@@")
    if not hunk:
        return ""
    text = (b"@@" + rest).decode("utf-8", "replace")
    return f"--- a/{path}\n+++ b/{path}\n" + _HEADING.sub(r"\1", text)


def _link_diff(path: str, before: SnapshotFile | None, after: SnapshotFile | None) -> str:
    lines = [f"{sign}link to {shown(file.link_target)}\n" for sign, file in (("-", before), ("+", after)) if file]
    return f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n{''.join(lines)}"

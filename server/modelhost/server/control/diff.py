"""What is different between two revisions: files, settings in force, packages."""

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

from modelhost.envs import EnvironmentStore
from modelhost.server.resources import Revision
from modelhost.server.sources.snapshots import Snapshot, SnapshotFile, SnapshotStore

TEXT_LIMIT = 256 * 1024  # of one file, bytes
DIFF_LIMIT = 4 * 1024 * 1024  # of all unified diffs together, characters


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
        """Compare as far as the two were built: if one was never fetched, no files, and settings as asked for."""
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
        return self._snapshots.find(revision.snapshot_digest) if revision.snapshot_digest else None

    def _packages(self, revision: Revision) -> dict[str, str]:
        """Packages and their versions; a line of the lock that is no `name==version` is its own name."""
        environment = self._environments.find(revision.environment)
        pairs = (line.partition("==") for line in (environment.lock if environment else ()))
        return {name: version or "present" for name, _, version in pairs}


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
    for path in sorted(one.keys() | other.keys()):
        old, new = one.get(path), other.get(path)
        if old and new and (old.sha256, old.kind) == (new.sha256, new.kind):
            continue
        unified = _unified(path, _text(before.root, old), _text(after.root, new)) if left > 0 else ""
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
            plain[field.name] = "\n".join(value)
        elif value not in (None, ""):
            plain[field.name] = str(value)
    return plain


def _print(sealed: str) -> str:
    """Tells a secret that was set anew from one that was not, and nothing of its value: sealing is never the same."""
    return sha256(sealed.encode()).hexdigest()[:8]


def _text(root: Path, file: SnapshotFile | None) -> list[str] | None:
    """A file's lines; none for one that is not there, `None` for what is no short text."""
    if file is None:
        return []
    if file.link_target:
        return [f"link to {file.link_target}\n"]
    if file.size > TEXT_LIMIT:
        return None
    data = (root / file.path).read_bytes()
    if b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return io.StringIO(text, newline="\n").readlines()  # `splitlines` would split at form feeds, too


def _unified(path: str, before: list[str] | None, after: list[str] | None) -> str:
    if before is None or after is None:
        return ""
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

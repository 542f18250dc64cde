"""What `modelhost deploy` takes from the model's directory: the `modelhost.toml` in it, and what Git says of it.

From the file only the name, the description and the `[source]` table are taken. The rest is read by the server, from
the commit.
"""

import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhost.cli.errors import usage
from modelhost.cli.wish import SourceFlags

FILE_NAME = "modelhost.toml"
_GIT_PATIENCE = 10.0
_TEXTS = ("data_source", "project", "ref", "directory")


@dataclass(frozen=True)
class ModelFile:
    """A `modelhost.toml`, as far as the command reads it."""

    path: Path
    name: str | None
    description: str | None
    source: SourceFlags


@dataclass(frozen=True)
class GitState:
    """What Git says of a directory: where it is in its repository, and what in it is not committed."""

    prefix: str
    uncommitted: tuple[str, ...]


def read(directory: Path) -> ModelFile | None:
    """Read the directory's `modelhost.toml`; None where there is none. Raises usage errors."""
    path = directory / FILE_NAME
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise usage(f"{path} is not TOML: {error}") from error
    source = content.get("source", {})
    if not isinstance(source, dict):
        raise usage(f"{path}: source must be a table: [source]")
    if unknown := sorted(source.keys() - {*_TEXTS, "paths"}):
        raise usage(f"{path}: [source] has no {unknown[0]!r}", f"it takes {', '.join(_TEXTS)} and paths")
    data_source, project, ref, root = (_text(source, key, f"{path}: source.{key}") for key in _TEXTS)
    paths = _texts(source, "paths", f"{path}: source.paths")
    flags = SourceFlags(source=data_source, project=project, ref=ref, directory=root, path=paths)
    name, description = (_text(content, key, f"{path}: {key}") for key in ("name", "description"))
    return ModelFile(path, name, description, flags)


def _text(table: dict[str, Any], key: str, what: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise usage(f"{what} must be text, in quotes")
    return value


def _texts(table: dict[str, Any], key: str, what: str) -> list[str] | None:
    value = table.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise usage(f'{what} must be a list of text: ["main.py", "data"]')
    return value


def git_state(directory: Path) -> GitState | None:
    """Return what Git says of the directory; None where it is in no work tree, or where there is no Git."""
    prefix = _git(directory, "rev-parse", "--show-prefix")
    if prefix is None:
        return None
    status = _git(directory, "status", "--porcelain=v1", "-z", "--untracked-files=normal", "--", ".") or ""
    # Entries are "XY path", ended by NUL; that of a rename is followed by the old path.
    changed, entries = [], iter(status.split("\0"))
    for entry in entries:
        if entry:
            changed.append(entry[3:])
        if entry[:1] in {"R", "C"}:
            next(entries, None)
    prefix = prefix.rstrip("\n")
    return GitState(prefix.rstrip("/"), tuple(path.removeprefix(prefix) for path in changed))


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None

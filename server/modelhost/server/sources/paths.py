"""Which names may be deployed, and which files of a commit a selection means.

Nothing here touches the disk. A tree is what its author, or somebody who got at the repository, made of it: Git stores
any bytes as a name, so every name is checked before it becomes a path of ours.
"""

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelhost.server.errors import Conflict, InvalidRequest, NotFound
from modelhost.server.sources import EntryKind, Selection, TreeEntry
from modelhost.v1.error_reason_pb2 import ErrorReason

MODEL_CONFIG = "modelhost.toml"
"""The file that is selected wherever the selected directory has it."""

MAX_PATH_BYTES = 3 * 1024
"""Of a path within a snapshot: Linux's PATH_MAX (4,096) less room for the folder that holds the snapshot's files."""
MAX_NAME_BYTES = 255  # NAME_MAX of every file system in use
MAX_DEPTH = 100  # no real model comes near it; a deeper tree only serves to exhaust whoever walks it
MAX_LINK_BYTES = MAX_PATH_BYTES
MAX_LINK_HOPS = 40  # MAXSYMLINKS of Linux
NEAR_NAMES_FROM = 5_000  # names that near ones are looked for in: comparing takes about 10 µs each

# Characters that HFS+ leaves out when it compares names; Git's own list is in `is_hfs_dotgit`.
_IGNORED_BY_HFS = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


@dataclass(frozen=True)
class Chosen:
    """A file or link of a selection. `path` is from the selected directory, and is safe to create."""

    path: str
    entry: TreeEntry


def shown(name: str) -> str:
    """Return `name` fit for a message or a log: what cannot be printed or is not UTF-8 is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def check_relative(path: str, field: str) -> str:
    """Return `path` without a trailing `/`. Raises `InvalidRequest`, naming `field`, unless it is relative and plain:
    `/` between its parts, none of which is empty, `.` or `..`, and no control characters."""
    plain = path.removesuffix("/")
    if problem := _problem(plain):
        raise InvalidRequest(field, "{field} is the path {path}, which {problem}", path=shown(path), problem=problem)
    return plain


def choose(entries: Iterable[TreeEntry], selection: Selection) -> list[Chosen]:
    """Return what `selection` means, by path: everything under its directory, and of that only its `paths`.

    `modelhost.toml` in the selected directory is always chosen. Only what is chosen has to be fit for deployment.

    Raises `NotFound` PATH_NOT_FOUND where a path means nothing, and `Conflict` PATH_REFUSED for submodules, names that
    cannot be files here, and files that are in each other's way. Links are for `check_link`.
    """
    inside = _below(list(entries), selection.directory)
    if selection.paths:
        inside = _named(inside, [check_relative(path, f"paths[{n}]") for n, path in enumerate(selection.paths)])
    chosen = sorted(inside, key=lambda each: each.path)
    for each in chosen:
        _check_entry(each)
    _check_clashes(chosen)
    return chosen


def folders(paths: Iterable[str]) -> list[str]:
    """Return every folder that `paths` need, each after the one that holds it."""
    return sorted({folder for path in paths for folder in _ancestors(path)})


def check_link(path: str, links: Mapping[str, str]) -> None:
    """Raise `Conflict` PATH_REFUSED unless the link `path` stays in the snapshot; `links` has the target of each link.

    Goes where the kernel would go, through other links too: `a -> b/../x` is harmless if `b` is a folder, and leaves
    the snapshot if `b` is a link to its root. A link to what is not there is fine.
    """
    ahead = path.split("/")[::-1]
    position: list[str] = []
    hops = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not position:
                raise _link_refused(path, links, "leads out of the deployed directory")
            position.pop()
            continue
        position.append(part)
        target = links.get("/".join(position))
        if target is None:
            continue
        hops += 1
        if hops > MAX_LINK_HOPS:
            raise _link_refused(path, links, "leads in a circle, or through too many links")
        if target.startswith("/"):
            raise _link_refused(path, links, "leads to an absolute path")
        if not target or _unprintable(target) or len(os.fsencode(target)) > MAX_LINK_BYTES:
            raise _link_refused(path, links, "is empty, too long or has control characters")
        position.pop()
        ahead += target.split("/")[::-1]


def near(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence with the names most like `name`, or nothing: `; is "data/x" meant?`."""
    candidates = list(dict.fromkeys(itertools.islice(names, NEAR_NAMES_FROM)))
    last = name.rpartition("/")[2]
    same = [each for each in candidates if each != name and each.rpartition("/")[2] == last]
    best = list(dict.fromkeys([*same[:3], *difflib.get_close_matches(name, candidates, n=3)]))[:3]
    if not best:
        return ""
    return "; is " + " or ".join(f'"{shown(each)}"' for each in best) + " meant?"


def _below(entries: Sequence[TreeEntry], directory: str) -> list[Chosen]:
    if not directory:
        if not entries:
            raise NotFound(ErrorReason.ERROR_REASON_PATH_NOT_FOUND, "the commit has no files")
        return [Chosen(entry.path, entry) for entry in entries]
    directory = check_relative(directory, "directory")
    prefix = directory + "/"
    inside = [Chosen(entry.path[len(prefix) :], entry) for entry in entries if entry.path.startswith(prefix)]
    if inside:
        return inside
    for entry in entries:
        if entry.path == directory:
            raise NotFound(
                ErrorReason.ERROR_REASON_PATH_NOT_FOUND,
                'the directory "{path}" is a {kind} at this commit',
                path=shown(directory), kind="file" if entry.kind is EntryKind.EXECUTABLE else entry.kind,
            )  # fmt: skip
    raise NotFound(
        ErrorReason.ERROR_REASON_PATH_NOT_FOUND,
        'the commit has no directory "{path}"{near}',
        path=shown(directory),
        near=near(directory, folders(entry.path for entry in entries)),
    )


def _named(inside: Sequence[Chosen], wanted: Sequence[str]) -> list[Chosen]:
    names = {*wanted, MODEL_CONFIG}
    found: set[str] = set()
    chosen = []
    for each in inside:
        meant = names.intersection((each.path, *_ancestors(each.path)))
        if meant:
            found |= meant
            chosen.append(each)
    for path in wanted:
        if path not in found:
            raise NotFound(
                ErrorReason.ERROR_REASON_PATH_NOT_FOUND,
                'the commit has no file or directory "{path}"{near}',
                path=shown(path),
                near=near(path, (name for each in inside for name in (each.path, *_ancestors(each.path)))),
            )
    return chosen


def _check_entry(chosen: Chosen) -> None:
    """Raise unless the entry may become a file of that name."""
    if chosen.entry.kind is EntryKind.SUBMODULE:
        raise refused(chosen.path, "is a submodule, which cannot be deployed: choose paths without it")
    problem = _problem(chosen.path)
    if not problem and any(_is_dot_git(part) for part in chosen.path.split("/")):
        problem = "has a part that some file system takes for .git"
    if problem:
        raise refused(chosen.path, problem)


def _check_clashes(chosen: Sequence[Chosen]) -> None:
    """Raise where two entries cannot both be: real trees have no such pair, but crafted ones do."""
    paths = {each.path for each in chosen}
    for one, other in itertools.pairwise(chosen):
        if one.path == other.path:
            raise refused(one.path, "is in the commit twice")
    for each in chosen:
        for folder in _ancestors(each.path):
            if folder in paths:
                raise refused(folder, "is both a file and a directory")


def refused(path: str, problem: str) -> Conflict:
    """Return the error for a file of the commit that cannot be deployed."""
    return Conflict(
        ErrorReason.ERROR_REASON_PATH_REFUSED, '"{path}" {problem}', path=shown(path), problem=problem
    )  # fmt: skip


def _link_refused(path: str, links: Mapping[str, str], problem: str) -> Conflict:
    return Conflict(
        ErrorReason.ERROR_REASON_PATH_REFUSED,
        'the link "{path}" to "{target}" {problem}',
        path=shown(path), target=shown(links[path][:MAX_LINK_BYTES]), problem=problem,
    )  # fmt: skip


def _ancestors(path: str) -> Iterator[str]:
    """The folders that `path` is in, outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _unprintable(text: str) -> bool:
    return any(char < " " or char == "\x7f" for char in text)


def _problem(path: str) -> str:
    """Say what keeps `path` from being a relative path here, or nothing."""
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    if _unprintable(path):
        return "has control characters"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} levels deep"
    for part in parts:
        if part in ("", ".", ".."):
            return "has a part that is empty, `.` or `..`"
        if len(part) * 4 > MAX_NAME_BYTES and len(os.fsencode(part)) > MAX_NAME_BYTES:
            return f"has a part that is longer than {MAX_NAME_BYTES} bytes"
    return ""


def _is_dot_git(name: str) -> bool:
    """Whether HFS+ or NTFS takes `name` for `.git`. The rules are those of Git's `is_hfs_dotgit`, `is_ntfs_dotgit`."""
    if name.translate(_IGNORED_BY_HFS).lower() == ".git":
        return True
    windows = name.replace("\\", ":").partition(":")[0].rstrip(". ").lower()
    return windows in (".git", "git~1")

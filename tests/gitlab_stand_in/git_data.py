"""What the endpoints read of a repository, through the real git.

What a hash names never changes: answers about hashes are remembered, so that lists of many refs do not take a process
for each.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tests.git_repos import Repo

RECORD = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B"


@dataclass(frozen=True)
class TreeEntry:
    """An entry of a tree, as `git ls-tree` has it."""

    mode: str
    type: str
    id: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Commit:
    """A commit. Dates are ISO 8601, `parents` hashes, `text` the whole message."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: tuple[str, str, str]
    committer: tuple[str, str, str]
    text: str


@dataclass(frozen=True)
class Ref:
    """A branch or tag. `target` is what it points to itself: of an annotated tag the tag object, not the commit."""

    name: str
    target: str
    commit: str
    created: str
    """ISO 8601; of an annotated tag when it was made, otherwise of its commit."""
    text: str | None
    """An annotated tag's message."""


def git(repo: Repo, *arguments: str, stdin: bytes = b"") -> bytes:
    """What git prints; raises `CalledProcessError` if it fails."""
    command = ["git", f"--git-dir={repo.path}", *arguments]
    done = subprocess.run(command, input=stdin, env=environment(), capture_output=True, check=True)
    return done.stdout


def environment() -> dict[str, str]:
    """No configuration but the repository's."""
    return {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C.UTF-8",
    }


def default_branch(repo: Repo) -> str | None:
    """The branch that HEAD names; None while the repository is empty."""
    ref = (repo.path / "HEAD").read_text().removeprefix("ref: ").strip()
    packed = repo.path / "packed-refs"
    if not (repo.path / ref).exists() and not (packed.exists() and f" {ref}\n" in packed.read_text()):
        return None
    return ref.removeprefix("refs/heads/")


def resolve(repo: Repo, revision: str, kind: str = "commit") -> str | None:
    """The hash of what a revision names, of a tag the tagged; None if there is no such thing."""
    if not revision or "\n" in revision:
        return None
    answer = git(repo, "cat-file", "--batch-check", stdin=f"{revision}^{{{kind}}}\n".encode()).decode()
    fields = answer.split()
    return fields[0] if len(fields) == 3 and fields[1] == kind else None


def valid_name(name: str) -> bool:
    """Whether a branch or tag could be called so."""
    command = ["git", "check-ref-format", f"refs/heads/{name}"]
    return not name.startswith("-") and subprocess.run(command, env=environment(), check=False).returncode == 0


def blob(repo: Repo, hash_: str) -> bytes | None:
    """The bytes of a blob; None if there is none of that hash."""
    if "\n" in hash_:
        return None
    head, _, content = git(repo, "cat-file", "--batch", stdin=hash_.encode() + b"\n").partition(b"\n")
    return content[:-1] if head.split()[1:2] == [b"blob"] else None


@lru_cache(maxsize=10_000)
def entry(repo: Repo, commit: str, path: str) -> TreeEntry | None:
    """The entry at a path; None if there is none."""
    if {"", ".", ".."} & set(path.strip("/").split("/")):
        return None
    out = git(repo, "--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--", path.strip("/"))
    return _entry(out.split(b"\0")[0]) if out else None


def entries(repo: Repo, commit: str, path: str, *, recursive: bool) -> Iterator[TreeEntry]:
    """Directories first, then files and links, then submodules; read as they are asked for, for trees may be huge."""
    for kind in ("tree", "blob", "commit"):
        yield from (found for found in _listed(repo, commit, path, recursive=recursive) if found.type == kind)


@lru_cache(maxsize=10_000)
def commit_of(repo: Repo, hash_: str) -> Commit:
    out = git(repo, "log", "-1", "--no-show-signature", f"--format={RECORD}", hash_, "--")
    hash_, tree, parents, *people, text = out.decode(errors="replace").removesuffix("\n").split("\0", 9)
    author, committer = tuple(people[:3]), tuple(people[3:])
    return Commit(hash_, tree, tuple(parents.split()), author, committer, text)  # type: ignore[arg-type]


@lru_cache(maxsize=10_000)
def last_commit(repo: Repo, commit: str, path: str) -> str:
    """The newest commit that changed a file."""
    return git(repo, "--literal-pathspecs", "log", "-1", "--format=%H", commit, "--", path).decode().strip()


def refs(repo: Repo, kind: str) -> list[Ref]:
    """All of `heads` or `tags`, by name."""
    fields = ("refname:lstrip=2", "objectname", "*objectname", "objecttype", "creatordate:iso-strict", "contents")
    form = "%00".join(f"%({field})" for field in fields) + "%00%00"
    out = git(repo, "for-each-ref", f"--format={form}", f"refs/{kind}").decode(errors="replace")
    found = []
    for record in out.split("\0\0\n")[:-1]:
        name, target, tagged, type_, created, text = record.split("\0", 5)
        found.append(Ref(name, target, tagged or target, created, text.rstrip("\n") if type_ == "tag" else None))
    return found


def _listed(repo: Repo, commit: str, path: str, *, recursive: bool) -> Iterator[TreeEntry]:
    options = ["-r", "-t"] if recursive else []
    tree = f"{commit}:{path.strip('/')}"
    command = ["git", f"--git-dir={repo.path}", "ls-tree", "-z", *options, tree]
    front = f"{path.strip('/')}/" if path.strip("/") else ""
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        try:
            rest = b""
            while piece := os.read(listing.stdout.fileno(), 65536):
                *lines, rest = (rest + piece).split(b"\0")
                yield from (_entry(line, front) for line in lines)
        finally:
            listing.kill()


def _entry(line: bytes, front: str = "") -> TreeEntry:
    mode, type_, rest = line.split(b" ", 2)
    hash_, _, path = rest.partition(b"\t")
    return TreeEntry(mode.decode(), type_.decode(), hash_.decode(), front + path.decode(errors="replace"))

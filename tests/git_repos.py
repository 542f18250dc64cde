"""Real Git repositories for tests: ordinary ones, and such as no `git add` would make.

    repo = Repo(tmp_path / "model")
    first = repo.commit({"main.py": b"...", "lib": Link("src/lib"), "run.sh": Executable(b"...")})
    repo.tag("v1", message="an annotated tag")

Hostile trees are put together from raw entries: `repo.commit_tree(repo.tree([("100644", b"..", repo.blob(b"x"))]))`.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

IDENTITY = "Ada Lovelace <ada@example.com>"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Executable:
    """A file with the executable bit."""

    content: bytes


@dataclass(frozen=True)
class Submodule:
    """A commit of another repository."""

    commit: str = "1" * 40


Content = bytes | Link | Executable | Submodule


class Repo:
    """A bare repository at `path`; its default branch is `main`. Commits get dates a minute apart, always the same."""

    def __init__(self, path: Path, *, object_format: str = "sha1") -> None:
        self.path = path
        self._minutes = 0
        path.mkdir(parents=True)
        self.git("init", "--bare", "--quiet", "--initial-branch=main", f"--object-format={object_format}")

    @property
    def url(self) -> str:
        """The repository as a `file://` URL."""
        return self.path.as_uri()

    def commit(self, files: Mapping[str, Content], *, message: str = "change", branch: str = "main") -> str:
        """Put a commit with exactly these files on a branch, and return its hash."""
        lines = [f"commit refs/heads/{branch}\n".encode(), f"committer {IDENTITY} {self._date()}\n".encode()]
        lines.append(_data(message.encode()))
        if tip := self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}"):
            lines.append(f"from {tip}\n".encode())
        lines.append(b"deleteall\n")
        for path, content in files.items():
            quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
            mode, data = _mode_and_data(content)
            lines.append(f"M {mode} ".encode() + data[0] + b" " + os.fsencode(quoted) + b"\n" + data[1])
        self.git("fast-import", "--quiet", stdin=b"".join(lines))
        return self.git("rev-parse", f"refs/heads/{branch}")

    def tag(self, name: str, commit: str = "main", *, message: str = "") -> str:
        """Tag a commit, with an object of its own if there is a message; return the hash of what the tag points to."""
        self.git("tag", *(["-m", message] if message else []), name, commit)
        return self.git("rev-parse", f"refs/tags/{name}")

    def blob(self, content: bytes) -> str:
        """Store some bytes and return their hash."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def tree(self, entries: Iterable[tuple[str, bytes, str]]) -> str:
        """Store a tree of `(mode, name, hash)`, whatever these are and in this order, and return its hash."""
        raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(hash_) for mode, name, hash_ in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    def commit_tree(self, tree: str, *, branch: str = "main") -> str:
        """Put a commit with a tree, and no parent, on a branch, and return its hash."""
        commit = self.git("commit-tree", "-m", "change", tree)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a git command in the repository and return what it prints, without the line end."""
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_DIR": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for role in ("AUTHOR", "COMMITTER"):
            environment[f"GIT_{role}_NAME"], _, email = IDENTITY.partition(" <")
            environment[f"GIT_{role}_EMAIL"] = email.rstrip(">")
            environment[f"GIT_{role}_DATE"] = self._date()
        done = subprocess.run(["git", *arguments], input=stdin, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode().rstrip("\n")

    def _date(self) -> str:
        self._minutes += 1
        return f"{1_600_000_000 + 60 * self._minutes} +0000"


def _mode_and_data(content: Content) -> tuple[str, tuple[bytes, bytes]]:
    """The mode of an entry, and for `git fast-import` what it refers to and what follows."""
    match content:
        case bytes():
            return "100644", (b"inline", _data(content))
        case Executable():
            return "100755", (b"inline", _data(content.content))
        case Link():
            return "120000", (b"inline", _data(os.fsencode(content.target)))
        case Submodule():
            return "160000", (content.commit.encode(), b"")


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)

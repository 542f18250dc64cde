"""What git prints: refs, entries of trees, blobs."""

import hashlib
import os
import stat
from collections.abc import Iterator

from modelhost.envs.process import CommandFailed
from modelhost.server.sources import EntryKind, SourceRef, TreeEntry
from modelhost.server.sources.git.command import SHA256_DIGITS, GitStream
from modelhost.server.sources.lfs_pointer import is_lfs_pointer
from modelhost.server.sources.paths import refused

MAX_RECORD_BYTES = 64 * 1024
"""Of one line or record: a path may have any length in Git, and none that is near this can be used."""
SUBMODULE_MODE = 0o160000


def parse_refs(output: str) -> tuple[list[SourceRef], str]:
    """Read what `ls-remote --symref` says. A tag's `^{}` is what it leads to when it is an object of its own."""
    default = head = ""
    commits: dict[str, str] = {}
    for line in output.splitlines():
        commit, _, name = line.partition("\t")
        if name == "HEAD" and commit.startswith("ref: "):
            default = commit.removeprefix("ref: ")
        elif name == "HEAD":
            head = commit
        elif name.startswith(("refs/heads/", "refs/tags/")):
            commits[name.removesuffix("^{}")] = commit
    if not default:  # plain HTTP does not say; Git's own clone guesses like this (`guess_remote_head`)
        same = [name for name, commit in commits.items() if commit == head and name.startswith("refs/heads/")]
        default = next((name for name in ("refs/heads/main", "refs/heads/master", *same) if name in same), "")
    refs = []
    for name, commit in commits.items():
        is_tag = name.startswith("refs/tags/")
        short = name.removeprefix("refs/tags/" if is_tag else "refs/heads/")
        refs.append(SourceRef(short, is_tag, commit, is_default=name == default))
    return sorted(refs, key=lambda ref: (ref.name, ref.is_tag)), head


def parse_entry(record: bytes) -> TreeEntry:
    """Read one entry that `ls-tree -l -z` lists. Modes are read as Git does (`canon_mode`): old ones vary."""
    description, _, name = record.partition(b"\t")
    octal, _, blob, size = description.decode().split()
    mode = int(octal, 8)
    if size == "BAD":
        raise CommandFailed(["git", "ls-tree"], 0, [f"object {blob} is missing"])
    if stat.S_IFMT(mode) == SUBMODULE_MODE:
        kind = EntryKind.SUBMODULE
    elif stat.S_ISLNK(mode):
        kind = EntryKind.LINK
    else:
        kind = EntryKind.EXECUTABLE if mode & stat.S_IXUSR else EntryKind.FILE
    is_file = kind in (EntryKind.FILE, EntryKind.EXECUTABLE)
    return TreeEntry(os.fsdecode(name), kind, int(size) if is_file else 0, blob)


def read_blob(git: GitStream, entry: TreeEntry, *, as_it_is: bool = False) -> Iterator[bytes]:
    """Ask `cat-file --batch` for a blob and return it in pieces, at least one. Raises `CommandFailed` if it is damaged.

    A Git LFS pointer is refused unless the blob is wanted `as_it_is`.

    Measured with Git 2.39: spoilt bytes of a large blob are handed out as they are. So the hash is made here again,
    and the last piece is given only when it is right.
    """
    git.ask(entry.blob.encode())
    answer = (git.until(b"\n", MAX_RECORD_BYTES) or b"").split()
    if len(answer) != 3 or answer[1] != b"blob":
        raise _damaged(entry)
    size = int(answer[2])
    digest = (hashlib.sha256 if len(entry.blob) == SHA256_DIGITS else hashlib.sha1)(b"blob %d\0" % size)
    left = size
    for piece in git.pieces(size):
        digest.update(piece)
        left -= len(piece)
        if not left and digest.hexdigest() != entry.blob:
            raise _damaged(entry)
        if not as_it_is and size == len(piece) and is_lfs_pointer(piece):
            raise refused(
                entry.path, "is a Git LFS pointer, not the file itself: use a GitLab data source, or keep it in Git"
            )
        yield piece
    for _ in git.pieces(1):
        pass  # the line end after the content


def _damaged(entry: TreeEntry) -> CommandFailed:
    return CommandFailed(["git", "cat-file"], 0, [f"object {entry.blob} is damaged, missing or not a file"])

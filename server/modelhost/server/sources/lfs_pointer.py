"""Git LFS pointers: the small files that stand in Git for large ones kept elsewhere.

The rules are those of https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

import re
from dataclasses import dataclass

MAX_POINTER_BYTES = 1024

_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n"
    rb"(?P<before>(?:[a-z0-9.-]+ [^\n]*\n)*)oid sha256:(?P<oid>[0-9a-f]{64})\n"
    rb"(?:[a-z0-9.-]+ [^\n]*\n)*size (?P<size>[0-9]{1,18})\n?"
)


@dataclass(frozen=True)
class LfsPointer:
    """What a pointer says of the file that it stands for: its SHA-256, 64 hex digits, and its bytes.

    `extended` if what is kept is not the file itself, but what an extension of Git LFS made of it.
    """

    oid: str
    size: int
    extended: bool = False


def parse_lfs_pointer(content: bytes) -> LfsPointer | None:
    """Read a pointer; None if `content` is an ordinary file's."""
    found = _POINTER.fullmatch(content) if len(content) <= MAX_POINTER_BYTES else None
    if found is None:
        return None
    return LfsPointer(found["oid"].decode(), int(found["size"]), extended=b"ext-" in found["before"])


def is_lfs_pointer(content: bytes) -> bool:
    """Whether a file is a pointer."""
    return parse_lfs_pointer(content) is not None

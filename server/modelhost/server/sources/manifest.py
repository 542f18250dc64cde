"""What a snapshot holds, as a list with a digest.

The digest is the SHA-256 of a first line, which names the rule, and of one line per file or link, by path: the JSON
array `[path, kind, size, sha256]` without blanks, everything but ASCII escaped, `\\n` at its end. So it says what the
files are, not when or from which commit they were taken.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from modelhost.server.sources import EntryKind

FIRST_LINE = b"modelhost snapshot 1\n"


@dataclass(frozen=True)
class SnapshotFile:
    """One file or link of a snapshot. `path` is relative with `/`; `size` in bytes, for a link that of its target.

    `sha256` is of the file's bytes, or of the link's target: 64 hex digits.
    """

    path: str
    kind: EntryKind
    size: int
    sha256: str
    link_target: str = ""

    @property
    def executable(self) -> bool:
        """Whether it has the executable bit."""
        return self.kind is EntryKind.EXECUTABLE


def digest_of(files: Iterable[SnapshotFile]) -> str:
    """Return the digest of a snapshot with these files, which must be in the order of their paths."""
    digest = hashlib.sha256(FIRST_LINE)
    for file in files:
        line = json.dumps([file.path, file.kind, file.size, file.sha256], separators=(",", ":"))
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def dump_manifest(files: Iterable[SnapshotFile]) -> bytes:
    """Return the bytes of `manifest.json`."""
    lines = ",\n".join(json.dumps(dataclasses.asdict(file)) for file in files)
    return f'{{"version": 1, "files": [\n{lines}\n]}}\n'.encode("ascii")


def load_manifest(raw: bytes) -> tuple[SnapshotFile, ...]:
    """Read `manifest.json`. Raises `ValueError` if it is none, or if a link is not what its digest says."""
    try:
        content = json.loads(raw)
        if content["version"] != 1:
            raise ValueError("the manifest is of an unknown version")
        files = tuple(SnapshotFile(**{**item, "kind": EntryKind(item["kind"])}) for item in content["files"])
        for file in files:
            if file.kind is EntryKind.LINK and sha256_of_target(file.link_target) != file.sha256:
                raise ValueError("the manifest has a link with another target")
    except (KeyError, TypeError) as error:
        raise ValueError("the manifest is malformed") from error
    return files


def sha256_of_target(target: str) -> str:
    """Return the digest that stands for a link to `target`."""
    return hashlib.sha256(os.fsencode(target)).hexdigest()

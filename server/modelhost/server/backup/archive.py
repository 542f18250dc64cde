"""The file of a backup: a tar, compressed if its name says so, with these members and no others.

backup.json    what it is: `Description`
modelhost.db   the database, whole in itself
secret.key     the key of the secrets in it, unless it was left out
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path
from typing import IO

import msgspec

FORMAT = 1
DESCRIPTION, DATABASE, KEY = "backup.json", "modelhost.db", "secret.key"
COMPRESSED = (".gz", ".tgz")
PIECE_BYTES = 1024 * 1024
MOST_DESCRIPTION_BYTES = 64 * 1024
_GZIP = b"\x1f\x8b"


class BackupProblem(Exception):
    """A backup cannot be taken or used; says why and what to do."""


class Description(msgspec.Struct, frozen=True):
    """What a backup says of itself. `created` is in UTC, as ISO 8601 has it.

    `sha256` has the digests of the other members by name. `key_fingerprint` tells whether a key is the right one, and
    nothing of the key.
    """

    format: int
    modelhost: str
    schema: int
    created: str
    key_fingerprint: str
    sha256: dict[str, str]

    @property
    def has_key(self) -> bool:
        """Whether the key is in it."""
        return KEY in self.sha256


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_key(source: Path, target: Path) -> None:
    """Copy a key to a new file that is its owner's alone from the beginning. Raises `OSError`."""
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def pack(folder: Path, description: Description, target: Path, *, compress: bool) -> None:
    """Write the members that lie in `folder` to a new file, readable by its owner alone. Raises `OSError`."""
    (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(description)) + b"\n")
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz" if compress else "w") as archive:
            for name in (DESCRIPTION, *description.sha256):
                archive.add(folder / name, name, filter=_nobodys)
        file.flush()
        os.fsync(file.fileno())


def unpack(source: Path, folder: Path) -> Description:
    """Write the members into `folder`, and check that they are what was put in.

    Only files of the known names are read, once each; nothing else that a tar can hold has an effect.

    Raises `BackupProblem`, `OSError`.
    """
    with source.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:gz" if compressed else "r:") as archive:
                found = {member.name: _take(archive, member, folder) for member in _members(archive)}
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BackupProblem(f"{source} is no backup of ModelHost, or it is damaged: {error}") from None
    if DESCRIPTION not in found:
        raise BackupProblem(f"{source} is no backup of ModelHost: there is no {DESCRIPTION} in it")
    description = _described(source, folder / DESCRIPTION)
    del found[DESCRIPTION]
    if found != description.sha256 or DATABASE not in found:
        differing = sorted(dict(found.items() ^ description.sha256.items())) or [DATABASE]
        raise BackupProblem(f"{source} is damaged: {', '.join(differing)} is not what was put in; use another backup")
    return description


def _members(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The members. Raises `tarfile.TarError` where there are others than those of a backup."""
    seen: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if member.name not in (DESCRIPTION, DATABASE, KEY) or not member.isreg() or member.name in seen:
            raise tarfile.ReadError(f"it has a member that no backup has, {member.name[:80]!r}")
        seen[member.name] = member
    return list(seen.values())


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> str:
    """Write a member into the folder; returns the digest of what was written."""
    content: IO[bytes] | None = archive.extractfile(member)
    assert content is not None  # a regular file
    digest = hashlib.sha256()
    descriptor = os.open(folder / member.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        while piece := content.read(PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _described(source: Path, path: Path) -> Description:
    if path.stat().st_size > MOST_DESCRIPTION_BYTES:
        raise BackupProblem(f"{source} is no backup of ModelHost: its {DESCRIPTION} is too large")
    content = path.read_bytes()
    try:
        known = int(msgspec.json.decode(content)["format"])
        if known > FORMAT:
            raise BackupProblem(
                f"{source} has format {known}, this modelhost knows up to {FORMAT}: restore it with a newer one"
            )
        return msgspec.json.decode(content, type=Description)
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise BackupProblem(f"{source} is no backup of ModelHost: its {DESCRIPTION} says {error}") from None


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member

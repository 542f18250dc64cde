"""The folder that `modelhost certs` keeps: the authority, the server's certificate, and those of clients."""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from modelhost.server.certs.making import Authority, Pair


@dataclass(frozen=True)
class Files:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path

    @property
    def existing(self) -> list[Path]:
        """Those that are there, whatever they are."""
        return [path for path in (self.certificate, self.key) if os.path.lexists(path)]


@dataclass(frozen=True)
class Written:
    """A pair that was written just now."""

    files: Files
    expires: datetime


class Folder:
    """Made if it is not there, for its owner alone."""

    def __init__(self, root: Path) -> None:
        self.authority = Files(root / "ca.pem", root / "ca.key")
        self.server = Files(root / "server.pem", root / "server.key")
        self._root = root

    def client(self, name: str) -> Files:
        """Where a client's certificate and key lie."""
        return Files(self._root / f"client-{name}.pem", self._root / f"client-{name}.key")

    def make(self, hosts: list[str], clients: list[str], days: int, now: datetime, *, force: bool) -> list[Written]:
        """Make a certificate for a server, if there are hosts, and for each client; first of all the authority.

        An authority that is there is used, and never replaced. Raises `OSError`, and `ValueError`, also for any other
        file that is there unless `force`; then nothing is written.
        """
        wanted = [*([self.server] if hosts else []), *map(self.client, clients)]
        there = [path for files in wanted for path in files.existing]
        if there and not force:
            raise ValueError(f"{', '.join(map(str, there))} would be overwritten; --force does that")
        authority, is_new = self._authority(now)
        made = [authority.server(hosts, days, now)] if hosts else []
        made += [authority.client(name, days, now) for name in clients]
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        pairs = [*([(self.authority, authority.pair)] if is_new else []), *zip(wanted, made, strict=True)]
        return [self._write(files, pair) for files, pair in pairs]

    def _authority(self, now: datetime) -> tuple[Authority, bool]:
        """The one that is there, or a new one; and whether it is new."""
        there = self.authority.existing
        if not there:
            return Authority.new(now), True
        if len(there) == 1:
            missing = ({self.authority.certificate, self.authority.key} - set(there)).pop()
            raise ValueError(f"there is {there[0]} but no {missing}: bring it back, or remove both for a new authority")
        try:
            return Authority.read(self.authority.certificate.read_bytes(), self.authority.key.read_bytes()), False
        except ValueError as error:
            raise ValueError(f"{self.authority.certificate}, {self.authority.key}: {error}") from None

    def _write(self, files: Files, pair: Pair) -> Written:
        # The key first: a server that watches the files goes on with the old pair until both are new.
        _replace(files.key, pair.key, 0o600)
        _replace(files.certificate, pair.certificate, 0o644)
        return Written(files, pair.expires)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Put a file there, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise

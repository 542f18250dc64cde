"""How a command on the server's own host finds the admin token by itself, and what to trust where TLS is spoken.

A server writes `<port>.json` into a directory that only its user can read or write: `$XDG_RUNTIME_DIR/modelhost`, else
`/tmp/modelhost-<uid>`. It says where the server listens, where its token lies, and which process it is; with TLS also
where its certificate lies, and a name that this has. What another user could have put there is refused, for a token
must not be sent to somebody else's server.

A command trusts that certificate and those in its file alone, no matter who signed them, and looks for the name that it
has in place of 127.0.0.1, which most have not. Whoever answers has its key, so is the server or has all that it has.
"""

import json
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhost.client.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARED = Path("/tmp")  # noqa: S108 - what is in it is checked before every use


@dataclass(frozen=True)
class Tls:
    """Where the server's certificate lies (PEM, with those that signed it), and a name that it has; "" for none."""

    certificate: Path
    name: str = ""

    def root_certificates(self) -> bytes:
        """Return what to trust.

        Raises PermissionError, with a sentence that says which file it is about, where others can write it; OSError.
        """
        with open(self.certificate, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in {0, os.geteuid()}:
                raise PermissionError(f"{self.certificate} belongs to uid {status.st_uid}, not to root or us")
            if status.st_mode & 0o022:
                mode = stat.S_IMODE(status.st_mode)
                raise PermissionError(f"{self.certificate} can be written by other users (mode {mode:04o})")
            return file.read()


@dataclass(frozen=True)
class LocalServer:
    """A server of this user on this host; `tls` is None where it speaks none."""

    token_file: Path
    tls: Tls | None = None

    def token(self) -> str:
        """Return its admin token.

        Raises PermissionError, with a sentence that says which file it is about, where it could be another user's;
        OSError.
        """
        return _read_token(self.token_file)


def registry_dir() -> Path:
    """Return the directory that this user's servers are published in; it need not exist."""
    return _registry_dirs()[0]


def publish(address: str, token_file: Path | str, tls: Tls | None = None) -> Path:
    """Tell this user's commands about the server of this process; returns the file that says so.

    `address` is where it listens, the real port included. Raises PermissionError where the directory is not ours alone.
    """
    where = Address.parse(address)
    entry: dict[str, Any] = {
        "address": where.target,
        "token_file": str(Path(token_file).resolve()),
        "pid": os.getpid(),
    }
    if tls is not None:
        # Not resolved: where the file is a link, it is changed to have another certificate.
        entry["tls"] = {"certificate": str(tls.certificate.absolute()), "name": tls.name}
    directory = registry_dir()
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    name, draft = f"{where.port}.json", f".{where.port}.{os.getpid()}"
    with _opened(directory) as dir_fd:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(entry, file)
        os.rename(draft, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    return directory / name


def withdraw(port: int) -> None:
    """Take back what this process published for the port; a successor's entry is left alone."""
    for directory in _registry_dirs():
        with suppress(FileNotFoundError, PermissionError), _opened(directory) as dir_fd:
            if _entry(dir_fd, port).get("pid") == os.getpid():
                os.unlink(f"{port}.json", dir_fd=dir_fd)


def find_token(address: str) -> str | None:
    """Return the admin token of this user's server at a loopback address; None if none is known.

    Raises PermissionError, with a sentence that says which file it is about, where the directory or the token could be
    another user's.
    """
    server = find_server(address)
    with suppress(FileNotFoundError):
        return server.token() if server else None
    return None


def find_server(address: str) -> LocalServer | None:
    """Return this user's server at a loopback address; None if none is known.

    Raises PermissionError, with a sentence that says which directory it is about, where it could be another user's.
    """
    where = Address.parse(address)
    if not where.is_loopback:
        return None
    for directory in _registry_dirs():
        with suppress(FileNotFoundError), _opened(directory) as dir_fd:
            entry = _entry(dir_fd, where.port)
            if _listens_on_loopback(entry) and _is_alive(entry.get("pid")):
                return LocalServer(Path(entry["token_file"]), _tls(entry))
    return None


def _registry_dirs() -> list[Path]:
    """Return where to look: a server that a service manager started may lack what a login session has."""
    fallback = _SHARED / f"modelhost-{os.geteuid()}"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    with suppress(OSError):
        if runtime.is_absolute() and runtime.stat().st_uid == os.geteuid():  # `su` may have left us another user's
            return [runtime / "modelhost", fallback]
    return [fallback]


@contextmanager
def _opened(directory: Path) -> "Iterator[int]":
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:  # so Linux answers for a link, too
        raise PermissionError(f"{directory} is a link or a file, not a directory of ours") from None
    try:
        _check_private(os.fstat(fd), directory)
        yield fd
    finally:
        os.close(fd)


def _check_private(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to uid {status.st_uid}, not to us (uid {os.geteuid()})")
    if status.st_mode & 0o077:
        raise PermissionError(f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})")


def _entry(dir_fd: int, port: int) -> dict[str, Any]:
    fd = os.open(f"{port}.json", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    with open(fd, encoding="utf-8") as file:
        try:
            entry = json.load(file)
        except ValueError:
            return {}
    return entry if isinstance(entry, dict) else {}


def _tls(entry: dict[str, Any]) -> Tls | None:
    match entry.get("tls"):
        case {"certificate": str(certificate), "name": str(name)}:
            return Tls(Path(certificate), name)
        case _:
            return None


def _listens_on_loopback(entry: dict[str, Any]) -> bool:
    try:
        where = Address.parse(entry["address"])
    except (KeyError, TypeError, ValueError):
        return False
    return where.is_loopback or where.is_wildcard


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except OSError:  # gone, or another user's by now: whoever listens on the port is not the server that we know
        return False
    return True


def _read_token(path: Path) -> str:
    with open(path, encoding="utf-8") as file:
        _check_private(os.fstat(file.fileno()), path)
        return file.read().strip()

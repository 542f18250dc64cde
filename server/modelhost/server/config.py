"""Settings of a server, as `modelhost serve` collects them."""

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from modelhost.envs import DEFAULT_R_REPOSITORIES
from modelhost.server.sources.outgoing import parse_entry
from modelhost.server.transport import Transport

DEFAULT_LISTEN = "127.0.0.1:8470"
DEFAULT_MESSAGE_LIMIT = 64 * 1024 * 1024
DEFAULT_SNAPSHOT_LIMIT = 1024**3
DEFAULT_BUILDS = 8
DEFAULT_LOADS = max(2, os.cpu_count() or 1)
DEFAULT_KEPT_REVISIONS = 20
# Outside of what shadow-utils gives to rootless containers (SUB_UID_MAX is 600100000), and systemd to others, up to
# 1879048191 and from 2147352576 (systemd.io/UIDS-GIDS). From 2**31 on some programs have bugs.
DEFAULT_WORKER_UIDS = range(2_000_000_000, 2_000_065_536)
MOST_UID = 2**32 - 2  # the one above means none
DEFAULT_STOP_GRACE = 10.0  # seconds
DEFAULT_TOKEN_LIFETIME = 7200.0  # seconds
SHORTEST_TOKEN_LIFETIME = 60.0
LONGEST_TOKEN_LIFETIME = 24 * 3600.0
MOST_PORT = 65535


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/modelhost`, by default `~/.local/state/modelhost` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "modelhost"


@dataclass(frozen=True)
class ServerSettings:
    """Sizes in bytes, times in seconds. Addresses are `host:port`; port 0 takes a free one.

    With `admin_listen` the Admin service is there and not at `listen`; all others are at both. Without `metrics` nobody
    can read any. `worker_memory` is what all models together may declare; 0 for what the host has. `git_hosts` are
    entries of `sources.outgoing`: where data sources may be. `audit_log` is what `observing.audit_stream` takes.
    """

    state_dir: Path = field(default_factory=default_state_dir)
    listen: str = DEFAULT_LISTEN
    admin_listen: str = ""
    transport: Transport = field(default_factory=Transport)
    metrics: str = ""
    insecure: bool = False
    message_limit: int = DEFAULT_MESSAGE_LIMIT
    snapshot_limit: int = DEFAULT_SNAPSHOT_LIMIT
    interpreters: tuple[Path, ...] = ()
    r_repositories: tuple[str, ...] = tuple(DEFAULT_R_REPOSITORIES)
    concurrent_builds: int = DEFAULT_BUILDS
    concurrent_loads: int = DEFAULT_LOADS
    kept_revisions: int = DEFAULT_KEPT_REVISIONS
    worker_uids: range = DEFAULT_WORKER_UIDS
    require_isolation: bool = False
    shared_folders: tuple[Path, ...] = ()
    worker_memory: int = 0
    stop_grace: float = DEFAULT_STOP_GRACE
    token_lifetime: float = DEFAULT_TOKEN_LIFETIME
    usage: bool = True
    audit_log: str = ""
    git_hosts: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `ValueError` for what cannot be or is not safe."""
        self.transport.check()
        for flag, address in (("--listen", self.listen), ("--admin-listen", self.admin_listen)):
            if address or flag == "--listen":
                self._check_address(flag, address, "calls", tls=self.transport.tls_files is not None)
        if self.metrics:
            self._check_address("--metrics", self.metrics, "metrics", tls=False)
        for folder in self.shared_folders:
            if not folder.is_absolute() or not folder.is_dir():
                raise ValueError(f"--shared-folder must be the absolute path of a folder, not {str(folder)!r}")
            if self.state_dir.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"--shared-folder {folder} must not have the state directory in it")
        for entry in self.git_hosts:
            parse_entry(entry)
        if self.stop_grace < 0:
            raise ValueError("--stop-grace must be 0 or more seconds")
        if not SHORTEST_TOKEN_LIFETIME <= self.token_lifetime <= LONGEST_TOKEN_LIFETIME:
            raise ValueError("--token-lifetime must be from a minute to a day, in seconds")
        if self.message_limit < 1024:
            raise ValueError("the message limit must be at least 1024 bytes")

    def _check_address(self, flag: str, address: str, what: str, *, tls: bool) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MOST_PORT:
            raise ValueError(f"{flag} must be host:port, the port from 0 to {MOST_PORT}, not {address!r}")
        if not tls and not self.insecure and not _is_loopback(host):
            encrypt = " encrypt them with --tls-cert and --tls-key," if what == "calls" else ""
            raise ValueError(
                f"{host} is not a loopback address, and {what} would travel unencrypted; "
                f"listen on 127.0.0.1,{encrypt} or say --insecure if the network is trusted"
            )


def parse_uids(text: str) -> range:
    """Read `FIRST-LAST`. Raises `ValueError`."""
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= MOST_UID:
        return range(int(first), int(last) + 1)
    raise ValueError(f"--worker-uids must be FIRST-LAST, two numbers from 1 to {MOST_UID}, not {text!r}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

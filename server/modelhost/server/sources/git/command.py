"""Running the git command so that neither a repository nor the server's surroundings decide what it does.

The environment is made anew: no configuration of the system or of the user, no prompts, no hooks, only known
transports. What is passed on is what reaching a host may need: PATH, HOME (SSH keys and known hosts, `.netrc`), the SSH
agent, proxies and certificates. SSH hosts are checked as SSH itself does, and unknown ones are refused.
"""

import contextlib
import copy
import os
import re
import selectors
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelhost.envs.marked import give_tag
from modelhost.envs.process import POLL_SECONDS, CommandFailed, Job, end_group
from modelhost.server.errors import Unavailable
from modelhost.server.sources import PIECE_BYTES
from modelhost.server.sources.git.place import Credentials, Repository
from modelhost.v1.error_reason_pb2 import ErrorReason

PASSED_ON = (
    *("PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
    *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"),
)
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20")
ENVIRONMENT = {
    "LC_ALL": "C",  # messages are told apart by their text
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_SSH_COMMAND": shlex.join(SSH),
    "GIT_SSH_VARIANT": "ssh",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
}
CONFIGURATION = {
    "protocol.version": "2",
    "core.hooksPath": os.devnull,
    "core.askPass": "",
    "core.bigFileThreshold": "16m",  # larger files are streamed, not held in memory
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    # Old repositories that work have what fsck refuses (bad dates, zero-padded modes); names are checked by `paths`.
    "transfer.fsckObjects": "false",
    # What is fetched is one pack that appears whole, not loose objects that a crash leaves incomplete or empty.
    "fetch.unpackLimit": "1",
    "transfer.bundleURI": "false",  # what comes from the repository comes from nowhere else
    "gc.autoDetach": "false",  # it must not work on while the lock is no longer ours
    "init.defaultBranch": "main",
}
# The password goes through the environment, which only this user can read; arguments can be read by everybody. Scoped
# to the place's own host, so that a redirect to another one does not get it.
_CREDENTIAL_HELPER = (
    "!answer() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n'"
    ' "$MODELHOST_GIT_USERNAME" "$MODELHOST_GIT_PASSWORD"; }; answer'
)
SHA256_DIGITS = 64
"""Of a hash in a repository of the newer kind; in all others it has 40."""
VERSION_TIMEOUT_SECONDS = 20.0
STDERR_TAIL_BYTES = 8 * 1024
NO_REPOSITORY = Path(os.devnull)
"""A git directory for commands that need none: else Git looks for one from the working directory upwards."""


@dataclass(frozen=True)
class Way:
    """How the command gets to a repository: a URL for it, and what it is told besides to go nowhere else."""

    url: str
    configuration: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


class Git:
    """The git command, as it may be used for one place."""

    def __init__(self, credentials: Credentials | None = None, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self.variables = {name: given[name] for name in PASSED_ON if name in given} | ENVIRONMENT
        self._configuration = dict(CONFIGURATION)
        if credentials is not None:
            self._configuration[f"credential.{credentials.scope}.helper"] = _CREDENTIAL_HELPER
            self.variables["MODELHOST_GIT_USERNAME"] = credentials.username
            self.variables["MODELHOST_GIT_PASSWORD"] = credentials.password

    def going(self, way: "Way") -> "Git":
        """The same on one way to a repository."""
        git = copy.copy(self)
        git.variables = {**self.variables, **way.variables}
        git._configuration = {**self._configuration, **way.configuration}
        return git

    def version(self, job: Job) -> tuple[int, ...]:
        """Its version, two numbers or more. Raises `Cancelled`, and `Unavailable` where there is no git."""
        said = self.run(NO_REPOSITORY, "version", job=job, timeout=VERSION_TIMEOUT_SECONDS).decode("utf-8", "replace")
        return tuple(map(int, re.findall(r"\d+", said)[:3]))

    @property
    def _environment(self) -> dict[str, str]:
        configured = {"GIT_CONFIG_COUNT": str(len(self._configuration))}
        for number, (name, value) in enumerate(self._configuration.items()):
            configured |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return self.variables | configured

    def run(self, git_dir: Path, *arguments: str, job: Job, timeout: float, stdin: bytes | None = None) -> bytes:
        """Run one git command and return its output; what it says on stderr is reported to `job`.

        Raises `CommandFailed`, `Cancelled`, and `Unavailable` where there is no git.
        """
        argv = ["git", f"--git-dir={git_dir}", *arguments]
        try:
            return job.run(argv, env=self._environment, timeout=timeout, stdin=stdin, quiet=True).stdout
        except FileNotFoundError:
            raise _no_git() from None

    @contextlib.contextmanager
    def stream(self, git_dir: Path, *arguments: str, job: Job, timeout: float) -> Iterator["GitStream"]:
        """Run a git command that is read while it runs; it is ended with the block.

        `timeout` is for each wait, not for the whole. Raises as `run` does.
        """
        argv = ["git", f"--git-dir={git_dir}", *arguments]
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    argv,
                    env={**self._environment, **job.marker},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise _no_git() from None
            give_tag(process.pid, job.tag)
            assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - both were asked for
            timed_out = False
            try:
                with process.stdin:
                    yield GitStream(process.stdin.fileno(), process.stdout.fileno(), job, timeout)
                if process.wait(timeout) == 0:
                    return
            except (EOFError, BrokenPipeError):
                pass  # it ended before it had said all that it was asked for
            except (TimeoutError, subprocess.TimeoutExpired):
                timed_out = True
            finally:
                exit_code = end_group(process)
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - STDERR_TAIL_BYTES))
            lines = stderr.read().decode("utf-8", "replace").splitlines()
            raise CommandFailed(argv, exit_code, lines, timed_out=timed_out)


class GitStream:
    """Both ends of a running git command. Every wait can be cancelled and raises `TimeoutError` after its time."""

    def __init__(self, stdin: int, stdout: int, job: Job, timeout: float) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._job = job
        self._timeout = timeout
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(stdout, selectors.EVENT_READ)

    def ask(self, line: bytes) -> None:
        """Send a line; it must be shorter than what a pipe holds, and what it asks for must be read before the next."""
        os.write(self._stdin, line + b"\n")

    def until(self, end: bytes, most: int) -> bytes | None:
        """Return what comes before the next `end`; None if the command said nothing more.

        Raises `EOFError` where the output stops before `end`, `CommandFailed` where that is not within `most` bytes.
        """
        start = 0
        while (found := self._buffer.find(end, start)) < 0:
            if len(self._buffer) > most:
                raise CommandFailed(["git"], 0, [f"a name is longer than {most} bytes"])
            start = max(0, len(self._buffer) - len(end) + 1)
            if not self._more():
                if self._buffer:
                    raise EOFError
                return None
        line = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return line

    def pieces(self, size: int) -> Iterator[bytes]:
        """Return the next `size` bytes in pieces of at most `PIECE_BYTES`, at least one. Raises `EOFError`."""
        while True:
            want = min(size, PIECE_BYTES)
            while len(self._buffer) < want:
                if not self._more():
                    raise EOFError
            piece = bytes(self._buffer[:want])
            del self._buffer[:want]
            yield piece
            size -= want
            if not size:
                return

    def _more(self) -> bool:
        deadline = time.monotonic() + self._timeout
        while True:
            self._job.check()
            if self._selector.select(POLL_SECONDS):
                break
            if time.monotonic() > deadline:
                raise TimeoutError
        data = os.read(self._stdout, PIECE_BYTES)
        self._buffer += data
        return bool(data)


def reach(repository: Repository) -> list[str]:
    """Return the arguments that name `repository` to `fetch` and `ls-remote`, after all options.

    A repository on this machine may belong to another user: the operator has registered it, so Git is told that it is
    safe. Measured with Git 2.39: `GIT_CONFIG_COUNT` is kept from the upload-pack that reads it, `-c` is not.
    """
    if repository.git_dir is None:
        return ["--end-of-options", repository.url]
    safe = shlex.quote(f"safe.directory={repository.git_dir}")
    return [f"--upload-pack=git -c {safe} upload-pack", "--end-of-options", repository.url]


def _no_git() -> Unavailable:
    return Unavailable(ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE, "this server has no git command on its PATH")

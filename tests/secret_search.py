"""Looks for secrets where none may be, once all tests of a process have run, and fails the run if there are any.

Everything counts that the process has left below its temporary directory: databases with their logs, logs of servers
and models, snapshots, core files, drafts, backups (unpacked); and what tests had captured. What a secret looks like is
known, and so are the places where one is meant to be. A secret itself is never printed.
"""

import gzip
import mmap
import os
import re
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import pytest

RANDOM = rb"[A-Za-z0-9_-]{43}"  # 256 bits in Base64
FORMS = {
    "an operator's token": re.compile(rb"mha_" + RANDOM),
    "a secret key": re.compile(rb"mhs_" + RANDOM),
    "an API key": re.compile(rb"mhk_" + RANDOM),
    "a bearer token": re.compile(rb"eyJhbGciOiJIUzI1NiIs[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\." + RANDOM),
}
# Where a server keeps its own; `.x` is what is to become `x`. The last three are what tests write for the command.
MEANT = ("admin.token", "secret.key", "secret.key.next", "*.token", "*.secret", "*.key")
PASSED_OVER = ("site-packages", "dist-packages")  # of environments: packages as they come from an index
MOST_BYTES = 256 * 1024 * 1024  # of one file
GZIP, TAR = b"\x1f\x8b", b"ustar"  # how files begin, the second at byte 257
WORKER_OUTPUT = "secrets found"


class SecretSearch:
    """A plugin for pytest, and its workers where there are several."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: list[str] = []

    @property
    def _is_controller(self) -> bool:
        """Whether this process has others run the tests."""
        return self._config.pluginmanager.has_plugin("dsession")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at what a test has written."""
        if not self._is_controller:
            for title, text in report.sections:
                data = text.encode(errors="surrogateescape")
                self._found += [f"{kind} in the {title.lower()} of {report.nodeid}" for kind in kinds_in(data)]

    @pytest.hookimpl(trylast=True)  # after the servers of the whole session have been stopped
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look at what all tests have left."""
        if not self._is_controller:
            folder: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
            self._found += search(folder)
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output[WORKER_OUTPUT] = self._found
        elif self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear of a worker what it has found."""
        self._found += getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found."""
        if self._found:
            terminalreporter.section("secrets where none may be", red=True)
            for each in sorted(set(self._found)):
                terminalreporter.line(each)


def search(folder: Path) -> list[str]:
    """What secrets are in the files below a folder, and where. Links are not followed."""
    files = [path for path in _files(folder) if not path.is_symlink() and path.is_file()]
    keys = _keys(files)
    return [f"{kind} in {path}" for path in files for kind in _kinds_in_file(path, keys)]


def kinds_in(data: bytes | mmap.mmap) -> list[str]:
    """Which kinds of secrets there are."""
    return [kind for kind, form in FORMS.items() if form.search(data)]


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in PASSED_OVER]
        yield from (Path(root, name) for name in names)


def _keys(files: list[Path]) -> list[bytes]:
    """The servers' own keys, which look like nothing in particular."""
    found = [path.read_bytes().strip() for path in files if path.name == "secret.key"]
    return [key for key in found if len(key) == 44]  # of 32 bytes, in Base64


def _kinds_in_file(path: Path, keys: list[bytes]) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            content = gzip.GzipFile(fileobj=file) if packed else file
            begin = content.read(512)
            content.seek(0)
            if begin[257:262] == TAR:
                yield from _kinds_in_archive(content, keys)
            elif packed:
                yield from _kinds(content.read(MOST_BYTES), keys)
            elif begin and not _is_meant(path.name):
                size = min(os.fstat(file.fileno()).st_size, MOST_BYTES)
                with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                    yield from _kinds(data, keys)
    except (tarfile.TarError, EOFError, OSError):  # half of an archive; or it is gone meanwhile
        return


def _kinds_in_archive(file: IO[bytes], keys: list[bytes]) -> Iterator[str]:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            if member.isfile() and not _is_meant(Path(member.name).name):
                content = archive.extractfile(member)
                assert content is not None
                yield from (f"{kind}, {member.name}" for kind in _kinds(content.read(MOST_BYTES), keys))


def _kinds(data: bytes | mmap.mmap, keys: list[bytes]) -> Iterator[str]:
    yield from kinds_in(data)
    if any(data.find(key) >= 0 for key in keys):
        yield "a server's secret.key"


def _is_meant(name: str) -> bool:
    return any(fnmatch(name.removeprefix("."), pattern) for pattern in MEANT)

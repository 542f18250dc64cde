"""A local copy of one Git repository, from which commits are read.

    <folder>/lock             taken shared to read, exclusively to fetch or to make the copy anew
    <folder>/repository.git   bare; `refs/modelhost/<commit>` says that all of a commit is there

Git writes a ref last, once everything that it leads to is there. So a commit counts as fetched when it has its ref, not
when an object of that name is found: that may be what a fetch left that was killed.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from modelhost.envs.process import CommandFailed, Job
from modelhost.server.errors import NotFound
from modelhost.server.sources.git.command import SHA256_DIGITS, Git
from modelhost.server.sources.git.errors import explain, no_room, refuses_one_commit, unexplained
from modelhost.server.sources.git.remote import Remote
from modelhost.v1.error_reason_pb2 import ErrorReason

LOCK_POLL_SECONDS = 0.05
LOCAL_TIMEOUT_SECONDS = 60.0
"""For commands that only look into the copy."""


class Mirror:
    """The copy of `remote` in `folder`. Safe to use from many threads and processes at once."""

    def __init__(self, folder: Path, git: Git, remote: Remote, *, fetch_timeout: float) -> None:
        self._folder = folder
        self._git = git
        self._remote = remote
        self._repository = remote.repository
        self._fetch_timeout = fetch_timeout
        self.path = folder / "repository.git"

    @contextlib.contextmanager
    def holding(self, commit: str, job: Job) -> Iterator[None]:
        """Hold the copy, with all of `commit` in it, for reading. Fetches only what is not there.

        Raises `NotFound` REF_NOT_FOUND where the repository has no such commit, what `explain` makes of failures, and
        what `Remote` raises.
        """
        with self._locked(fcntl.LOCK_SH, job):
            if self._has(commit, job):
                yield
                return
        with self._locked(fcntl.LOCK_EX, job) as lock:
            if not self._has(commit, job):
                self._fetch(commit, job)
            # Others may read too. Who gets in between can only throw the copy away, which reading survives.
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def holding_everything(self, tip: str, job: Job) -> Iterator[None]:
        """Hold the copy with the history of all branches and tags, `tip` one of their commits. Always fetches."""
        with self._locked(fcntl.LOCK_EX, job) as lock:
            self._fetch(tip, job, everything=True)
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def discard(self, job: Job) -> None:
        """Throw the copy away, because something in it cannot be read; the next use makes it anew."""
        with self._locked(fcntl.LOCK_EX, job):
            self._remove(job)

    @contextlib.contextmanager
    def _locked(self, how: int, job: Job) -> Iterator[int]:
        """Hold the lock. A lock of `flock` belongs to the open file, so that it keeps threads apart as well."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                job.check()
                try:
                    fcntl.flock(lock, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOCK_POLL_SECONDS)
            yield lock
        finally:
            os.close(lock)

    def _has(self, commit: str, job: Job) -> bool:
        return self._asked(job, "rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/modelhost/{commit}")

    def _asked(self, job: Job, *arguments: str) -> bool:
        """Whether a git command about the copy succeeds; it fails where the copy is broken or not there."""
        if not self.path.is_dir():
            return False
        try:
            self._git.run(self.path, *arguments, job=job, timeout=LOCAL_TIMEOUT_SECONDS)
        except CommandFailed:
            return False
        return True

    def _fetch(self, commit: str, job: Job, *, everything: bool = False) -> None:
        """Get `commit`. What fails for no reason that the other side has given may be the copy's fault: made anew."""
        for last_try in (False, True):
            try:
                self._prepare(commit, job)
                if everything:
                    self._fetch_everything(job)
                elif not self._fetch_one(commit, job):
                    self._fetch_everything(job)
                    self._mark(commit, job)
                return
            except CommandFailed as failure:
                if full := no_room(failure, self._folder):
                    self._drop_unfinished()
                    raise full from failure
                own = any(str(self.path) in line for line in failure.output)
                error = None if own else explain(failure, self._repository, self._fetch_timeout)
                if error is not None or last_try:
                    raise error or unexplained(failure, self._repository) from failure
                self._remove(job)

    def _prepare(self, commit: str, job: Job) -> None:
        if self._asked(job, "rev-parse", "--git-dir"):
            return
        if self.path.exists():
            self._remove(job)
        kind = "sha256" if len(commit) == SHA256_DIGITS else "sha1"
        self._git.run(
            self.path, "init", "--bare", "--quiet", "--template=", f"--object-format={kind}",
            job=job, timeout=LOCAL_TIMEOUT_SECONDS,
        )  # fmt: skip

    def _fetch_one(self, commit: str, job: Job) -> bool:
        """Fetch one commit without its history. False if the other side does not do that, or has no such commit."""
        try:
            self._run_fetch(job, ["--depth=1"], [f"+{commit}:refs/modelhost/{commit}"])
        except CommandFailed as failure:
            if not refuses_one_commit(failure):
                raise
            return False
        return True

    def _fetch_everything(self, job: Job) -> None:
        job.say(f"fetching all branches and tags of {self._repository.name}")
        deepen = ["--unshallow"] if (self.path / "shallow").exists() else []
        self._run_fetch(job, ["--prune", *deepen], ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])

    def _run_fetch(self, job: Job, options: list[str], what: list[str]) -> None:
        self._remote.run(
            self.path, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", *options,
            what=tuple(what), job=job, timeout=self._fetch_timeout,
        )  # fmt: skip

    def _mark(self, commit: str, job: Job) -> None:
        """Give `commit` its ref, if all of it is there."""
        if not self._asked(job, "rev-list", "--objects", "--no-walk", "--quiet", "--end-of-options", commit):
            raise NotFound(
                ErrorReason.ERROR_REASON_REF_NOT_FOUND, "{place} has no commit {commit}",
                place=self._repository.name, commit=commit,
            )  # fmt: skip
        self._git.run(
            self.path, "update-ref", f"refs/modelhost/{commit}", commit, job=job, timeout=LOCAL_TIMEOUT_SECONDS
        )

    def _drop_unfinished(self) -> None:
        """Remove what a fetch has left that found no more room: Git keeps it for weeks."""
        for left in self.path.glob("objects/pack/tmp_*"):
            left.unlink(missing_ok=True)

    def _remove(self, job: Job) -> None:
        job.say(f"the local copy of {self._repository.name} is damaged; it is made anew")
        shutil.rmtree(self.path, ignore_errors=True)

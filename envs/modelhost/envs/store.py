"""The environments on this host's disk.

One folder per spec, named by the first 32 digits of its digest, built where it stays and whole once its manifest is
there. Everything else below the root is of no value: `sweep` removes it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelhost.envs.errors import BuildFailed, Cause
from modelhost.envs.failures import explain_build, room_for
from modelhost.envs.files import Guard, at_once, has_no_room, open_and_measure, remove_tree
from modelhost.envs.locks import try_lock
from modelhost.envs.manifest import NAME, masked, read_manifest, write_manifest
from modelhost.envs.marked import end_marked
from modelhost.envs.plan import Plan
from modelhost.envs.process import POLL_SECONDS, Job
from modelhost.envs.python_builder import build_python
from modelhost.envs.r_builder import build_r
from modelhost.envs.sharing import SharedWork
from modelhost.envs.values import (
    DIRECTORY_DIGITS,
    Environment,
    EnvironmentSpec,
    Interpreter,
    Language,
    Requirements,
)
from modelhost.envs.variables import build_variables

MARK = "MODELHOST_BUILD"  # in the environment of every command of a build: the folder that it builds
DEFAULT_R_REPOSITORIES = ("https://cloud.r-project.org",)
_LOCKS = ".locks"
_SCRATCH = ".build"


class EnvironmentStore:
    """All environments below one folder. For use from several threads, and beside other processes on the same folder.

    `cache` is for what builds download (pip's cache). `environ` is the server's environment, of which a build sees
    HOME, PATH, TZ, PIP_*, proxies and certificates, and the variables named in `passthrough` (CFLAGS, say).
    """

    def __init__(
        self,
        root: Path,
        *,
        cache: Path,
        r_repositories: Sequence[str] = DEFAULT_R_REPOSITORIES,
        environ: Mapping[str, str] = os.environ,
        passthrough: Sequence[str] = (),
    ) -> None:
        self.root = Path(os.path.abspath(root))
        self.cache = Path(os.path.abspath(cache))
        self.r_repositories = tuple(r_repositories)
        self._environ = environ
        self._passthrough = tuple(passthrough)
        self._builds: SharedWork[Environment] = SharedWork()

    def specify(self, interpreter: Interpreter, requirements: Requirements) -> EnvironmentSpec:
        """Say what is to be built. Reads nothing and runs nothing."""
        return EnvironmentSpec(
            interpreter=interpreter,
            requirements=requirements.requirements,
            constraints=requirements.constraints,
            repositories=self.r_repositories if interpreter.language is Language.R else (),
            files=requirements.files,
            files_digest=requirements.files_digest,
        )

    def find(self, spec_digest: str) -> Environment | None:
        """Return the environment built for a spec; None if there is none, or if its interpreter has gone."""
        environment = read_manifest(self._folder(spec_digest))
        if environment is None or environment.spec_digest != spec_digest:
            return None
        programs = [environment.interpreter.path]
        if environment.interpreter.language is Language.PYTHON:
            programs.append(environment.python)
        return environment if all(os.access(program, os.X_OK) for program in programs) else None

    def list(self) -> Sequence[Environment]:
        """Return all environments that are whole, oldest first, those whose interpreter has gone included."""
        found = [environment for folder in self._folders() if (environment := read_manifest(folder))]
        return sorted(found, key=lambda environment: (environment.created, environment.spec_digest))

    def build(self, spec: EnvironmentSpec, files: Path | None, job: Job, lock: tuple[str, ...] = ()) -> Environment:
        """Return the environment for a spec, built if it is not there yet. Blocks, for minutes where pip compiles.

        With `lock`, the lock of an environment that there was, it has exactly those packages: nothing is resolved. If
        the spec's place is taken by an environment with others, it lies apart (`EnvironmentSpec.apart`).

        `files` is the folder of the model's files; it is needed where `spec.files` names some, is not written to, and
        must stay for as long as anybody waits. Asked for the same spec at the same time, the second caller joins: it
        gets the lines from then on. Cancelling a caller's job ends the build only when nobody else waits for it. A
        build that fails or is cancelled leaves nothing behind.

        Raises `BuildFailed`, `Cancelled`, and `ValueError` where `files` is missing.
        """
        if spec.files and files is None:
            raise ValueError(f"the model's files are needed for {', '.join(spec.files)}")
        environment = self._build(spec, files, job, lock)
        if lock and environment.lock != lock:
            return self._build(replace(spec, apart=lock), files, job, lock)
        return environment

    def _build(self, spec: EnvironmentSpec, files: Path | None, job: Job, lock: tuple[str, ...]) -> Environment:
        if found := self.find(spec.digest):
            job.say(f"found the environment {found.path.name}")
            return found
        if not spec.interpreter.usable:
            raise BuildFailed(f"{spec.interpreter.name} cannot be used: {spec.interpreter.problem}", Cause.INTERPRETER)
        return self._builds.run(spec.digest, lambda shared: self._build_locked(spec, files, shared, lock), job)

    def remove(self, spec_digest: str, guard: Guard = at_once) -> bool:
        """Remove an environment; no worker may use it. False if there is none, it is being built, or `guard` says so.

        Raises `OSError` where files cannot be removed; it then no longer counts as whole.
        """
        folder = self._folder(spec_digest)
        with try_lock(self._lock(folder)) as held:
            if not held or not folder.exists():
                return False
            if not guard(lambda: (folder / NAME).unlink(missing_ok=True)):
                return False
            remove_tree(folder)
        return True

    def sweep(self) -> Sequence[str]:
        """Remove every folder without a manifest and what still runs in it; for the start. Returns their names.

        Leaves alone what another process is building at the time.
        """
        removed = []
        for folder in self._folders():
            if read_manifest(folder) is not None:
                continue
            with try_lock(self._lock(folder)) as held:
                if held and read_manifest(folder) is None:
                    end_marked(MARK, str(folder))
                    remove_tree(folder)
                    removed.append(folder.name)
        for lock in sorted(self.root.glob(f"{_LOCKS}/*")):
            with try_lock(lock):
                pass  # what a killed process left goes when it is let go
        return removed

    def _folder(self, spec_digest: str) -> Path:
        return self.root / spec_digest[:DIRECTORY_DIGITS]

    def _lock(self, folder: Path) -> Path:
        if not self.root.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o755)  # whatever the umask: workers run as other users
        return self.root / _LOCKS / folder.name

    def _folders(self) -> Sequence[Path]:
        with suppress(FileNotFoundError):
            return sorted(path for path in self.root.iterdir() if path.name != _LOCKS and path.is_dir())
        return []

    def _build_locked(self, spec: EnvironmentSpec, files: Path | None, job: Job, lock: tuple[str, ...]) -> Environment:
        """Build, unless another process did so while we waited for it."""
        folder = self._folder(spec.digest)
        waiting = False
        while True:
            job.check()
            with try_lock(self._lock(folder)) as held:
                if held:
                    return self.find(spec.digest) or self._build_new(spec, folder, files, job, lock)
            if not waiting:
                job.say("waiting for another process that builds the same environment")
                waiting = True
            time.sleep(POLL_SECONDS)

    def _build_new(
        self, spec: EnvironmentSpec, folder: Path, files: Path | None, outer: Job, follow: tuple[str, ...]
    ) -> Environment:
        job = outer.marked({MARK: str(folder)})
        started = time.monotonic()
        try:
            if folder.exists():
                end_marked(MARK, str(folder))
                remove_tree(folder)
            folder.mkdir()
            scratch = folder / _SCRATCH
            scratch.mkdir(mode=0o700)  # an index's password may be in the requirements
            temporary = scratch / "tmp"
            temporary.mkdir()
            self.cache.mkdir(parents=True, exist_ok=True)
            variables = build_variables(self._environ, self._passthrough, temporary)
            # What was locked says which packages; where they come from is this host's affair, for R as it is for pip.
            repositories = self.r_repositories if follow else spec.repositories
            plan = Plan(spec, folder, scratch, files, self.cache, variables, repositories, follow)
            build = build_r if spec.interpreter.language is Language.R else build_python
            lock = build(plan, job)
            job.say(f"locked {len(lock)} package{'' if len(lock) == 1 else 's'}")
            end_marked(MARK, str(folder), range(job.tag, job.tag + 1))
            remove_tree(scratch)
            job.check()
            environment = Environment(
                path=folder,
                spec_digest=spec.digest,
                digest=spec.digest_with(lock),
                interpreter=spec.interpreter,
                requirements=tuple(masked(line) for line in spec.requirements),
                lock=lock,
                repositories=spec.repositories,
                size_bytes=open_and_measure(folder),
                created=time.time(),
                build_seconds=round(time.monotonic() - started, 3),
            )
            write_manifest(environment)
        except BaseException as error:
            end_marked(MARK, str(folder), range(job.tag, job.tag + 1))
            full = isinstance(error, BuildFailed | OSError) and has_no_room(self.root, room_for(error))
            with suppress(OSError):  # what cannot be removed has no manifest, and is swept later
                remove_tree(folder)
            explained = explain_build(error, full=full, locked=bool(follow))
            if explained is error:
                raise
            raise explained from error
        job.say(f"built the environment {folder.name} in {environment.build_seconds:.1f} s")
        return environment

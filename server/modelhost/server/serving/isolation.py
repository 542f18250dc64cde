"""What keeps workers from the server on this host: the best way to confine them, tried when the server starts."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.files import remove_tree
from modelhost.runtimes import LAUNCH
from modelhost.server.errors import StepFailed
from modelhost.server.serving.confinement import Confinement, LandlockOnly, OwnUsers, Unconfined
from modelhost.server.serving.uids import Uids

TRIAL_SECONDS = 60.0
_LANDLOCK_CREATE_RULESET, _VERSION_FLAG = 444, 1  # linux/landlock.h

# Tries what no worker may do and says what it could; fails if it cannot do what every worker must.
_TRIAL = """
import os, sys
server, *secrets = sys.argv[1:]
open("written", "w").close()
for secret in secrets:
    try:
        open(secret).close()
    except OSError:
        continue
    print(f"read {secret}")
try:
    os.kill(int(server), 0)
except OSError:
    sys.exit()
print("signal the server")
"""


@dataclass(frozen=True)
class Isolation:
    """How workers are confined, what they can do to the server all the same, and why there is no better way."""

    confinement: Confinement
    gaps: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether no worker can read the server's secrets or signal it."""
        return not self.gaps

    def describe(self) -> str:
        """One sentence for the log."""
        way = self.confinement.describe()
        if self.is_complete:
            return f"workers are isolated: {way}"
        why = f" (nothing better was to be had: {'; '.join(self.obstacles)})" if self.obstacles else ""
        return f"workers are not isolated from the server: {way}; a model can {' and '.join(self.gaps)}{why}"


def establish(workers: Path, secrets: Sequence[Path], uids: Uids, shared: Sequence[Path] = ()) -> Isolation:
    """Return the best way that works here. `workers` is where directories of workers are made. Blocks.

    A way works where a process that is confined by it can neither read the `secrets` nor signal the server.
    """
    abi = landlock_abi()
    ways: list[Confinement] = []
    obstacles: list[str] = []
    if os.geteuid() == 0:
        ways.append(OwnUsers(uids, shared, abi))
    else:
        obstacles.append("a uid for each worker needs a server that is root")
    if abi:
        ways.append(LandlockOnly(workers.parent, shared, abi))
    else:
        obstacles.append("the kernel has no Landlock")
    best: Isolation | None = None
    for way in ways:
        try:
            gaps = _try(way, workers / "trial", secrets)
        except (OSError, StepFailed, subprocess.SubprocessError) as error:
            obstacles.append(f"{way.describe()}: {error}")
            continue
        if best is None or len(gaps) < len(best.gaps):
            best = Isolation(way, gaps)
        if best.is_complete:
            return best
    if best is None:
        best = Isolation(Unconfined(), ("read its files, secrets included,", "signal it"))
    return Isolation(best.confinement, best.gaps, tuple(obstacles))


def landlock_abi() -> int:
    """Which Landlock the kernel has; 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, 0, _VERSION_FLAG)))


def _try(way: Confinement, directory: Path, secrets: Sequence[Path]) -> tuple[str, ...]:
    """What a process that is confined so can do all the same. Raises `OSError` where it cannot even start."""
    directory.mkdir(mode=0o700)
    try:
        confined = way.enter(directory, ())
        try:
            python = [sys.executable, "-I", "-S"]
            words = [f"parent={os.getpid()}", "link=1", "open_files=64", *confined.words]
            trial = subprocess.run(
                [*LAUNCH, *words, "--", *python, "-c", _TRIAL, str(os.getpid()), *map(str, secrets)],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        finally:
            way.leave(confined)
    finally:
        remove_tree(directory)
    if trial.returncode:
        raise OSError((trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1])
    return tuple(trial.stdout.splitlines())

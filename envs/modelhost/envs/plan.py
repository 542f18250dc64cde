"""What a builder is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.errors import BuildFailed, Cause
from modelhost.envs.values import EnvironmentSpec

INSTALL_SECONDS = 2 * 3600.0  # packages compiled from source take long; no more than this


@dataclass(frozen=True)
class Plan:
    """One environment to build."""

    spec: EnvironmentSpec
    folder: Path
    """Where: its final place, for environments do not survive a rename."""
    scratch: Path
    """A folder for what is needed only while building."""
    files: Path | None
    """The model's files, read only."""
    cache: Path
    variables: Mapping[str, str]
    """The environment of commands."""
    repositories: Sequence[str] = ()
    """R: where packages are looked for."""
    lock: tuple[str, ...] = ()
    """Exactly these packages are installed; empty, and what is asked for is resolved."""

    def followed(self, built: tuple[str, ...]) -> tuple[str, ...]:
        """The lock of what was built. Raises `BuildFailed` where it is not the one that was to be followed."""
        if not self.lock or built == self.lock:
            return built
        missing = ", ".join(line for line in self.lock if line not in built)
        instead = ", ".join(line for line in built if line not in self.lock)
        raise BuildFailed(
            f"other packages were installed than were locked: {instead or 'nothing'} instead of {missing or 'nothing'}",
            Cause.LOCK_UNMET,
        )

    @staticmethod
    def count(requirements: Sequence[str]) -> str:
        """Say how many requirements there are."""
        return f"{len(requirements)} requirement{'' if len(requirements) == 1 else 's'}"

"""What a builder is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    @staticmethod
    def count(requirements: Sequence[str]) -> str:
        """Say how many requirements there are."""
        return f"{len(requirements)} requirement{'' if len(requirements) == 1 else 's'}"

"""What the catalogue is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelhost.envs import Cause
from modelhost.v1.error_reason_pb2 import ErrorReason


class Step(StrEnum):
    """Where a model fails, or a call of it."""

    FETCH = "fetch"
    PROVISION = "provision"
    LOAD = "load"
    ACCESS = "access"
    CALL = "call"
    ANY = "any"


@dataclass(frozen=True)
class Entry:
    """One cause of a failure.

    `cure` is the hint that people get: a template of what is known of the failure at hand. The first entry of a reason
    stands for all of that reason, so its cure names no values. `seen` is what the tools really print, shortened, and
    `values` are those that are found in it.
    """

    reason: "ErrorReason.ValueType"
    step: Step
    title: str
    why: str
    cure: str
    seen: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    cause: Cause | None = None  # of an environment that could not be built


@dataclass(frozen=True)
class Found:
    """A cause as it was met: its entry, and the values of its cure."""

    entry: Entry
    values: Mapping[str, str]

    @property
    def hint(self) -> str:
        """What to do next."""
        return self.entry.cure.format_map(self.values)

"""The known causes of failures: for each its reason, what it looks like, why it happens and what to do next.

From here come the reason and the hint of a failure in the API, and with them what `modelhost` prints, the last column
of docs/errors.md, and docs/troubleshooting.md. What tools print is recognised in `envs` (pip, R, virtualenv: a `Cause`)
and in `loads` (a model that does not load); `sources` recognises what Git and GitLab say.
"""

import re

from modelhost.envs import BuildFailed
from modelhost.server.catalogue.access import ACCESS
from modelhost.server.catalogue.building import BUILDING
from modelhost.server.catalogue.calling import CALLING
from modelhost.server.catalogue.entry import Entry, Found, Step
from modelhost.server.catalogue.fetching import FETCHING
from modelhost.server.catalogue.loading import LOADING
from modelhost.server.catalogue.loads import of_load_failure
from modelhost.server.catalogue.provisioning import PROVISIONING
from modelhost.v1.error_reason_pb2 import ErrorReason

__all__ = ["ENTRIES", "Entry", "Found", "Step", "hint_for", "named", "of_build_failure", "of_load_failure"]

ENTRIES: tuple[Entry, ...] = (*FETCHING, *PROVISIONING, *BUILDING, *LOADING, *ACCESS, *CALLING)

_BY_REASON = {entry.reason: entry for entry in reversed(ENTRIES)}
_BY_CAUSE = {entry.cause: entry for entry in ENTRIES}


def hint_for(reason: "ErrorReason.ValueType") -> str:
    """What to do next about a reason; empty where its message says it all."""
    return _BY_REASON[reason].cure if reason in _BY_REASON else ""


def named(hint: str, deployment: str, data_source: str) -> str:
    """The hint with these names in its commands, where the catalogue has NAME and SOURCE."""
    names = {"NAME": deployment, "SOURCE": data_source}

    def fill(command: re.Match[str]) -> str:
        return re.sub(r"\b(NAME|SOURCE)\b", lambda name: names[name[0]], command[0])

    return re.sub(r"`[^`]*`", fill, hint)


def of_build_failure(error: BuildFailed) -> Found:
    """Return the cause of an environment that could not be built."""
    return Found(_BY_CAUSE[error.cause], error.values)

"""Messages of the API in words."""

import re
from typing import TYPE_CHECKING

from modelhost.cli import api
from modelhost.cli.output import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

_STYLES = {
    "running": "green",
    "ready": "green",
    "failed": "red",
    "starting": "cyan",
    "stopping": "cyan",
    "deleting": "cyan",
    "stopped": "dim",
    "enabled": "green",
    "disabled": "red",
    "serving": "green",
}


def short(name: str) -> str:
    """Return the id at the end of a resource name: `churn` of `deployments/churn`."""
    return name.rpartition("/")[2]


def moment(time: "Timestamp") -> str:
    """Return a time as the reader's clock shows it: `2025-11-22 23:09:01`; nothing if it is not set."""
    if not (time.seconds or time.nanos):
        return ""
    from datetime import UTC

    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def earliest(times: "Iterable[Timestamp]") -> str:
    """Return the earliest of those that are set, as `moment` does."""
    times = [time for time in times if time.seconds or time.nanos]
    return moment(min(times, key=lambda time: time.ToNanoseconds())) if times else ""


def enabled_state(thing: "api.ServiceAccount | api.Operator") -> str:
    """Return whether it is let in: `enabled`, `disabled`."""
    return "disabled" if thing.disabled else "enabled"


def plural(count: int, one: str) -> str:
    """Return a number of things: `1 grant`, `3 grants`."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def elapsed(seconds: float) -> str:
    """Return how long something took: `0.4 s`, `12 s`, `3 min 20 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def size(count: int) -> str:
    """Return a number of bytes: `512 B`, `1.5 MB`."""
    if count < 1000:
        return f"{count} B"
    value, units = float(count), ("kB", "MB", "GB", "TB")
    for unit in units:
        value /= 1000
        if value < 1000 or unit == units[-1]:
            break
    return f"{value:.1f} {unit}"


def deployment_state(deployment: "api.Deployment") -> str:
    """Return a deployment's state: `running`; with how its update goes, where that is not done."""
    state = api.Deployment.State.Name(deployment.state).removeprefix("STATE_").lower()
    match deployment.update_state:
        case api.Deployment.UPDATE_STATE_IN_PROGRESS:
            return f"{state}, updating"
        case api.Deployment.UPDATE_STATE_FAILED:
            return f"{state}, update failed"
        case _:
            return state


def revision_state(revision: "api.Revision") -> str:
    """Return a revision's state: `provisioning`."""
    return api.Revision.State.Name(revision.state).removeprefix("STATE_").lower()


def styled(state: str) -> Cell:
    """Return a state in its colour."""
    if "update failed" in state:
        return state, "yellow"
    return state, _STYLES.get(re.split(r"\W", state)[0], "cyan")


def reason_name(failure: "api.Failure") -> str:
    """Return a failure's reason, as scripts know it: `IMPORT_FAILED`."""
    try:
        return api.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
    except ValueError:  # a newer server's
        return str(failure.reason)


def source_words(source: "api.ModelSource", commit: str = "") -> str:
    """Return where files come from: `models / fraud/scoring @ main (4f2c1a90d1), directory churn`."""
    words = short(source.data_source)
    if source.project:
        words += f" / {source.project}"
    words += f" @ {source.ref or 'default branch'}"
    if commit and commit != source.ref:
        words += f" ({commit[:10]})"
    if source.directory:
        words += f", directory {source.directory}"
    if source.paths:
        words += f", only {', '.join(source.paths)}"
    return words


def location_words(source: "api.DataSource") -> str:
    """Return where a data source lies: `https://git.example.com/team`, `GitLab https://gitlab.example.com/energy`."""
    if source.HasField("git"):
        return source.git.url
    return f"GitLab {source.gitlab.url}{'/' if source.gitlab.namespace else ''}{source.gitlab.namespace}"

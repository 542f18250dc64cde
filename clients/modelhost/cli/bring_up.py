"""How verbs bring a deployment up, and how they say what came of it."""

import os
import shlex
from typing import TYPE_CHECKING

from modelhost.cli import api
from modelhost.cli.connection import DEFAULT_ADDRESS, Session
from modelhost.cli.follow import Sighting, following_on
from modelhost.cli.output import to_dict
from modelhost.cli.progress import follow_to_end
from modelhost.cli.render import deployment_state, elapsed, short

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


def bring_up(session: Session, deployment: "api.Deployment", *, done: str, wait: bool, quiet: bool) -> None:
    """Start what was `done`, "created", if it does not run; follow it to the end, or say how to."""
    name = short(deployment.name)
    since = None
    if deployment.state not in {api.Deployment.STATE_STARTING, api.Deployment.STATE_RUNNING}:
        deployment = session.admin.StartDeployment(api.StartDeploymentRequest(name=deployment.name))
        since = deployment.update_time
    if not wait:
        finish(session, deployment, f"{name} {done}, {deployment_state(deployment)}")
        session.out.note(f"follow on with {following_on(name)}")
        return
    announce(session, follow_to_end(session, deployment, since=since, quiet=quiet), since=since)


def finish(session: Session, deployment: "api.Deployment", sentence: str) -> None:
    """Print the deployment as the last JSON line, or a sentence."""
    if session.as_json:
        session.out.json_line({"deployment": to_dict(deployment)})
    else:
        session.out.line(sentence)


def announce(session: Session, last: Sighting, *, since: "Timestamp | None") -> None:
    """Say that it runs, and how to call it; what was built before `since` took its time another day."""
    deployment, revision = last.deployment, last.revision
    if session.as_json:
        session.out.json_line({"deployment": to_dict(deployment)})
        return
    name = short(deployment.name)
    facts = [f"revision {deployment.active_revision}"]
    if revision.commit:
        facts.append(f"commit {revision.commit[:10]}")
    ready = revision.ready_time.ToNanoseconds()
    if revision.HasField("ready_time") and (since is None or ready >= since.ToNanoseconds()):
        facts.append(f"built in {elapsed((ready - revision.create_time.ToNanoseconds()) / 1e9)}")
    session.out.line(f"{name} is running: {', '.join(facts)}", style="green")
    session.out.line(f"service {short(deployment.service)}")
    default = os.environ.get("MODELHOST_ADDRESS") or DEFAULT_ADDRESS
    address = "" if session.address == default else f" --address {session.address}"
    example = revision.settings.test_call.parameters_json or "{}"
    session.out.line()
    session.out.line(f"  modelhost predict {name} {shlex.quote(example)}{address}")

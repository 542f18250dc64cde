"""What the server has acknowledged: none of it may be missing afterwards.

Every change has a request id and is sent again until it is answered, so that there is none of which nobody knows
whether it was made: not even where the server was killed between its commit and its answer.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelhost.client import Client, ModelHostError, Unreachable
from modelhost.v1 import deployment_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason

Deployment = deployment_pb2.Deployment
PATIENCE_SECONDS = 60.0
# How the load of a revision fails whose worker was killed or frozen meanwhile.
INTERRUPTED = (ErrorReason.ERROR_REASON_WORKER_DIED_LOADING, ErrorReason.ERROR_REASON_LOAD_TIMED_OUT)


@dataclass
class Entry:
    """One deployment's part. `revisions` are the constants of those that were acknowledged, by number."""

    running: bool = False
    target: int = 0
    workers: int = 1
    commits: dict[int, str] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    changes: int = 0  # that were begun
    settled: tuple[int, float] | None = None  # the revision that answers every call since then
    calm: float = 0.0  # when it was settled the last time
    last: tuple[str, Any, Deployment] | None = None  # the last change: method, request, answer


class Journal:
    """Sends changes, and keeps what came of them. From any thread; the changes of one deployment one after another."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    def entry(self, name: str) -> Entry:
        """What is known of a deployment."""
        with self._lock:
            return self._entries.setdefault(name, Entry())

    # -- changes

    def create(self, name: str, deployment: Deployment, commit: str, constant: int) -> None:
        """Create a deployment whose first revision answers with `constant`."""
        request = deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=deployment)
        self._keep_revision(name, self._change(name, "CreateDeployment", request), commit, constant)

    def update(self, name: str, commit: str, constant: int) -> int:
        """Have a commit run that answers with `constant`; returns the revision's number, 0 if that was refused."""
        source = deployment_pb2.ModelSource(ref=commit)
        request = deployment_pb2.UpdateDeploymentRequest(
            deployment=Deployment(name=f"deployments/{name}", source=source), update_mask={"paths": ["source.ref"]}
        )
        answer = self._change(name, "UpdateDeployment", request)
        self._keep_revision(name, answer, commit, constant)
        return answer.target_revision if answer else 0

    def scale(self, name: str, workers: int) -> bool:
        """Have so many workers. Returns whether that was accepted, as all of these do."""
        wanted = Deployment(name=f"deployments/{name}", workers=workers)
        request = deployment_pb2.UpdateDeploymentRequest(deployment=wanted, update_mask={"paths": ["workers"]})
        return self._change(name, "UpdateDeployment", request) is not None

    def roll_back(self, name: str, revision: int) -> bool:
        """Have a revision run."""
        request = deployment_pb2.RollbackDeploymentRequest(name=name, revision=revision)
        return self._change(name, "RollbackDeployment", request, running=True) is not None

    def start(self, name: str) -> bool:
        """Have it run."""
        return (
            self._change(name, "StartDeployment", deployment_pb2.StartDeploymentRequest(name=name), running=True)
            is not None
        )

    def stop(self, name: str) -> bool:
        """Have it stopped."""
        return (
            self._change(name, "StopDeployment", deployment_pb2.StopDeploymentRequest(name=name), running=False)
            is not None
        )

    def _change(self, name: str, method: str, request: Any, *, running: bool | None = None) -> Deployment | None:
        """Send a change until it is answered. Returns None where the deployment's state does not allow it."""
        request.request_id = str(uuid.uuid4())
        entry = self.entry(name)
        with self._lock:
            entry.changes += 1
            entry.settled = None
        try:
            answer = self._call(method, request)
        except ModelHostError as error:
            if error.reason != "STATE_CONFLICT":
                raise
            return None
        with self._lock:
            entry.running = entry.running if running is None else running
            entry.target, entry.workers = answer.target_revision, answer.workers
            entry.last = (method, request, answer)
        return answer

    def _call(self, method: str, request: Any) -> Any:
        """Call until there is an answer: a client that has missed the server once tries again a moment later."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return getattr(self._client.admin, method)(request)
            except Unreachable:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.05)

    def _keep_revision(self, name: str, answer: Deployment | None, commit: str, constant: int) -> None:
        if answer is not None:
            entry = self.entry(name)
            with self._lock:
                entry.commits[answer.target_revision] = commit
                entry.revisions[answer.target_revision] = constant

    # -- what is there

    def get(self, name: str) -> Deployment:
        """The deployment as it is."""
        answer: Deployment = self._call("GetDeployment", deployment_pb2.GetDeploymentRequest(name=name))
        return answer

    def look(self, name: str) -> Deployment:
        """See how far a deployment is."""
        entry = self.entry(name)
        changes = entry.changes
        now = self.get(name)
        rests = now.state == Deployment.STATE_RUNNING and now.update_state != Deployment.UPDATE_STATE_IN_PROGRESS
        with self._lock:
            if changes == entry.changes and entry.settled is None and rests:
                entry.settled = (now.active_revision, time.monotonic())
                entry.calm = entry.settled[1]
        return now

    def missing(self, name: str, may_fail: Callable[[], bool]) -> list[str]:
        """What was acknowledged and is not there. `may_fail`: a worker was killed while it loaded, or may have been."""
        entry = self.entry(name)
        now = self.get(name)
        interrupted = now.HasField("failure") and now.failure.reason in INTERRUPTED and may_fail()
        lost = []
        if now.workers != entry.workers:
            lost.append(f"{entry.workers} workers were acknowledged, {now.workers} are wished")
        if now.target_revision != entry.target and not (interrupted and now.target_revision in entry.revisions):
            lost.append(f"revision {entry.target} was acknowledged, {now.target_revision} is wished")
        if now.HasField("failure") and not interrupted:
            lost.append(f"it failed: {ErrorReason.Name(now.failure.reason)} {now.failure.message}")
        running = now.state in (Deployment.STATE_STARTING, Deployment.STATE_RUNNING)
        if running != entry.running and not (entry.running and interrupted):
            lost.append(f"it is {Deployment.State.Name(now.state)}, and running={entry.running} was acknowledged")
        lost += self._missing_revisions(name, entry)
        lost += self._not_repeated(entry)
        return [f"{name}: {each}" for each in lost]

    def _missing_revisions(self, name: str, entry: Entry) -> list[str]:
        request = deployment_pb2.ListRevisionsRequest(parent=name, page_size=1000)
        there = {each.number: each.source.ref for each in self._call("ListRevisions", request).revisions}
        lost = [f"revision {number} is not there" for number in entry.commits.keys() - there.keys()]
        both = entry.commits.keys() & there.keys()
        lost += [f"revision {number} is another one" for number in both if there[number] != entry.commits[number]]
        return lost + [f"revision {number} was never asked for" for number in there.keys() - entry.commits.keys()]

    def _not_repeated(self, entry: Entry) -> list[str]:
        """The last change, sent again, must be answered as it was."""
        if entry.last is None:
            return []
        method, request, answer = entry.last
        again = self._call(method, request)
        return [] if again == answer else [f"{method} {request.request_id} is answered in another way than before"]

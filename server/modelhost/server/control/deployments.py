"""What operators wish: create, update, start, stop, delete. Each is one function of one transaction.

Nothing is done here but to store the wish; the reconciler, told once it is on disk, does the rest.
"""

import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from modelhost.server.control import secret_env
from modelhost.server.control.sources import GITLAB, Sources
from modelhost.server.control.states import move
from modelhost.server.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from modelhost.server.resources import (
    Deployment,
    DeploymentState,
    ModelSettings,
    ModelSource,
    Revision,
    RevisionState,
    UpdateState,
)
from modelhost.server.store import deployments
from modelhost.server.store.database import Transaction
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

_D = DeploymentState
SERVICE_PREFIX = "svc-"


class Deployments:
    """The commands. `poke` is called with a deployment's uid once a change of it is on disk.

    Of each deployment the newest `kept_revisions` are kept, and those that run or are to; of others `forget_logs` gets
    uid and numbers.
    """

    def __init__(
        self,
        sources: Sources,
        vault: Vault,
        poke: Callable[[str], None],
        *,
        kept_revisions: int,
        forget_logs: Callable[[str, list[int]], None],
    ) -> None:
        self._sources = sources
        self._vault = vault
        self._poke = poke
        self._kept_revisions = kept_revisions
        self._forget_logs = forget_logs

    def find(self, tx: Transaction, deployment_id: str) -> Deployment:
        """The deployment of that id. Raises `NotFound` DEPLOYMENT_NOT_FOUND."""
        deployment = deployments.get(tx, deployment_id)
        if deployment is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_DEPLOYMENT_NOT_FOUND,
                "there is no deployment {deployment}; `modelhost list` shows those there are",
                deployment=deployment_id,
            )
        return deployment

    def find_revision(self, tx: Transaction, deployment: Deployment, number: int) -> Revision:
        """A revision. Raises `NotFound` REVISION_NOT_FOUND."""
        revision = deployments.revision(tx, deployment.uid, number)
        if revision is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_REVISION_NOT_FOUND,
                "deployment {deployment} has no revision {revision}; its newest is {newest}",
                deployment=deployment.id,
                revision=number,
                newest=deployments.newest_revision(tx, deployment.uid),
            )
        return revision

    def create(
        self,
        tx: Transaction,
        deployment_id: str,
        *,
        description: str,
        workers: int,
        source: ModelSource,
        settings: ModelSettings,
    ) -> Deployment:
        """Store a new deployment, STOPPED, with its first revision and a reserved service id.

        The values of `settings.secret_env` come plain and are stored sealed.
        """
        if deployments.get(tx, deployment_id):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_DEPLOYMENT_EXISTS,
                "a deployment {deployment} exists already; `modelhost update {deployment}` changes it",
                deployment=deployment_id,
            )
        self._check_source(tx, source)
        sealed = self._sealed(settings, None)
        now = time.time()
        deployment = Deployment(
            uid=uuid.uuid4().hex,
            id=deployment_id,
            service_id=SERVICE_PREFIX + secrets.token_hex(8),
            description=description,
            source=source,
            settings=sealed,
            state=_D.STOPPED,
            active=0,
            target=1,
            update_state=UpdateState.NONE,
            failure=None,
            version=1,
            created=now,
            updated=now,
            workers=workers,
        )
        deployments.insert(tx, deployment)
        deployments.insert_revision(tx, _revision(deployment, 1, now))
        return deployment

    def update(self, tx: Transaction, wanted: Deployment, etag: str) -> Deployment:
        """Store new values of a deployment. A change of source or settings, or the same anew, makes a revision.

        Of `wanted.settings.secret_env`, plain, those given are set or, if "", removed; the others stay.
        """
        current = self._current(tx, wanted.id, etag)
        if current.state in (_D.STOPPING, _D.DELETING):
            raise Conflict(
                ErrorReason.ERROR_REASON_STATE_CONFLICT,
                "deployment {deployment} is {state} and cannot be updated",
                deployment=current.id,
                state=current.state.upper(),
            )
        self._check_source(tx, wanted.source)
        now = time.time()
        target = deployments.newest_revision(tx, current.uid) + 1
        updating = current.state is _D.RUNNING
        changed = replace(
            current,
            description=wanted.description,
            workers=wanted.workers,
            source=wanted.source,
            settings=self._sealed(wanted.settings, current.settings.secret_env),
            target=target,
            update_state=UpdateState.IN_PROGRESS if updating else UpdateState.NONE,
            failure=None if updating else current.failure,
        )
        deployments.insert_revision(tx, _revision(changed, target, now))
        self._retire(tx, changed)
        return self._save(tx, changed, now)

    def adjust(self, tx: Transaction, wanted: Deployment, etag: str) -> Deployment:
        """Change only what makes no revision: what people should know, and how many workers there are."""
        current = self._current(tx, wanted.id, etag)
        changed = replace(current, description=wanted.description, workers=wanted.workers)
        if current.update_state is UpdateState.FAILED and current.active == current.target:
            changed = replace(changed, update_state=UpdateState.NONE, failure=None)  # that was such a change, too
        return self._save(tx, changed, time.time())

    def start(self, tx: Transaction, deployment_id: str, etag: str) -> Deployment:
        """Wish it RUNNING with its target: the newest revision, or the one rolled back to. Of no effect while it is."""
        current = self._current(tx, deployment_id, etag)
        if current.state in (_D.STARTING, _D.RUNNING):
            return current
        started = replace(move(current, _D.STARTING), failure=None, update_state=UpdateState.NONE)
        return self._save(tx, started, time.time())

    def rollback(self, tx: Transaction, deployment_id: str, number: int, etag: str) -> Deployment:
        """Wish a kept revision to be run: the same number, its files, its settings and its lock.

        Of no effect while it is what runs, or is on its way to. Raises `NotFound`, `Conflict`.
        """
        current = self._current(tx, deployment_id, etag)
        revision = self.find_revision(tx, current, number)
        if current.is_building(number):
            return current
        if current.state is _D.RUNNING and current.active == number:
            changed = replace(current, update_state=UpdateState.DONE)
        elif current.state is _D.RUNNING:
            changed = replace(current, update_state=UpdateState.IN_PROGRESS)
        else:
            starting = current if current.state is _D.STARTING else move(current, _D.STARTING)
            changed = replace(starting, update_state=UpdateState.NONE)
        wanted = replace(changed, target=number, failure=None, source=revision.source, settings=revision.requested)
        return self._save(tx, wanted, time.time())

    def stop(self, tx: Transaction, deployment_id: str, etag: str) -> Deployment:
        """Wish it STOPPED; of no effect while it is STOPPING or STOPPED.

        Where an update had failed, what served until now is what the next start starts.
        """
        current = self._current(tx, deployment_id, etag)
        if current.state in (_D.STOPPING, _D.STOPPED):
            return current
        current = as_served(tx, current)
        state = _D.STOPPED if current.state is _D.FAILED else _D.STOPPING
        return self._save(tx, move(current, state), time.time())

    def delete(self, tx: Transaction, deployment_id: str, etag: str, *, force: bool) -> Deployment:
        """Wish it gone. Raises `Conflict` if it runs and `force` is not given."""
        current = self._current(tx, deployment_id, etag)
        if current.state is _D.DELETING:
            return current
        if not current.state.is_settled and not force:
            raise Conflict(
                ErrorReason.ERROR_REASON_STATE_CONFLICT,
                "deployment {deployment} is {state}; stop it before it is deleted, or force the deletion",
                deployment=current.id,
                state=current.state.upper(),
            )
        return self._save(tx, move(current, _D.DELETING), time.time())

    def _check_source(self, tx: Transaction, source: ModelSource) -> None:
        """Raise `NotFound` for a data source that there is none of, `InvalidRequest` for one without a project."""
        if self._sources.find(tx, source.data_source).kind == GITLAB and not source.project:
            raise InvalidRequest(
                "deployment.source.project",
                "data source {data_source} is a GitLab: {field} is needed, a path or a number;"
                " `modelhost source projects {data_source}` lists them",
                data_source=source.data_source,
            )

    def _sealed(self, wanted: ModelSettings, current: Mapping[str, str] | None) -> ModelSettings:
        """The settings with their secrets sealed, after those there are. Raises `InvalidRequest`."""
        secrets_then = secret_env.sealed(self._vault, current, wanted.secret_env)
        if both := sorted(set(wanted.env or ()) & set(secrets_then or ())):
            raise InvalidRequest(
                "deployment.settings.secret_env",
                "{name} is in env as well as in secret_env; take it out of one of them",
                name=both[0],
            )
        return replace(wanted, secret_env=secrets_then)

    def _retire(self, tx: Transaction, deployment: Deployment) -> None:
        """Forget the oldest revisions beyond the count that is kept; never the one that runs or is to."""
        old = deployments.revision_numbers(tx, deployment.uid)[self._kept_revisions :]
        failed = deployment.failure.revision if deployment.failure else 0  # people look at its log
        gone = [number for number in old if number not in (deployment.active, deployment.target, failed)]
        deployments.forget_revisions(tx, deployment.uid, gone)
        tx.after_commit(lambda: self._forget_logs(deployment.uid, gone))

    def _current(self, tx: Transaction, deployment_id: str, etag: str) -> Deployment:
        deployment = self.find(tx, deployment_id)
        check_etag(etag, deployment.version, f"deployment {deployment_id}")
        return deployment

    def _save(self, tx: Transaction, deployment: Deployment, now: float) -> Deployment:
        saved = deployments.save(tx, deployment, now)
        tx.after_commit(lambda: self._poke(saved.uid))
        return saved


def as_served(tx: Transaction, deployment: Deployment) -> Deployment:
    """After a failed update, with the revision that serves as the wish again; else as it is."""
    served = deployments.revision(tx, deployment.uid, deployment.active)
    if deployment.update_state is not UpdateState.FAILED or served is None:
        return deployment
    return replace(deployment, target=served.number, source=served.source, settings=served.requested)


def check_etag(etag: str, version: int, what: str) -> None:
    """Refuse a change that was made up from an older state. Raises `Conflict` ETAG_MISMATCH."""
    if etag and etag != str(version):
        raise Conflict(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH,
            "{what} has changed since its etag {etag} was read; read it again",
            what=what,
            etag=etag,
        )


def _revision(deployment: Deployment, number: int, now: float) -> Revision:
    return Revision(
        deployment_uid=deployment.uid,
        number=number,
        state=RevisionState.PENDING,
        source=deployment.source,
        requested=deployment.settings,
        created=now,
    )

"""Builds every object of a server and passes it to those that need it. The one place where that is done."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata

import structlog
from google.protobuf.descriptor import ServiceDescriptor

from modelhost.envs import EnvironmentStore
from modelhost.inference import open_inference_pb2
from modelhost.server.access.plane import AccessPlane
from modelhost.server.api.admin.accounts import AccountMethods
from modelhost.server.api.admin.debug import DebugMethods
from modelhost.server.api.admin.deployments import DeploymentMethods
from modelhost.server.api.admin.host import HostMethods
from modelhost.server.api.admin.logs import LogMethods
from modelhost.server.api.admin.operators import OperatorMethods
from modelhost.server.api.admin.revisions import RevisionMethods
from modelhost.server.api.admin.services import ServiceMethods
from modelhost.server.api.admin.sources import DataSourceMethods
from modelhost.server.api.admin.usage import UsageMethods
from modelhost.server.api.admission import Admission
from modelhost.server.api.auditing import Auditor
from modelhost.server.api.binding import bind
from modelhost.server.api.calling import ModelCalls, observer
from modelhost.server.api.health import HealthMethods
from modelhost.server.api.inference.messages import InferRequest
from modelhost.server.api.inference.models import InferenceMethods
from modelhost.server.api.inference.patterns import Patterns
from modelhost.server.api.inference.repository import ROLES as REPOSITORY_ROLES
from modelhost.server.api.inference.repository import RepositoryMethods
from modelhost.server.api.listener import listener_methods
from modelhost.server.api.methods import Access, Dispatcher, Method
from modelhost.server.api.mutations import Mutations
from modelhost.server.api.predict import PredictMethods
from modelhost.server.api.predict_stream import PredictStreamMethods
from modelhost.server.config import ServerSettings
from modelhost.server.control import locked
from modelhost.server.control.actor import Plane
from modelhost.server.control.builder import Builder
from modelhost.server.control.changes import ACCESS, Changes
from modelhost.server.control.collector import Collector
from modelhost.server.control.debugger import Debugger
from modelhost.server.control.deployments import Deployments
from modelhost.server.control.diff import Differ
from modelhost.server.control.holds import Holds
from modelhost.server.control.loading import Loader
from modelhost.server.control.memory import MemoryBudget, host_memory
from modelhost.server.control.preview import Preview
from modelhost.server.control.reconciler import Reconciler
from modelhost.server.control.runtimes import Runtimes
from modelhost.server.control.sources import Sources
from modelhost.server.control.token_check import TokenCheck
from modelhost.server.doors.grpcio import GrpcioDoor
from modelhost.server.observing.audit_stream import AuditStream
from modelhost.server.observing.lag import watch_lag
from modelhost.server.observing.listener import MetricsListener
from modelhost.server.observing.metrics import Metrics
from modelhost.server.rekeying import Rekeying, settled
from modelhost.server.serving.confinement import end_users_of
from modelhost.server.serving.host import WorkerHost
from modelhost.server.serving.isolation import Isolation, establish
from modelhost.server.serving.output import OutputPump
from modelhost.server.serving.process import Spawner, leave_no_cores, raise_open_files
from modelhost.server.serving.router import Router
from modelhost.server.serving.uids import Uids
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.snapshots import SnapshotLimits, SnapshotStore
from modelhost.server.statedir import StateDir
from modelhost.server.store import deployments
from modelhost.server.store.database import Database
from modelhost.server.store.logs import Logs
from modelhost.server.tls import Certificates
from modelhost.v1 import admin_pb2, predict_pb2

log: structlog.stdlib.BoundLogger = structlog.get_logger()

ADMIN: ServiceDescriptor = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
PREDICT: ServiceDescriptor = predict_pb2.DESCRIPTOR.services_by_name["Predict"]
INFERENCE: ServiceDescriptor = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


LAST_ANSWERS_SECONDS = 1.0


class NotIsolated(Exception):
    """Workers cannot be isolated on this host, and the server was told to refuse that."""


class App:
    """A server in this process, on the running event loop. `start`, then `stop`, once each."""

    def __init__(self, settings: ServerSettings) -> None:
        """Open the state.

        Raises `StateDirBusy`, `DatabaseUnusable`, `SchemaTooNew`, `NotIsolated`, `OSError`, `ValueError`.
        """
        settings.check()
        tls_files = settings.transport.tls_files
        self.certificates = Certificates(tls_files) if tls_files else None
        self._tls = settings.transport.tls
        raise_open_files()
        leave_no_cores()
        self._chores: list[asyncio.Future[None]] = []
        self.state = state = StateDir(settings.state_dir)
        state.lock()
        try:
            self._database = Database(state.database)  # first: a state that cannot be used stays as it is
            try:
                self._build(settings, state, self._database)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            state.unlock()
            raise

    def _build(self, settings: ServerSettings, state: StateDir, database: Database) -> None:
        uids = Uids(settings.worker_uids)
        orphans = [*state.end_orphans(), *end_users_of(state.workers, uids)]
        if orphans:
            log.warning("ended processes that an earlier server left behind", count=len(orphans))
        shutil.rmtree(state.workers, ignore_errors=True)
        state.workers.mkdir(mode=0o700, exist_ok=True)
        vault = database.run_now(lambda tx: settled(state.secret_key, tx))
        changes = Changes()
        self._access = access = AccessPlane(
            database,
            vault,
            admin_token=state.admin_token,
            token_lifetime=settings.token_lifetime,
            changed=lambda: changes.notify(ACCESS),
        )
        self._isolation = isolation = self._isolate(settings, state, uids)
        snapshots = SnapshotStore(state.snapshots, SnapshotLimits(max_bytes=settings.snapshot_limit))
        snapshots.sweep()
        self._environments = environments = EnvironmentStore(
            state.environments, cache=state.cache / "packages", r_repositories=settings.r_repositories
        )
        environments.sweep()
        self._logs = logs = Logs(state.logs)
        self._stopping = asyncio.Event()
        self._stop_grace = settings.stop_grace
        holds = Holds()
        self._collector = collector = Collector(database, snapshots, environments, holds, state.cache / "sources")

        self._spawner = Spawner()
        self._output = OutputPump()
        self._router = router = Router()
        self._metrics = metrics = Metrics(router, metadata.version("modelhost"))
        router.listen(lambda service: changes.notify(service.deployment_uid, service.service_id, service.deployment_id))
        router.on_removal(lambda service: access.forget_service(service.deployment_uid))
        self._sources = sources = Sources(
            database,
            state.cache / "sources",
            state.marker,
            vault,
            snapshot_limit=settings.snapshot_limit,
            outgoing=Outgoing(settings.git_hosts),
        )
        self._token_check = TokenCheck(database, sources)
        self._runtimes = runtimes = Runtimes(settings.interpreters)
        self._host = host = WorkerHost(
            state.workers,
            self._spawner,
            self._output,
            state.marker,
            isolation.confinement,
            concurrent_loads=settings.concurrent_loads,
        )
        memory = MemoryBudget(settings.worker_memory or host_memory())
        loader = Loader(snapshots, logs, vault, settings.message_limit)
        self._debugger = debugger = Debugger(
            router=router,
            snapshots=snapshots,
            environments=environments,
            holds=holds,
            host=host,
            loader=loader,
            memory=memory,
        )
        self._builder = Builder(
            database=database,
            data_sources=sources,
            snapshots=snapshots,
            environments=environments,
            runtimes=runtimes,
            logs=logs,
            changes=changes,
            holds=holds,
            host=host,
            loader=loader,
            memory=memory,
            concurrency=settings.concurrent_builds,
            step_ended=metrics.step_ended,
        )
        self._reconciler = Reconciler(
            Plane(
                database=database,
                builder=self._builder,
                router=router,
                logs=logs,
                changes=changes,
                worker_lost=metrics.worker_lost,
                batched=metrics.batch_sent,
            )
        )

        commands = Deployments(
            sources,
            vault,
            self._reconciler.poke,
            kept_revisions=settings.kept_revisions,
            forget_logs=lambda uid, gone: _in_background(logs.remove_builds, uid, gone),
        )
        self._audit_stream = AuditStream(settings.audit_log) if settings.audit_log else None
        auditor = Auditor(self._audit_stream.tell if self._audit_stream else lambda event: None)
        mutations = Mutations(database, vault, auditor)
        admission = Admission(router)
        calls = ModelCalls(router, admission)
        services: dict[str, list[Method]] = {
            ADMIN.full_name: bind(
                ADMIN,
                Access.OPERATOR,
                DataSourceMethods(database, sources, mutations),
                HostMethods(database, runtimes, environments, collector, auditor),
                DeploymentMethods(
                    database=database,
                    commands=commands,
                    preview=Preview(sources, runtimes),
                    mutations=mutations,
                    router=router,
                    changes=changes,
                ),
                RevisionMethods(database, commands, snapshots, Differ(snapshots, environments)),
                DebugMethods(database, commands, debugger, settings.message_limit),
                LogMethods(database, commands, logs),
                ServiceMethods(database, router, mutations, lambda: changes.notify(ACCESS)),
                UsageMethods(database, access.usage),
                AccountMethods(database, access.account_commands, mutations, lambda name: router.find(name).service_id),
                OperatorMethods(
                    database,
                    access.operator_commands,
                    mutations,
                    Rekeying(state.secret_key, vault, access.key_changed),
                ),
            ),
            PREDICT.full_name: bind(
                PREDICT,
                Access.CALLER,
                PredictMethods(
                    router=router,
                    admission=admission,
                    calls=calls,
                    issuer=access.issuer,
                    database=database,
                    commands=commands,
                    message_limit=settings.message_limit,
                ),
                PredictStreamMethods(admission, calls, settings.message_limit),
                for_anyone={"IssueToken"},
            ),
            INFERENCE.full_name: bind(
                INFERENCE,
                Access.CALLER,
                InferenceMethods(
                    router=router,
                    admission=admission,
                    calls=calls,
                    database=database,
                    commands=commands,
                    version=metadata.version("modelhost"),
                    is_ready=lambda: self._reconciler.is_ready and not self._stopping.is_set(),
                    message_limit=settings.message_limit,
                ),
                RepositoryMethods(database, commands, mutations, router, changes),
                for_anyone={"ServerLive", "ServerReady", "ServerMetadata"},
                for_operators=REPOSITORY_ROLES,
                requests={"ModelInfer": partial(InferRequest, Patterns())},
            ),
        }
        health = partial(
            HealthMethods,
            router,
            access.gate,
            admission,
            changes,
            ready_name=PREDICT.full_name,
            is_ready=lambda: self._reconciler.is_ready,
            stopping=self._stopping,
        )
        count_calls = access.usage.ended if settings.usage else lambda *_: None
        calls_of_models = (
            f"/{PREDICT.full_name}/Predict",
            f"/{PREDICT.full_name}/PredictStream",
            f"/{INFERENCE.full_name}/ModelInfer",
        )
        observers = dict.fromkeys(calls_of_models, observer(metrics.calls.ended, count_calls))

        def door(address: str, services: Mapping[str, list[Method]]) -> GrpcioDoor:
            dispatcher = Dispatcher(
                listener_methods(services, lambda names: health(open_names=names)),
                access.gate,
                self._stopping,
                observers,
                lets_anonymous_in=lambda: router.has_open,
                watch_access=lambda: changes.watch(ACCESS),
            )
            return GrpcioDoor(
                dispatcher,
                address,
                message_limit=settings.message_limit,
                transport=settings.transport,
                certificates=self.certificates,
            )

        self._open_doors(settings, door, services)
        self._metrics_listener = MetricsListener(settings.metrics, metrics.exposition) if settings.metrics else None
        self.metrics_address = self._metrics_listener.address if self._metrics_listener else ""

    def _open_doors(
        self,
        settings: ServerSettings,
        door: Callable[[str, Mapping[str, list[Method]]], GrpcioDoor],
        services: Mapping[str, list[Method]],
    ) -> None:
        """One for all services, or where operators have one of their own, another one without what is theirs."""
        self._doors = [door(settings.admin_listen or settings.listen, services)]
        self.address = self.admin_address = self._doors[0].address
        if settings.admin_listen:
            for_others = {
                name: [method for method in methods if method.access is not Access.OPERATOR]
                for name, methods in services.items()
                if name != ADMIN.full_name
            }
            self._doors.append(door(settings.listen, for_others))
            self.address = self._doors[1].address

    def _isolate(self, settings: ServerSettings, state: StateDir, uids: Uids) -> Isolation:
        if os.geteuid() == 0:
            state.let_users_pass()
        key = (self.certificates.files.key,) if self.certificates else ()
        secrets = (state.secret_key, state.admin_token, state.database, *key)
        isolation = establish(state.workers, secrets, uids, settings.shared_folders)
        if settings.require_isolation and not isolation.is_complete:
            raise NotIsolated(f"--require-isolation: {isolation.describe()}")
        return isolation

    async def start(self) -> None:
        """Accept calls, and carry on with the deployments that are not at rest."""
        kept = await self._database.run(deployments.all_revision_numbers)
        await asyncio.to_thread(self._logs.sweep, kept)
        await locked.complete(self._database, self._environments)
        await self._access.start()
        await self._reconciler.prepare()
        for door in self._doors:
            await door.start()
        if self._metrics_listener is not None:
            self._metrics_listener.start()
        self._chores.append(asyncio.ensure_future(watch_lag(self._metrics.loop_lagged)))
        await self._reconciler.start()
        self._chores += map(asyncio.ensure_future, (self._collector.run(), self._token_check.run()))
        self._chores += map(asyncio.ensure_future, self._access.chores())
        if self.certificates is not None:
            self._chores.append(asyncio.ensure_future(self.certificates.run()))
        say = log.info if self._isolation.is_complete else log.warning
        say(self._isolation.describe())
        more = {"metrics": self.metrics_address} if self.metrics_address else {}
        more |= {"admin": self.admin_address} if self.admin_address != self.address else {}
        log.info("serving", address=self.address, tls=self._tls, state_dir=str(self.state.root), **more)

    def hurry(self) -> None:
        """Have `stop`, under way or yet to come, end calls and workers at once."""
        log.warning("ending at once")
        self._stop_grace = 0
        self._hurrying = self._close_doors(0)
        self._reconciler.cancel()
        self._spawner.kill_all()

    async def stop(self) -> None:
        """Finish calls under way, end all workers, close the database. What is wished stays wished.

        Calls that are not finished when their grace is over are told why; the door stays open for that a moment longer.
        """
        self._stopping.set()
        closing_doors = self._close_doors(self._stop_grace + LAST_ANSWERS_SECONDS)
        await asyncio.wait([closing_doors], timeout=self._stop_grace)
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(self._reconciler.close(), self._debugger.close())
        await closing_doors
        await self._access.close()
        await asyncio.to_thread(self._builder.close)
        await asyncio.to_thread(self._sources.close)
        await asyncio.to_thread(self._host.close)
        self._output.close()
        self._spawner.close()
        if self._metrics_listener is not None:  # late, so that the last calls are seen
            await asyncio.to_thread(self._metrics_listener.close)
        if self._audit_stream is not None:
            await asyncio.to_thread(self._audit_stream.close)
        self._database.close()
        self.state.unlock()
        log.info("stopped")

    def _close_doors(self, grace: float) -> "asyncio.Future[list[None]]":
        return asyncio.gather(*(door.stop(grace) for door in self._doors))


def _in_background(act: Callable[..., None], *arguments: object) -> None:
    """Have something done on a thread that nobody waits for."""
    asyncio.get_running_loop().run_in_executor(None, act, *arguments)

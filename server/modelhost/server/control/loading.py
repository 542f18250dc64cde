"""From a revision that is fetched and provisioned to what starts its workers."""

import time

from modelhost.envs import Environment
from modelhost.server.control import secret_env
from modelhost.server.control.launch import worker_spec
from modelhost.server.resources import Revision
from modelhost.server.serving.host import WorkerSpec
from modelhost.server.sources.snapshots import SnapshotStore
from modelhost.server.store.logs import LogEntry, Logs
from modelhost.server.vault import Vault


class Loader:
    """Describes workers: their files, variables and secrets, and where what they write goes."""

    def __init__(self, snapshots: SnapshotStore, logs: Logs, vault: Vault, message_limit: int) -> None:
        self._snapshots = snapshots
        self._logs = logs
        self._vault = vault
        self._message_limit = message_limit

    def spec(self, revision: Revision, environment: Environment) -> WorkerSpec:
        """Describe the workers of a revision that is fetched. Raises `Conflict` SECRET_UNREADABLE."""
        assert revision.settings is not None  # fetched
        settings = revision.settings
        secrets = secret_env.opened(self._vault, settings.secret_env)
        number, digest = revision.number, revision.snapshot_digest
        run_log = self._logs.run(revision.deployment_uid)

        def on_lines(worker: str, stream: str, lines: list[str], request_id: str) -> None:
            now = time.time()
            run_log.append(
                *(LogEntry(now, number, stream, line, worker=worker, request_id=request_id) for line in lines)
            )

        return worker_spec(
            settings,
            environment,
            secrets=secrets,
            mask=secret_env.Masker(secrets.values()),
            copy_files=lambda root: self._snapshots.copy_to(digest, root),
            on_lines=on_lines,
            message_limit=self._message_limit,
        )

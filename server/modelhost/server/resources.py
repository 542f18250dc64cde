"""The things that are stored, as values: data sources, deployments, revisions, and what they are made of.

Times are seconds since the epoch. Resource ids are bare (`iris`, not `deployments/iris`); the API adds the collections.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from modelhost.v1.error_reason_pb2 import ErrorReason


class DeploymentState(StrEnum):
    """Where a deployment stands. The transitions are in `control/states.py`."""

    STOPPED = "stopped"  # nothing of it runs
    STARTING = "starting"  # its target revision is on the way to being served
    RUNNING = "running"  # a revision is routed
    FAILED = "failed"  # the last start failed; nothing of it runs
    STOPPING = "stopping"  # calls under way are finished, then it is STOPPED
    DELETING = "deleting"  # its workers end, then it is forgotten

    @property
    def is_settled(self) -> bool:
        """Whether nothing needs to be done to keep it so. RUNNING is not: its workers must be there."""
        return self in (DeploymentState.STOPPED, DeploymentState.FAILED)


class UpdateState(StrEnum):
    """How the last update of a running deployment went."""

    NONE = "none"  # there was none since the last start
    IN_PROGRESS = "in_progress"  # the active revision serves while the target is built
    FAILED = "failed"  # the active revision goes on serving
    DONE = "done"  # the target is the active one


class RevisionState(StrEnum):
    """How far the build of a revision is; nothing of what is observed."""

    PENDING = "pending"  # not begun
    FETCHING = "fetching"  # ref resolved, files fetched
    PROVISIONING = "provisioning"  # environment built or found
    LOADING = "loading"  # a worker loads the model
    READY = "ready"  # was loaded once; can be routed at any time
    FAILED = "failed"  # a step failed

    @property
    def is_terminal(self) -> bool:
        """Whether the build has ended."""
        return self in (RevisionState.READY, RevisionState.FAILED)


@dataclass(frozen=True)
class SourceOptions:
    """What only some kinds of place have. `token_expires` is what the place last said of its token."""

    namespace: str = ""
    ca_certificates: str = ""
    insecure_skip_verify: bool = False
    token_expires: float | None = None


@dataclass(frozen=True)
class DataSource:
    """A registered place. `kind` names the implementation; `url` is its location, without credentials.

    `secret` is sealed by the vault: GitLab's token, or for Git the whole URL where it has credentials.
    """

    uid: str
    id: str
    kind: str
    url: str
    secret: str
    options: SourceOptions
    description: str
    version: int
    created: float
    updated: float


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files come from. `data_source` is an id."""

    data_source: str
    project: str = ""
    ref: str = ""
    directory: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestCall:
    """A call with a known answer, both as JSON; no expectation if `expected_json` is empty."""

    __test__ = False  # not a test class, whatever its name makes pytest think

    parameters_json: str
    expected_json: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a model takes or returns; of `shape`, -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"


@dataclass(frozen=True)
class ModelSettings:
    """How a model is run. `None` means not set: to be had from `modelhost.toml` or the defaults. Times in seconds."""

    runtime: str | None = None
    main_file: str | None = None
    function: str | None = None
    requirements: tuple[str, ...] | None = None
    requirements_file: str | None = None
    working_dir: str | None = None
    import_paths: tuple[str, ...] | None = None
    env: dict[str, str] | None = None
    text: str | None = None
    unbox: bool | None = None
    call_timeout: float | None = None
    load_timeout: float | None = None
    queue_size: int | None = None
    memory: int | None = None  # bytes that a worker may use; 0 for no limit
    recycle_calls: int | None = None  # after which a worker is exchanged; 0 for never
    recycle_memory: int | None = None  # bytes in use after which a worker is exchanged; 0 for never
    test_call: TestCall | None = None
    max_batch_size: int | None = None  # calls that go to a batch function together; 1 for none
    max_batch_delay: float | None = None  # seconds that a call may be kept back for others
    batch_dimension: bool | None = None  # the first dimension of all tensors counts rows, and calls go together by rows
    secret_env: dict[str, str] | None = None  # sealed by the vault
    tensors: str | None = None  # how Python models get them: `lists` or `numpy`
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None


@dataclass(frozen=True)
class EnvironmentLock:
    """What an environment holds and was built for: with the files of a revision, all it takes to build it again.

    `digest` is the environment's, `runtime` an id, `version` and `platform` are its interpreter's, `packages` every
    line of the lock. `repositories` are those that an R environment was asked for with.
    """

    digest: str
    runtime: str
    version: str
    platform: str
    repositories: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why a start or an update failed. `reason` is the name of an ErrorReason without its prefix."""

    reason: str
    message: str
    hint: str
    revision: int
    step: str
    time: float

    @property
    def reason_value(self) -> "ErrorReason.ValueType":
        """The reason as the API's enum."""
        return ErrorReason.Value(f"ERROR_REASON_{self.reason}")


@dataclass(frozen=True)
class Deployment:
    """A model being hosted: the wish. `active` is 0 where no revision is routed; `open` lets everybody call it."""

    uid: str
    id: str
    service_id: str
    description: str
    source: ModelSource
    settings: ModelSettings
    state: DeploymentState
    active: int
    target: int
    update_state: UpdateState
    failure: Failure | None
    version: int
    created: float
    updated: float
    service_created: float | None = None  # first RUNNING
    workers: int = 1
    open: bool = False

    def is_building(self, number: int) -> bool:
        """Whether that revision is on its way to being served."""
        updating = self.state is DeploymentState.RUNNING and self.update_state is UpdateState.IN_PROGRESS
        return number == self.target and (updating or self.state is DeploymentState.STARTING)


@dataclass(frozen=True)
class Revision:
    """An immutable build of a deployment, and how far it is."""

    deployment_uid: str
    number: int
    state: RevisionState
    source: ModelSource
    requested: ModelSettings
    created: float
    commit: str = ""
    settings: ModelSettings | None = None  # what is in force, once fetched
    snapshot_digest: str = ""
    environment: str = ""  # spec digest
    environment_digest: str = ""
    runtime_version: str = ""
    failure: Failure | None = field(default=None)
    ready: float | None = None

"""Open Inference methods that are about the server and its models. `model_infer` is the hot path."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api import names
from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.api.calling import ModelCalls
from modelhost.server.api.inference import codec
from modelhost.server.api.inference.messages import InferRequest, InferResponse
from modelhost.server.api.methods import Serialisable
from modelhost.server.control.deployments import Deployments
from modelhost.server.errors import InvalidRequest, NotFound, PredictionFailed
from modelhost.server.resources import ModelSettings, TensorSpec
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.router import Router
from modelhost.server.serving.tensors import Tensor
from modelhost.server.store.database import Database, Transaction
from modelhost.v1.error_reason_pb2 import ErrorReason

NAME = "modelhost"
EXTENSIONS = ("model_repository",)


class InferenceMethods:
    """Handlers of the Open Inference Protocol. No answer of a model is larger than `message_limit` bytes."""

    def __init__(
        self,
        *,
        router: Router,
        admission: Admission,
        calls: ModelCalls,
        database: Database,
        commands: Deployments,
        version: str,
        is_ready: Callable[[], bool],
        message_limit: int,
    ) -> None:
        self._router = router
        self._admission = admission
        self._calls = calls
        self._database = database
        self._commands = commands
        self._version = version
        self._is_ready = is_ready
        self._message_limit = message_limit

    async def server_live(self, call: Call, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Say that the server answers."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, call: Call, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Say whether the server takes calls."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def server_metadata(self, call: Call, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Say what this server is."""
        return pb.ServerMetadataResponse(name=NAME, version=self._version, extensions=EXTENSIONS)

    async def model_ready(self, call: Call, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Say whether a model can be called. Raises `NotFound` for one that is not known, or not to this caller."""
        service = self._admission.find(call.caller, names.parse_service(request.name, "name"))
        wanted = _revision(request.version, "version")
        ready = wanted in (0, service.revision) and self._router.status(service.service_id).live > 0
        return pb.ModelReadyResponse(ready=ready)

    async def model_metadata(self, call: Call, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Say what a model is, and which tensors it declares."""
        service = self._admission.find(call.caller, names.parse_service(request.name, "name"))
        wanted = _revision(request.version, "version")

        def read(tx: Transaction) -> tuple[int, ModelSettings]:
            deployment = self._commands.find(tx, service.deployment_id)
            number = deployment.active or deployment.target
            _check_revision(wanted, deployment.active, request.name)
            revision = self._commands.find_revision(tx, deployment, number)
            return deployment.active, revision.settings or revision.requested

        active, settings = await self._database.run(read)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(active)] if active else [],
            platform=f"{NAME}_{settings.runtime or ''}",
            inputs=map(_metadata, settings.inputs or ()),
            outputs=map(_metadata, settings.outputs or ()),
        )

    async def model_infer(self, call: Call, request: InferRequest) -> Serialisable:
        """Call a model once."""
        return await self._calls.run(
            call,
            names.parse_service(request.message.model_name, "model_name"),
            partial(self._infer, call, request),
        )

    async def _infer(self, call: Call, request: InferRequest, pool: Pool, revision: int) -> Serialisable:
        message = request.message
        if message.model_version:
            _check_revision(_revision(message.model_version, "model_version"), revision, message.model_name)
        wanted = request.call
        if wanted is None:
            slow = codec.is_slow(request)
            wanted = await asyncio.to_thread(codec.decode, request) if slow else codec.decode(request)
        outputs = await pool.infer(wanted, call.deadline, call.request_id)
        if request.call is None and codec.is_typed(request) and codec.can_be_typed(outputs):
            return await self._typed(message, revision, outputs)
        response = InferResponse(message.model_name, str(revision), message.id, outputs)
        self._check_size(response.size)
        return response

    async def _typed(
        self, request: pb.ModelInferRequest, revision: int, outputs: Sequence[Tensor]
    ) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=str(revision), id=request.id)
        size = sum(len(one.data) for one in outputs)
        self._check_size(size)
        if size > codec.SLOW_BYTES:
            await asyncio.to_thread(codec.encode_typed, response, outputs)
        else:
            codec.encode_typed(response, outputs)
        self._check_size(response.ByteSize())
        return response

    def _check_size(self, size: int) -> None:
        """Refuse what gRPC would not send, and would say so in words of its own."""
        if size > self._message_limit:
            raise PredictionFailed(
                ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
                "the answer with the model's tensors has {size} bytes; the server's message limit is {limit}",
                size=size,
                limit=self._message_limit,
            )


def _revision(version: str, field: str) -> int:
    """The number of a revision; 0 where none is asked for. Raises `InvalidRequest`."""
    if version and not (version.isascii() and version.isdecimal() and int(version[:10]) > 0 and len(version) < 10):
        raise InvalidRequest(
            field, "{field} must be the number of a revision, or empty for the active one, not {version}",
            version=repr(version[:80]),
        )  # fmt: skip
    return int(version or 0)


def _check_revision(wanted: int, active: int, name: str) -> None:
    """Raise `NotFound` unless the active revision will do."""
    if wanted not in (0, active):
        raise NotFound(
            ErrorReason.ERROR_REASON_REVISION_NOT_FOUND,
            "revision {revision} of {model} is not the one that answers, which is {active}; leave the version empty",
            revision=wanted,
            model=name,
            active=active or "none",
        )


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)

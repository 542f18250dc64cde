"""`modelhost.v1.Predict`: calls of models. `predict` is the hot path."""

import asyncio
import json
import math
from functools import partial
from typing import Any

from google.protobuf.struct_pb2 import Value

from modelhost.server.access.issuing import Issuer
from modelhost.server.api import convert, names
from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.api.calling import ModelCalls
from modelhost.server.control.deployments import Deployments
from modelhost.server.errors import InvalidRequest, PredictionFailed
from modelhost.server.resources import Deployment, Revision
from modelhost.server.serving.link import Received
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.router import Router
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import predict_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason

EXACT_INTEGERS = 2**53
LARGE_BYTES = 64 * 1024  # of a Value: converting more would hold up other calls
ENVELOPE_BYTES = 96  # at most, around a result: tags, lengths, the revision, the id of the call
VALUE_LEVELS = 32  # parsers give up at 100 messages within each other, and each object in an object is three


class PredictMethods:
    """Handlers of the Predict service. Nothing that they answer is larger than `message_limit` bytes."""

    def __init__(
        self,
        *,
        router: Router,
        admission: Admission,
        calls: ModelCalls,
        issuer: Issuer,
        database: Database,
        commands: Deployments,
        message_limit: int,
    ) -> None:
        self._router = router
        self._admission = admission
        self._calls = calls
        self._issuer = issuer
        self._database = database
        self._commands = commands
        self._result_limit = message_limit - ENVELOPE_BYTES

    async def issue_token(self, call: Call, request: pb.IssueTokenRequest) -> pb.IssueTokenResponse:
        """Give a service account a token."""
        token, expires = await self._issuer.issue(
            request.access_key, request.timestamp, request.nonce, request.signature, host=call.host
        )
        return pb.IssueTokenResponse(token=token, expire_time=convert.timestamp(expires))

    async def predict(self, call: Call, request: pb.PredictRequest) -> pb.PredictResponse:
        """Call a model once."""
        return await self._calls.run(
            call,
            names.parse_service(request.service),
            partial(self._predict, call, request),
        )

    async def _predict(self, call: Call, request: pb.PredictRequest, pool: Pool, revision: int) -> pb.PredictResponse:
        is_json = request.HasField("parameters_json")
        parameters = request.parameters_json.encode() if is_json else await parameters_of(request)
        result = await pool.call(parameters, call.deadline, call.request_id)
        if is_json:
            check_size(len(result), self._result_limit)
            return pb.PredictResponse(result_json=result.decode(), revision=revision, request_id=call.request_id)
        value = await to_value(result)
        check_size(value.ByteSize(), self._result_limit)
        return pb.PredictResponse(result=value, revision=revision, request_id=call.request_id)

    async def describe_service(self, call: Call, request: pb.DescribeServiceRequest) -> pb.DescribeServiceResponse:
        """Say what a service is."""
        service = self._admission.find(call.caller, names.parse_service(request.service))

        def read(tx: Transaction) -> tuple[Deployment, Revision]:
            deployment = self._commands.find(tx, service.deployment_id)
            return deployment, self._commands.find_revision(tx, deployment, deployment.active or deployment.target)

        deployment, revision = await self._database.run(read)
        settings = revision.settings or revision.requested
        return pb.DescribeServiceResponse(
            service=service.service_id,
            deployment=deployment.id,
            description=deployment.description,
            serving=self._router.status(service.service_id).live > 0,
            revision=deployment.active,
            commit=revision.commit,
            runtime=names.join(names.RUNTIMES, settings.runtime or ""),
            runtime_version=revision.runtime_version,
            environment_digest=revision.environment_digest,
            example_parameters_json=settings.test_call.parameters_json if settings.test_call else "",
        )


async def parameters_of(request: pb.PredictRequest) -> bytes:
    """What the model is to receive, as JSON. Raises `InvalidRequest`."""
    match request.WhichOneof("input"):
        case "parameters_json":
            return request.parameters_json.encode()
        case "parameters":
            large = request.parameters.ByteSize() > LARGE_BYTES
            return await asyncio.to_thread(_as_json, request.parameters) if large else _as_json(request.parameters)
        case _:
            raise InvalidRequest(
                "parameters",
                "the call has neither parameters nor parameters_json",
                reason=ErrorReason.ERROR_REASON_PARAMETERS_INVALID,
            )


async def to_value(result: Received) -> Value:
    """What a model returned, as a Value. Raises `PredictionFailed` for what that does not hold."""
    return await asyncio.to_thread(_as_value, result) if len(result) > LARGE_BYTES else _as_value(result)


def check_size(size: int, limit: int) -> None:
    """Refuse what gRPC would not send, and would say so in words of its own."""
    if size > limit:
        raise PredictionFailed(
            ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
            "the model's result has {size} bytes; the server's message limit leaves room for {limit}",
            size=size,
            limit=limit,
        )


def _plain(value: Value) -> Any:
    """A Value as JSON has it; integral doubles that are exact become ints. Raises `InvalidRequest`."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidRequest(
                    "parameters",
                    "parameters hold {number}, which JSON cannot",
                    reason=ErrorReason.ERROR_REASON_PARAMETERS_INVALID,
                    number=number,
                )
            return int(number) if number.is_integer() and abs(number) <= EXACT_INTEGERS else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {name: _plain(item) for name, item in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case _:
            return None


def _as_json(value: Value) -> bytes:
    return json.dumps(_plain(value)).encode()


def _as_value(result: Received) -> Value:
    """A result as a Value. Raises `PredictionFailed` for what JSON holds and a Value, or those who parse it, do not."""
    value = Value()
    try:
        _fill(value, json.loads(result), VALUE_LEVELS)
    except (OverflowError, ValueError):
        problem = "a number that is no double"
    except RecursionError:
        problem = f"more than {VALUE_LEVELS} levels"
    else:
        return value
    raise PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
        "the result has {problem}; send parameters_json to have it as JSON",
        problem=problem,
    )


def _fill(value: Value, plain: Any, levels: int) -> None:
    """Put JSON of at most so many levels into an empty Value. Raises `RecursionError`, `OverflowError`."""
    if levels < 0:
        raise RecursionError
    match plain:
        case None:
            value.null_value = 0  # type: ignore[assignment]  # NULL_VALUE
        case bool():
            value.bool_value = plain
        case int() | float():
            value.number_value = float(plain)
        case str():
            value.string_value = plain
        case list():
            value.list_value.SetInParent()
            for item in plain:
                _fill(value.list_value.values.add(), item, levels - 1)
        case dict():
            value.struct_value.SetInParent()
            for name, item in plain.items():
                _fill(value.struct_value.fields[name], item, levels - 1)

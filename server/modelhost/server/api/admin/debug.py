"""Debug: one call of a model with everything that helps to understand it."""

import asyncio
import time
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from modelhost.server.api import convert, names
from modelhost.server.api.call import Call
from modelhost.server.control import failures
from modelhost.server.control import settings as settings_rules
from modelhost.server.control.debugger import Debugger
from modelhost.server.control.deployments import Deployments
from modelhost.server.errors import DomainError, InvalidRequest, PredictionFailed, StepFailed
from modelhost.server.resources import Deployment, Failure, Revision
from modelhost.server.serving.answers import too_large
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import deployment_pb2 as pb

TRACEBACK_CHARACTERS = 16_000
ROOM_BYTES = 1024 * 1024  # for all but the result


class DebugMethods:
    """Handler of DebugDeployment."""

    def __init__(self, database: Database, commands: Deployments, debugger: Debugger, message_limit: int) -> None:
        self._database = database
        self._commands = commands
        self._debugger = debugger
        self._result_limit = message_limit - ROOM_BYTES

    async def debug_deployment(self, call: Call, request: pb.DebugDeploymentRequest) -> pb.DebugDeploymentResponse:
        """Call a model once."""
        deployment_id = names.parse(request.name, names.DEPLOYMENTS)
        await asyncio.to_thread(_check, request)  # parameters may be large

        def find(tx: Transaction) -> tuple[Deployment, Revision]:
            deployment = self._commands.find(tx, deployment_id)
            number = request.revision or deployment.active or deployment.target
            return deployment, self._commands.find_revision(tx, deployment, number)

        deployment, revision = await self._database.run(find)
        outcome = await self._debugger.call(
            deployment, revision, request.parameters_json.encode(), deadline=call.deadline, request_id=call.request_id
        )
        seen, error = outcome.seen, outcome.error
        if len(seen.result) > self._result_limit:
            seen, error = replace(seen, result=b""), too_large(len(seen.result), self._result_limit)
        return pb.DebugDeploymentResponse(
            result_json=seen.result.decode(),
            failure=convert.failure(_failure(error, deployment, revision.number)),
            traceback=failures.details_of(error)[-TRACEBACK_CHARACTERS:] if error else "",
            stdout=seen.stdout,
            stderr=seen.stderr,
            revision=revision.number,
            request_id=call.request_id,
            timing=pb.DebugDeploymentResponse.Timing(
                queue=_duration(seen.queue),
                send=_duration(seen.send),
                run=_duration(seen.run),
                receive=_duration(seen.receive),
            ),
        )


def _failure(error: DomainError | None, deployment: Deployment, number: int) -> Failure | None:
    if error is None:
        return None
    step = "load" if isinstance(error, StepFailed) else "call"
    failure = failures.failure_of(error, deployment, revision=number, step=step, now=time.time())
    # The hint for a call that raised is to debug it, which is what was done.
    return replace(failure, hint="") if isinstance(error, PredictionFailed) and error.traceback else failure


def _check(request: pb.DebugDeploymentRequest) -> None:
    if request.revision < 0:
        raise InvalidRequest("revision", "{field} must be the number of a revision, or 0")
    settings_rules.check_json(request.parameters_json, "parameters_json")


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration

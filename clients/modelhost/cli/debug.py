"""`modelhost predict --debug`: one call with everything that was seen of it."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from modelhost.cli import api
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.output import Output, to_dict
from modelhost.cli.render import reason_name

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from modelhost.client.transport import Metadata

_AS_ONE_LINE = 100


def debug_call(
    session: Session, name: str, parameters_json: str, *, revision: int, timeout: float, metadata: "Metadata"
) -> None:
    """Call a revision once, the active one if it is 0, and show all of it. Raises CommandError if the call failed."""
    request = api.DebugDeploymentRequest(
        name=deployment_of(session, name), parameters_json=parameters_json, revision=revision
    )
    seen = session.admin.DebugDeployment(request, timeout=timeout, metadata=metadata)
    if session.as_json:
        _print_json(seen)
    else:
        _print(session.out, seen)
    if seen.HasField("failure"):
        raise _error(seen)


def deployment_of(session: Session, name: str) -> str:
    """Return the deployment's id: that which a service is of, or what was given."""
    if name.startswith(("svc-", "services/")):
        with suppress(api.ModelHostError):
            answer = session.client.predict_stub.DescribeService(api.DescribeServiceRequest(service=name))
            return answer.deployment or name
    return name


def readable(text: str, out: Output) -> str:
    """Return JSON as the server wrote it; on a terminal, long JSON over several lines."""
    if not out.is_terminal or len(text) <= _AS_ONE_LINE:
        return text
    with suppress(ValueError):
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def _print_json(seen: "api.DebugDeploymentResponse") -> None:
    """Print the result as the server wrote it, for numbers must not change, and the rest."""
    rest = to_dict(seen)
    del rest["result_json"]
    print(f'{{"result": {seen.result_json or "null"}, {json.dumps(rest, ensure_ascii=False)[1:]}', flush=True)


def _print(out: Output, seen: "api.DebugDeploymentResponse") -> None:
    if not seen.HasField("failure"):
        print(readable(seen.result_json, out), flush=True)
    for heading, text in (("traceback", seen.traceback), ("stdout", seen.stdout), ("stderr", seen.stderr)):
        if text:
            out.beside(f"── {heading}", style="bold")
            out.beside(text)
    out.beside(f"── revision {seen.revision}, request {seen.request_id}", style="bold")
    out.beside(_times(seen.timing))


def _times(timing: "api.DebugDeploymentResponse.Timing") -> str:
    """Return where the time went: `queue 0.1 ms · send 0.4 ms · run 12.0 ms · receive 0.3 ms`."""

    def milliseconds(duration: "Duration") -> str:
        return f"{duration.ToNanoseconds() / 1e6:.1f} ms"

    stages = {"queue": timing.queue, "send": timing.send, "run": timing.run, "receive": timing.receive}
    return " · ".join(f"{name} {milliseconds(duration)}" for name, duration in stages.items())


def _error(seen: "api.DebugDeploymentResponse") -> CommandError:
    from modelhost.client.errors import MODEL_FAILURES

    reason = reason_name(seen.failure)
    by_model = ExitCode.MODEL_FAILED if reason in MODEL_FAILURES else ExitCode.FAILED
    code = ExitCode.USAGE if reason == "PARAMETERS_INVALID" else by_model
    metadata = {"request_id": seen.request_id}
    return CommandError(seen.failure.message, code, seen.failure.hint, reason=reason, metadata=metadata)

"""`modelhost predict`: calls of hosted models."""

import json
import shlex
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from modelhost.cli import api
from modelhost.cli.completion import complete_deployment
from modelhost.cli.connection import Session
from modelhost.cli.debug import debug_call, deployment_of, readable
from modelhost.cli.errors import CommandError, usage
from modelhost.cli.flags import verb
from modelhost.cli.streams import received

if TYPE_CHECKING:
    from modelhost.client.transport import Metadata

_NO_DEADLINE = 7 * 24 * 3600.0  # the server ends the call at the deployment's own limit, at most a day


@verb
def predict(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The deployment, or its service.", autocompletion=complete_deployment),
    ],
    parameters: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="What the model receives: JSON, or @FILE with it, or - for stdin."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Give up after this; else the model's own limit holds.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="What to call it in the run log; else the server names it.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show also what it wrote, its traceback, and where the time went.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print each item of what it yields as it comes, one a line.")
    ] = False,
    revision: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With --debug: call this revision, whether it runs or not.")
    ] = None,
) -> None:
    """Call a model once, and print what it returns as JSON.

    With --debug, the result is on stdout as ever, and all else on stderr. A revision that does not run gets a worker
    for this one call. With --json, what there is to know of the call comes along.

    With --stream, Ctrl-C ends the model's work as well, as does a reader that goes away: `… --stream | head`.

    Examples:
      modelhost predict churn '{"age": 41, "plan": "basic"}'
      modelhost predict churn @customer.json
      jq .customer all.json | modelhost predict churn -
      modelhost predict churn '{"age": 41}' --debug --revision 2
      modelhost predict writer '{"topic": "rain"}' --stream
    """
    if stream and debug:
        raise usage("--stream and --debug do not go together: --debug has all items in a list")
    if revision and not debug:
        raise usage("--revision needs --debug; without it the active revision answers")
    if parameters is None:
        _ask_for_parameters(session, name)
    text = _text_of(parameters)
    check_json(text, "the parameters")
    limit = _NO_DEADLINE if timeout is None else timeout
    if debug:
        debug_call(session, name, text, revision=revision or 0, timeout=limit, metadata=_identification(request_id))
        return
    request, metadata = api.PredictRequest(service=name, parameters_json=text), _identification(request_id)
    try:
        if stream:
            _print_items(session, request, limit, metadata)
            return
        answer = session.client.predict_stub.Predict(request, timeout=limit, metadata=metadata)
    except api.ModelHostError as error:
        error.metadata.setdefault("deployment", deployment_of(session, name))
        raise
    if session.as_json:
        rest = json.dumps({"revision": answer.revision, "request_id": answer.request_id}, ensure_ascii=False)
        print(f'{{"result": {answer.result_json}, {rest[1:]}', flush=True)
    else:
        print(readable(answer.result_json, session.out), flush=True)


def _print_items(session: Session, request: "api.PredictRequest", timeout: float, metadata: "Metadata") -> None:
    """Print what a model yields, a line each, as the server wrote it."""
    method = partial(session.client.predict_stub.PredictStream, timeout=timeout, metadata=metadata)
    for item in received(method, request, ahead=1):
        rest = {"index": item.index, "revision": item.revision, "request_id": item.request_id}
        text = json.dumps(rest, ensure_ascii=False)[1:]
        print(f'{{"result": {item.result_json}, {text}' if session.as_json else item.result_json, flush=True)


def _identification(request_id: str | None) -> "Metadata":
    from modelhost.client.transport import identification

    try:
        return identification(request_id)
    except ValueError as error:
        raise usage(f"--request-id: {error}") from error


def _text_of(parameters: str) -> str:
    if parameters == "-":
        return sys.stdin.read()
    if not parameters.startswith("@"):
        return parameters
    path = Path(parameters[1:]).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage(f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from error


def check_json(text: str, what: str) -> None:
    """Raise a usage error that shows the place, unless the text is JSON."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        line = error.doc.splitlines()[error.lineno - 1] if error.doc.strip() else ""
        start = max(0, error.colno - 40)
        raise CommandError(
            f"{what} are not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            usage("").code,
            _json_hint(text),
            details=[line[start : start + 72], " " * (error.colno - 1 - start) + "^"] if line else (),
        ) from error
    except ValueError as error:
        raise usage(f"{what} are not JSON: {error}", "JSON has null instead") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has no {name}")


def _json_hint(text: str) -> str:
    with suppress(OSError):
        if Path(text).is_file():
            return f"to send what is in the file: @{text}"
    return "in a shell, put it into single quotes: '{\"age\": 41}'"


def _ask_for_parameters(session: Session, name: str) -> NoReturn:
    example = '{"age": 41}'
    with suppress(api.ModelHostError):
        known = session.client.predict_stub.DescribeService(api.DescribeServiceRequest(service=name))
        example = known.example_parameters_json or example
    raise usage(
        "missing argument 'JSON': what the model is to receive", f"modelhost predict {name} {shlex.quote(example)}"
    )

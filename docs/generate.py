"""Writes the reference pages that code already knows: `make docs`. `make check` compares them.

python docs/generate.py          # write
python docs/generate.py --check  # exit 1 if a page is not as it would be written
"""

import re
import sys
import textwrap
from pathlib import Path

from modelhost.inference import open_inference_pb2
from modelhost.server.api.admission import CALLING
from modelhost.server.api.binding import required_role
from modelhost.server.api.inference.repository import ROLES as REPOSITORY_ROLES
from modelhost.server.api.status import CODES
from modelhost.server.catalogue import ENTRIES, Entry, Step, hint_for
from modelhost.server.errors import reason_name
from modelhost.server.identities import Role
from modelhost.v1 import admin_pb2, predict_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason

DOCS = Path(__file__).parent
PROTO = DOCS.parent / "proto" / "modelhost" / "v1"
INFERENCE_PROTO = PROTO.parent / "inference"

ERRORS_HEAD = """# Errors

<!-- Written by `make docs` from error_reason.proto, api/status.py and the catalogue of causes. -->

A failed call carries a [`google.rpc.Status`](https://google.aip.dev/193) with exactly one `ErrorInfo`: domain
`modelhost`, one of the reasons below, and every value of the message in its metadata. `BadRequest` names the offending
field, `PreconditionFailure` the state that is in the way, `RetryInfo` when to try again. Errors of gRPC itself (a
message over the limit, an unknown method) carry none.

A deployment that failed has the same reasons in `failure`, with a hint. A traceback is in the log, never in a status.
[Troubleshooting](troubleshooting.md) shows by what each cause is known, and says more of it.

| reason | code | what happened | what to do |
|---|---|---|---|
"""

TROUBLESHOOTING_HEAD = """# When a model fails

<!-- Written by `make docs` from the catalogue of causes, server/modelhost/server/catalogue. -->

`modelhost show NAME` says at which step a deployment failed and for which reason, with a hint; `modelhost logs NAME
--build` has the whole output, and `modelhost logs NAME --run` what the model itself printed. This page has the known
causes of each step: what you see, why it happens with old models, and what to do. NAME is the deployment, SOURCE its
data source. [Errors](errors.md) lists all reasons.

After a change in the repository, `modelhost update NAME` deploys the newest commit of its ref; after a change on the
server's host, `modelhost start NAME` tries again. While an update fails, the revision before it goes on serving.
"""

METHODS_HEAD = """# Methods

<!-- Written by `make docs` from admin.proto, predict.proto, access.proto and open_inference.proto. -->

Every method of the API, and what it takes to call it. Requests and answers are in the comments of
[`proto/modelhost/v1`](../proto/modelhost/v1), errors in [errors.md](errors.md); [the guide](guides/access.md) shows how
tokens are had. Credentials travel as `authorization: Bearer TOKEN` metadata."""

ADMIN_HEAD = """## modelhost.v1.Admin

For operators. Who has a lesser role than the one in the table is refused with PERMISSION_DENIED `ROLE_REQUIRED`, and so
is every service account.

| role | what it may do |
|---|---|"""

PREDICT_HEAD = f"""## modelhost.v1.Predict

For applications. IssueToken needs no token. The others take a bearer token or an API key of a service account that was
granted the service, or an operator's token; calls of a service that was made open need none. To call a model whose
service is not open, an operator needs the role {CALLING.name.lower()}. For everybody else there is no such service:
`SERVICE_NOT_FOUND`, in the same words as for one that is not there, and without any token `UNAUTHENTICATED`.

| method | what it does |
|---|---|"""

INFERENCE_HEAD = """## inference.GRPCInferenceService

The Open Inference Protocol, version 2. A model's name is the service's id or the deployment's name, its version the
number of the active revision. Who may call a model is as for Predict; where a role is named, only operators who have
it. The messages are in [`open_inference.proto`](../proto/modelhost/inference/open_inference.proto), and
[the contract](model-contract.md#tensors) says what a model gets.

| method | for | what it does |
|---|---|---|"""

OTHERS = """## The others

`grpc.health.v1.Health` and server reflection (`grpc.reflection.v1` and `v1alpha`) are open to everybody. How a
prediction service is, Health tells only operators and those who may call it."""

STEPS = {
    Step.FETCH: "## Fetch: getting the files\n\nThe server asks the data source for the commit and keeps its files.",
    Step.PROVISION: (
        "## Provision: building the environment\n\nThe server makes a virtualenv, or a library of R packages, and"
        " installs what the model asks for. What is asked for without a version comes in its newest one, years after"
        " the model was made: pin it."
    ),
    Step.LOAD: (
        "## Load: importing the model\n\nA worker imports the main file, calls `setup()` and makes the test call."
        " Mostly it fails here because the packages are not those that the model was saved with."
    ),
    Step.ACCESS: (
        "## Access: being let in\n\nThe call has reached no model. [The guide](guides/access.md) shows accounts,"
        " tokens, grants and roles."
    ),
    Step.CALL: "## Call: predicting\n\nThe model runs, and a call has no result.",
    Step.ANY: "## At any step",
}


def errors() -> str:
    """Every reason with its code, its comment in the proto and its hint."""
    rows = []
    for name, text in comments("error_reason.proto", r"(ERROR_REASON_\w+) = [1-9]\d*;").items():
        reason = ErrorReason.Value(name)
        code = CODES[reason].name if reason in CODES else "–"
        what = re.sub(r"^(A deployment's failure|A revision's failure|[A-Z_]+): ", "", text)
        rows.append(f"| `{reason_name(reason)}` | {code} | {what[0].upper()}{what[1:]} | {hint_for(reason)} |")
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def methods() -> str:
    """Every method with the role that it requires and the first sentence of its comment in the proto."""
    roles = comments("access.proto", r"(ROLE_\w+) = [1-9]\d*;")
    role_rows = [f"| {role.name.lower()} | {roles[f'ROLE_{role.name}']} |" for role in Role]
    said = comments("admin.proto", r"rpc (\w+)\(")
    admin_rows = []
    for rpc in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods:
        role = required_role(rpc)
        assert role is not None, f"{rpc.name} does not say which role it requires"
        admin_rows.append(f"| `{rpc.name}` | {role.name.lower()} | {first_sentence(said[rpc.name])} |")
    said = comments("predict.proto", r"rpc (\w+)\(")
    predict = predict_pb2.DESCRIPTOR.services_by_name["Predict"].methods
    predict_rows = [f"| `{rpc.name}` | {first_sentence(said[rpc.name])} |" for rpc in predict]
    said = comments("open_inference.proto", r"rpc (\w+)\(", INFERENCE_PROTO)
    inference_rows = [
        f"| `{rpc.name}` | {_whom(rpc.name)} | {first_sentence(said[rpc.name])} |"
        for rpc in open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    ]
    parts = [
        METHODS_HEAD,
        "\n".join([ADMIN_HEAD, *role_rows]),
        "\n".join(["| method | role | what it does |", "|---|---|---|", *admin_rows]),
        "\n".join([PREDICT_HEAD, *predict_rows]),
        "\n".join([INFERENCE_HEAD, *inference_rows]),
        OTHERS,
    ]
    return "\n\n".join(parts) + "\n"


def _whom(name: str) -> str:
    if name in REPOSITORY_ROLES:
        return REPOSITORY_ROLES[name].name.lower()
    return "everybody" if name.startswith("Server") else "callers of the service"


def comments(file: str, what: str, folder: Path = PROTO) -> dict[str, str]:
    """The comments of a proto file that stand before what is looked for, by its name, each in one line."""
    found = re.findall(rf"((?: *//[^\n]*\n)+) *{what}", (folder / file).read_text())
    return {
        name: " ".join(line.strip().removeprefix("//").strip() for line in comment.strip().splitlines())
        for comment, name in found
    }


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends one."""
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


def troubleshooting() -> str:
    """Every known cause by step: what is seen, why, and what to do."""
    parts = [TROUBLESHOOTING_HEAD]
    for step, head in STEPS.items():
        title, _, text = head.partition("\n\n")
        parts += [
            title,
            filled(text),
            *(cause(entry) for entry in ENTRIES if entry.step is step and not stands_for_others(entry)),
        ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def cause(entry: Entry) -> str:
    """One cause, with the hint that the server gives for what is shown."""
    shown = f"```\n{textwrap.dedent(entry.seen)}\n```\n\n" if entry.seen else ""
    cure = entry.cure.format_map(entry.values)
    todo = filled(f"**What to do:** {cure}")
    return f"### {entry.title}\n\n`{reason_name(entry.reason)}`\n\n{shown}{filled(entry.why)}\n\n{todo}"


def filled(text: str) -> str:
    """A paragraph in lines of the usual length; commands stay on one."""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    return textwrap.fill(whole, 120, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def stands_for_others(entry: Entry) -> bool:
    """Whether an entry is only there as its reason's general hint, and finer ones have examples."""
    finer = [other for other in ENTRIES if other.reason == entry.reason and other.seen]
    return bool(finer) and not entry.seen and entry.cause is None


def main() -> int:
    """Write or compare."""
    pages = {
        DOCS / "errors.md": errors(),
        DOCS / "methods.md": methods(),
        DOCS / "troubleshooting.md": troubleshooting(),
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what the code says: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())

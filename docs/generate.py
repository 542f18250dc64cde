"""Writes the reference pages that code already knows: `make docs`. `make check` compares them.

python docs/generate.py          # write
python docs/generate.py --check  # exit 1 if a page is not as it would be written
"""

import re
import sys
from pathlib import Path

from modelhost.server.api.status import CODES
from modelhost.server.errors import reason_name
from modelhost.server.hints import hint_for
from modelhost.v1.error_reason_pb2 import ErrorReason

DOCS = Path(__file__).parent
PROTO = DOCS.parent / "proto" / "modelhost" / "v1" / "error_reason.proto"

ERRORS_HEAD = """# Errors

<!-- Written by `make docs` from error_reason.proto, api/status.py and hints.py. -->

A failed call carries a [`google.rpc.Status`](https://google.aip.dev/193) with exactly one `ErrorInfo`: domain
`modelhost`, one of the reasons below, and every value of the message in its metadata. `BadRequest` names the offending
field, `PreconditionFailure` the state that is in the way, `RetryInfo` when to try again. Errors of gRPC itself (a
message over the limit, an unknown method) carry none.

A deployment that failed has the same reasons in `failure`, with a hint. A traceback is in the log, never in a status.

| reason | code | what happened | what to do |
|---|---|---|---|
"""


def errors() -> str:
    """Every reason with its code, its comment in the proto and its hint."""
    comments = re.findall(r"((?: *//[^\n]*\n)+) *(ERROR_REASON_\w+) = \d+;", PROTO.read_text())
    rows = []
    for comment, name in comments[1:]:
        reason = ErrorReason.Value(name)
        text = " ".join(line.strip().removeprefix("//").strip() for line in comment.strip().splitlines())
        code = CODES[reason].name if reason in CODES else "–"
        what = re.sub(r"^(A deployment's failure|[A-Z_]+): ", "", text)
        rows.append(f"| `{reason_name(reason)}` | {code} | {what[0].upper()}{what[1:]} | {hint_for(reason)} |")
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write or compare."""
    pages = {DOCS / "errors.md": errors()}
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

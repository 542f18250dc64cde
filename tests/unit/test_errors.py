"""Reasons, codes, hints and statuses: one list in the API, and everything else in step with it."""

import re
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from modelhost.server.api.status import CODES, DETAILS_BYTES, MESSAGE_BYTES, Code, internal_error, status_of
from modelhost.server.catalogue import ENTRIES, hint_for
from modelhost.server.errors import Busy, Conflict, DomainError, InvalidRequest, PredictionFailed, reason_name
from modelhost.v1.error_reason_pb2 import ErrorReason

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto" / "modelhost" / "v1" / "error_reason.proto"
OF_DEPLOYMENTS = {"A deployment's failure", "A revision's failure"}

REASONS = [value for value in ErrorReason.values() if value != ErrorReason.ERROR_REASON_UNSPECIFIED]
R = ErrorReason


def comments() -> dict[int, str]:
    """The comment above each value of the enum."""
    found, comment = {}, ""
    for line in PROTO.read_text().splitlines():
        if line.strip().startswith("//"):
            comment += line.strip().removeprefix("//")
        elif value := re.match(r"\s*(ERROR_REASON_\w+) = (\d+);", line):
            found[int(value[2])] = comment.strip()
            comment = ""
        else:
            comment = ""
    return found


def first_words(value: int) -> str:
    """What a comment has before its first colon: a code, or that it is of deployments."""
    return comments()[value].partition(":")[0]


def details(error: DomainError) -> tuple[StatusMessage, list[ErrorInfo], dict[str, Message]]:
    """The status as a client reads it: all of it, its ErrorInfos, and its other details by type."""
    status = StatusMessage.FromString(status_of(error).details)
    infos, others = [], {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, PreconditionFailure, RetryInfo):
            message = kind()
            if packed.Unpack(message):
                if isinstance(message, ErrorInfo):
                    infos.append(message)
                else:
                    others[kind.DESCRIPTOR.name] = message
    return status, infos, others


# ---- the list of reasons


def test_every_reason_says_what_it_means() -> None:
    found = comments()

    assert set(found) == set(ErrorReason.values())
    assert [number for number, comment in found.items() if len(comment) < 20] == []


@pytest.mark.parametrize("reason", REASONS, ids=ErrorReason.Name)
def test_the_code_of_a_reason_is_the_one_that_its_comment_names(reason: int) -> None:
    if first_words(reason) in OF_DEPLOYMENTS:
        assert reason not in CODES
    else:
        assert CODES[reason].name == first_words(reason)


def test_only_known_reasons_are_used_and_every_one_of_them_is() -> None:
    roots = [ROOT / "server" / "modelhost" / "server", ROOT / "clients" / "modelhost"]
    tables = {"status.py", "fetching.py", "access.py", "calling.py"}
    used, listed = set(), set()
    for path in [path for root in roots for path in root.rglob("*.py")]:
        names = set(re.findall(r"\bERROR_REASON_[A-Z]\w*", path.read_text()))
        listed |= names
        used |= names if path.name not in tables else set()

    assert listed <= set(ErrorReason.keys())
    internal = {"ERROR_REASON_INTERNAL"}  # made in status.py
    assert set(ErrorReason.keys()) - used <= {"ERROR_REASON_UNSPECIFIED"} | internal


@pytest.mark.parametrize(
    "reason", [value for value in REASONS if first_words(value) in OF_DEPLOYMENTS], ids=ErrorReason.Name
)
def test_every_failure_of_a_deployment_has_a_hint(reason: int) -> None:
    assert hint_for(reason).endswith((".", "?"))


def test_hints_are_for_reasons_that_need_one() -> None:
    assert {entry.reason for entry in ENTRIES} <= set(REASONS)
    assert hint_for(R.ERROR_REASON_PAGE_TOKEN_INVALID) == ""


# ---- errors as statuses


@pytest.mark.parametrize("reason", REASONS, ids=ErrorReason.Name)
def test_an_error_has_one_info_with_its_reason_and_every_value_of_its_message(reason: int) -> None:
    error = DomainError(reason, "no {thing} in {place}", thing="iris", place=7)
    hint = hint_for(reason)

    status, infos, _ = details(error)

    assert status.message == "no iris in 7"
    assert [(info.domain, info.reason, dict(info.metadata)) for info in infos] == [
        ("modelhost", reason_name(reason), {"thing": "iris", "place": "7", **({"hint": hint} if hint else {})})
    ]
    assert status.code == CODES.get(reason, Code.FAILED_PRECONDITION)


def test_a_hint_follows_the_message() -> None:
    error = DomainError(R.ERROR_REASON_INTERNAL, "it failed", hint="Do this.")

    assert status_of(error).message == "it failed. Do this."


def test_an_invalid_request_names_its_field() -> None:
    error = InvalidRequest("deployment.source.ref", "{field} must not be {given}", given="so")

    _, (info,), others = details(error)

    (violation,) = others["BadRequest"].field_violations
    assert violation.field == "deployment.source.ref"
    assert violation.description == "deployment.source.ref must not be so"
    assert info.metadata["field"] == "deployment.source.ref"


@pytest.mark.parametrize("reason", [R.ERROR_REASON_STATE_CONFLICT, R.ERROR_REASON_SERVICE_NOT_RUNNING])
def test_a_conflict_says_which_state_is_in_the_way(reason: int) -> None:
    error = Conflict(reason, "deployment {deployment} is {state}", deployment="iris", state="STOPPED")

    _, _, others = details(error)

    (violation,) = others["PreconditionFailure"].violations
    assert violation.type == reason_name(reason)
    assert violation.subject == "iris"
    assert violation.description == "deployment iris is STOPPED"


def test_who_is_refused_for_a_limit_is_told_when_to_try_again() -> None:
    error = Busy(R.ERROR_REASON_QUEUE_FULL, "the queue is full", retry_after=1.5)

    _, _, others = details(error)

    assert others["RetryInfo"].retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize(
    "error",
    [
        lambda text: DomainError(R.ERROR_REASON_INTERNAL, "{text}", text=text, hint=text),
        lambda text: InvalidRequest("a" * 200, "{one} {two} {three}", one=text, two=text, three=text),
        lambda text: Conflict(R.ERROR_REASON_STATE_CONFLICT, "{text}", text=text),
        lambda text: Busy(R.ERROR_REASON_QUEUE_FULL, "{text}", text=text, retry_after=1),
        lambda text: DomainError(R.ERROR_REASON_INTERNAL, "", **{f"value_{i}": text for i in range(20)}),
        lambda text: InvalidRequest("field", "{value_0}", **{f"value_{i}": text for i in range(20)}),
    ],
    ids=["hint", "invalid", "conflict", "busy", "many", "many-invalid"],
)
def test_what_is_too_long_is_cut_between_characters_and_every_detail_stays(error, letter: str) -> None:
    long = error(letter * 5000)

    status = status_of(long)

    assert len(status.message.encode()) <= MESSAGE_BYTES == 1024
    assert len(status.details) <= DETAILS_BYTES == 4096
    read, (info,), others = details(long)
    assert read.message == status.message
    assert set(info.metadata) - {"hint"} == set(long.values)
    assert "\ufffd" not in str(read)
    expected = {InvalidRequest: {"BadRequest"}, Conflict: {"PreconditionFailure"}, Busy: {"RetryInfo"}}
    assert set(others) == expected.get(type(long), set())


def test_a_message_at_the_limit_is_not_cut() -> None:
    text = "é" * (MESSAGE_BYTES // 2)

    assert status_of(DomainError(R.ERROR_REASON_INTERNAL, "{text}", text=text)).message == text
    assert status_of(DomainError(R.ERROR_REASON_INTERNAL, "{text}", text=text + "x")).message.endswith("…")


def test_text_that_utf8_cannot_hold_does_not_get_in_the_way_of_the_error() -> None:
    error = DomainError(R.ERROR_REASON_PATH_NOT_FOUND, "no {path}", path="caf\udce9")

    assert status_of(error).message == "no caf?"
    assert details(error)[1][0].metadata["path"] == "caf?"


def test_a_fault_of_the_server_says_nothing_of_itself() -> None:
    status, (info,), others = details(internal_error())

    assert status.code == Code.INTERNAL
    assert info.reason == "INTERNAL"
    assert dict(info.metadata) == {"hint": hint_for(R.ERROR_REASON_INTERNAL)}
    assert others == {}


def test_a_traceback_never_travels_in_a_status() -> None:
    error = PredictionFailed(
        R.ERROR_REASON_MODEL_RAISED, "the model raised {x}", x="ValueError", traceback="File secret"
    )

    assert b"secret" not in status_of(error).details


def test_a_message_is_not_formatted_twice() -> None:
    error = DomainError(R.ERROR_REASON_MODEL_RAISED, "the model raised {text}", text="KeyError: {text} {0}")

    assert error.message == "the model raised KeyError: {text} {0}"

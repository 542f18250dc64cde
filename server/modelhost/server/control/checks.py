"""What must hold before a revision is routed: its main file is there, and its test call gives what it should."""

import difflib
import json
import math
from pathlib import Path
from typing import Any

from modelhost.server.errors import PredictionFailed, StepFailed
from modelhost.server.resources import ModelSettings, TestCall
from modelhost.server.serving.answers import Mask
from modelhost.server.serving.pool import Pool
from modelhost.server.sources.snapshots import Snapshot
from modelhost.v1.error_reason_pb2 import ErrorReason

TOLERANCE = 1e-6


def check_main_file(wanted: ModelSettings, snapshot: Snapshot) -> None:
    """Raise `StepFailed` MAIN_FILE_NOT_FOUND, with the names that are most like it, unless the file is there."""
    main_file = str(wanted.main_file)
    paths = [file.path for file in snapshot.files]
    if main_file in paths:
        return
    near = difflib.get_close_matches(main_file, paths, 3, 0.5) or [
        p for p in paths if p.endswith(Path(main_file).suffix)
    ]
    raise StepFailed(
        ErrorReason.ERROR_REASON_MAIN_FILE_NOT_FOUND,
        "there is no file {main_file} among the deployed files; there is: {near}",
        main_file=main_file,
        near=", ".join(near[:5]) or f"{len(paths)} others",
    )


async def check_test_call(pool: Pool, test: TestCall, mask: Mask) -> None:
    """Raise `StepFailed` TEST_CALL_FAILED unless the call gives what is expected; `mask` hides secrets."""
    try:
        result = json.loads(await pool.call(test.parameters_json.encode()))
    except PredictionFailed as error:
        raise StepFailed(
            ErrorReason.ERROR_REASON_TEST_CALL_FAILED, "the test call failed: {cause}", details=error.traceback,
            cause=error.message,
        ) from None  # fmt: skip
    if test.expected_json and not _alike(json.loads(test.expected_json), result):
        raise StepFailed(
            ErrorReason.ERROR_REASON_TEST_CALL_FAILED,
            "the test call returned {result} instead of {expected}",
            result=mask(json.dumps(result))[:300],
            expected=test.expected_json[:300],
        )


def _alike(expected: Any, result: Any) -> bool:
    """Equal, numbers within `TOLERANCE` of their size."""
    if isinstance(expected, dict) and isinstance(result, dict):
        return expected.keys() == result.keys() and all(_alike(expected[key], result[key]) for key in expected)
    if isinstance(expected, list) and isinstance(result, list):
        return len(expected) == len(result) and all(map(_alike, expected, result))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, result))
    if numbers:
        return math.isclose(expected, result, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)
    return type(expected) is type(result) and bool(expected == result)

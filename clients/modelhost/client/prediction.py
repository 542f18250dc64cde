"""Parameters on their way out, results on their way in."""

import json
from dataclasses import dataclass
from typing import Any

from modelhost.v1.predict_pb2 import PredictRequest, PredictResponse


@dataclass(frozen=True)
class Prediction:
    """What a model returned, the number of the revision that answered, and the call's id, as in the run log."""

    result: Any
    revision: int
    request_id: str = ""

    @classmethod
    def of(cls, answer: PredictResponse) -> "Prediction":
        """Read an answer whose request sent JSON text."""
        return cls(json.loads(answer.result_json), answer.revision, answer.request_id)


def request_for(service: str, parameters: Any) -> PredictRequest:
    """Return the request of a call; raises TypeError or ValueError when JSON cannot hold the parameters."""
    text = json.dumps(parameters, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return PredictRequest(service=service, parameters_json=text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars, pandas' Series
        return value.tolist()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r:.100}")

"""The Python client of ModelHost.

`Client` calls models and does what an operator does; `AsyncClient` is the same for asyncio. Whatever fails raises a
`ModelHostError`; `modelhost.client.errors` draws the tree. The messages of the API are in `modelhost.v1`.
"""

from modelhost.client._version import __version__
from modelhost.client.aio import AsyncClient
from modelhost.client.client import Client
from modelhost.client.errors import (
    AccessDenied,
    Busy,
    Conflict,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    ModelHostError,
    NotFound,
    TimedOut,
    Unreachable,
    Violation,
)
from modelhost.client.prediction import AsyncPredictionStream, Prediction, PredictionStream
from modelhost.client.signing import ServiceAccountKey

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "AsyncPredictionStream",
    "Busy",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "ModelFailed",
    "ModelHostError",
    "NotFound",
    "Prediction",
    "PredictionStream",
    "ServiceAccountKey",
    "TimedOut",
    "Unreachable",
    "Violation",
    "__version__",
]

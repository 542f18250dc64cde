"""The blocking client."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from modelhost.client import transport
from modelhost.client.address import DEFAULT_ADDRESS
from modelhost.client.prediction import Prediction, PredictionStream, request_for
from modelhost.client.signing import ServiceAccountKey
from modelhost.client.tokens import Tokens, check_one
from modelhost.v1.admin_pb2_grpc import AdminStub
from modelhost.v1.predict_pb2_grpc import PredictStub

if TYPE_CHECKING:
    # Generic only in the stub files; without arguments they are the blocking ones.
    Admin = AdminStub
    Predict = PredictStub

DEFAULT_TIMEOUT = 120.0
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Client:
    """A connection to a ModelHost server, to be used from as many threads as you like.

    `with Client("models.example.com:8470", token) as client: client.predict("churn", {"age": 41}).result`

    `address` is `host:port`, or `https://host:port` for TLS. `token` goes along with every call: an operator's, or a
    service account's API key. With the keys of a service account, `account`, the client gets its tokens by itself and
    renews them; a call that the server refuses for its token is made once more with a new one. `timeout` is how many
    seconds a call may take unless it says otherwise, None for as long as it takes; to see a model's own time limit
    strike (`MODEL_TIMED_OUT`), it must be longer than the deployment's `call_timeout`. Nothing is sent before the first
    call, and a lost connection is made anew by the next call.

    For TLS, `root_certificates` (PEM) are the authorities to trust, by default those of gRPC. `client_certificate` is
    for a server that wants one: the certificate with those that signed it, and its key (PEM). `server_name` is the name
    that the server's certificate must have, by default the host of the address. The first two turn TLS on.

    Every call raises `ModelHostError`. `ValueError` comes of an address that is none, and of a token and an account at
    once.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        token: str | None = None,
        *,
        account: ServiceAccountKey | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        root_certificates: bytes | None = None,
        client_certificate: tuple[bytes, bytes] | None = None,
        server_name: str = "",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        check_one(token, account)
        to = transport.endpoint(
            address,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            server_name=server_name,
            max_message_bytes=max_message_bytes,
        )
        self._channel = (
            grpc.secure_channel(to.address.target, to.credentials, to.options)
            if to.credentials
            else grpc.insecure_channel(to.address.target, to.options)
        )
        calls = cast(grpc.Channel, transport.Calls(self._channel, to.address, token, timeout))
        if account:
            tokens = Tokens(account, PredictStub(calls).IssueToken)
            calls = cast(grpc.Channel, transport.Calls(self._channel, to.address, None, timeout, tokens))
        self.admin: Admin = AdminStub(calls)
        """Every method of `modelhost.v1.Admin`; takes and returns the messages of `modelhost.v1`."""
        self.predict_stub: Predict = PredictStub(calls)
        """Every method of `modelhost.v1.Predict`."""

    def predict(
        self, service: str, parameters: Any, *, timeout: float | None = None, request_id: str | None = None
    ) -> Prediction:
        """Call a model: `service` is the service's id or its deployment's, `parameters` what JSON can hold.

        NumPy arrays and scalars are taken as lists and numbers. `timeout` is in seconds. `request_id` names the call in
        the run log: 1 to 64 printable ASCII characters, no blanks; the server makes one if it is None. Raises
        ModelFailed when it is the model that failed, whose `metadata["request_id"]` is that name; TypeError and
        ValueError when JSON cannot hold the parameters, ValueError for a `request_id` that is none.
        """
        request, name = request_for(service, parameters), transport.identification(request_id)
        return Prediction.of(self.predict_stub.Predict(request, timeout=timeout, metadata=name))

    def predict_stream(
        self, service: str, parameters: Any, *, timeout: float | None = None, request_id: str | None = None
    ) -> PredictionStream:
        """Call a model and have what it yields item by item; as `predict` but for these:

        `for item in client.predict_stream("writer", {"topic": "rain"}): print(item.result)`

        `timeout` is for the whole stream; without one it takes as long as it takes. What ends it is raised after the
        items that came before. A model whose function is no generator yields one item.
        """
        request, name = request_for(service, parameters), transport.identification(request_id)
        return PredictionStream(self.predict_stub.PredictStream(request, timeout=timeout, metadata=name))

    def close(self) -> None:
        """End the connection, and with it the calls under way."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""A listener of their own for operators, and how connections are kept and renewed."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelhost.client import AsyncClient, ModelHostError
from modelhost.server.api.call import Call
from modelhost.server.api.methods import Access, Unary
from modelhost.server.doors.grpcio import GrpcioDoor
from modelhost.server.tls import Certificates
from modelhost.server.transport import Transport
from modelhost.v1.deployment_pb2 import ListDeploymentsRequest
from modelhost.v1.predict_pb2 import PredictRequest, PredictResponse
from tests.checks import raw_channel
from tests.dispatching import dispatcher_of
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually
from tests.tls_files import Tls

ADMIN, PREDICT = "modelhost.v1.Admin", "modelhost.v1.Predict"
PING, GOAWAY = 6, 7  # types of frames, RFC 9113


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two listeners."""
    with RunningServer(tmp_path_factory.mktemp("split") / "state", admin_listen="127.0.0.1:0") as running:
        yield running


# -- two listeners -----------------------------------------------------------------------------------------------------


def test_the_public_listener_has_no_admin_service(split: RunningServer) -> None:
    assert split.address != split.admin_address
    with split.connect(split.token) as client, pytest.raises(ModelHostError) as caught:
        client.admin.ListDeployments(ListDeploymentsRequest())

    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert "or one whose operators have an address of their own (--admin-listen)" in caught.value.message


def test_nor_does_its_reflection_or_its_health_know_of_one(split: RunningServer) -> None:
    known, healthy = {}, {}
    for address in (split.address, split.admin_address):
        with raw_channel(address) as channel:
            known[address] = set(ProtoReflectionDescriptorDatabase(channel).get_services())
            healthy[address] = set(health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest()).statuses)

    assert known[split.admin_address] - known[split.address] == {ADMIN}
    assert healthy[split.admin_address] - healthy[split.address] == {ADMIN}
    assert PREDICT in known[split.address] & healthy[split.address]


def test_models_are_called_at_both_and_operated_at_one(split: RunningServer, repo: Repo) -> None:
    repo.commit(OBEDIENT)
    split.add_source("split", repo)
    split.deploy("split", "split")

    for address in (split.address, split.admin_address):
        with raw_channel(address) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=PREDICT)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
    with split.connect(split.token) as public:
        assert public.predict("split", do("echo", value=7)).result == split.predict("split", do("echo", value=7))


def test_a_second_listener_that_cannot_be_had_is_refused_by_its_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            RunningServer(tmp_path / "state", admin_listen=address).__enter__()


# -- connections that are renewed --------------------------------------------------------------------------------------


def test_connections_that_reach_their_age_are_renewed_without_a_failed_call(tmp_path: Path) -> None:
    seen: list[grpc.ChannelConnectivity] = []
    aging = RunningServer(tmp_path / "state", transport=Transport(max_connection_age=0.1))
    with aging as running, raw_channel(running.address) as channel:
        channel.subscribe(seen.append)
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())  # as long as it takes, on the connection it began on
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING

        def renewed() -> bool:
            stub.Check(health_pb2.HealthCheckRequest())
            return seen.count(grpc.ChannelConnectivity.READY) >= 4

        assert eventually(renewed)
        assert watch.is_active()
        watch.cancel()


def test_calls_that_go_on_for_longer_than_the_grace_are_ended(tmp_path: Path) -> None:
    transport = Transport(max_connection_age=0.1, max_connection_age_grace=0.1)
    with RunningServer(tmp_path / "state", transport=transport) as running, raw_channel(running.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# -- connections that are kept -----------------------------------------------------------------------------------------


class Bare:
    """A client that speaks as much HTTP/2 as it takes to be connected, and makes no call."""

    def __init__(self, connection: socket.socket, file: BinaryIO) -> None:
        self._connection = connection
        self._file = file
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")  # no settings

    def frame(self) -> tuple[int, bytes] | None:
        """Type and payload of the next frame that is no answer to ours; None at the end."""
        while head := self._file.read(9):
            payload = self._file.read(int.from_bytes(head[:3], "big"))
            if not head[4] & 1:  # ACK
                return head[3], payload
        return None

    def until(self, wanted: int) -> bytes:
        """The payload of the next frame of that type."""
        while (frame := self.frame()) is not None:
            if frame[0] == wanted:
                return frame[1]
        raise AssertionError("the server has closed the connection")

    def ping(self, payload: bytes, *, answer: bool = False) -> None:
        self._connection.sendall(b"\0\0\x08" + bytes([PING, int(answer)]) + b"\0\0\0\0" + payload)


@contextmanager
def bare(address: str) -> Iterator[Bare]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as file:
        yield Bare(connection, file)


def test_a_silent_connection_is_pinged_without_end_so_that_nothing_between_forgets_it(tmp_path: Path) -> None:
    transport = Transport(keepalive=0.1)
    with RunningServer(tmp_path / "state", transport=transport) as running, bare(running.address) as client:
        for _ in range(5):
            client.ping(client.until(PING), answer=True)


def test_a_client_that_does_not_answer_any_more_is_given_up(tmp_path: Path) -> None:
    transport = Transport(keepalive=0.1, keepalive_timeout=0.1)
    with RunningServer(tmp_path / "state", transport=transport) as running, bare(running.address) as client:
        client.until(PING)
        while client.frame() is not None:
            pass


def test_a_client_that_asks_all_the_time_whether_the_server_is_there_is_sent_away(server: RunningServer) -> None:
    with bare(server.address) as client:
        for _ in range(5):
            client.ping(b"are you?")

        assert client.until(GOAWAY).endswith(b"too_many_pings")


# -- who calls ---------------------------------------------------------------------------------------------------------


async def test_a_call_over_mutual_tls_knows_the_names_in_the_clients_certificate(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    calls: list[Call] = []

    async def predict(call: Call, request: PredictRequest) -> PredictResponse:
        calls.append(call)
        return PredictResponse(result_json="1")

    def door(transport: Transport) -> GrpcioDoor:
        method = Unary(f"/{PREDICT}/Predict", Access.ANYONE, None, PredictRequest, predict)
        assert transport.tls_files is not None
        certificates = Certificates(transport.tls_files)
        return GrpcioDoor(
            dispatcher_of(method, {}),
            "127.0.0.1:0",
            message_limit=1024,
            transport=transport,
            certificates=certificates,
        )

    for transport in (tls.mutual, tls.transport):
        opened = door(transport)
        await opened.start()
        async with AsyncClient(
            opened.address, root_certificates=tls.ca, client_certificate=tls.client("alice")
        ) as client:
            await client.predict("any", None)
        await opened.stop(0)

    assert [call.identities for call in calls] == [("alice",), ()]

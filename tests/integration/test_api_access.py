"""Who gets in: tokens on every method, health, reflection; and bytes that are no message."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelhost.inference import open_inference_pb2
from modelhost.v1 import admin_pb2, deployment_pb2, predict_pb2
from tests.checks import check_status, raw_call, raw_channel
from tests.git_repos import Repo
from tests.obedient import OBEDIENT
from tests.running import Deployment, RunningServer

ADMIN: ServiceDescriptor = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
PREDICT: ServiceDescriptor = predict_pb2.DESCRIPTOR.services_by_name["Predict"]
INFERENCE: ServiceDescriptor = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
REFLECTIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

Status = health_pb2.HealthCheckResponse


def methods(*services: ServiceDescriptor) -> dict[str, MethodDescriptor]:
    return {f"/{service.full_name}/{rpc.name}": rpc for service in services for rpc in service.methods}


# What needs no token: where they come from, and how the server is.
OPEN = {"IssueToken", "ServerLive", "ServerReady", "ServerMetadata"}
CLOSED = {path: rpc for path, rpc in methods(ADMIN, PREDICT, INFERENCE).items() if rpc.name not in OPEN}
ALL = {
    **methods(ADMIN, PREDICT, INFERENCE),
    **methods(HEALTH),
    **{f"/{name}/{rpc.name}": rpc for name in REFLECTIONS for rpc in REFLECTION.methods},
}


@pytest.fixture(scope="session")
def raw(server: RunningServer) -> Iterator[grpc.Channel]:
    with raw_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def model(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    repo = Repo(tmp_path_factory.mktemp("api-access") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("api-access", repo)
    return server.deploy("api-access", "api-access")


def failure(raw: grpc.Channel, path: str, data: bytes, token: str | None) -> grpc.Call:
    """The failed call."""
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(raw, path, ALL[path], data, token)
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def reason(call: grpc.Call) -> str:
    details = check_status(call).details if isinstance(call, BaseException) else ()
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in details)
    return info.reason


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", "{token}", "Basic {token}", "Bearer{token}", "Bearer {token}x",
        "Bearer {token} x", "Bearer mha_", "Bearer {cut}", "Digest Bearer {token}", "Bearer Bearer {token}",
    ],
)  # fmt: skip
def test_no_method_answers_without_the_token_and_all_say_the_same(
    server: RunningServer, raw: grpc.Channel, header: str | None
) -> None:
    token = header.format(token=server.token, cut=server.token[:-1]) if header is not None else None

    calls = {path: failure(raw, path, b"", token) for path in CLOSED}

    assert {path for path, call in calls.items() if call.code() is not grpc.StatusCode.UNAUTHENTICATED} == set()
    assert {reason(call) for call in calls.values()} == {"UNAUTHENTICATED"}
    (words,) = {call.details() for call in calls.values()}
    assert "authorization: Bearer" in words
    assert server.token[4:12] not in words


def test_a_call_without_token_is_refused_before_its_bytes_are_looked_at(raw: grpc.Channel) -> None:
    assert {reason(failure(raw, path, b"\xff", None)) for path in CLOSED} == {"UNAUTHENTICATED"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_case_does_not_matter(server: RunningServer, raw: grpc.Channel, scheme: str) -> None:
    path = "/modelhost.v1.Admin/ListDeployments"

    assert raw_call(raw, path, ALL[path], b"", f"{scheme} {server.token}")


@pytest.mark.parametrize("path", ALL)
def test_bytes_that_are_no_message_are_refused_by_every_method(
    server: RunningServer, raw: grpc.Channel, path: str
) -> None:
    call = failure(raw, path, b"\xff\xff\xff", f"Bearer {server.token}")

    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(call) == "MALFORMED_REQUEST"
    assert ALL[path].input_type.full_name in (call.details() or "")


@pytest.mark.parametrize("path", ["/modelhost.v1.Admin/Nothing", "/modelhost.v1.Nothing/Predict", "/nothing", "/"])
def test_a_method_that_is_not_there_is_unimplemented(server: RunningServer, raw: grpc.Channel, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw.unary_unary(path)(b"", metadata=[("authorization", f"Bearer {server.token}")])

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- health ------------------------------------------------------------------------------------------------------------


def health(raw: grpc.Channel, name: str, token: str | None) -> int:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    request = health_pb2.HealthCheckRequest(service=name)
    return int(health_pb2_grpc.HealthStub(raw).Check(request, metadata=metadata).status)


def test_the_health_of_the_server_and_its_grpc_services_is_everybodys_to_know(raw: grpc.Channel) -> None:
    listed = health_pb2_grpc.HealthStub(raw).List(health_pb2.HealthListRequest()).statuses

    for name in ("", ADMIN.full_name, PREDICT.full_name, INFERENCE.full_name, HEALTH.full_name):
        assert health(raw, name, None) == Status.SERVING
        assert listed[name].status == Status.SERVING
    assert set(listed) == {"", ADMIN.full_name, PREDICT.full_name, INFERENCE.full_name, HEALTH.full_name}


def test_a_prediction_services_health_is_told_to_those_who_may_call_it(
    server: RunningServer, raw: grpc.Channel, model: Deployment
) -> None:
    for name in ("api-access", model.service.removeprefix("services/")):
        assert health(raw, name, server.token) == Status.SERVING
        for token in (None, "wrong"):
            with pytest.raises(grpc.RpcError) as caught:
                health(raw, name, token)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert reason(caught.value) == "SERVICE_NOT_FOUND"


def test_what_is_not_there_and_what_is_not_told_look_alike(raw: grpc.Channel, model: Deployment) -> None:
    words = set()
    for name in ("api-access", "no-such-one"):
        with pytest.raises(grpc.RpcError) as caught:
            health(raw, name, None)
        words.add((caught.value.details() or "").replace(name, "it"))

    assert len(words) == 1


def test_a_service_whose_model_does_not_run_is_not_serving(
    server: RunningServer, raw: grpc.Channel, model: Deployment, name: str
) -> None:
    server.create(name, "api-access")

    assert health(raw, name, server.token) == Status.NOT_SERVING


def test_a_watch_of_a_services_health_tells_of_its_stop_and_start(
    server: RunningServer, raw: grpc.Channel, model: Deployment, name: str
) -> None:
    server.deploy(name, "api-access")
    request = health_pb2.HealthCheckRequest(service=name)
    stub = health_pb2_grpc.HealthStub(raw)
    watch = stub.Watch(request, metadata=[("authorization", f"Bearer {server.token}")])
    assert next(watch).status == Status.SERVING

    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    assert next(watch).status == Status.NOT_SERVING
    server.wait(name, Deployment.STATE_STOPPED)
    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
    assert next(watch).status == Status.SERVING
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    last = [next(watch).status]
    if last == [Status.NOT_SERVING]:  # between its stop and its end
        last.append(next(watch).status)
    assert last[-1] == Status.SERVICE_UNKNOWN
    watch.cancel()


def test_a_watch_of_a_service_that_is_not_there_yet_tells_of_it_when_it_comes(
    server: RunningServer, raw: grpc.Channel, model: Deployment, name: str
) -> None:
    request = health_pb2.HealthCheckRequest(service=name)
    watch = health_pb2_grpc.HealthStub(raw).Watch(request, metadata=[("authorization", f"Bearer {server.token}")])
    assert next(watch).status == Status.SERVICE_UNKNOWN

    server.create(name, "api-access")
    assert next(watch).status == Status.NOT_SERVING
    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
    assert next(watch).status == Status.SERVING
    watch.cancel()


@pytest.mark.parametrize(
    ("name", "status"), [("", Status.SERVING), ("api-access", Status.SERVICE_UNKNOWN), ("no", Status.SERVICE_UNKNOWN)]
)
def test_a_watch_without_token_knows_the_server_and_no_prediction_service(
    raw: grpc.Channel, model: Deployment, name: str, status: int
) -> None:
    watch = health_pb2_grpc.HealthStub(raw).Watch(health_pb2.HealthCheckRequest(service=name))

    assert next(watch).status == status
    watch.cancel()


# -- reflection --------------------------------------------------------------------------------------------------------


def reflect(raw: grpc.Channel, version: str, **asked: object) -> reflection_pb2.ServerReflectionResponse:
    """Ask once."""
    path = f"/{version}/ServerReflectionInfo"
    request = reflection_pb2.ServerReflectionRequest(host="here", **asked)
    (data,) = raw_call(raw, path, ALL[path], request.SerializeToString(), None)
    response = reflection_pb2.ServerReflectionResponse.FromString(data)
    assert (response.valid_host, response.original_request) == ("here", request)
    return response


@pytest.mark.parametrize("version", REFLECTIONS)
def test_reflection_lists_every_service_and_gives_the_files_that_make_sense_of_it(
    raw: grpc.Channel, version: str
) -> None:
    listed = [each.name for each in reflect(raw, version, list_services="*").list_services_response.service]

    assert set(listed) == {*(each.full_name for each in (ADMIN, PREDICT, INFERENCE, HEALTH)), *REFLECTIONS}
    for name in listed:
        answer = reflect(raw, version, file_containing_symbol=name)
        pool = DescriptorPool()
        wanted, *imported = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        for file in (*imported, wanted):
            pool.Add(file)
        assert {f"/{name}/{rpc.name}" for rpc in pool.FindServiceByName(name).methods} <= set(ALL)


@pytest.mark.parametrize("version", REFLECTIONS)
def test_reflection_finds_methods(raw: grpc.Channel, version: str) -> None:
    answer = reflect(raw, version, file_containing_symbol="modelhost.v1.Predict.Predict")

    files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    assert "modelhost/v1/predict.proto" in [file.name for file in files]


def test_reflection_serves_the_client_that_grpc_brings(raw: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(raw)

    found = DescriptorPool(database).FindMessageTypeByName("modelhost.v1.PredictRequest")

    assert "parameters_json" in found.fields_by_name
    assert PREDICT.full_name in database.get_services()


@pytest.mark.parametrize("version", REFLECTIONS)
@pytest.mark.parametrize(
    "asked",
    [
        {"file_by_filename": "no.proto"},
        {"file_containing_symbol": "no.such.Symbol"},
        {"file_containing_symbol": "x" * 100_000},
        {"all_extension_numbers_of_type": "no.Type"},
        {"file_containing_extension": {"containing_type": "no.Type", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": "modelhost.v1.Deployment", "extension_number": 1}},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_reflection_says_what_it_does_not_find(raw: grpc.Channel, version: str, asked: dict[str, object]) -> None:
    answer = reflect(raw, version, **asked)

    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(answer.error_response.error_message) < 1024

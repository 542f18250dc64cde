"""Every method of Admin lets in operators with the role that the API says, and nobody else."""

from collections.abc import Iterator, Mapping

import grpc
import pytest

from modelhost.server.api.binding import required_role
from modelhost.server.identities import Role
from modelhost.v1 import admin_pb2, deployment_pb2, predict_pb2
from tests.access import AccessAdmin, describe, health, login, methods_of, predict
from tests.checks import raw_call, raw_channel, refused
from tests.refusals import Refusal, refusal_of
from tests.running import RunningServer

ADMIN = methods_of(admin_pb2.DESCRIPTOR.services_by_name["Admin"])
PREDICT = methods_of(predict_pb2.DESCRIPTOR.services_by_name["Predict"])
NO_MESSAGE = b"\xff\xff\xff"  # is looked at only once a call was let in, and changes nothing


@pytest.fixture(scope="session")
def tokens(server: RunningServer, model: str) -> Mapping[str, str]:
    """Everybody who may be calling."""
    admin = AccessAdmin(server)
    shop = admin.account("roles-shop", model)
    with raw_channel(server.address) as channel:
        return {
            **{role.name.lower(): admin.operator(f"roles-{role.name.lower()}", role.name) for role in Role},
            "bearer token": login(channel, shop),
            "API key": admin.api_key(shop)[1],
            "built-in admin": server.token,
        }


@pytest.fixture(scope="session")
def raw(server: RunningServer) -> Iterator[grpc.Channel]:
    with raw_channel(server.address) as channel:
        yield channel


def answer(raw: grpc.Channel, path: str, token: str | None) -> Refusal:
    header = None if token is None else f"Bearer {token}"
    return refusal_of(lambda: raw_call(raw, path, {**ADMIN, **PREDICT}[path], NO_MESSAGE, header))


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


@pytest.mark.parametrize("path", ADMIN, ids=name_of)
def test_a_method_lets_in_operators_with_its_role_and_nobody_else(
    raw: grpc.Channel, tokens: Mapping[str, str], path: str
) -> None:
    required = required_role(ADMIN[path])
    assert required is not None

    for role in Role:
        refusal = answer(raw, path, tokens[role.name.lower()])
        if role >= required:
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
        else:
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
            for word in (
                f"operators/roles-{role.name.lower()}",
                role.name.lower(),
                name_of(path),
                required.name.lower(),
            ):
                assert word in refusal.message
    for who in ("bearer token", "API key"):
        refusal = answer(raw, path, tokens[who])
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
        assert "serviceAccounts/roles-shop is no operator" in refusal.message
    assert answer(raw, path, tokens["built-in admin"]).reason == "MALFORMED_REQUEST"
    assert answer(raw, path, None).reason == "UNAUTHENTICATED"


def test_every_role_is_required_by_some_method_and_what_only_looks_is_for_viewers() -> None:
    by_role = {role: {name_of(path) for path, rpc in ADMIN.items() if required_role(rpc) is role} for role in Role}

    assert all(by_role.values())
    changes = ("Create", "Update", "Delete", "Rotate", "Grant", "Revoke", "Open", "Close", "Start", "Stop", "Rollback")
    assert not [name for name in by_role[Role.VIEWER] if name.startswith(changes)]
    secrets = [
        name for path in ADMIN if (name := name_of(path)).startswith(("Create", "Rotate")) and "Deploy" not in name
    ]
    assert {name for name in secrets if name != "CreateDataSource"} <= by_role[Role.ADMIN]


def test_a_viewer_who_deploys_is_refused_and_changes_nothing(
    server: RunningServer, model: str, tokens: Mapping[str, str], name: str
) -> None:
    before = server.get(model)
    wish = deployment_pb2.Deployment(source=deployment_pb2.ModelSource(data_source=model))
    viewer = server.connect(tokens["viewer"])
    try:
        with refused("ROLE_REQUIRED"):
            viewer.admin.CreateDeployment(
                deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=wish, validate_only=True)
            )
        with refused("ROLE_REQUIRED"):
            viewer.admin.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=wish))
        with refused("ROLE_REQUIRED"):
            viewer.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=model))
        with refused("ROLE_REQUIRED"):
            viewer.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=model, force=True))
        assert viewer.admin.GetDeployment(deployment_pb2.GetDeploymentRequest(name=model)) == before
    finally:
        viewer.close()
    assert name not in [each.name for each in server.client.admin.ListDeployments(
        deployment_pb2.ListDeploymentsRequest(page_size=1000)).deployments]  # fmt: skip


def test_a_deployer_calls_every_model_and_a_viewer_sees_it_and_calls_none(
    server: RunningServer, raw: grpc.Channel, model: str, tokens: Mapping[str, str]
) -> None:
    for role in ("deployer", "admin", "built-in admin"):
        assert predict(raw, model, tokens[role]) > 1

    refusal = refusal_of(lambda: predict(raw, model, tokens["viewer"]))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert "Predict needs deployer" in refusal.message
    assert describe(raw, model, tokens["viewer"]).deployment == model
    assert health(raw, model, tokens["viewer"]) == 1


def test_what_is_wrong_with_a_request_is_told_to_those_who_are_let_in(
    raw: grpc.Channel, tokens: Mapping[str, str]
) -> None:
    for path in PREDICT:
        assert answer(raw, path, tokens["viewer"]).reason == "MALFORMED_REQUEST"
        assert answer(raw, path, tokens["bearer token"]).reason == "MALFORMED_REQUEST"

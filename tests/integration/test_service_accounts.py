"""Service accounts, their keys and their grants, as an admin sees them."""

import time
import uuid
from typing import Any

import pytest

from modelhost.v1 import deployment_pb2
from modelhost.v1 import service_account_pb2 as pb
from tests.checks import refused
from tests.git_repos import Repo
from tests.running import RunningServer, eventually, reason_of

DAY = 24 * 3600


@pytest.fixture(scope="session")
def model(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("accounts") / "repo")
    repo.commit({"main.py": b"def predict(p):\n    return p\n"})
    server.add_source("accounts", repo)
    server.create("accounts", "accounts")
    return "accounts"


@pytest.fixture
def admin(server: RunningServer) -> Any:
    return server.client.admin


@pytest.fixture
def account_id(name: str) -> str:
    return name[-30:]


@pytest.fixture
def account(admin: Any, account_id: str) -> pb.ServiceAccount:
    return admin.CreateServiceAccount(
        pb.CreateServiceAccountRequest(
            service_account_id=account_id, service_account=pb.ServiceAccount(description="the shop")
        )
    )


def get(admin: Any, name: str) -> pb.ServiceAccount:
    return admin.GetServiceAccount(pb.GetServiceAccountRequest(name=name))


def test_a_new_account_has_a_secret_that_is_shown_once(admin: Any, account: pb.ServiceAccount) -> None:
    assert account.secret_key.startswith("mhs_")
    assert len(account.secret_key) > 40
    assert account.access_key.startswith("ak_")
    assert account.description == "the shop"
    assert len(account.secret_keys) == 1

    seen = get(admin, account.name)

    assert seen.secret_key == ""
    account.secret_key = ""
    assert seen == account


def test_an_account_is_found_by_its_bare_id_and_not_twice(admin: Any, account: pb.ServiceAccount) -> None:
    account_id = account.name.removeprefix("serviceAccounts/")

    assert get(admin, account_id).access_key == account.access_key
    with refused("SERVICE_ACCOUNT_EXISTS"):
        admin.CreateServiceAccount(pb.CreateServiceAccountRequest(service_account_id=account_id))


@pytest.mark.parametrize("account_id", ["", "a b", "x" * 51, "ä", "a/b"])
def test_names_that_are_none_are_refused(admin: Any, account_id: str) -> None:
    with refused("FIELD_INVALID") as caught:
        admin.CreateServiceAccount(pb.CreateServiceAccountRequest(service_account_id=account_id))

    assert [each.subject for each in caught.value.violations] == ["service_account_id"]


@pytest.mark.parametrize("seconds", [0, 59, 11 * 366 * DAY, -1])
def test_lifetimes_that_are_no_use_are_refused(admin: Any, account: pb.ServiceAccount, seconds: int) -> None:
    with refused("FIELD_INVALID"):
        admin.CreateApiKey(pb.CreateApiKeyRequest(service_account=account.name, lifetime={"seconds": seconds}))
    with refused("FIELD_INVALID"):
        admin.RotateServiceAccountSecret(
            pb.RotateServiceAccountSecretRequest(name=account.name, secret_lifetime={"seconds": seconds})
        )

    assert get(admin, account.name).etag == account.etag


def test_a_repeat_with_the_same_request_id_gets_the_same_secret_and_makes_nothing(admin: Any, account_id: str) -> None:
    request = pb.CreateServiceAccountRequest(service_account_id=account_id, request_id=str(uuid.uuid4()))
    first = admin.CreateServiceAccount(request)

    assert admin.CreateServiceAccount(request) == first
    rotation = pb.RotateServiceAccountSecretRequest(name=account_id, request_id=str(uuid.uuid4()))
    rotated = admin.RotateServiceAccountSecret(rotation)
    assert admin.RotateServiceAccountSecret(rotation) == rotated
    assert rotated.secret_key not in ("", first.secret_key)
    assert len(get(admin, account_id).secret_keys) == 2
    request.service_account.description = "another"
    with refused("REQUEST_ID_REUSED"):
        admin.CreateServiceAccount(request)


def test_what_is_only_checked_makes_nothing_and_has_no_secret(admin: Any, account_id: str) -> None:
    checked = admin.CreateServiceAccount(
        pb.CreateServiceAccountRequest(service_account_id=account_id, validate_only=True)
    )

    assert checked.secret_key == ""
    with refused("SERVICE_ACCOUNT_NOT_FOUND"):
        get(admin, account_id)


def test_a_change_says_what_it_changes_and_a_stale_one_is_refused(admin: Any, account: pb.ServiceAccount) -> None:
    request = pb.UpdateServiceAccountRequest(
        service_account=pb.ServiceAccount(name=account.name, disabled=True, etag=account.etag),
        update_mask={"paths": ["disabled"]},
    )
    changed = admin.UpdateServiceAccount(request)

    assert changed.disabled
    assert changed.description == "the shop"
    with refused("ETAG_MISMATCH"):
        admin.UpdateServiceAccount(request)
    with refused("ETAG_MISMATCH"):
        admin.DeleteServiceAccount(pb.DeleteServiceAccountRequest(name=account.name, etag=account.etag))
    with refused("FIELD_INVALID"):
        admin.UpdateServiceAccount(
            pb.UpdateServiceAccountRequest(
                service_account=pb.ServiceAccount(name=account.name), update_mask={"paths": ["access_key"]}
            )
        )


def test_a_rotation_leaves_the_old_key_for_its_overlap_and_says_so(admin: Any, account: pb.ServiceAccount) -> None:
    request = pb.RotateServiceAccountSecretRequest(name=account.name, overlap={"seconds": 3600})
    rotated = admin.RotateServiceAccountSecret(request)

    new, old = rotated.secret_keys
    assert old.id == account.secret_keys[0].id
    assert not new.HasField("expire_time")
    assert abs(old.expire_time.seconds - time.time() - 3600) < 60
    assert list(rotated.warnings) == []  # nobody uses the old one
    ended = admin.RotateServiceAccountSecret(
        pb.RotateServiceAccountSecretRequest(name=account.name, overlap={"seconds": 0})
    )
    assert len(ended.secret_keys) == 1
    assert ended.secret_keys[0].id not in (new.id, old.id)


def test_an_overlap_is_a_day_where_none_is_said_and_never_makes_a_key_last_longer(admin: Any, account_id: str) -> None:
    made = admin.CreateServiceAccount(
        pb.CreateServiceAccountRequest(service_account_id=account_id, secret_lifetime={"seconds": 7200})
    )
    first = admin.RotateServiceAccountSecret(pb.RotateServiceAccountSecretRequest(name=made.name))
    assert first.secret_keys[1].expire_time == made.secret_keys[0].expire_time
    second = admin.RotateServiceAccountSecret(pb.RotateServiceAccountSecretRequest(name=made.name))
    assert abs(second.secret_keys[1].expire_time.seconds - time.time() - DAY) < 60


def test_secret_keys_that_work_are_not_heaped_up(admin: Any, account: pb.ServiceAccount) -> None:
    request = pb.RotateServiceAccountSecretRequest(name=account.name)
    with refused("TOO_MANY_KEYS") as caught:
        for _ in range(6):
            admin.RotateServiceAccountSecret(request)

    assert "overlap of 0" in caught.value.message
    request.overlap.seconds = 0
    assert len(admin.RotateServiceAccountSecret(request).secret_keys) == 1


@pytest.mark.parametrize("seconds", [-1, 31 * DAY])
def test_an_overlap_that_is_none_is_refused(admin: Any, account: pb.ServiceAccount, seconds: int) -> None:
    with refused("FIELD_INVALID"):
        admin.RotateServiceAccountSecret(
            pb.RotateServiceAccountSecretRequest(name=account.name, overlap={"seconds": seconds})
        )


def test_keys_that_end_soon_are_warned_of(admin: Any, account_id: str) -> None:
    made = admin.CreateServiceAccount(
        pb.CreateServiceAccountRequest(service_account_id=account_id, secret_lifetime={"seconds": 10 * DAY})
    )
    admin.CreateApiKey(pb.CreateApiKeyRequest(service_account=account_id, lifetime={"seconds": 29 * DAY}))
    admin.CreateApiKey(pb.CreateApiKeyRequest(service_account=account_id, lifetime={"seconds": 40 * DAY}))

    warnings = list(get(admin, account_id).warnings)

    assert len(warnings) == 2
    assert any("in 29 days" in warning and "API key" in warning for warning in warnings)
    assert any("in 10 days" in warning and made.secret_keys[0].id in warning for warning in warnings)


def test_an_api_key_is_shown_once_listed_without_its_value_and_deleted(admin: Any, account: pb.ServiceAccount) -> None:
    key = admin.CreateApiKey(pb.CreateApiKeyRequest(service_account=account.name, description="curl"))

    assert key.key.startswith("mhk_")
    (listed,) = get(admin, account.name).api_keys
    assert (listed.name, listed.description, listed.key) == (key.name, "curl", "")
    admin.DeleteApiKey(pb.DeleteApiKeyRequest(name=key.name))
    assert not get(admin, account.name).api_keys
    with refused("API_KEY_NOT_FOUND"):
        admin.DeleteApiKey(pb.DeleteApiKeyRequest(name=key.name))
    with refused("FIELD_INVALID"):
        admin.DeleteApiKey(pb.DeleteApiKeyRequest(name="something"))


def test_accounts_are_listed_page_by_page(admin: Any, account_id: str) -> None:
    wanted = [f"{account_id}-{letter}" for letter in "abc"]
    for each in wanted:
        admin.CreateServiceAccount(pb.CreateServiceAccountRequest(service_account_id=each))

    found, token = [], ""
    while True:
        page = admin.ListServiceAccounts(pb.ListServiceAccountsRequest(page_size=2, page_token=token))
        assert len(page.service_accounts) <= 2
        found += [each.name.removeprefix("serviceAccounts/") for each in page.service_accounts]
        if not (token := page.next_page_token):
            break

    assert found == sorted(found)
    assert set(wanted) <= set(found)


# -- grants ------------------------------------------------------------------------------------------------------------


def grant(admin: Any, account: str, service: str, **limits: float) -> pb.Grant:
    return admin.GrantService(
        pb.GrantServiceRequest(service_account=account, service=service, limits=pb.GrantLimits(**limits))
    )


def test_a_grant_is_the_same_by_any_name_of_its_service(
    server: RunningServer, admin: Any, account: Any, model: str
) -> None:
    service = server.get(model).service
    granted = grant(admin, account.name, model, requests_per_day=5)

    assert granted.service == service
    assert granted.deployment == f"deployments/{model}"
    assert granted.name == f"{account.name}/grants/{service.removeprefix('services/')}"
    for name in (service, service.removeprefix("services/"), f"deployments/{model}"):
        changed = grant(admin, account.name, name, requests_per_day=7)
        assert changed.name == granted.name
        assert changed.create_time == granted.create_time
    (listed,) = admin.ListGrants(pb.ListGrantsRequest(service_account=account.name)).grants
    assert listed == changed


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_second": -1.0},
        {"requests_per_second": float("nan")},
        {"requests_per_second": float("inf")},
        {"requests_per_second": 0.0001},
        {"requests_per_second": 1e9},
        {"burst": 5},
        {"requests_per_second": 1.0, "burst": -1},
        {"requests_per_day": -1},
        {"concurrent_calls": -1},
        {"concurrent_calls": 2_000_000},
        {"request_bytes": -1},
    ],
)
def test_limits_that_are_none_are_refused_and_leave_those_there_are(
    admin: Any, account: Any, model: str, limits: dict[str, float]
) -> None:
    before = grant(admin, account.name, model, requests_per_day=5)

    with refused("FIELD_INVALID") as caught:
        grant(admin, account.name, model, **limits)

    assert caught.value.violations[0].subject.startswith("limits.")
    assert list(admin.ListGrants(pb.ListGrantsRequest(service_account=account.name)).grants) == [before]


def test_what_is_not_there_cannot_be_granted_nor_taken_back(admin: Any, account: Any, model: str) -> None:
    with refused("SERVICE_NOT_FOUND"):
        grant(admin, account.name, "no-such-model")
    with refused("SERVICE_ACCOUNT_NOT_FOUND"):
        grant(admin, "nobody", model)
    with refused("GRANT_NOT_FOUND"):
        admin.RevokeService(pb.RevokeServiceRequest(service_account=account.name, service=model))
    grant(admin, account.name, model)
    admin.RevokeService(pb.RevokeServiceRequest(service_account=account.name, service=model))
    assert not admin.ListGrants(pb.ListGrantsRequest(service_account=account.name)).grants


def test_grants_are_listed_by_account_and_by_service_page_by_page(admin: Any, account_id: str, model: str) -> None:
    names = [f"{account_id}-{letter}" for letter in "abc"]
    for each in names:
        admin.CreateServiceAccount(pb.CreateServiceAccountRequest(service_account_id=each))
        grant(admin, each, model)

    found, token = [], ""
    while True:
        page = admin.ListGrants(pb.ListGrantsRequest(service=model, page_size=1, page_token=token))
        found += [each.service_account.removeprefix("serviceAccounts/") for each in page.grants]
        if not (token := page.next_page_token):
            break
    assert set(names) <= set(found)
    assert found == sorted(found)
    assert len(admin.ListGrants(pb.ListGrantsRequest(service=model, service_account=names[0])).grants) == 1
    with refused("PAGE_TOKEN_INVALID"):
        admin.ListGrants(pb.ListGrantsRequest(service=model, page_token="bogus"))


def test_with_a_deployment_its_grants_go(
    server: RunningServer, admin: Any, account: Any, model: str, name: str
) -> None:
    server.create(name, "accounts")
    grant(admin, account.name, name)

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))

    eventually(lambda: reason_of(lambda: server.get(name)) == "DEPLOYMENT_NOT_FOUND")
    assert not admin.ListGrants(pb.ListGrantsRequest(service_account=account.name)).grants

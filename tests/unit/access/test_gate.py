"""Who a call is from, and that whoever is taken away is gone with the next call."""

from dataclasses import replace

import pytest

from modelhost.server.access.accounts import Accounts, StoredAccount
from modelhost.server.access.callers import Caller
from modelhost.server.access.gate import MOST_KNOWN, Gate
from modelhost.server.access.operators import Operators, digest_of
from modelhost.server.access.tokens import Tokens
from modelhost.server.errors import Forbidden, Unauthenticated, reason_name
from modelhost.server.identities import (
    Credential,
    CredentialKind,
    Grant,
    GrantLimits,
    Operator,
    Role,
    ServiceAccount,
)

API_KEY = "mhk_the-api-key"
ACCOUNT = ServiceAccount("u1", "shop", "", "ak_1", False, 1, 0.0, 0.0)
SECRET = Credential("s1", "u1", CredentialKind.SECRET_KEY, "sealed", "", "", 0.0, None, None)
KEY = Credential("k1", "u1", CredentialKind.API_KEY, "", digest_of(API_KEY), "", 0.0, None, None)
GRANT = Grant("u1", "d1", GrantLimits(), 0.0, 0.0)
OPERATOR = Operator("o1", "ann", Role.VIEWER, "", digest_of("mha_ann"), False, 1, 0.0, 0.0, 0.0, None, None)


class Door:
    """A gate with one account and one operator, and the time that it is."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.operators = Operators("mha_admin")
        self.accounts = Accounts()
        self.tokens = Tokens(lambda: b"k" * 32, lifetime=7200.0, clock=lambda: self.now)
        self.gate = Gate(self.operators, self.accounts, self.tokens, clock=lambda: self.now)
        self.put()
        self.operators.put(OPERATOR)
        self.token = self.tokens.issue("u1", "s1", None)[0]

    def put(self, **changed: object) -> None:
        stored = StoredAccount(ACCOUNT, [SECRET, KEY], [GRANT])
        self.accounts.put(replace(stored, **changed))

    def caller(self, token: str) -> Caller:
        return self.gate.caller({"authorization": f"Bearer {token}"})

    def refusal(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            self.caller(token)
        return reason_name(caught.value.reason)


@pytest.fixture
def door() -> Door:
    return Door()


def test_each_kind_of_credentials_is_known(door: Door) -> None:
    assert (door.caller("mha_admin").name, door.caller("mha_admin").role) == ("operators/admin", Role.ADMIN)
    assert (door.caller("mha_ann").name, door.caller("mha_ann").role) == ("operators/ann", Role.VIEWER)
    for token in (API_KEY, door.token):
        caller = door.caller(token)
        assert (caller.name, caller.role, set(caller.grants)) == ("serviceAccounts/shop", None, {"d1"})
    assert door.gate.caller({}).is_anonymous


@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize("what", ["token", "api key"])
def test_an_account_that_is_disabled_or_deleted_is_let_in_no_more(door: Door, what: str, seen_before: bool) -> None:
    credential = door.token if what == "token" else API_KEY
    if seen_before:
        door.caller(credential)

    door.put(account=replace(ACCOUNT, disabled=True))
    assert door.refusal(credential) == "UNAUTHENTICATED"
    door.put()
    assert door.caller(credential).name == "serviceAccounts/shop"
    door.accounts.remove("u1")
    assert door.refusal(credential) == "UNAUTHENTICATED"


def test_a_key_that_is_deleted_takes_its_tokens_along_and_no_others(door: Door) -> None:
    second = replace(SECRET, id="s2")
    door.put(credentials=[SECRET, second, KEY])
    other = door.tokens.issue("u1", "s2", None)[0]
    assert door.caller(door.token).works(door.now)
    assert door.caller(other).works(door.now)

    door.put(credentials=[second])

    assert door.refusal(door.token) == "UNAUTHENTICATED"
    assert door.refusal(API_KEY) == "UNAUTHENTICATED"
    assert door.caller(other).name == "serviceAccounts/shop"


def test_a_key_that_expires_takes_its_tokens_along(door: Door) -> None:
    door.put(credentials=[replace(SECRET, expires=1_100.0), replace(KEY, expires=1_100.0)])
    door.caller(door.token)
    door.now = 1_100.0

    assert door.refusal(door.token) == "TOKEN_EXPIRED"
    assert door.refusal(API_KEY) == "TOKEN_EXPIRED"


def test_a_token_ends_at_its_time_even_if_it_was_seen_before(door: Door) -> None:
    door.caller(door.token)
    door.now += 7200

    assert door.refusal(door.token) == "TOKEN_EXPIRED"


def test_a_grant_that_is_given_or_taken_is_seen_by_tokens_that_were_seen_before(door: Door) -> None:
    caller = door.caller(door.token)

    door.put(grants=[])
    assert "d1" not in caller.grants
    door.put()
    assert "d1" in caller.grants
    door.accounts.forget_service("d1")
    assert "d1" not in caller.grants


def test_an_operators_role_token_and_end_are_those_of_now(door: Door) -> None:
    door.caller("mha_ann")

    door.operators.put(replace(OPERATOR, role=Role.ADMIN))
    assert door.caller("mha_ann").role is Role.ADMIN
    door.operators.put(replace(OPERATOR, disabled=True))
    assert door.refusal("mha_ann") == "UNAUTHENTICATED"
    door.operators.put(replace(OPERATOR, digest=digest_of("mha_new")))
    assert door.refusal("mha_ann") == "UNAUTHENTICATED"
    assert door.caller("mha_new").name == "operators/ann"
    door.operators.put(replace(OPERATOR, digest=digest_of("mha_new"), expires=1_000.0))
    assert door.refusal("mha_new") == "TOKEN_EXPIRED"
    door.operators.remove("o1")
    assert door.refusal("mha_new") == "UNAUTHENTICATED"


def test_a_role_includes_those_before_it_and_a_service_account_has_none(door: Door) -> None:
    viewer, admin, account = door.caller("mha_ann"), door.caller("mha_admin"), door.caller(API_KEY)

    viewer.require(Role.VIEWER, "ListDeployments")
    admin.require(Role.DEPLOYER, "StartDeployment")
    for caller, needed in ((viewer, Role.DEPLOYER), (account, Role.VIEWER)):
        with pytest.raises(Forbidden) as caught:
            caller.require(needed, "StartDeployment")
        assert caught.value.values["needed"] == needed.name.lower()
        assert caught.value.values["caller"] == caller.name
        assert "StartDeployment" in caught.value.message


def test_the_last_use_of_a_key_is_noted_now_and_then(door: Door) -> None:
    door.caller(API_KEY)
    assert door.accounts.last_used("u1") == {"k1": 1_000.0}

    door.now += 1
    door.caller(API_KEY)
    assert door.accounts.last_used("u1") == {"k1": 1_000.0}
    door.now += 60
    door.caller(API_KEY)
    assert door.accounts.last_used("u1") == {"k1": 1_061.0}


def test_tokens_that_were_seen_take_no_room_for_ever(door: Door) -> None:
    for _ in range(MOST_KNOWN + 5):
        door.caller(door.tokens.issue("u1", "s1", None)[0])

    assert len(door.gate._known) <= MOST_KNOWN


def test_wrong_tokens_are_not_remembered(door: Door) -> None:
    for number in range(100):
        door.refusal(f"wrong-{number}")

    assert door.gate._known == {}

"""The admin token: made once, for its owner's eyes, and the only thing that lets anybody in."""

import stat
from pathlib import Path

import pytest

from modelhost.server.access.accounts import Accounts
from modelhost.server.access.callers import Caller
from modelhost.server.access.gate import Gate
from modelhost.server.access.operators import Operators
from modelhost.server.access.tokens import Tokens
from modelhost.server.errors import Unauthenticated
from modelhost.server.identities import Role
from modelhost.v1.error_reason_pb2 import ErrorReason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.token"


def caller(operators: Operators, value: str | bytes | None) -> Caller:
    gate = Gate(operators, Accounts(), Tokens(lambda: b"k" * 32, lifetime=60.0))
    return gate.caller({} if value is None else {"authorization": value})


def is_let_in(operators: Operators, value: str) -> bool:
    try:
        return caller(operators, value).role is Role.ADMIN
    except Unauthenticated:
        return False


def test_a_token_is_made_at_the_first_start_and_kept(path: Path) -> None:
    Operators.from_file(path)
    token = path.read_text().strip()

    again = Operators.from_file(path)

    assert path.read_text().strip() == token
    assert is_let_in(again, f"Bearer {token}")
    assert len(token) > 40
    assert token.startswith("mha_")


def test_a_token_is_for_its_owner_to_read(path: Path) -> None:
    Operators.from_file(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["admin.token"]


def test_each_server_has_a_token_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Operators.from_file(tmp_path / f"{name}.token")

    assert (tmp_path / "a.token").read_text() != (tmp_path / "b.token").read_text()


@pytest.mark.parametrize("value", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer  secret "])
def test_whoever_has_the_token_is_let_in(value: str) -> None:
    assert is_let_in(Operators("secret"), value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "secret",
        "Basic secret",
        "Bearer Secret",
        "Bearer secret1",
        "Bearer secre",
        "Bearer secret secret",
        "Bearer \u00e9",
        "Bearer \udce9",
        b"Bearer secret",
    ],
)
def test_nobody_else_is_and_all_are_told_the_same(value: str | bytes) -> None:
    operators = Operators("secret")

    with pytest.raises(Unauthenticated) as caught:
        caller(operators, value)
    with pytest.raises(Unauthenticated) as other:
        caller(operators, "Bearer something else")

    assert caught.value.reason == ErrorReason.ERROR_REASON_UNAUTHENTICATED
    assert caught.value.message == other.value.message
    assert "secret" not in caught.value.message


def test_who_comes_without_credentials_is_nobody() -> None:
    assert caller(Operators("secret"), None).is_anonymous


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_a_file_without_a_token_lets_nobody_in(path: Path, text: str) -> None:
    path.write_text(text)

    with pytest.raises(ValueError, match="no token"):
        Operators.from_file(path)


def test_a_token_may_be_given_by_hand(path: Path) -> None:
    path.write_text("my own\n")

    assert is_let_in(Operators.from_file(path), "Bearer my own")

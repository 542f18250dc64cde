"""Bearer tokens: what this server has signed, for as long as it said, and nothing else."""

import base64
import json
from typing import Any

import jwt
import pytest

from modelhost.server.access.tokens import AUDIENCE, LONGEST, BadToken, Claims, ExpiredToken, Tokens

KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(lambda: KEY, lifetime=7200.0, clock=clock)


def claims(**changed: Any) -> dict[str, Any]:
    good = {"aud": AUDIENCE, "sub": "account", "key": "k1", "iat": 1_000_000, "exp": 1_007_200}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def part(plain: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).rstrip(b"=").decode()


def test_what_is_issued_is_read_until_it_expires(tokens: Tokens, clock: Clock) -> None:
    token, expires = tokens.issue("account", "k1", None)

    assert expires == clock.now + 7200
    assert len(token) <= LONGEST
    assert tokens.read(token) == Claims("account", "k1", expires)
    clock.now = expires - 0.1
    assert tokens.read(token)
    clock.now = expires
    with pytest.raises(ExpiredToken):
        tokens.read(token)


def test_a_token_does_not_outlive_the_key_that_it_was_got_with(tokens: Tokens, clock: Clock) -> None:
    assert tokens.issue("account", "k1", clock.now + 60)[1] == clock.now + 60
    assert tokens.issue("account", "k1", clock.now + 9000)[1] == clock.now + 7200


def test_no_two_tokens_are_alike(tokens: Tokens) -> None:
    assert tokens.issue("account", "k1", None) != tokens.issue("account", "k1", None)


def test_another_key_ends_the_tokens_of_the_one_before(clock: Clock) -> None:
    keys = [KEY]
    tokens = Tokens(lambda: keys[-1], lifetime=7200.0, clock=clock)
    token, _ = tokens.issue("account", "k1", None)
    keys.append(b"x" * 32)

    with pytest.raises(BadToken):
        tokens.read(token)


def test_the_forms_below_differ_from_a_good_one_in_one_thing(tokens: Tokens) -> None:
    assert tokens.read(jwt.encode(claims(), KEY, "HS256")) == Claims("account", "k1", 1_007_200.0)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        "a.b.c",
        "\udce9",
        "é" * 10,
        "x" * 10_000,
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
        f"{part({'alg': 'None'})}.{part(claims())}.x",
        jwt.encode(claims(), KEY * 2, "HS512"),
        jwt.encode(claims(), b"another server's key, of 32 bytes", "HS256"),
        jwt.encode(claims(aud="something.else"), KEY, "HS256"),
        jwt.encode(claims(aud=None), KEY, "HS256"),
        jwt.encode(claims(sub=None), KEY, "HS256"),
        jwt.encode(claims(key=None), KEY, "HS256"),
        jwt.encode(claims(exp=None), KEY, "HS256"),
        jwt.encode(claims(iat=None), KEY, "HS256"),
        jwt.encode(claims(exp="never"), KEY, "HS256"),
        jwt.encode(claims(exp=[1]), KEY, "HS256"),
        jwt.encode(claims(), KEY, "HS256") + "x" * LONGEST,
    ],
)
def test_nothing_else_is_a_token(tokens: Tokens, token: str) -> None:
    with pytest.raises(BadToken):
        tokens.read(token)


@pytest.mark.parametrize("where", range(3))
def test_a_token_that_was_changed_anywhere_is_none(tokens: Tokens, where: int) -> None:
    parts = tokens.issue("account", "k1", None)[0].split(".")
    letter = parts[where][5]
    parts[where] = parts[where][:5] + ("A" if letter != "A" else "B") + parts[where][6:]

    with pytest.raises(BadToken):
        tokens.read(".".join(parts))

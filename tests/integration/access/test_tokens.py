"""Bearer tokens that were not given out as they are, or not by this server, or not for this: none lets anybody in."""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from modelhost.server.access.tokens import Tokens
from modelhost.v1 import predict_pb2
from tests.access import (
    AccessAdmin,
    Account,
    claims_of,
    describe,
    health,
    health_watch,
    login,
    predict,
    signing_key,
)
from tests.checks import raw_channel
from tests.raw_http2 import status_of_call
from tests.refusals import refusal_of
from tests.running import RunningServer

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED.value[0]
SERVICE_UNKNOWN = 3
DESCRIBE = "/modelhost.v1.Predict/DescribeService"
HMACS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}

Claims = dict[str, Any]
Forgery = Callable[[bytes, Claims], str]  # from the server's key, and what a right token says


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@pytest.fixture
def token(channel: grpc.Channel, account: Account) -> str:
    return login(channel, account)


def encoded(part: bytes | object) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(
    key: bytes, payload: object, header: object = None, *, signature: str | None = None, algorithm: str = "HS256"
) -> str:
    """A token made by hand: libraries refuse to make most of these."""
    signed = f"{encoded({'alg': algorithm, 'typ': 'JWT'} if header is None else header)}.{encoded(payload)}"
    if signature is None:
        signature = encoded(hmac.digest(key, signed.encode(), HMACS.get(algorithm, "sha256")))
    return f"{signed}.{signature}"


def without(claims: Claims, name: str) -> Claims:
    return {key: value for key, value in claims.items() if key != name}


def tampered(key: bytes, claims: Claims, /, **changes: Any) -> str:
    """Other words under the signature of the right ones."""
    signature = token_of(key, claims).rpartition(".")[2]
    return token_of(key, {**claims, **changes}, signature=signature)


FORGERIES: dict[str, Forgery] = {
    "alg none": lambda k, c: token_of(k, c, {"alg": "none", "typ": "JWT"}, signature=""),
    "alg none, signed": lambda k, c: token_of(k, c, {"alg": "none", "typ": "JWT"}),
    "alg nOnE": lambda k, c: token_of(k, c, {"alg": "nOnE"}, signature=""),
    "no alg": lambda k, c: token_of(k, c, {"typ": "JWT"}),
    "alg of another kind": lambda k, c: token_of(k, c, {"alg": ["HS256"]}),
    "alg in small letters": lambda k, c: token_of(k, c, {"alg": "hs256"}),
    "HS384 with the right key": lambda k, c: token_of(k, c, algorithm="HS384"),
    "HS512 with the right key": lambda k, c: token_of(k, c, algorithm="HS512"),
    "RS256 that is HMAC": lambda k, c: token_of(k, c, {"alg": "RS256", "typ": "JWT"}),
    "HS256 that is HMAC with SHA-512": lambda k, c: token_of(k, c, {"alg": "HS256"}, algorithm="HS512"),
    "a key of its own in the header": lambda k, c: token_of(
        b"own", c, {"alg": "HS256", "jwk": {"kty": "oct", "k": encoded(b"own")}, "kid": "../../dev/null"}
    ),
    "another key": lambda _, c: token_of(secrets.token_bytes(32), c),
    "an empty key": lambda _, c: token_of(b"", c),
    "a key of zeros": lambda _, c: token_of(bytes(32), c),
    "no signature": lambda k, c: token_of(k, c, signature=""),
    "half of a signature": lambda k, c: token_of(k, c)[:-20],
    "two parts": lambda k, c: token_of(k, c).rpartition(".")[0],
    "four parts": lambda k, c: token_of(k, c) + ".e30",
    "a detached payload": lambda k, c: token_of(k, b"", {"alg": "HS256", "b64": False, "crit": ["b64"]}),
    "what nobody understands, and must": lambda k, c: token_of(k, c, {"alg": "HS256", "crit": ["magic"]}),
    "a later end": lambda k, c: tampered(k, c, exp=c["exp"] + 1),
    "another account": lambda k, c: tampered(k, c, sub="0" * 32),
    "another secret key of the account": lambda k, c: tampered(k, c, key="0" * 12),
    "no end": lambda k, c: token_of(k, without(c, "exp")),
    "no account": lambda k, c: token_of(k, without(c, "sub")),
    "no secret key": lambda k, c: token_of(k, without(c, "key")),
    "no audience": lambda k, c: token_of(k, without(c, "aud")),
    "no beginning": lambda k, c: token_of(k, without(c, "iat")),
    "another audience": lambda k, c: token_of(k, {**c, "aud": "modelhost.v1.Admin"}),
    "an end in words": lambda k, c: token_of(k, {**c, "exp": "tomorrow"}),
    "an end as text": lambda k, c: token_of(k, {**c, "exp": str(c["exp"])}),
    "an end that is no number": lambda k, c: token_of(k, {**c, "exp": float("nan")}),
    "an end that never comes": lambda k, c: token_of(k, {**c, "exp": float("inf")}),
    "null for an end": lambda k, c: token_of(k, {**c, "exp": None}),
    "a beginning in words": lambda k, c: token_of(k, {**c, "iat": "yesterday"}),
    "a number for an account": lambda k, c: token_of(k, {**c, "sub": 1}),
    "a list for an account": lambda k, c: token_of(k, {**c, "sub": [c["sub"]]}),
    "a list for a secret key": lambda k, c: token_of(k, {**c, "key": [c["key"]]}),
    "an account that is not there": lambda k, c: token_of(k, {**c, "sub": "0" * 32}),
    "a secret key that is not there": lambda k, c: token_of(k, {**c, "key": "0" * 12}),
    "a list for claims": lambda k, c: token_of(k, [c]),
    "no JSON": lambda k, _: token_of(k, b"\xff\xfe"),
    "a header that is no JSON": lambda k, c: token_of(k, c, b"{"),
    "a header that is a list": lambda k, c: token_of(k, c, ["HS256"]),
    "a header of many levels": lambda k, c: token_of(k, c, b"[" * 700),
    "gigantic claims": lambda k, c: token_of(k, {**c, "jti": "x" * 2000}),
    "dots": lambda k, _: "." * 1000,
    "two dots": lambda k, _: "..",
    "blanks": lambda k, _: "eyJ 0eXAi . . ",
    "no Base64": lambda k, _: "!!!.???.***",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_told_nothing_and_lets_nobody_in(
    server: RunningServer, channel: grpc.Channel, model: str, token: str, forgery: str
) -> None:
    forged = FORGERIES[forgery](signing_key(server.state_dir), claims_of(token))
    unknown = refusal_of(lambda: predict(channel, model, "nothing-like-a-token"))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")

    assert refusal_of(lambda: predict(channel, model, forged)) == unknown
    assert refusal_of(lambda: describe(channel, model, forged)) == unknown
    assert refusal_of(lambda: health(channel, model, forged)).reason == "SERVICE_NOT_FOUND"
    watch = health_watch(channel, model, forged)
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()
    assert predict(channel, model, token) > 1


def test_the_forgers_tools_make_a_right_token_where_nothing_is_forged(
    server: RunningServer, channel: grpc.Channel, model: str, token: str
) -> None:
    key = signing_key(server.state_dir)

    assert predict(channel, model, token_of(key, claims_of(token))) > 1
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_a_token_says_nothing_of_the_account_but_its_number(account: Account, token: str) -> None:
    plain = json.dumps(claims_of(token))

    assert set(claims_of(token)) == {"aud", "sub", "key", "iat", "exp", "jti"}
    assert account.id not in plain
    assert account.access_key not in plain
    assert account.secret_key not in plain


def test_a_token_whose_time_is_over_is_told_so(
    server: RunningServer, channel: grpc.Channel, model: str, token: str
) -> None:
    claims = claims_of(token)
    an_hour_ago = Tokens(lambda: signing_key(server.state_dir), lifetime=60, clock=lambda: time.time() - 3600)
    old, _ = an_hour_ago.issue(claims["sub"], claims["key"], None)

    for call in (predict, describe):
        refusal = refusal_of(lambda call=call: call(channel, model, old))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert refusal_of(lambda: health(channel, model, old)).reason == "SERVICE_NOT_FOUND"


def test_a_token_of_another_server_is_one_that_nobody_knows(
    channel: grpc.Channel, model: str, account: Account, tmp_path: Path
) -> None:
    unknown = refusal_of(lambda: predict(channel, model, "nothing-like-a-token"))
    with RunningServer(tmp_path / "state") as server, raw_channel(server.address) as elsewhere:
        namesake = AccessAdmin(server).account(account.id)
        stranger = login(elsewhere, namesake)
        _, api_key = AccessAdmin(server).api_key(namesake)

        for each in (stranger, api_key, server.token):
            assert refusal_of(lambda each=each: predict(channel, model, each)) == unknown


def test_what_signs_and_what_is_public_are_no_tokens(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    unknown = refusal_of(lambda: predict(channel, model, "nothing-like-a-token"))
    key_name, key = admin.api_key(account)
    assert predict(channel, model, key) > 1

    for each in (
        account.secret_key, account.access_key, account.id, f"{account.access_key}:{account.secret_key}",
        key_name, key[:-1], key + "A", key.upper(), key.removeprefix("mhk_"), f"mha_{key[4:]}", "mhk_", "mha_", "mhs_",
    ):  # fmt: skip
        assert refusal_of(lambda each=each: predict(channel, model, each)) == unknown


JUNK = [
    b"Bearer \xff\xfe\xfd",
    b"Bearer \xc3\xa4\xf0\x9f\x98\x80",
    b"\xf0\x9f\x98\x80",
    b"Bearer \0",
    b"Bearer \x01\x02\x7f",
    b"Bearer eyJ\xed\xa0\x80",
    b"\xe2\x80\xaeBearer x",
    b"Bearer \xef\xbc\x8e\xef\xbc\x8e",
    b"",
    b" ",
    b"Bearer" + b" " * 500,
]


@pytest.mark.parametrize("junk", JUNK)
def test_bytes_that_are_no_text_are_a_wrong_token(
    server: RunningServer, channel: grpc.Channel, model: str, token: str, junk: bytes
) -> None:
    message = predict_pb2.DescribeServiceRequest(service=model).SerializeToString()

    assert status_of_call(server.address, DESCRIBE, [(b"authorization", junk)], message) == UNAUTHENTICATED
    right = [(b"authorization", f"Bearer {token}".encode())]
    assert status_of_call(server.address, DESCRIBE, right, message) == 0


@pytest.mark.parametrize("junk", [b"\xff", b"\xc3\xa4", b"\0"])
def test_a_right_token_with_a_wrong_byte_is_a_wrong_one_and_is_not_logged(
    server: RunningServer, model: str, token: str, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    message = predict_pb2.DescribeServiceRequest(service=model).SerializeToString()
    header = f"Bearer {token}".encode() + junk

    assert status_of_call(server.address, DESCRIBE, [(b"authorization", header)], message) == UNAUTHENTICATED
    assert token not in caplog.text


def test_metadata_in_binary_is_no_token(server: RunningServer, channel: grpc.Channel, model: str, token: str) -> None:
    message = predict_pb2.DescribeServiceRequest(service=model).SerializeToString()
    call = channel.unary_unary(DESCRIBE)

    with pytest.raises(grpc.RpcError) as caught:
        call(message, metadata=[("authorization-bin", f"Bearer {token}".encode())])
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    odd = [
        ("authorization", f"Bearer {token}"),
        ("authorization-bin", b"\0\xff"),
        ("x-request-id", "~"),
        ("x-bin", b""),
    ]
    assert call(message, metadata=odd)


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_metadata_that_is_too_large_is_refused_and_harms_nobody(
    server: RunningServer, channel: grpc.Channel, model: str, token: str, size: int
) -> None:
    message = predict_pb2.DescribeServiceRequest(service=model).SerializeToString()
    call = channel.unary_unary(DESCRIBE)

    for metadata in (
        [("authorization", f"Bearer {token}{'x' * size}")],
        [("authorization", f"Bearer {token}"), ("x-much", "y" * size)],
        [("authorization", f"Bearer {token}"), *((f"x-{number}", "z" * 100) for number in range(size // 100))],
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(message, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert token not in (caught.value.details() or "")
    assert predict(channel, model, token) > 1

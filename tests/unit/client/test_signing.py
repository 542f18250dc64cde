import hashlib
import hmac

import pytest

from modelhost.client import ServiceAccountKey
from modelhost.client.signing import signature, signed_request

KEY = ServiceAccountKey("ak-shop", "secret-of-shop")


def test_what_is_signed_is_four_lines_as_the_api_says():
    text = b"modelhost-v1\nak-shop\n1795860000\nn0nce-ab"
    assert signature(KEY, 1795860000, "n0nce-ab") == hmac.new(b"secret-of-shop", text, hashlib.sha256).hexdigest()


def test_a_signature_is_what_others_compute():
    """`printf 'modelhost-v1\\nak-shop\\n1795860000\\nn0nce-ab' | openssl dgst -sha256 -hmac secret-of-shop`."""
    assert signature(KEY, 1795860000, "n0nce-ab") == "f70699a34920a1591ef537a848e0ee085187a45e588220259866000ceb9705d3"


def test_no_two_requests_are_the_same():
    one, other = signed_request(KEY), signed_request(KEY)
    assert one.nonce != other.nonce
    assert one.signature != other.signature


def test_a_request_tells_nothing_of_the_secret_key():
    assert b"secret-of-shop" not in signed_request(KEY).SerializeToString()


def test_the_secret_key_is_in_no_repr():
    assert repr(KEY) == "ServiceAccountKey(access_key='ak-shop')"
    assert "secret" not in f"{KEY} {[KEY]!r}"


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MODELHOST_ACCESS_KEY", "ak-shop")
    monkeypatch.setenv("MODELHOST_SECRET_KEY", "secret-of-shop\n")
    assert ServiceAccountKey.from_env() == KEY


@pytest.mark.parametrize("missing", ["MODELHOST_ACCESS_KEY", "MODELHOST_SECRET_KEY"])
def test_a_key_that_is_missing_there_is_named(monkeypatch, missing):
    monkeypatch.setenv("MODELHOST_ACCESS_KEY", "ak-shop")
    monkeypatch.setenv("MODELHOST_SECRET_KEY", "secret-of-shop")
    monkeypatch.delenv(missing)
    with pytest.raises(KeyError, match=missing):
        ServiceAccountKey.from_env()


@pytest.mark.parametrize("secret", ["", "hush\n", " hush", "hüsh", "hush\nhush"])
def test_what_cannot_be_a_key_is_refused_without_telling_it(secret):
    with pytest.raises(ValueError, match="the secret key is no key") as caught:
        ServiceAccountKey("ak-shop", secret)
    assert "sh" not in str(caught.value)

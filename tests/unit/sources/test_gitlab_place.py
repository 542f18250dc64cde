import subprocess
import sys

import pytest

from modelhost.server.errors import InvalidRequest
from modelhost.server.sources.gitlab.place import GitLabPlace, parse_place


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://gitlab.example.com", "https://gitlab.example.com"),
        ("https://gitlab.example.com/", "https://gitlab.example.com"),
        ("http://10.0.0.1:8080/git/", "http://10.0.0.1:8080/git"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
        ("https://gitlab.example.com/api/v4/", "https://gitlab.example.com"),
    ],
)
def test_addresses_of_servers(url: str, kept: str) -> None:
    assert parse_place(url, "/energy/forecasting/") == GitLabPlace(kept, "energy/forecasting")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gitlab.example.com",
        "ssh://gitlab.example.com",
        "https://",
        "https://me:secret@gitlab.example.com",
        "https://glpat-secret@gitlab.example.com",
        "https://gitlab.example.com?secret=1",
        "https://gitlab.example.com#secret",
        "https://gitlab.example.com:port",
        "https://gitlab.example.com/a/../b",
        "https://gitlab.example.com\nsecret",
        "https://gitlab .example.com",
        "https://-gitlab",
        "https://" + "x" * 2000,
    ],
)
def test_what_is_no_address_is_refused_without_secrets(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_place(url, field="data_source.gitlab")
    assert caught.value.field == "data_source.gitlab.url"
    assert "secret" not in str(caught.value)


def test_a_namespace_is_a_path() -> None:
    for namespace in ("a//b", "../a", "a/\x00"):
        with pytest.raises(InvalidRequest) as caught:
            parse_place("https://gitlab.example.com", namespace)
        assert caught.value.field == "gitlab.namespace"


@pytest.mark.parametrize("pem", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "é"])
def test_certificates_that_are_none(pem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_place("https://gitlab.example.com", ca_certificates=pem)
    assert caught.value.field == "gitlab.ca_certificates"


def test_checking_a_place_does_not_wait_for_python_gitlab() -> None:
    code = "import sys, modelhost.server.control.sources, modelhost.server.sources.gitlab.place; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()).isdisjoint({"gitlab", "requests"})

"""`modelhost certs`: what it makes, and what it leaves alone."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from modelhost.server.certs.making import Authority


@pytest.fixture
def certs(run, tmp_path, monkeypatch):
    """Run it in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run("certs", *arguments)


def load(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path("certs", name).read_bytes())


def trusting() -> PolicyBuilder:
    """What a strict reader of RFC 5280 checks who trusts the authority."""
    return PolicyBuilder().store(Store([load("ca.pem")]))


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("certs").iterdir()}


def test_a_server_gets_a_certificate_for_every_name_that_its_host_has(certs, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "ada.example.com")
    assert certs().code == 0
    assert set(contents()) == {"ca.pem", "ca.key", "server.pem", "server.key"}
    names = load("server.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "ada.example.com"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1"]
    trusting().build_server_verifier(x509.DNSName("ada.example.com")).verify(load("server.pem"), [])
    with pytest.raises(VerificationError):
        trusting().build_server_verifier(x509.DNSName("eve.example.com")).verify(load("server.pem"), [])


def test_keys_are_for_their_owner_alone(certs):
    certs("--client", "alice")
    assert Path("certs").stat().st_mode & 0o777 == 0o700
    for path in Path("certs").iterdir():
        assert path.stat().st_mode & 0o777 == (0o600 if path.suffix == ".key" else 0o644)


def test_hosts_and_days_are_as_told(certs):
    assert certs("--host", "models.example.com", "--host", "10.0.0.5", "--host", "*.m.example", "--days", "7").code == 0
    names = load("server.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["models.example.com", "*.m.example"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["10.0.0.5"]
    left = load("server.pem").not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)


def test_a_client_gets_a_certificate_for_clients_and_a_server_one_for_servers(certs):
    assert certs("--client", "alice", "--client", "bob").code == 0
    verifier = trusting().build_client_verifier()
    for name in ("alice", "bob"):
        verified = verifier.verify(load(f"client-{name}.pem"), [])
        assert [subject.value for subject in verified.subjects or ()] == [name]
    with pytest.raises(VerificationError):
        verifier.verify(load("server.pem"), [])
    with pytest.raises(VerificationError):
        trusting().build_server_verifier(x509.DNSName("alice")).verify(load("client-alice.pem"), [])


def test_a_later_client_is_of_the_same_authority_and_leaves_the_server_as_it_is(certs):
    certs()
    before = contents()
    assert certs("--client", "alice").code == 0
    after = contents()
    assert {name: after[name] for name in before} == before
    trusting().build_client_verifier().verify(load("client-alice.pem"), [])


@pytest.mark.parametrize("again", [[], ["--host", "other.example.com"], ["--client", "bob", "--client", "alice"]])
def test_what_is_there_is_not_overwritten_and_nothing_is_made_beside_it(certs, again):
    certs("--client", "alice")
    before = contents()
    result = certs(*again)
    assert result.code == 1
    assert result.err.endswith("would be overwritten; --force does that\n")
    assert contents() == before


def test_with_force_it_is_but_the_authority_is_not(certs):
    certs("--client", "alice")
    before = contents()
    assert certs("--client", "alice", "--force").code == 0
    after = contents()
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed == {"client-alice.pem", "client-alice.key"}
    assert certs("--force").code == 0
    assert {name for name, content in after.items() if contents()[name] != content} == {"server.pem", "server.key"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "not a host"], "'not a host' is no host name and no IP address"),
        (["--host", "10.0.0.5/8"], "'10.0.0.5/8' is no host name and no IP address"),
        (["--client", "../alice"], "a client's name has 1 to 63 letters, digits, dots, dashes or underscores"),
        (["--client", ""], "a client's name has 1 to 63 letters"),
    ],
)
def test_names_that_are_none_are_refused_and_nothing_is_made(certs, options, words):
    result = certs(*options)
    assert result.code == 1
    assert f"error: {words}" in result.err
    assert not Path("certs").exists()


def test_half_an_authority_is_none(certs):
    certs()
    Path("certs/ca.key").unlink()
    assert "there is certs/ca.pem but no certs/ca.key: bring it back, or" in certs("--client", "alice").err


def test_an_authority_whose_key_is_another_ones_is_none(certs):
    certs()
    Path("certs/ca.key").write_bytes(Authority.new(datetime.now(UTC)).pair.key)
    result = certs("--client", "alice")
    assert result.err == "error: certs/ca.pem, certs/ca.key: the authority's key is not that of its certificate\n"


def test_nothing_outlives_the_authority_and_an_expired_one_signs_nothing(certs):
    long_ago = datetime.now(UTC) - timedelta(days=3000)
    Path("certs").mkdir()
    for name, content in zip(("ca.pem", "ca.key"), _pem(Authority.new(long_ago)), strict=True):
        Path("certs", name).write_bytes(content)
    assert certs("--days", "3000").code == 0
    assert load("server.pem").not_valid_after_utc == load("ca.pem").not_valid_after_utc

    for name, content in zip(("ca.pem", "ca.key"), _pem(Authority.new(long_ago - timedelta(days=3000))), strict=True):
        Path("certs", name).write_bytes(content)
    assert "the authority has expired on" in certs("--client", "alice").err


def _pem(authority: Authority) -> tuple[bytes, bytes]:
    return authority.pair.certificate, authority.pair.key


def test_it_says_how_to_go_on(certs):
    lines = [shlex.split(line) for line in certs("--client", "alice").out.splitlines() if line.startswith("  ")]
    assert lines == [
        shlex.split(
            "modelhost serve --tls-cert certs/server.pem --tls-key certs/server.key --tls-client-ca certs/ca.pem"
        ),
        shlex.split(
            "modelhost list --address https://localhost:8470 --ca-file certs/ca.pem"
            " --client-cert certs/client-alice.pem --client-key certs/client-alice.key"
        ),
    ]
    lines = certs("elsewhere", "--host", "models.example.com").out.splitlines()
    assert (
        "  modelhost serve --listen 0.0.0.0:8470 --tls-cert elsewhere/server.pem --tls-key elsewhere/server.key"
        in lines
    )
    assert "  modelhost list --address https://models.example.com:8470 --ca-file elsewhere/ca.pem" in lines

"""The files for TLS: what is refused and in which words, and what is served while they change."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from modelhost.server.tls import Certificates, TlsFiles, TlsUnusable, read
from tests.tls_files import Tls


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls")


@contextmanager
def nobody() -> Iterator[None]:
    """A user who may read what everybody may."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def problem(files: TlsFiles) -> str:
    with pytest.raises(TlsUnusable) as caught:
        read(files, datetime.now(UTC))
    return str(caught.value)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_pair_is_read_with_its_end_and_a_name_that_it_has(tls: Tls) -> None:
    identity = read(TlsFiles(tls.certificate, tls.key, tls.ca_file), datetime.now(UTC))

    assert (identity.chain, identity.key) == (tls.certificate.read_bytes(), tls.key.read_bytes())
    assert identity.client_ca == tls.ca
    assert timedelta(days=89) < identity.expires - datetime.now(UTC) <= timedelta(days=90)
    assert identity.name == "localhost"
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-client-ca"])
def test_a_file_that_is_not_there_or_is_none_is_named_with_its_flag(tls: Tls, flag: str) -> None:
    def files(path: Path) -> TlsFiles:
        given = {"--tls-cert": tls.certificate, "--tls-key": tls.key, "--tls-client-ca": tls.ca_file, flag: path}
        return TlsFiles(given["--tls-cert"], given["--tls-key"], given["--tls-client-ca"])

    missing, empty, junk = tls.folder / "missing", tls.folder / "empty", tls.folder / "junk"
    empty.touch()
    junk.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    assert problem(files(missing)).startswith(f"{flag}: cannot read {missing}: No such file or directory; `modelhost ")
    assert problem(files(tls.folder)).startswith(f"{flag}: cannot read {tls.folder}: Is a directory")
    for damaged in (empty, junk):
        assert problem(files(damaged)).startswith(f"{flag}: there is no ")
        assert str(damaged) in problem(files(damaged))


def test_a_file_that_may_not_be_read_is_named(tls: Tls) -> None:
    tls.key.chmod(0)
    with nobody():
        said = problem(TlsFiles(tls.certificate, tls.key))

    assert said.endswith("; let it")
    assert "this server's user may not read" in said


def test_a_key_with_a_passphrase_is_refused_with_what_takes_it_off(tls: Tls) -> None:
    key = load_pem_private_key(tls.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    tls.put(key=encrypted)

    assert f"`openssl pkey -in {tls.key} -out NEW` writes it without" in problem(tls.files)


def test_a_key_of_another_certificate_is_refused(tls: Tls) -> None:
    tls.put(key=tls.pair().key)

    assert f"the key in {tls.key} is not that of the first certificate in {tls.certificate}" in problem(tls.files)


def test_the_servers_own_certificate_comes_before_those_that_signed_it(tls: Tls) -> None:
    own = tls.certificate.read_bytes()

    tls.put(certificate=own + tls.ca)
    assert read(tls.files, datetime.now(UTC)).chain == own + tls.ca
    tls.put(certificate=tls.ca + own)
    assert "the server's own certificate before those that signed it" in problem(tls.files)


def test_what_has_expired_or_is_not_valid_yet_is_refused(tls: Tls) -> None:
    old = tls.pair(days=10, ago=20)
    tls.put(old.certificate, old.key)
    assert f"the certificate in {tls.certificate} expired on {old.expires:%Y-%m-%d}; have a new" in problem(tls.files)

    coming = tls.pair(ago=-5)
    tls.put(coming.certificate, coming.key)
    assert f"the certificate in {tls.certificate} is not valid before 20" in problem(tls.files)


@pytest.mark.parametrize("kind", ["ed25519", "p521", "rsa1024"])
def test_keys_that_clients_do_not_take_are_refused_before_these_find_out(tls: Tls, kind: str) -> None:
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    match kind:
        case "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case "p521":
            key = ec.generate_private_key(ec.SECP521R1())
        case _:
            key = rsa.generate_private_key(65537, 1024)
    tls.put(key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    assert "use ECDSA with P-256 or P-384, or RSA with 2048 bits or more" in problem(tls.files)


# -- what is served while they change ----------------------------------------------------------------------------------


def test_the_same_is_served_until_there_is_another_pair_and_then_that(tls: Tls) -> None:
    certificates = Certificates(tls.files)
    first = certificates.current()
    assert certificates.current() is first

    with capture_logs() as said:
        pair = tls.rotate()
        second = certificates.current()

    assert (second.chain, second.key) == (pair.certificate, pair.key)
    assert certificates.current() is second
    (line,) = said
    assert line["log_level"] == "info"
    assert line["expires"] == pair.expires.isoformat()
    assert line["file"] == str(tls.certificate)


@pytest.mark.parametrize("first", ["key", "certificate"])
def test_halves_that_do_not_fit_are_not_served_and_warned_of_once(tls: Tls, first: str) -> None:
    certificates = Certificates(tls.files)
    old = certificates.current()
    pair = tls.pair()
    halves = {"certificate": pair.certificate, "key": pair.key}

    with capture_logs() as said:
        tls.put(**{first: halves.pop(first)})
        assert [certificates.current() is old for _ in range(5)] == [True] * 5
        tls.put(**halves)
        new = certificates.current()

    assert (new.chain, new.key) == (pair.certificate, pair.key)
    assert [line["log_level"] for line in said] == ["warning", "info"]
    assert "is not that of the first certificate" in said[0]["problem"]


@pytest.mark.parametrize("bad", ["gone", "half written", "expired"])
def test_a_pair_that_cannot_be_used_leaves_the_old_one(tls: Tls, bad: str) -> None:
    certificates = Certificates(tls.files)
    old = certificates.current()

    with capture_logs() as said:
        if bad == "gone":
            tls.certificate.unlink()
        elif bad == "half written":
            tls.certificate.write_bytes(tls.certificate.read_bytes()[:300])
        else:
            pair = tls.pair(days=10, ago=20)
            tls.put(pair.certificate, pair.key)
        assert certificates.current() is old
        tls.rotate()
        assert certificates.current() is not old

    assert [line["log_level"] for line in said] == ["warning", "info"]
    assert str(tls.certificate) in said[0]["problem"]


def test_a_pair_whose_time_has_not_come_is_used_once_it_has(tls: Tls) -> None:
    now = datetime.now(UTC)
    certificates = Certificates(tls.files, clock=lambda: now)
    old = certificates.current()
    pair = tls.pair(ago=-5)
    tls.put(pair.certificate, pair.key)
    assert certificates.current() is old

    now += timedelta(days=6)

    assert certificates.current().chain == pair.certificate


def test_a_link_that_is_turned_to_another_folder_changes_the_pair(tmp_path: Path) -> None:
    one, two = Tls(tmp_path / "one"), Tls(tmp_path / "two")
    link = tmp_path / "current"
    link.symlink_to(one.folder)
    certificates = Certificates(TlsFiles(link / "server.pem", link / "server.key"))
    assert certificates.current().chain == one.certificate.read_bytes()

    turned = tmp_path / "turned"
    turned.symlink_to(two.folder)
    turned.rename(link)

    assert certificates.current().chain == two.certificate.read_bytes()


def test_another_authority_for_clients_is_taken_too(tls: Tls) -> None:
    certificates = Certificates(TlsFiles(tls.certificate, tls.key, tls.ca_file))
    assert certificates.current().client_ca == tls.ca

    tls.change_authority()

    assert certificates.current().client_ca == tls.ca


# -- what is warned of -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "level"), [(60, None), (59, None), (31, None), (29, "warning"), (1, "warning"), (0, "error")]
)
def test_the_end_of_a_certificate_is_told_of_thirty_days_ahead(tls: Tls, days: int, level: str | None) -> None:
    now = datetime.now(UTC)
    certificates = Certificates(tls.files, clock=lambda: now)
    now = certificates.current().expires - timedelta(days=days)

    with capture_logs() as said:
        certificates.check_expiry()

    assert [line["log_level"] for line in said] == ([level] if level else [])
    assert all(line["file"] == str(tls.certificate) for line in said)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_can_read_is_warned_of(tls: Tls, mode: int, warned: bool) -> None:
    tls.key.chmod(mode)

    with capture_logs() as said:
        Certificates(tls.files)

    assert [line["mode"] for line in said if line["log_level"] == "warning"] == ([f"{mode:04o}"] if warned else [])

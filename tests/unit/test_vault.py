"""Secrets at rest."""

import stat
from base64 import b64encode
from pathlib import Path

import pytest

from modelhost.server.control.secret_env import Masker, sealed
from modelhost.server.errors import Conflict, reason_name
from modelhost.server.vault import Vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.from_file(tmp_path / "secret.key")


@pytest.mark.parametrize("text", ["", "x", "geheim ü \0", "long " * 10_000])
def test_what_was_closed_opens(vault: Vault, text: str) -> None:
    assert vault.open(vault.close(text, "a test"), "a test") == text


def test_the_same_text_is_never_closed_to_the_same(vault: Vault) -> None:
    assert vault.close("text", "a test") != vault.close("text", "a test")


def test_the_key_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    closed = Vault.from_file(path).close("text", "a test")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Vault.from_file(path).open(closed, "a test") == "text"


@pytest.mark.parametrize("damage", ["purpose", "key", "bytes", "rubbish", "short"])
def test_what_does_not_belong_together_does_not_open(vault: Vault, tmp_path: Path, damage: str) -> None:
    closed = vault.close("text", "a test")
    opener, purpose = vault, "a test"
    match damage:
        case "purpose":
            purpose = "another test"
        case "key":
            opener = Vault.from_file(tmp_path / "another.key")
        case "bytes":
            closed = closed[:-6] + ("AAAA" if closed[-6:-2] != "AAAA" else "BBBB") + closed[-2:]
        case "rubbish":
            closed = "v1:not base64!"
        case "short":
            closed = "v1:" + b64encode(b"1234").decode()

    with pytest.raises(Conflict) as caught:
        opener.open(closed, purpose)

    assert reason_name(caught.value.reason) == "SECRET_UNREADABLE"


@pytest.mark.parametrize("text", ["", "rubbish", b64encode(b"x" * 31).decode(), "ü" * 44])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(text)

    with pytest.raises(ValueError, match="does not hold a key"):
        Vault.from_file(path)

    assert path.read_text() == text


def test_a_fingerprint_tells_data_apart_and_depends_on_the_key(vault: Vault, tmp_path: Path) -> None:
    assert vault.fingerprint(b"one") == vault.fingerprint(b"one") != vault.fingerprint(b"two")
    assert Vault.from_file(tmp_path / "another.key").fingerprint(b"one") != vault.fingerprint(b"one")


@pytest.mark.parametrize(
    "text",
    [
        'login="p&ss w\u00f6rd"',
        '{"login": "p&ss w\\u00f6rd"}',
        "https://host/?p=p%26ss%20w%C3%B6rd",
        "p=p%26ss+w%C3%B6rd",
        "Basic cCZzcyB3w7ZyZA==",
    ],
)
def test_a_secret_is_masked_however_it_is_written(text: str) -> None:
    masked = Masker(["p&ss wörd"])(text)

    assert "***" in masked
    assert not any(rest in masked for rest in ("p&", "p%", "cC", "rd"))


def test_the_lines_of_a_secret_are_masked_each_and_the_longest_first() -> None:
    mask = Masker(["first line\nsecond", "first"])

    assert mask("a first line, a second, a first") == "a ***, a ***, a ***"
    assert Masker([])("first") == "first"


def test_secrets_are_set_removed_and_left(vault: Vault) -> None:
    before = sealed(vault, None, {"A": "aaaa", "B": "bbbb"})
    assert before is not None

    after = sealed(vault, before, {"B": "", "C": "cccc"})

    assert after is not None
    assert (after["A"], sorted(after)) == (before["A"], ["A", "C"])
    assert sealed(vault, {"A": "x"}, {"A": ""}) is None


@pytest.mark.parametrize("kept", range(4, 12))
def test_what_a_cut_leaves_of_a_secret_is_masked(kept: int) -> None:
    secret = "s3cr3t-value"
    mask = Masker([secret, "short"])

    assert mask(f"it ends in {secret[:kept]}", cut_after=True) == "it ends in ***"
    assert mask(f"{secret[-kept:]} it begins with", cut_before=True) == "*** it begins with"
    assert mask(f"{secret[-kept:]} not cut {secret[:kept]}") == f"{secret[-kept:]} not cut {secret[:kept]}"
    assert mask("nothing of it", cut_before=True, cut_after=True) == "nothing of it"


def test_a_cut_within_a_character_hides_no_half() -> None:
    secret = "geheimäwort-lang"
    data = secret.encode()
    mask = Masker([secret])

    assert mask(data[:7].decode("utf-8", "replace"), cut_after=True) == "***"
    assert mask(data[7:].decode("utf-8", "replace"), cut_before=True) == "***"


def test_of_a_json_document_the_texts_and_the_lines_are_masked_but_no_blanks() -> None:
    key = '{\n    "type": "x",\n    "private_key": "abc-def-ghi"\n    }'
    mask = Masker([key])

    assert mask("login with abc-def-ghi") == "login with ***"
    assert mask('a line: "private_key": "abc-def-ghi"') == "a line: ***"
    assert mask("    indented:\n    }") == "    indented:\n    }"

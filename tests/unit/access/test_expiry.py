"""Keys and tokens that end soon are told of in words, and once a day in the log."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from modelhost.server.access.expiry import DAY_SECONDS, ExpiryCheck, of_keys, of_operator
from modelhost.server.access.uses import Use, Uses
from modelhost.server.identities import Credential, CredentialKind, Operator, Role, ServiceAccount
from modelhost.server.store import accounts, operators
from modelhost.server.store.database import Database

NOW = 1_700_000_000.0
ACCOUNT = ServiceAccount("u1", "shop", "", "ak_1", False, 1, 0.0, 0.0)
SECRET = Credential("s1", "u1", CredentialKind.SECRET_KEY, "sealed", "", "", 100.0, None, None)
KEY = Credential("k1", "u1", CredentialKind.API_KEY, "", "digest", "", 0.0, None, None)
OPERATOR = Operator("o1", "ann", Role.VIEWER, "", "digest", False, 1, 0.0, 0.0, 0.0, None, None)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "modelhost.db")
    await database.run(lambda tx: accounts.insert(tx, ACCOUNT))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (None, ""),
        (31, ""),
        (30, "in 30 days"),
        (1, "in 1 day:"),
        (0.5, "in 1 day:"),
        (0, "has expired on"),
        (-100, "has expired on"),
    ],
)
def test_what_ends_within_a_month_or_has_ended_is_told(days: float | None, words: str) -> None:
    expires = None if days is None else NOW + days * DAY_SECONDS

    told = of_operator(replace(OPERATOR, expires=expires), NOW)

    assert bool(told) == bool(words)
    assert not told or (words in told[0] and "modelhost operator rotate ann" in told[0])


def test_a_secret_key_with_a_successor_is_told_of_only_while_it_is_used() -> None:
    newer = replace(SECRET, id="s2", created=200.0)
    older = replace(SECRET, expires=NOW + DAY_SECONDS)

    assert of_keys([newer, older], NOW) == []
    assert of_keys([newer, replace(older, last_used=150.0)], NOW) == []
    (told,) = of_keys([newer, replace(older, last_used=250.0)], NOW)
    assert "s1, which is still used, expires" in told


async def test_the_log_has_a_line_for_each_of_those_that_are_let_in(database: Database) -> None:
    def store(tx: object) -> None:
        accounts.insert_credential(tx, replace(KEY, expires=NOW + DAY_SECONDS))
        accounts.insert(tx, replace(ACCOUNT, uid="u2", id="off", access_key="ak_2", disabled=True))
        accounts.insert_credential(tx, replace(KEY, id="k2", account_uid="u2", expires=NOW))
        operators.insert(tx, replace(OPERATOR, expires=NOW))
        operators.insert(tx, replace(OPERATOR, uid="o2", id="bob", digest="d2", disabled=True, expires=NOW))

    await database.run(store)

    with structlog.testing.capture_logs() as said:
        await ExpiryCheck(database, clock=lambda: NOW).check()

    assert sorted(entry["of"] for entry in said) == ["operators/ann", "serviceAccounts/shop"]
    assert {entry["log_level"] for entry in said} == {"warning"}


async def test_last_uses_are_stored_when_they_are_new_and_again_when_that_failed(database: Database) -> None:
    def store(tx: object) -> None:
        accounts.insert_credential(tx, KEY)
        operators.insert(tx, OPERATOR)

    await database.run(store)
    key, operator = Use(), Use()
    uses = Uses(lambda: {"k1": key, "gone": Use()}, lambda: {"o1": operator})
    assert uses.take() is None
    key.last, operator.last = 5.0, 7.0

    batch = uses.take()
    assert batch is not None
    uses.put_back(batch)
    batch = uses.take()
    assert batch is not None
    await database.run(batch.write)

    assert uses.take() is None
    (stored,) = await database.run(lambda tx: accounts.credentials(tx, "u1"))
    assert stored.last_used == 5.0
    found = await database.run(lambda tx: operators.get(tx, "ann"))
    assert found is not None
    assert found.last_used == 7.0

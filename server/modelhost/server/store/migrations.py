"""Numbered changes of the schema. Each is applied once; a change and its number commit together.

A migration that has landed is never edited: add one.
"""

from collections.abc import Sequence

import apsw

MIGRATIONS = (
    # 1: data sources, deployments, revisions
    """
    CREATE TABLE data_sources (
        uid         TEXT PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        kind        TEXT NOT NULL,
        url         TEXT NOT NULL,
        description TEXT NOT NULL,
        version     INTEGER NOT NULL,
        created     REAL NOT NULL,
        updated     REAL NOT NULL
    ) STRICT;

    CREATE TABLE deployments (
        uid             TEXT PRIMARY KEY,
        id              TEXT NOT NULL UNIQUE,
        service_id      TEXT NOT NULL UNIQUE,
        description     TEXT NOT NULL,
        data_source     TEXT NOT NULL REFERENCES data_sources (id),
        source          TEXT NOT NULL,  -- JSON of resources.ModelSource
        settings        TEXT NOT NULL,  -- JSON of resources.ModelSettings
        state           TEXT NOT NULL,
        active          INTEGER NOT NULL,
        target          INTEGER NOT NULL,
        update_state    TEXT NOT NULL,
        failure         TEXT,           -- JSON of resources.Failure
        version         INTEGER NOT NULL,
        created         REAL NOT NULL,
        updated         REAL NOT NULL,
        service_created REAL
    ) STRICT;
    CREATE INDEX deployments_by_data_source ON deployments (data_source);

    CREATE TABLE revisions (
        deployment_uid     TEXT NOT NULL REFERENCES deployments (uid) ON DELETE CASCADE,
        number             INTEGER NOT NULL,
        state              TEXT NOT NULL,
        source             TEXT NOT NULL,
        requested          TEXT NOT NULL,
        settings           TEXT,
        "commit"           TEXT NOT NULL,
        snapshot_digest    TEXT NOT NULL,
        environment        TEXT NOT NULL,
        environment_digest TEXT NOT NULL,
        runtime_version    TEXT NOT NULL,
        failure            TEXT,
        created            REAL NOT NULL,
        ready              REAL,
        PRIMARY KEY (deployment_uid, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX revisions_by_environment ON revisions (environment);

    -- Which snapshot a selection of a commit gave, so that the same commit is fetched once.
    CREATE TABLE fetches (
        data_source_uid TEXT NOT NULL REFERENCES data_sources (uid) ON DELETE CASCADE,
        project         TEXT NOT NULL,
        "commit"        TEXT NOT NULL,
        selection       TEXT NOT NULL,
        snapshot_digest TEXT NOT NULL,
        PRIMARY KEY (data_source_uid, project, "commit", selection)
    ) STRICT, WITHOUT ROWID;

    -- Answers of mutations that carried a request_id.
    CREATE TABLE requests (
        request_id TEXT PRIMARY KEY,
        method     TEXT NOT NULL,
        body       TEXT NOT NULL,  -- digest of the request without its request_id
        response   BLOB NOT NULL,
        created    REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_created ON requests (created);
    """,
    # 2: data sources with secrets and options
    """
    ALTER TABLE data_sources ADD COLUMN secret TEXT NOT NULL DEFAULT '';
    ALTER TABLE data_sources ADD COLUMN options TEXT NOT NULL DEFAULT '{}';  -- JSON of resources.SourceOptions
    """,
    # 3: deployments with a number of workers
    """
    ALTER TABLE deployments ADD COLUMN workers INTEGER NOT NULL DEFAULT 1;
    """,
    # 4: what environments hold, so that one that is gone can be built again
    """
    CREATE TABLE environment_locks (
        digest       TEXT PRIMARY KEY,  -- of the environment, as revisions name it
        runtime      TEXT NOT NULL,
        version      TEXT NOT NULL,
        platform     TEXT NOT NULL,
        repositories TEXT NOT NULL,     -- JSON: part of what was asked for, of R
        packages     TEXT NOT NULL,     -- JSON: every line of the lock
        created      REAL NOT NULL
    ) STRICT;
    CREATE INDEX revisions_by_environment_digest ON revisions (environment_digest);
    """,
    # 5: who may call what; what operators changed. Answers that are kept are sealed from here on
    """
    ALTER TABLE deployments ADD COLUMN open INTEGER NOT NULL DEFAULT 0;

    DROP TABLE requests;
    CREATE TABLE requests (
        request_id TEXT PRIMARY KEY,
        method     TEXT NOT NULL,
        sealed     TEXT NOT NULL,  -- digest of the request without its request_id, and the response
        created    REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_created ON requests (created);

    -- One row: a text that the key opens that everything here is sealed with.
    CREATE TABLE key_check (sealed TEXT NOT NULL) STRICT;

    CREATE TABLE service_accounts (
        uid         TEXT PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL,
        access_key  TEXT NOT NULL UNIQUE,
        disabled    INTEGER NOT NULL,
        version     INTEGER NOT NULL,
        created     REAL NOT NULL,
        updated     REAL NOT NULL
    ) STRICT;

    CREATE TABLE credentials (
        id          TEXT PRIMARY KEY,
        account_uid TEXT NOT NULL REFERENCES service_accounts (uid) ON DELETE CASCADE,
        kind        TEXT NOT NULL,
        sealed      TEXT NOT NULL,  -- of secret keys
        digest      TEXT NOT NULL,  -- of API keys
        description TEXT NOT NULL,
        created     REAL NOT NULL,
        expires     REAL,
        last_used   REAL
    ) STRICT;
    CREATE INDEX credentials_by_account ON credentials (account_uid);

    CREATE TABLE grants (
        account_uid    TEXT NOT NULL REFERENCES service_accounts (uid) ON DELETE CASCADE,
        deployment_uid TEXT NOT NULL REFERENCES deployments (uid) ON DELETE CASCADE,
        limits         TEXT NOT NULL,     -- JSON of identities.GrantLimits
        created        REAL NOT NULL,
        updated        REAL NOT NULL,
        day            INTEGER NOT NULL,  -- the last on which calls counted, since the epoch, UTC
        used           INTEGER NOT NULL,  -- calls that counted on it
        PRIMARY KEY (account_uid, deployment_uid)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX grants_by_deployment ON grants (deployment_uid);

    -- Of tokens that were issued, for as long as their timestamp would be taken again.
    CREATE TABLE nonces (
        access_key TEXT NOT NULL,
        nonce      TEXT NOT NULL,
        expires    REAL NOT NULL,
        PRIMARY KEY (access_key, nonce)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX nonces_by_expires ON nonces (expires);

    CREATE TABLE operators (
        uid           TEXT PRIMARY KEY,
        id            TEXT NOT NULL UNIQUE,
        role          INTEGER NOT NULL,
        description   TEXT NOT NULL,
        digest        TEXT NOT NULL UNIQUE,
        disabled      INTEGER NOT NULL,
        version       INTEGER NOT NULL,
        created       REAL NOT NULL,
        updated       REAL NOT NULL,
        token_created REAL NOT NULL,
        expires       REAL,
        last_used     REAL
    ) STRICT;

    CREATE TABLE audit_events (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        time       REAL NOT NULL,
        operator   TEXT NOT NULL,
        method     TEXT NOT NULL,
        resource   TEXT NOT NULL,
        peer       TEXT NOT NULL,
        request_id TEXT NOT NULL,
        before     TEXT NOT NULL,
        after      TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_events_by_resource ON audit_events (resource);
    CREATE INDEX audit_events_by_time ON audit_events (time);
    """,
    # 6: usage
    """
    CREATE TABLE usage (
        service_id TEXT NOT NULL REFERENCES deployments (service_id) ON DELETE CASCADE,
        span       INTEGER NOT NULL,  -- seconds: a minute, an hour or a day
        start      INTEGER NOT NULL,  -- seconds since 1970, a multiple of the span
        caller     TEXT NOT NULL,
        received   INTEGER NOT NULL,  -- bytes of requests
        sent       INTEGER NOT NULL,  -- bytes of responses
        failures   TEXT NOT NULL,     -- JSON: calls by code
        latency    BLOB NOT NULL,     -- MessagePack: calls by bucket of store/tally.py
        PRIMARY KEY (service_id, span, start, caller)
    ) STRICT, WITHOUT ROWID;
    """,
)


class SchemaTooNew(Exception):
    """The file was written by a newer server."""


def migrate(connection: apsw.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema up to date. Raises `SchemaTooNew`."""
    current = check_known(connection, migrations)
    for number, change in enumerate(migrations[current:], current + 1):
        with connection:
            connection.execute(change)
            connection.execute(f"PRAGMA user_version = {number}")


def check_known(connection: apsw.Connection, migrations: Sequence[str] = MIGRATIONS) -> int:
    """The number of the schema; 0 for none. Raises `SchemaTooNew`."""
    current = int(connection.execute("PRAGMA user_version").get)
    if current > len(migrations):
        raise SchemaTooNew(
            f"the database has schema {current}, this server knows up to {len(migrations)}: run a newer modelhost"
        )
    return current

-- Version 1. A licence is one document (the seed's shape): nothing queries inside it.

CREATE TABLE api_keys (
    api_key    TEXT PRIMARY KEY,
    shared_key TEXT NOT NULL,
    state      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE products (
    code TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE licenses (
    id          INTEGER PRIMARY KEY,
    product     TEXT NOT NULL,
    license_key TEXT,
    username    TEXT,
    as_of_ms    INTEGER NOT NULL,   -- when the document's totals were right
    document    TEXT NOT NULL,
    CHECK ((license_key IS NULL) <> (username IS NULL))
) STRICT;

CREATE INDEX licenses_by_key ON licenses (product, license_key) WHERE license_key IS NOT NULL;
CREATE INDEX licenses_by_user ON licenses (product, username) WHERE username IS NOT NULL;

CREATE TABLE activity (
    seq         INTEGER PRIMARY KEY,
    license_id  INTEGER NOT NULL,
    feature     TEXT,
    event       TEXT NOT NULL,
    units       INTEGER NOT NULL,
    total       INTEGER NOT NULL,
    hardware_id TEXT NOT NULL,
    at_ms       INTEGER NOT NULL
) STRICT;

CREATE INDEX activity_by_license ON activity (license_id);

CREATE TABLE answers (
    api_key         TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint     BLOB NOT NULL,
    status          INTEGER NOT NULL,
    body            BLOB NOT NULL,
    signature       TEXT,
    PRIMARY KEY (api_key, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE clock (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    offset_ms INTEGER NOT NULL
) STRICT;

INSERT INTO clock (id, offset_ms) VALUES (1, 0);

-- Small facts with one value each: the clock, what the server can do.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE licenses (
    no           INTEGER PRIMARY KEY,
    product      TEXT NOT NULL,
    holder_field TEXT NOT NULL CHECK (holder_field IN ('license_key', 'username')),
    holder_value TEXT NOT NULL,
    id           INTEGER NOT NULL,
    body         TEXT NOT NULL,             -- the server's last answer to check_license
    blocked      TEXT,                      -- the server's code, while it refuses the licence
    refreshed_at INTEGER NOT NULL           -- milliseconds since 1970, like all times here
) STRICT;

CREATE TABLE devices (
    license     INTEGER NOT NULL REFERENCES licenses (no),
    hardware_id TEXT NOT NULL,
    blocked     TEXT,                       -- the server's code, while it refuses the device
    PRIMARY KEY (license, hardware_id)
) STRICT, WITHOUT ROWID;

-- A counter on the server: a licence's own (no feature), or a feature's.
CREATE TABLE accounts (
    no       INTEGER PRIMARY KEY,
    license  INTEGER NOT NULL REFERENCES licenses (no),
    feature  TEXT,
    max_consumptions              INTEGER NOT NULL,
    allow_unlimited_consumptions  INTEGER NOT NULL,
    allow_negative_consumptions   INTEGER NOT NULL,
    allow_overages                INTEGER NOT NULL,
    max_overages                  INTEGER NOT NULL,
    period   TEXT,
    total    INTEGER NOT NULL,
    as_of    INTEGER NOT NULL,
    shared   INTEGER NOT NULL,              -- its total once moved by more than this agent's units
    recorded INTEGER NOT NULL,              -- running sums over its rows
    settled  INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    UNIQUE (license, feature)
) STRICT;

CREATE TABLE apps (
    no   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- What the rows that may share a request have in common.
CREATE TABLE lanes (
    no             INTEGER PRIMARY KEY,
    account        INTEGER NOT NULL REFERENCES accounts (no),
    hardware_id    TEXT NOT NULL,
    event          TEXT NOT NULL,
    period         INTEGER,
    allow_overages INTEGER,
    max_overages   INTEGER
) STRICT;

-- A range of a lane's rows: one request, in the end. Rows do not know their batch, so that sealing a
-- million of them writes one line here.
CREATE TABLE batches (
    no        INTEGER PRIMARY KEY,
    lane      INTEGER NOT NULL REFERENCES lanes (no),
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    units     INTEGER NOT NULL,
    state     TEXT NOT NULL,
    reason    TEXT,                         -- why it is held
    closed    INTEGER NOT NULL,
    id        TEXT,                         -- from here on: set when it is sealed
    sealed_at INTEGER,
    attempts  INTEGER,
    before_total INTEGER,
    before_as_of INTEGER,
    sent_at   INTEGER
) STRICT;
CREATE INDEX batches_of_lane ON batches (lane, first_seq);
CREATE INDEX batches_owed ON batches (no) WHERE state NOT IN ('settled', 'superseded');

-- The rows: granted consumptions, never changed, each chained to the one before.
CREATE TABLE consumptions (
    seq    INTEGER PRIMARY KEY,
    lane   INTEGER NOT NULL REFERENCES lanes (no),
    app    INTEGER NOT NULL REFERENCES apps (no),
    units  INTEGER NOT NULL,
    total  INTEGER NOT NULL,                -- the total that it was granted with
    at     INTEGER NOT NULL,
    proven INTEGER NOT NULL,                -- whether the server had confirmed the clock
    hash   BLOB NOT NULL
) STRICT;

-- Answers to requests with an Idempotency-Key, so that an application may retry.
CREATE TABLE answers (
    app         INTEGER NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status      INTEGER NOT NULL,
    answer      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (app, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_at ON answers (at);

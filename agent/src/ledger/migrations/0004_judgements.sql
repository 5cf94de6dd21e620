-- How an account stood by the server's last word, for the rows from this one on that were judged by it:
-- what `tally explain` says. Nothing is decided by it.
CREATE TABLE judgements (
    account INTEGER NOT NULL REFERENCES accounts (no),
    seq     INTEGER NOT NULL,
    total   INTEGER NOT NULL,
    as_of   INTEGER NOT NULL,
    max_consumptions              INTEGER NOT NULL,
    allow_unlimited_consumptions  INTEGER NOT NULL,
    allow_negative_consumptions   INTEGER NOT NULL,
    allow_overages                INTEGER NOT NULL,
    max_overages                  INTEGER NOT NULL,
    period  TEXT,
    PRIMARY KEY (account, seq)
) STRICT, WITHOUT ROWID;

-- How the account stood when the batch was last sent, since when it is held, whether its period was
-- over when it was sent, and when it reached its end.
ALTER TABLE batches ADD COLUMN before_limits TEXT;      -- limits and period, as JSON
ALTER TABLE batches ADD COLUMN held_at INTEGER;
ALTER TABLE batches ADD COLUMN late INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN ended_at INTEGER;
ALTER TABLE batches ADD COLUMN sealed_proven INTEGER NOT NULL DEFAULT 0;    -- as consumptions.proven

-- A batch that was sealed before limits were kept: those that its account has now.
UPDATE batches SET before_limits = (
    SELECT json_array(
        json_object(
            'max_consumptions', max_consumptions,
            'allow_unlimited_consumptions', json(iif(allow_unlimited_consumptions, 'true', 'false')),
            'allow_negative_consumptions', json(iif(allow_negative_consumptions, 'true', 'false')),
            'allow_overages', json(iif(accounts.allow_overages, 'true', 'false')),
            'max_overages', accounts.max_overages
        ),
        accounts.period
    )
    FROM lanes JOIN accounts ON accounts.no = lanes.account WHERE lanes.no = batches.lane
) WHERE id IS NOT NULL;

UPDATE batches SET ended_at = coalesce(sent_at, sealed_at, 0) WHERE state IN ('settled', 'superseded');

DROP INDEX batches_owed;
CREATE INDEX batches_owed ON batches (no) WHERE state NOT IN ('settled', 'superseded', 'waived');
CREATE INDEX batches_ended ON batches (ended_at) WHERE ended_at IS NOT NULL;

-- Units given up by a person, and units settled that were sent after their period was over.
ALTER TABLE accounts ADD COLUMN waived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN late INTEGER NOT NULL DEFAULT 0;

-- What else happened to the ledger: decisions, recoveries. They take their places among the rows and in
-- their chain.
CREATE TABLE notes (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    proven INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL,                   -- JSON
    hash   BLOB NOT NULL
) STRICT;

-- Places whose rows were folded into daily sums, with the hash of the last of them: the chain goes on
-- from there.
CREATE TABLE anchors (
    first_seq INTEGER PRIMARY KEY,
    last_seq  INTEGER NOT NULL,
    hash      BLOB NOT NULL,
    at        INTEGER NOT NULL,             -- the time of the last of them, and whether it was proven
    proven    INTEGER NOT NULL
) STRICT;

-- What the folded rows came to.
CREATE TABLE daily (
    day     INTEGER NOT NULL,               -- its start in UTC
    lane    INTEGER NOT NULL REFERENCES lanes (no),
    app     INTEGER NOT NULL REFERENCES apps (no),
    outcome TEXT NOT NULL CHECK (outcome IN ('settled', 'waived')),
    late    INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    units   INTEGER NOT NULL,
    PRIMARY KEY (day, lane, app, outcome, late)
) STRICT, WITHOUT ROWID;

-- Answers are forgotten by proven times only.
ALTER TABLE answers ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
DROP INDEX answers_at;
CREATE INDEX answers_at ON answers (at) WHERE proven;
CREATE INDEX answers_unproven ON answers (app, key) WHERE NOT proven;

-- Whether something contradicts the total, or nobody knows how old it is: it is read again before a batch
-- goes out that only a total could tell of.
ALTER TABLE accounts ADD COLUMN stale INTEGER NOT NULL DEFAULT 0;

-- What only the holder of the chain's key can make: see core/chain.rs.
ALTER TABLE accounts ADD COLUMN seal BLOB;      -- over its running sums
ALTER TABLE anchors ADD COLUMN seal BLOB;       -- over its places and its hash

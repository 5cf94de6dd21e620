-- How often the server certainly refused a batch's rows (a part of its id), under which server and credentials its key is
-- known, and what of its overage setting is left out, because a later setting replaced it (1: allow_overages, 2:
-- max_overages). Whether a server without keys refused its last attempt, and the total was not read since.
ALTER TABLE batches ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN peer TEXT;
ALTER TABLE batches ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;

-- Why the server refuses this counter while the licence goes on, the newest rows that set allow_overages and max_overages,
-- and the consumption pool that limits it too (JSON).
ALTER TABLE accounts ADD COLUMN refused TEXT;
ALTER TABLE accounts ADD COLUMN allow_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN max_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN pool TEXT;

-- What names open: a licence is the server's id, and keys and users point to it. The default is the licence that the server
-- takes for a request that names no id.
CREATE TABLE names (
    product      TEXT NOT NULL,
    holder_field TEXT NOT NULL CHECK (holder_field IN ('license_key', 'username')),
    holder_value TEXT NOT NULL,
    hardware_id  TEXT NOT NULL,
    license      INTEGER NOT NULL REFERENCES licenses (no),
    is_default   INTEGER NOT NULL,
    PRIMARY KEY (product, holder_field, holder_value, hardware_id, license)
) STRICT, WITHOUT ROWID;

-- Each licence was known by one name. Of several of one name, requests without an id went to the first.
INSERT INTO names
SELECT product, holder_field, holder_value, hardware_id, licenses.no,
       licenses.no = (
           SELECT min(first.no) FROM licenses first JOIN devices known ON known.license = first.no
           WHERE first.product = licenses.product AND first.holder_field = licenses.holder_field
             AND first.holder_value = licenses.holder_value AND known.hardware_id = devices.hardware_id
       )
FROM licenses JOIN devices ON devices.license = licenses.no;

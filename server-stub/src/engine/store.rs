//! The stub's storage: licences as JSON documents, the activity log and stored answers, in SQLite.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use tally_shared::{
    time::Timestamp,
    wire::{ApiError, ErrorCode, Subject},
};

use super::{Activity, EngineError, Reply};
use crate::seed::{ApiKey, License, Seed};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS clock (offset_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS api_keys (api_key TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS products (code TEXT PRIMARY KEY) STRICT;
    CREATE TABLE IF NOT EXISTS licenses (
        id       INTEGER PRIMARY KEY,
        product  TEXT NOT NULL,
        field    TEXT NOT NULL,
        value    TEXT NOT NULL,
        document TEXT NOT NULL,
        as_of    INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS licenses_by_holder ON licenses (product, field, value);
    CREATE TABLE IF NOT EXISTS activity (
        no         INTEGER PRIMARY KEY,
        license_id INTEGER NOT NULL,
        document   TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS activity_by_license ON activity (license_id);
    CREATE TABLE IF NOT EXISTS answers (
        api_key TEXT NOT NULL,
        key     TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        status  INTEGER NOT NULL,
        body    TEXT NOT NULL,
        signature TEXT,
        PRIMARY KEY (api_key, key)
    ) STRICT, WITHOUT ROWID;
";

/// The first answer to a request with an `Idempotency-Key`.
pub(super) struct StoredAnswer {
    fingerprint: Vec<u8>,
    status: u16,
    body: String,
    signature: Option<String>,
}

/// Makes the tables, and fills new ones from the seed.
pub(super) fn prepare(
    connection: &mut Connection,
    seed: &Seed,
    now: Timestamp,
) -> Result<(), EngineError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let tx = connection.transaction()?;
    tx.execute_batch(SCHEMA)?;
    let is_new = tx.query_row("SELECT count(*) = 0 FROM clock", [], |row| row.get(0))?;
    if is_new {
        tx.execute("INSERT INTO clock VALUES (0)", [])?;
        for key in &seed.api_keys {
            let document = serde_json::to_string(key)?;
            tx.execute(
                "INSERT INTO api_keys VALUES (?1, ?2)",
                [&key.api_key, &document],
            )?;
        }
        for product in &seed.products {
            tx.execute("INSERT INTO products VALUES (?1)", [&product.code])?;
        }
        for license in &seed.licenses {
            put_license(&tx, license, now)?;
        }
    }
    Ok(tx.commit()?)
}

pub(super) fn now(connection: &Connection) -> rusqlite::Result<Timestamp> {
    let system = Timestamp::from_system_time(SystemTime::now());
    Ok(system.plus_millis(clock_offset(connection)?))
}

pub(super) fn clock_offset(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT offset_ms FROM clock")?
        .query_row([], |row| row.get(0))
}

pub(super) fn set_clock_offset(connection: &Connection, offset_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("UPDATE clock SET offset_ms = ?1", [offset_ms])
        .map(|_| ())
}

pub(super) fn api_key(connection: &Connection, api_key: &str) -> rusqlite::Result<Option<ApiKey>> {
    let document: Option<String> = connection
        .prepare_cached("SELECT document FROM api_keys WHERE api_key = ?1")?
        .query_row([api_key], |row| row.get(0))
        .optional()?;
    // What is stored was serialised here.
    Ok(document.and_then(|document| serde_json::from_str(&document).ok()))
}

pub(super) fn has_product(connection: &Connection, code: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM products WHERE code = ?1)
                 OR EXISTS (SELECT 1 FROM licenses WHERE product = ?1)",
        )?
        .query_row([code], |row| row.get(0))
}

/// The licence that a request means; the first one where a user holds several.
pub(super) fn find_license(
    connection: &Connection,
    now: Timestamp,
    subject: &Subject,
) -> Result<Option<License>, EngineError> {
    let found = connection
        .prepare_cached(
            "SELECT document, as_of FROM licenses
             WHERE product = ?1 AND field = ?2 AND value = ?3 AND (?4 IS NULL OR id = ?4)
             ORDER BY id LIMIT 1",
        )?
        .query_row(
            params![
                subject.product,
                subject.holder.field(),
                subject.holder.value(),
                subject.license_id
            ],
            document_and_time,
        )
        .optional()?;
    found.map(|found| current(&found, now)).transpose()
}

pub(super) fn license(
    connection: &Connection,
    now: Timestamp,
    id: i64,
) -> Result<Option<License>, EngineError> {
    let found = connection
        .prepare_cached("SELECT document, as_of FROM licenses WHERE id = ?1")?
        .query_row([id], document_and_time)
        .optional()?;
    found.map(|found| current(&found, now)).transpose()
}

pub(super) fn licenses(
    connection: &Connection,
    now: Timestamp,
) -> Result<Vec<License>, EngineError> {
    let mut statement = connection.prepare("SELECT document, as_of FROM licenses ORDER BY id")?;
    let rows = statement.query_map([], document_and_time)?;
    rows.map(|row| current(&row?, now)).collect()
}

/// Keeps a licence whose totals are right at `now`.
pub(super) fn put_license(
    connection: &Connection,
    license: &License,
    now: Timestamp,
) -> Result<(), EngineError> {
    let holder = license.holder();
    connection
        .prepare_cached("INSERT OR REPLACE INTO licenses VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            license.id,
            license.product,
            holder.field(),
            holder.value(),
            serde_json::to_string(license)?,
            now.as_millis()
        ])?;
    Ok(())
}

pub(super) fn add_activity(
    connection: &Connection,
    activity: &Activity,
) -> Result<(), EngineError> {
    connection
        .prepare_cached("INSERT INTO activity (license_id, document) VALUES (?1, ?2)")?
        .execute(params![
            activity.license_id,
            serde_json::to_string(activity)?
        ])?;
    Ok(())
}

pub(super) fn activity(
    connection: &Connection,
    license_id: Option<i64>,
) -> Result<Vec<Value>, EngineError> {
    let mut statement = connection
        .prepare("SELECT document FROM activity WHERE ?1 IS NULL OR license_id = ?1 ORDER BY no")?;
    let rows = statement.query_map([license_id], |row| row.get::<_, String>(0))?;
    rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
}

pub(super) fn stored_answer(
    connection: &Connection,
    (api_key, key): &(String, String),
) -> rusqlite::Result<Option<StoredAnswer>> {
    connection
        .prepare_cached(
            "SELECT fingerprint, status, body, signature FROM answers
             WHERE api_key = ?1 AND key = ?2",
        )?
        .query_row([api_key, key], |row| {
            Ok(StoredAnswer {
                fingerprint: row.get(0)?,
                status: row.get(1)?,
                body: row.get(2)?,
                signature: row.get(3)?,
            })
        })
        .optional()
}

pub(super) fn store_answer(
    connection: &Connection,
    (api_key, key): &(String, String),
    answer: &StoredAnswer,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            api_key,
            key,
            answer.fingerprint,
            answer.status,
            answer.body,
            answer.signature
        ])
        .map(|_| ())
}

impl StoredAnswer {
    pub(super) fn new(reply: &Reply, fingerprint: Vec<u8>) -> Self {
        Self {
            fingerprint,
            status: reply.status,
            body: reply.body.clone(),
            signature: reply.signature.clone(),
        }
    }

    /// The answer to another request under the same key.
    pub(super) fn reply_to(self, fingerprint: &[u8]) -> Reply {
        if self.fingerprint != fingerprint {
            return Reply::refused(&ApiError::new(
                ErrorCode::IdempotencyKeyReused,
                "this Idempotency-Key came with another request before",
            ));
        }
        Reply {
            status: self.status,
            body: self.body,
            signature: self.signature,
            replayed: true,
            applied: false,
        }
    }
}

fn document_and_time(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn current((document, as_of): &(String, i64), now: Timestamp) -> Result<License, EngineError> {
    let mut license: License = serde_json::from_str(document)?;
    license.turn_periods(Timestamp::from_millis(*as_of), now);
    Ok(license)
}

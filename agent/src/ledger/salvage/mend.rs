//! Records that were read and make no sense by themselves: they are put right where the rest says how,
//! and otherwise made harmless. Nothing is sent on the word of a record that was put right.

use rusqlite::{Connection, params};
use tally_shared::{
    limits::Limits,
    period::Period,
    time::Timestamp,
    wire::{ErrorCode, LicenseBody},
};
use uuid::Uuid;

use crate::{core::book::Hold, ledger::store};

/// What a licence of which nothing is known is taken to be; the server's next answer replaces it.
const UNKNOWN_BODY: &str = r#"{"id":0,"max_consumptions":0,"total_consumptions":0,
"allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"allow_overages":false,
"max_overages":0,"reset_consumption":false,"consumption_period":null,"license_type":"consumption",
"license_active":true,"license_enabled":true}"#;

/// The body of a licence of which nothing is known, with this id.
pub(super) fn unknown_body(id: i64) -> String {
    UNKNOWN_BODY.replacen("\"id\":0", &format!("\"id\":{id}"), 1)
}

/// Mends all records. Returns what was wrong.
pub(super) fn records(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (no, id, body, blocked) in licenses(connection)? {
        if serde_json::from_str::<LicenseBody>(&body).is_err() {
            connection.execute(
                "UPDATE licenses SET body = ?2 WHERE no = ?1",
                params![no, unknown_body(id)],
            )?;
            wrong.push(format!(
                "the limits of licence {no}; the server is asked for them again"
            ));
        }
        if !is_code(blocked.as_deref()) {
            connection.execute("UPDATE licenses SET blocked = NULL WHERE no = ?1", [no])?;
            wrong.push(format!(
                "why licence {no} is refused; the server is asked again"
            ));
        }
    }
    for (license, hardware_id, blocked) in devices(connection)? {
        if !is_code(blocked.as_deref()) {
            connection.execute(
                "UPDATE devices SET blocked = NULL WHERE license = ?1 AND hardware_id = ?2",
                params![license, hardware_id],
            )?;
            wrong.push(format!("why a device of licence {license} is refused"));
        }
    }
    for (no, period) in periods(connection)? {
        let known = |name: &str| Period::ALL.iter().any(|period| period.as_str() == name);
        if !period.as_deref().is_none_or(known) {
            connection.execute("UPDATE accounts SET period = NULL WHERE no = ?1", [no])?;
            wrong.push(format!(
                "the period of account {no}; the server is asked for it again"
            ));
        }
    }
    // As the migration that added these columns did.
    connection.execute(
        "UPDATE batches SET ended_at = coalesce(ended_at, sent_at, sealed_at, 0)
         WHERE state IN ('settled', 'superseded', 'waived')",
        [],
    )?;
    connection.execute(
        "UPDATE batches SET ended_at = NULL WHERE state NOT IN ('settled', 'superseded', 'waived')",
        [],
    )?;
    for batch in owed(connection)? {
        if !batch.makes_sense() {
            hold(connection, batch.no, Timestamp::default())?;
            wrong.push(format!("what became of batch {}; it is held", batch.no));
        }
    }
    Ok(wrong)
}

/// Holds a batch until a person decides, in a form in which it can be decided about.
pub(super) fn hold(connection: &Connection, no: i64, now: Timestamp) -> rusqlite::Result<()> {
    let found: Option<String> =
        connection.query_row("SELECT id FROM batches WHERE no = ?1", [no], |row| {
            row.get(0)
        })?;
    let id = found.filter(|id| Uuid::parse_str(id).is_ok());
    let id = id.unwrap_or_else(|| {
        uuid::Builder::from_random_bytes(rand::random())
            .into_uuid()
            .to_string()
    });
    connection
        .prepare_cached(
            "UPDATE batches SET state = 'held', reason = 'undecidable', closed = 1, id = ?2,
                 sealed_at = coalesce(sealed_at, ?3), sent_at = coalesce(sent_at, ?3),
                 attempts = coalesce(attempts, 0), held_at = coalesce(held_at, ?3), ended_at = NULL,
                 (before_total, before_as_of, before_limits) = (
                     SELECT coalesce(before_total, total), coalesce(before_as_of, as_of), json_array(
                         json_object(
                             'max_consumptions', max_consumptions,
                             'allow_unlimited_consumptions', json(iif(allow_unlimited_consumptions, 'true', 'false')),
                             'allow_negative_consumptions', json(iif(allow_negative_consumptions, 'true', 'false')),
                             'allow_overages', json(iif(accounts.allow_overages, 'true', 'false')),
                             'max_overages', accounts.max_overages
                         ),
                         accounts.period
                     )
                     FROM lanes JOIN accounts ON accounts.no = lanes.account
                     WHERE lanes.no = batches.lane)
             WHERE no = ?1",
        )?
        .execute(params![no, id, now.as_millis()])
        .map(|_| ())
}

struct Owed {
    no: i64,
    state: String,
    reason: Option<String>,
    id: Option<String>,
    limits: Option<String>,
    numbers: [Option<i64>; 5],
}

impl Owed {
    /// Whether the agent can read it, and it says of itself what it must say in its state.
    fn makes_sense(&self) -> bool {
        let is_id = self
            .id
            .as_deref()
            .is_some_and(|id| Uuid::parse_str(id).is_ok());
        let is_limits = |text: &str| serde_json::from_str::<(Limits, Option<Period>)>(text).is_ok();
        let is_sealed = is_id
            && self.limits.as_deref().is_some_and(is_limits)
            && self.numbers.iter().all(Option::is_some);
        let is_open = self.id.is_none() && self.numbers.iter().all(Option::is_none);
        match (self.state.as_str(), self.reason.as_deref()) {
            ("open", _) => is_open,
            ("held", Some(reason)) => match store::hold(reason) {
                Ok(Hold::Undecidable | Hold::Gone(_)) => is_sealed,
                // What a limit left over is held, and was not sealed.
                Ok(_) => is_open || is_sealed,
                Err(_) => false,
            },
            ("held", None) => false,
            _ => is_sealed,
        }
    }
}

fn owed(connection: &Connection) -> rusqlite::Result<Vec<Owed>> {
    let sql = "SELECT no, state, reason, id, before_limits, sealed_at, attempts, before_total,
                      before_as_of, sent_at
               FROM batches WHERE state NOT IN ('settled', 'superseded', 'waived')";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Owed {
            no: row.get(0)?,
            state: row.get(1)?,
            reason: row.get(2)?,
            id: row.get(3)?,
            limits: row.get(4)?,
            numbers: [
                row.get(5)?,
                row.get(6)?,
                row.get(7)?,
                row.get(8)?,
                row.get(9)?,
            ],
        })
    })?;
    rows.collect()
}

fn is_code(name: Option<&str>) -> bool {
    name.is_none_or(|name| ErrorCode::from_name(name).is_some())
}

type LicenseRow = (i64, i64, String, Option<String>);

fn licenses(connection: &Connection) -> rusqlite::Result<Vec<LicenseRow>> {
    let mut statement = connection.prepare("SELECT no, id, body, blocked FROM licenses")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    rows.collect()
}

fn devices(connection: &Connection) -> rusqlite::Result<Vec<(i64, String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT license, hardware_id, blocked FROM devices")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn periods(connection: &Connection) -> rusqlite::Result<Vec<(i64, Option<String>)>> {
    let mut statement = connection.prepare("SELECT no, period FROM accounts")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

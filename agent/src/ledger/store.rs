//! Writing a book's changes into the ledger, and reading a book back.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, named_params, params};
use tally_shared::{
    limits::{Limits, OverageSetting, Standing},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{ConsumptionEvent, ErrorCode, Holder},
};
use uuid::Uuid;

use super::LedgerError;
use crate::core::{
    book::{
        Account, AccountNo, AppNo, Batch, BatchNo, BatchState, Book, Contents, Hold, Lane, LaneKey,
        LaneNo, License, LicenseNo, Op, Pause, Sealed, Seq,
    },
    chain::Hash,
    clock::SavedClock,
    event::Prefix,
};

const CLOCK: &str = "clock";
const IDEMPOTENT: &str = "server_keeps_idempotency_keys";

type Result<T, E = LedgerError> = std::result::Result<T, E>;

// === writing ===

/// Writes all of a book's changes.
pub fn write_changes(tx: &Transaction<'_>, book: &Book) -> rusqlite::Result<()> {
    for license in book.changed_licenses() {
        write_license(tx, license)?;
    }
    for account in book.changed_accounts() {
        write_account(tx, account)?;
    }
    for lane in book.new_lanes() {
        write_lane(tx, lane)?;
    }
    write_rows(tx, book)?;
    for batch in book.changed_batches() {
        write_batch(tx, batch)?;
    }
    if book.idempotent_changed() {
        write_meta(tx, IDEMPOTENT, if book.idempotent() { "1" } else { "0" })?;
    }
    Ok(())
}

/// Writes the clock.
pub fn write_clock(connection: &Connection, clock: &SavedClock) -> rusqlite::Result<()> {
    let text = serde_json::to_string(clock)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    write_meta(connection, CLOCK, &text)
}

/// The number of an application, made if it has none.
pub fn app_no(connection: &Connection, name: &str) -> rusqlite::Result<AppNo> {
    connection.execute("INSERT OR IGNORE INTO apps (name) VALUES (?1)", [name])?;
    connection
        .query_row("SELECT no FROM apps WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .map(AppNo)
}

fn write_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute([key, value])
        .map(|_| ())
}

fn write_license(tx: &Transaction<'_>, license: &License) -> rusqlite::Result<()> {
    let body = serde_json::to_string(&license.body)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached(
        "INSERT INTO licenses
         VALUES (:no, :product, :field, :value, :id, :body, :blocked, :refreshed_at)
         ON CONFLICT (no) DO UPDATE SET
             id = :id, body = :body, blocked = :blocked, refreshed_at = :refreshed_at",
    )?
    .execute(named_params! {
        ":no": license.no.0,
        ":product": license.product,
        ":field": license.holder.field(),
        ":value": license.holder.value(),
        ":id": license.id,
        ":body": body,
        ":blocked": license.blocked.map(ErrorCode::as_str),
        ":refreshed_at": license.refreshed_at.as_millis(),
    })?;
    let mut statement = tx.prepare_cached(
        "INSERT OR REPLACE INTO devices (license, hardware_id, blocked) VALUES (?1, ?2, ?3)",
    )?;
    for (hardware_id, blocked) in &license.devices {
        statement.execute(params![
            license.no.0,
            hardware_id,
            blocked.map(ErrorCode::as_str)
        ])?;
    }
    Ok(())
}

fn write_account(tx: &Transaction<'_>, account: &Account) -> rusqlite::Result<()> {
    let Standing {
        limits,
        reset,
        total,
        as_of,
    } = account.standing;
    tx.prepare_cached(
        "INSERT INTO accounts
         VALUES (:no, :license, :feature, :max, :unlimited, :negative, :overages, :max_overages,
                 :period, :total, :as_of, :shared, :recorded, :settled, :rows)
         ON CONFLICT (no) DO UPDATE SET
             max_consumptions = :max, allow_unlimited_consumptions = :unlimited,
             allow_negative_consumptions = :negative, allow_overages = :overages,
             max_overages = :max_overages, period = :period, total = :total, as_of = :as_of,
             shared = :shared, recorded = :recorded, settled = :settled, row_count = :rows",
    )?
    .execute(named_params! {
        ":no": account.no.0,
        ":license": account.license.0,
        ":feature": account.feature,
        ":max": limits.max_consumptions,
        ":unlimited": limits.allow_unlimited_consumptions,
        ":negative": limits.allow_negative_consumptions,
        ":overages": limits.allow_overages,
        ":max_overages": limits.max_overages,
        ":period": reset.map(Period::as_str),
        ":total": total.get(),
        ":as_of": as_of.as_millis(),
        ":shared": account.shared,
        ":recorded": account.recorded.get(),
        ":settled": account.settled.get(),
        ":rows": i64::try_from(account.rows).unwrap_or(i64::MAX),
    })
    .map(|_| ())
}

fn write_lane(tx: &Transaction<'_>, lane: &Lane) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO lanes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            lane.no.0,
            lane.key.account.0,
            lane.key.hardware_id,
            lane.key.event.as_str(),
            lane.key.period.map(Timestamp::as_millis),
            lane.key.setting.allow_overages,
            lane.key.setting.max_overages,
        ])
        .map(|_| ())
}

fn write_rows(tx: &Transaction<'_>, book: &Book) -> rusqlite::Result<()> {
    let mut statement =
        tx.prepare_cached("INSERT INTO consumptions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for row in book.new_rows() {
        statement.execute(params![
            row.seq.0,
            row.lane.0,
            row.app.0,
            row.units.get(),
            row.total.get(),
            row.at.as_millis(),
            row.time_proven,
            row.hash.0,
        ])?;
    }
    Ok(())
}

fn write_batch(tx: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let (state, reason) = state_names(batch.state);
    let sealed = batch.sealed.as_ref();
    tx.prepare_cached(
        "INSERT OR REPLACE INTO batches
         VALUES (:no, :lane, :first, :last, :rows, :units, :state, :reason, :closed,
                 :id, :sealed_at, :attempts, :before_total, :before_as_of, :sent_at)",
    )?
    .execute(named_params! {
        ":no": batch.no.0,
        ":lane": batch.lane.0,
        ":first": batch.first.0,
        ":last": batch.last.0,
        ":rows": i64::try_from(batch.rows).unwrap_or(i64::MAX),
        ":units": batch.units.get(),
        ":state": state,
        ":reason": reason,
        ":closed": batch.closed,
        ":id": sealed.map(|sealed| sealed.id.to_string()),
        ":sealed_at": sealed.map(|sealed| sealed.at.as_millis()),
        ":attempts": sealed.map(|sealed| sealed.attempts),
        ":before_total": sealed.map(|sealed| sealed.before.0.get()),
        ":before_as_of": sealed.map(|sealed| sealed.before.1.as_millis()),
        ":sent_at": sealed.map(|sealed| sealed.sent_at.as_millis()),
    })
    .map(|_| ())
}

const LIMIT: &str = "limit";
const UNDECIDABLE: &str = "undecidable";
const DEFECT: &str = "defect:";

fn state_names(state: BatchState) -> (&'static str, Option<String>) {
    match state {
        BatchState::Open => ("open", None),
        BatchState::Sealed => ("sealed", None),
        BatchState::Sent => ("sent", None),
        BatchState::Unknown { .. } => ("unknown", None),
        BatchState::Settled => ("settled", None),
        BatchState::Superseded => ("superseded", None),
        BatchState::Held(hold) => (
            "held",
            Some(match hold {
                Hold::Limit { .. } => LIMIT.to_owned(),
                Hold::Undecidable => UNDECIDABLE.to_owned(),
                Hold::Refused(code) => code.as_str().to_owned(),
                Hold::Defect(code) => format!("{DEFECT}{}", code.as_str()),
            }),
        ),
    }
}

// === reading ===

/// Reads everything that the book needs. Rows are not among it: their sums stand in the batches and
/// accounts, in the same commits as the rows.
pub fn load(connection: &Connection) -> Result<Contents> {
    let batches = read_batches(connection)?;
    let head = connection
        .query_row(
            "SELECT seq, hash FROM consumptions ORDER BY seq DESC LIMIT 1",
            [],
            |row| Ok((Seq(row.get(0)?), Hash(row.get(1)?))),
        )
        .optional()
        .map_err(LedgerError::while_doing("reading the newest row"))?;
    let last_batch = connection
        .query_row("SELECT coalesce(max(no), 0) FROM batches", [], |row| {
            row.get(0)
        })
        .map_err(LedgerError::while_doing("reading the batches"))?;
    Ok(Contents {
        licenses: read_licenses(connection)?,
        accounts: read_accounts(connection)?,
        lanes: read_lanes(connection)?,
        batches,
        head: head.unwrap_or((Seq(0), Hash::ORIGIN)),
        last_batch: BatchNo(last_batch),
        idempotent: read_meta(connection, IDEMPOTENT)?.as_deref() == Some("1"),
    })
}

/// The clock as it was saved.
pub fn load_clock(connection: &Connection) -> Result<Option<SavedClock>> {
    let text = read_meta(connection, CLOCK)?;
    // A clock that cannot be read is a clock that was never saved: the time is unproven.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The time of the newest row: no later row may be before it, unless that time was never proven.
pub fn high_water(connection: &Connection) -> Result<Timestamp> {
    let at: Option<i64> = connection
        .query_row(
            "SELECT at FROM consumptions ORDER BY seq DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()
        .map_err(LedgerError::while_doing("reading the newest row"))?;
    Ok(at.map(Timestamp::from_millis).unwrap_or_default())
}

/// The longest prefix of a batch's rows whose units fit.
pub fn find_prefix(
    connection: &Connection,
    lane: LaneNo,
    (first, last): (Seq, Seq),
    room: Option<i64>,
) -> rusqlite::Result<Option<Prefix>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, units FROM consumptions WHERE seq BETWEEN ?1 AND ?2 AND lane = ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![first.0, last.0, lane.0])?;
    let mut found = None;
    let (mut count, mut sum) = (0, Units::ZERO);
    while let Some(row) = rows.next()? {
        count += 1;
        // In range: the batch's own sum was checked when its rows were granted.
        sum = sum.checked_add(Units::new(row.get(1)?)).unwrap_or(sum);
        if room.is_none_or(|room| sum.get() <= room) {
            found = Some(Prefix {
                last: Seq(row.get(0)?),
                rows: count,
                units: sum,
            });
        }
    }
    Ok(found)
}

fn read_meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()
        .map_err(LedgerError::while_doing("reading its settings"))
}

/// Reads all rows of a query; `read` may find a value that cannot be understood.
fn read_all<T>(
    connection: &Connection,
    doing: &'static str,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Result<T>>,
) -> Result<Vec<T>> {
    let failed = |source| LedgerError::Sqlite { doing, source };
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| read(row)).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
}

fn read_licenses(connection: &Connection) -> Result<Vec<License>> {
    let mut devices: BTreeMap<i64, BTreeMap<String, Option<ErrorCode>>> = BTreeMap::new();
    let sql = "SELECT license, hardware_id, blocked FROM devices";
    let found = read_all(connection, "reading the devices", sql, |row| {
        let (license, device): (i64, String) = (row.get(0)?, row.get(1)?);
        let blocked: Option<String> = row.get(2)?;
        Ok(error_code(blocked).map(|blocked| (license, device, blocked)))
    })?;
    for (license, device, blocked) in found {
        devices.entry(license).or_default().insert(device, blocked);
    }
    let sql = "SELECT no, product, holder_field, holder_value, id, body, blocked, refreshed_at
               FROM licenses ORDER BY no";
    read_all(connection, "reading the licences", sql, |row| {
        let no: i64 = row.get(0)?;
        let (field, value): (String, String) = (row.get(2)?, row.get(3)?);
        let (product, id, body): (String, i64, String) = (row.get(1)?, row.get(4)?, row.get(5)?);
        let blocked: Option<String> = row.get(6)?;
        let refreshed_at = Timestamp::from_millis(row.get(7)?);
        let devices = devices.get(&no).cloned().unwrap_or_default();
        Ok(error_code(blocked).and_then(|blocked| {
            Ok(License {
                no: LicenseNo(no),
                product,
                holder: match field.as_str() {
                    "license_key" => Holder::LicenseKey(value),
                    _ => Holder::Username(value),
                },
                id,
                body: serde_json::from_str(&body)
                    .map_err(|_| malformed("a licence", body.clone()))?,
                blocked,
                devices,
                refreshed_at,
                op: Op::Idle,
                pause: Pause::default(),
                probe: Pause::default(),
                refresh_at: Duration::ZERO,
            })
        }))
    })
}

fn read_accounts(connection: &Connection) -> Result<Vec<Account>> {
    let sql = "SELECT no, license, feature, max_consumptions, allow_unlimited_consumptions,
                      allow_negative_consumptions, allow_overages, max_overages, period, total,
                      as_of, shared, recorded, settled, row_count
               FROM accounts ORDER BY no";
    read_all(connection, "reading the accounts", sql, |row| {
        let limits = Limits {
            max_consumptions: row.get(3)?,
            allow_unlimited_consumptions: row.get(4)?,
            allow_negative_consumptions: row.get(5)?,
            allow_overages: row.get(6)?,
            max_overages: row.get(7)?,
        };
        let period: Option<String> = row.get(8)?;
        let reset = period.map(|name| {
            let found = Period::ALL
                .into_iter()
                .find(|period| period.as_str() == name);
            found.ok_or_else(|| malformed("a period", name))
        });
        let reset = match reset.transpose() {
            Ok(reset) => reset,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Account {
            no: AccountNo(row.get(0)?),
            license: LicenseNo(row.get(1)?),
            feature: row.get(2)?,
            standing: Standing {
                limits,
                reset,
                total: Total::new(row.get(9)?),
                as_of: Timestamp::from_millis(row.get(10)?),
            },
            heard_at: Duration::ZERO,
            stale: false,
            shared: row.get(11)?,
            recorded: Units::new(row.get(12)?),
            settled: Units::new(row.get(13)?),
            rows: u64::try_from(row.get::<_, i64>(14)?).unwrap_or(0),
        }))
    })
}

fn read_lanes(connection: &Connection) -> Result<Vec<(LaneNo, LaneKey)>> {
    let sql = "SELECT no, account, hardware_id, event, period, allow_overages, max_overages
               FROM lanes ORDER BY no";
    read_all(connection, "reading the lanes", sql, |row| {
        let event: String = row.get(3)?;
        let period: Option<i64> = row.get(4)?;
        let key = LaneKey {
            account: AccountNo(row.get(1)?),
            hardware_id: row.get(2)?,
            event: if event == ConsumptionEvent::OfflineSync.as_str() {
                ConsumptionEvent::OfflineSync
            } else {
                ConsumptionEvent::Add
            },
            period: period.map(Timestamp::from_millis),
            setting: OverageSetting {
                allow_overages: row.get(5)?,
                max_overages: row.get(6)?,
            },
        };
        Ok(Ok((LaneNo(row.get(0)?), key)))
    })
}

fn read_batches(connection: &Connection) -> Result<Vec<Batch>> {
    let sql = "SELECT batches.no, lane, account, first_seq, last_seq, row_count, units, state,
                      reason, closed, id, sealed_at, attempts, before_total, before_as_of, sent_at
               FROM batches JOIN lanes ON lanes.no = lane
               WHERE state NOT IN ('settled', 'superseded') ORDER BY batches.no";
    read_all(connection, "reading the batches", sql, |row| {
        let (state, reason): (String, Option<String>) = (row.get(7)?, row.get(8)?);
        let sealed = match row.get::<_, Option<String>>(10)? {
            None => None,
            Some(id) => match Uuid::parse_str(&id) {
                Ok(id) => Some(Sealed {
                    id,
                    at: Timestamp::from_millis(row.get(11)?),
                    attempts: row.get(12)?,
                    before: (
                        Total::new(row.get(13)?),
                        Timestamp::from_millis(row.get(14)?),
                    ),
                    sent_at: Timestamp::from_millis(row.get(15)?),
                    doubtful: false,
                }),
                Err(_) => return Ok(Err(malformed("the id of a batch", id))),
            },
        };
        let (no, lane, account) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last) = (Seq(row.get(3)?), Seq(row.get(4)?));
        let rows = u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0);
        let (units, closed) = (Units::new(row.get(6)?), row.get(9)?);
        Ok(batch_state(&state, reason).map(|state| Batch {
            no: BatchNo(no),
            lane: LaneNo(lane),
            account: AccountNo(account),
            first,
            last,
            rows,
            units,
            state,
            opened_at: Duration::ZERO,
            sealed,
            closed,
        }))
    })
}

fn batch_state(state: &str, reason: Option<String>) -> Result<BatchState> {
    Ok(match (state, reason) {
        ("open", _) => BatchState::Open,
        ("sealed", _) => BatchState::Sealed,
        ("sent", _) => BatchState::Sent,
        ("unknown", _) => BatchState::Unknown {
            look_at: Duration::ZERO,
        },
        ("held", Some(reason)) => BatchState::Held(hold(&reason)?),
        (other, _) => return Err(malformed("the state of a batch", other.to_owned())),
    })
}

fn hold(reason: &str) -> Result<Hold> {
    match reason {
        LIMIT => return Ok(Hold::Limit { room_seen: None }),
        UNDECIDABLE => return Ok(Hold::Undecidable),
        _ => {}
    }
    let (make, name): (fn(ErrorCode) -> Hold, _) = match reason.strip_prefix(DEFECT) {
        Some(name) => (Hold::Defect, name),
        None => (Hold::Refused, reason),
    };
    let code = ErrorCode::from_name(name);
    code.map(make)
        .ok_or_else(|| malformed("the reason of a held batch", reason.to_owned()))
}

fn error_code(name: Option<String>) -> Result<Option<ErrorCode>> {
    name.map(|name| ErrorCode::from_name(&name).ok_or_else(|| malformed("an error code", name)))
        .transpose()
}

const fn malformed(what: &'static str, value: String) -> LedgerError {
    LedgerError::Malformed { what, value }
}

//! Reading a book back from the ledger.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tally_shared::{
    limits::{Limits, OverageSetting, Standing},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{ConsumptionEvent, ErrorCode, Holder},
};
use uuid::Uuid;

use super::{
    CHAIN_KEY, CLOCK, COPY, DEFECT, GENERATION, GONE, KEEPER, LATE, LEDGER_ID, LIMIT, SERVER,
    UNDECIDABLE, UNSURE,
};
use crate::{
    core::{
        book::{
            Account, AccountNo, AccountWatch, Batch, BatchNo, BatchState, Contents, Copies,
            Dropped, Finding, Hold, LaneKey, LaneNo, License, LicenseNo, Name, NewestSettings, Op,
            Pause, Readings, Sealed, Seq,
        },
        chain::{self, Hash},
        clock::SavedClock,
        event::Prefix,
    },
    ledger::LedgerError,
};

/// Most settled batches that are looked through for the newest of each account, at a start.
const SETTLED_READ_MAX: usize = 2048;

type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// Reads everything that the book needs. Rows are not among it: their sums stand in the batches and
/// accounts, in the same commits as the rows.
pub fn load(connection: &Connection, chain: &chain::Key) -> Result<Contents> {
    let batches = read_batches(connection)?;
    let head = read_head(connection)?;
    let last_batch = connection
        .query_row("SELECT coalesce(max(no), 0) FROM batches", [], |row| {
            row.get(0)
        })
        .map_err(LedgerError::while_doing("reading the batches"))?;
    Ok(Contents {
        licenses: read_licenses(connection)?,
        names: read_names(connection)?,
        accounts: read_accounts(connection)?,
        lanes: read_lanes(connection)?,
        batches,
        head: head.map_or((Seq(0), Hash::ORIGIN), |head| (head.seq, head.hash)),
        chain: chain.clone(),
        last_batch: BatchNo(last_batch),
        keeper: read_meta(connection, KEEPER)?.filter(|keeper| !keeper.is_empty()),
        // One that cannot be read is made anew: ids of batches that were sent before are kept with them.
        id: read_meta(connection, LEDGER_ID)?.and_then(|text| Uuid::parse_str(&text).ok()),
        findings: read_findings(connection)?,
        copies: read_copies(connection)?,
        // One that cannot be read is none.
        home: read_meta(connection, SERVER)?.and_then(|text| serde_json::from_str(&text).ok()),
        evidence: connection
            .query_row(
                "SELECT count(*) FROM notes WHERE kind = 'evidence'",
                [],
                |row| row.get::<_, i64>(0),
            )
            .map(i64::unsigned_abs)
            .map_err(LedgerError::while_doing("counting the evidence"))?,
    })
}

/// The findings that nobody has acknowledged. One that cannot be read was changed, which the chain shows.
fn read_findings(connection: &Connection) -> Result<Vec<Finding>> {
    let sql = "SELECT seq, body FROM notes WHERE kind = 'finding' ORDER BY seq";
    let found = read_all(connection, "reading the findings", sql, |row| {
        let (seq, body): (i64, String) = (row.get(0)?, row.get(1)?);
        Ok(Ok(Finding::from_body(Seq(seq), &body)))
    })?;
    let mut findings: Vec<Finding> = found.into_iter().flatten().collect();
    if findings.is_empty() {
        return Ok(findings);
    }
    let sql = "SELECT body FROM notes WHERE kind = 'decision' AND body LIKE '%\"finding\"%'";
    let seen = read_all(connection, "reading the decisions", sql, |row| {
        let body: String = row.get(0)?;
        Ok(Ok(Finding::acknowledged_by(&body)))
    })?;
    findings.retain(|finding| !seen.contains(&Some(finding.seq)));
    Ok(findings)
}

/// What notes say of copies, and what people said of them.
fn read_copies(connection: &Connection) -> Result<Copies> {
    let sql = "SELECT seq, at, kind, body FROM notes
               WHERE kind = 'evidence' OR (kind = 'decision' AND body LIKE '%\"device_%') ORDER BY seq";
    let notes = read_all(connection, "reading the evidence", sql, |row| {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (kind, body): (String, String) = (row.get(2)?, row.get(3)?);
        Ok(Ok((Seq(seq), Timestamp::from_millis(at), kind, body)))
    })?;
    let mut copies = Copies::default();
    for (seq, at, kind, body) in notes {
        match kind.as_str() {
            "evidence" => copies.take_evidence(seq, at, &body),
            _ => copies.take_decision(&body),
        }
    }
    Ok(copies)
}

/// The clock as it was saved.
pub fn load_clock(connection: &Connection) -> Result<Option<SavedClock>> {
    let text = read_meta(connection, CLOCK)?;
    // A clock that cannot be read is a clock that was never saved: the time is unproven.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The fingerprint of the key that the chain has.
pub fn chain_key(connection: &Connection) -> Result<Option<String>> {
    read_meta(connection, CHAIN_KEY)
}

/// How often more than rows was committed; `None` where nothing ever was, or that is lost.
pub fn generation(connection: &Connection) -> Result<Option<u64>> {
    Ok(read_meta(connection, GENERATION)?.and_then(|text| text.parse().ok()))
}

/// The hash of what stands at a place; [`Placed::Folded`] where that cannot be told any more.
pub fn hash_at(connection: &Connection, seq: Seq) -> Result<Placed> {
    let sql = "SELECT hash FROM consumptions WHERE seq = ?1
               UNION ALL SELECT hash FROM notes WHERE seq = ?1
               UNION ALL SELECT iif(last_seq = ?1, hash, NULL) FROM anchors
                   WHERE first_seq = (SELECT max(first_seq) FROM anchors WHERE first_seq <= ?1)
                       AND last_seq >= ?1";
    let found = connection
        .query_row(sql, [seq.0], |row| row.get::<_, Option<[u8; 32]>>(0))
        .optional();
    let found = found.map_err(LedgerError::while_doing("reading a place of it"))?;
    Ok(match found {
        None => Placed::Nothing,
        Some(None) => Placed::Folded,
        Some(Some(hash)) => Placed::Hash(Hash(hash)),
    })
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Something with this hash.
    Hash(Hash),
    /// A row that was folded.
    Folded,
    /// Nothing.
    Nothing,
}

/// The time of the newest row, and whether it was proven: no later row may be before it, unless it never
/// was.
pub fn high_water(connection: &Connection) -> Result<(Timestamp, bool)> {
    let head = read_head(connection)?;
    Ok(head
        .map(|head| (head.at, head.time_proven))
        .unwrap_or_default())
}

/// What stands at the end of the chain.
struct Head {
    seq: Seq,
    hash: Hash,
    at: Timestamp,
    time_proven: bool,
}

/// The newest row, note or anchor.
fn read_head(connection: &Connection) -> Result<Option<Head>> {
    connection
        .query_row(
            "SELECT seq, hash, at, proven FROM (
                 SELECT * FROM (SELECT seq, hash, at, proven FROM consumptions ORDER BY seq DESC LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT seq, hash, at, proven FROM notes ORDER BY seq DESC LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT last_seq, hash, at, proven FROM anchors
                                ORDER BY first_seq DESC LIMIT 1)
             ) ORDER BY seq DESC LIMIT 1",
            [],
            |row| {
                Ok(Head {
                    seq: Seq(row.get(0)?),
                    hash: Hash(row.get(1)?),
                    at: Timestamp::from_millis(row.get(2)?),
                    time_proven: row.get(3)?,
                })
            },
        )
        .optional()
        .map_err(LedgerError::while_doing("reading the newest row"))
}

/// The longest prefix of a batch's rows whose units fit.
pub fn find_prefix(
    connection: &Connection,
    lane: LaneNo,
    (first, last): (Seq, Seq),
    room: Option<i64>,
) -> rusqlite::Result<Option<Prefix>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, units, hash FROM consumptions WHERE seq BETWEEN ?1 AND ?2 AND lane = ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![first.0, last.0, lane.0])?;
    let mut found: Option<Prefix> = None;
    let (mut count, mut sum) = (0, Units::ZERO);
    while let Some(row) = rows.next()? {
        count += 1;
        let seq = Seq(row.get(0)?);
        // In range: the batch's own sum was checked when its rows were granted.
        sum = sum.checked_add(Units::new(row.get(1)?)).unwrap_or(sum);
        if room.is_none_or(|room| sum.get() <= room) {
            found = Some(Prefix {
                last: seq,
                rows: count,
                units: sum,
                hash: Hash(row.get(2)?),
                next: None,
            });
        } else if let Some(found) = &mut found {
            found.next.get_or_insert(seq);
        }
    }
    Ok(found)
}

/// A fact that has one value.
pub(in crate::ledger) fn fact(
    connection: &Connection,
    key: &str,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

fn read_meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    fact(connection, key).map_err(LedgerError::while_doing("reading its settings"))
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
                holder: holder(&field, value),
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

fn holder(field: &str, value: String) -> Holder {
    match field {
        "license_key" => Holder::LicenseKey(value),
        _ => Holder::Username(value),
    }
}

fn read_names(connection: &Connection) -> Result<Vec<(Name, LicenseNo, bool)>> {
    let sql =
        "SELECT product, holder_field, holder_value, hardware_id, license, is_default FROM names";
    read_all(connection, "reading the names of licences", sql, |row| {
        let (field, value): (String, String) = (row.get(1)?, row.get(2)?);
        let name = Name {
            product: row.get(0)?,
            holder: holder(&field, value),
            hardware_id: row.get(3)?,
        };
        Ok(Ok((name, LicenseNo(row.get(4)?), row.get(5)?)))
    })
}

fn read_accounts(connection: &Connection) -> Result<Vec<Account>> {
    let sql = "SELECT no, license, feature, max_consumptions, allow_unlimited_consumptions,
                      allow_negative_consumptions, allow_overages, max_overages, period, total,
                      as_of, shared, recorded, settled, row_count, waived, late, stale, refused,
                      allow_seq, max_seq, pool
               FROM accounts ORDER BY no";
    let settled = read_settled(connection)?;
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
        let refused = match error_code(row.get(18)?) {
            Ok(refused) => refused,
            Err(error) => return Ok(Err(error)),
        };
        let no = AccountNo(row.get(0)?);
        Ok(Ok(Account {
            no,
            license: LicenseNo(row.get(1)?),
            feature: row.get(2)?,
            standing: Standing {
                limits,
                reset,
                total: Total::new(row.get(9)?),
                as_of: Timestamp::from_millis(row.get(10)?),
            },
            heard_at: Duration::ZERO,
            stale: row.get::<_, i64>(17)? != 0,
            unsure: row.get::<_, i64>(17)? == UNSURE,
            shared: row.get(11)?,
            recorded: Units::new(row.get(12)?),
            settled: Units::new(row.get(13)?),
            rows: u64::try_from(row.get::<_, i64>(14)?).unwrap_or(0),
            waived: Units::new(row.get(15)?),
            late: Units::new(row.get(16)?),
            refused,
            settings: NewestSettings {
                allow_overages: Seq(row.get(19)?),
                max_overages: Seq(row.get(20)?),
            },
            // One that cannot be read is told again with the next reading.
            pool: row
                .get::<_, Option<String>>(21)?
                .and_then(|pool| serde_json::from_str(&pool).ok()),
            watch: AccountWatch {
                settled: settled.borrow_mut().remove(&no).unwrap_or_default(),
                ..AccountWatch::default()
            },
        }))
    })
}

/// The units of the batches that were settled last, newest first, of each account.
fn read_settled(connection: &Connection) -> Result<RefCell<BTreeMap<AccountNo, VecDeque<Units>>>> {
    let sql = format!(
        "SELECT account, units FROM batches JOIN lanes ON lanes.no = lane
         WHERE state = 'settled' AND units <> 0 ORDER BY batches.no DESC LIMIT {SETTLED_READ_MAX}"
    );
    let found = read_all(connection, "reading the settled batches", &sql, |row| {
        let (account, units): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Ok((AccountNo(account), Units::new(units))))
    })?;
    let mut settled: BTreeMap<AccountNo, VecDeque<Units>> = BTreeMap::new();
    for (account, units) in found {
        let newest = settled.entry(account).or_default();
        if newest.len() < AccountWatch::SETTLED_MAX {
            newest.push_back(units);
        }
    }
    Ok(RefCell::new(settled))
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
                      reason, closed, id, sealed_at, attempts, before_total, before_as_of, sent_at,
                      before_limits, held_at, late, sealed_proven, refusals, peer, dropped,
                      (SELECT hash FROM consumptions WHERE seq = last_seq), refused
               FROM batches JOIN lanes ON lanes.no = lane
               WHERE state NOT IN ('settled', 'superseded', 'waived') ORDER BY batches.no";
    read_all(connection, "reading the batches", sql, |row| {
        let (state, reason): (String, Option<String>) = (row.get(7)?, row.get(8)?);
        let sealed = match sealed(row)? {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(error)),
        };
        let (no, lane, account) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last) = (Seq(row.get(3)?), Seq(row.get(4)?));
        let rows = u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0);
        let (units, closed) = (Units::new(row.get(6)?), row.get(9)?);
        let held_at = row.get::<_, Option<i64>>(17)?.map(Timestamp::from_millis);
        let is_late = row.get(18)?;
        let refusals = row.get::<_, i64>(20)?;
        let dropped = Dropped::from_bits(row.get(22)?);
        // A row that is owed is never folded; where a damage took it, the batch is held.
        let last_hash = row.get::<_, Option<[u8; 32]>>(23)?;
        Ok(batch_state(&state, reason).map(|state| Batch {
            no: BatchNo(no),
            lane: LaneNo(lane),
            account: AccountNo(account),
            first,
            last,
            rows,
            units,
            last_hash: last_hash.map_or(Hash::ORIGIN, Hash),
            refusals: u32::try_from(refusals).unwrap_or(u32::MAX),
            dropped,
            state,
            opened_at: Duration::ZERO,
            sealed,
            closed,
            held_at,
            late: is_late,
            ended_at: None,
        }))
    })
}

fn sealed(row: &Row<'_>) -> rusqlite::Result<Result<Option<Sealed>>> {
    let (Some(id), Some(limits)) = (
        row.get::<_, Option<String>>(10)?,
        row.get::<_, Option<String>>(16)?,
    ) else {
        return Ok(Ok(None));
    };
    let Ok(uuid) = Uuid::parse_str(&id) else {
        return Ok(Err(malformed("the id of a batch", id)));
    };
    let Ok((before_limits, reset)) = serde_json::from_str(&limits) else {
        return Ok(Err(malformed("the limits of a batch", limits)));
    };
    let peer: Option<String> = row.get(21)?;
    Ok(Ok(Some(Sealed {
        id: uuid,
        at: Timestamp::from_millis(row.get(11)?),
        at_proven: row.get(19)?,
        since: None,
        attempts: row.get(12)?,
        before: Standing {
            limits: before_limits,
            reset,
            total: Total::new(row.get(13)?),
            as_of: Timestamp::from_millis(row.get(14)?),
        },
        heard_at: None,
        sent_at: Timestamp::from_millis(row.get(15)?),
        doubtful: false,
        refused_at: row.get::<_, bool>(24)?.then_some(Duration::ZERO),
        peer,
        readings: Readings::default(),
    })))
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

/// Reads why a batch is held.
pub(in crate::ledger) fn hold(reason: &str) -> Result<Hold> {
    match reason {
        LIMIT => return Ok(Hold::Limit { room_seen: None }),
        UNDECIDABLE => return Ok(Hold::Undecidable),
        LATE => return Ok(Hold::Late),
        COPY => return Ok(Hold::Copy),
        _ => {}
    }
    let (make, name): (fn(ErrorCode) -> Hold, _) =
        match (reason.strip_prefix(DEFECT), reason.strip_prefix(GONE)) {
            (Some(name), _) => (Hold::Defect, name),
            (None, Some(name)) => (Hold::Gone, name),
            (None, None) => (Hold::Refused, reason),
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

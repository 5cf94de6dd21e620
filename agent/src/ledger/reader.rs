//! Questions about the ledger, answered on a connection of their own: they never wait for the writer
//! and never make it wait.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, named_params};
use serde::{Deserialize, Serialize};
use tally_shared::time::Timestamp;

use super::{LedgerError, explain::JudgedBy, schema};
use crate::core::{book::AppNo, refusal::Refusal};

/// At most so many rows are answered at once.
pub const PAGE_MAX: u32 = 1000;

/// Where rows are chosen by what they are, so many of the newest are looked through: a question takes a
/// moment, however long the ledger is.
const SEARCH_ROWS: i64 = 200_000;

/// A row of the ledger, as people and scripts read it. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogRow {
    /// Its place.
    pub seq: i64,
    /// `consumption`, or for what else happened `decision`, `recovery` or `evidence`.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed the clock.
    pub time_proven: bool,
    /// The application.
    pub app: String,
    /// The product.
    pub product: String,
    /// `license_key` or `username`.
    pub holder: String,
    /// The key or the user.
    pub holder_value: String,
    /// The feature, if it was one's.
    pub feature: Option<String>,
    /// The device.
    pub hardware_id: String,
    /// The units.
    pub units: i64,
    /// The total that it was granted with.
    pub total: i64,
    /// The event kind that it is sent with.
    pub event: String,
    /// Where it is: `open`, `sealed`, `sent`, `unknown`, `held`, `settled` or `waived`; of a decision or
    /// of evidence, what was decided or found.
    pub state: String,
    /// Whether it was sent after its period was over, so that the server counted it in a later one.
    pub late: bool,
    /// Its batch.
    pub batch: i64,
    /// What happened, where it is not a consumption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<serde_json::Value>,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// A batch, as people and scripts read it. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchRow {
    /// Its number.
    pub batch: i64,
    /// Its id, which is its `Idempotency-Key`; `None` until it is sealed.
    pub id: Option<String>,
    /// Where it is: as [`LogRow::state`], or `superseded`.
    pub state: String,
    /// Why it is held.
    pub reason: Option<String>,
    /// The product.
    pub product: String,
    /// The key or the user.
    pub holder_value: String,
    /// The feature, if it is one's.
    pub feature: Option<String>,
    /// The device.
    pub hardware_id: String,
    /// The event kind.
    pub event: String,
    /// The start of its period.
    pub period: Option<Timestamp>,
    /// How many rows it covers.
    pub rows: i64,
    /// Their units.
    pub units: i64,
    /// How often it was sent.
    pub attempts: i64,
    /// When it was sealed.
    pub sealed_at: Option<Timestamp>,
    /// When it was last sent.
    pub sent_at: Option<Timestamp>,
}

/// Which batches to read.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct BatchPage {
    /// At most so many, the newest ones.
    pub limit: Option<u32>,
    /// Only those that the server has not counted and that were not given up.
    #[serde(default)]
    pub owed: bool,
}

/// Which rows to read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct Page {
    /// Only those after this place.
    pub after: Option<i64>,
    /// At most so many; the newest ones where `after` is not given.
    pub limit: Option<u32>,
    /// Only those of this application.
    pub app: Option<String>,
    /// Only those of this product.
    pub product: Option<String>,
    /// Only those of this licence: its key, or its user.
    pub license: Option<String>,
    /// Only those in this state.
    pub state: Option<String>,
}

impl Page {
    /// Whether it leaves rows out for what they are.
    const fn is_choosy(&self) -> bool {
        self.app.is_some()
            || self.product.is_some()
            || self.license.is_some()
            || self.state.is_some()
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The rows, oldest first.
    pub rows: Vec<LogRow>,
    /// So many of the newest rows were looked through, and older ones, which may be wanted as well, were
    /// not; `None` where nothing was left out.
    pub searched: Option<i64>,
}

/// Reads rows. Where they are chosen by what they are, only the newest 200,000 are looked through.
///
/// # Errors
///
/// [`LedgerError`].
pub fn rows(path: &Path, page: &Page) -> Result<Found, LedgerError> {
    let connection = schema::open_read_only(path)?;
    let failed = LedgerError::while_doing("reading rows");
    search(&connection, page).map_err(failed)
}

fn search(connection: &Connection, page: &Page) -> rusqlite::Result<Found> {
    let limit = page.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let wanted_after = page.after.unwrap_or(0);
    let (looked_after, notes) = if page.is_choosy() {
        (wanted_after.max(before_newest(connection)?), Vec::new())
    } else {
        (wanted_after, read_notes(connection, page.after, limit)?)
    };
    let mut rows = read_rows(connection, page, looked_after, limit)?;
    rows.extend(notes);
    rows.sort_by_key(|row| row.seq);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // Where the newest are wanted and there are enough of them, older ones do not matter.
    let may_lack = page.after.is_some() || rows.len() < limit;
    if page.after.is_some() {
        rows.truncate(limit);
    } else {
        rows.drain(..rows.len().saturating_sub(limit));
    }
    let is_cut = may_lack && is_any(connection, wanted_after, looked_after)?;
    Ok(Found {
        rows,
        searched: is_cut.then_some(SEARCH_ROWS),
    })
}

/// The place before those of the newest rows that are looked through.
fn before_newest(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(seq), 0) FROM consumptions";
    let newest: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(newest.saturating_sub(SEARCH_ROWS))
}

/// Whether there are rows after one place and up to another.
fn is_any(connection: &Connection, after: i64, until: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM consumptions WHERE seq > :after AND seq <= :until)";
    let parameters = named_params! { ":after": after, ":until": until };
    connection.query_row(sql, parameters, |row| row.get(0))
}

/// Reads the newest batches, newest first.
///
/// # Errors
///
/// [`LedgerError`].
pub fn batches(path: &Path, page: BatchPage) -> Result<Vec<BatchRow>, LedgerError> {
    let connection = schema::open_read_only(path)?;
    let failed = LedgerError::while_doing("reading batches");
    let limit = page.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    read_batches(&connection, limit, page.owed).map_err(failed)
}

/// A refusal, as people and scripts read it. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusalRow {
    /// Its number since the agent started, as `tally explain` takes it: `r1`, `r2`, …
    pub refusal: String,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed the clock.
    pub time_proven: bool,
    /// The application.
    pub app: String,
    /// The product.
    pub product: String,
    /// `license_key` or `username`.
    pub holder: String,
    /// The key or the user.
    pub holder_value: String,
    /// The feature, if it was one's.
    pub feature: Option<String>,
    /// The device.
    pub hardware_id: String,
    /// The units that were asked for.
    pub units: i64,
    /// The contract's code.
    pub code: String,
    /// What the application was told.
    pub message: String,
    /// What it was judged by; `None` where nothing is known of such an account.
    pub judged_by: Option<JudgedBy>,
}

/// The refusals of late, with the names of their applications.
///
/// # Errors
///
/// [`LedgerError`].
pub fn refusals(path: &Path, refusals: &[Refusal]) -> Result<Vec<RefusalRow>, LedgerError> {
    let connection = schema::open_read_only(path)?;
    let failed = LedgerError::while_doing("reading the names of applications");
    let names = app_names(&connection).map_err(failed)?;
    let row = |refusal: &Refusal| RefusalRow {
        refusal: format!("r{}", refusal.no),
        at: refusal.at,
        time_proven: refusal.time_proven,
        app: names.get(&refusal.app).cloned().unwrap_or_default(),
        product: refusal.product.clone(),
        holder: refusal.holder.field().to_owned(),
        holder_value: refusal.holder.value().to_owned(),
        feature: refusal.feature.clone(),
        hardware_id: refusal.hardware_id.clone(),
        units: refusal.units.get(),
        code: refusal.code.as_str().to_owned(),
        message: refusal.message.clone(),
        judged_by: refusal
            .judged
            .map(|judged| JudgedBy::new(&judged.standing, refusal.at, judged.total_before.get())),
    };
    Ok(refusals.iter().map(row).collect())
}

fn app_names(connection: &Connection) -> rusqlite::Result<BTreeMap<AppNo, String>> {
    let mut statement = connection.prepare("SELECT no, name FROM apps")?;
    let names = statement.query_map([], |row| Ok((AppNo(row.get(0)?), row.get(1)?)))?;
    names.collect()
}

/// In which order to read, so that the wanted ones come first.
const fn order(after: Option<i64>) -> &'static str {
    if after.is_some() { "ASC" } else { "DESC" }
}

fn read_notes(
    connection: &Connection,
    after: Option<i64>,
    limit: u32,
) -> rusqlite::Result<Vec<LogRow>> {
    let sql = format!(
        "SELECT seq, at, proven, kind, body, lower(hex(hash)) FROM notes
         WHERE seq > :after ORDER BY seq {} LIMIT :limit",
        order(after)
    );
    let mut statement = connection.prepare(&sql)?;
    let parameters = named_params! { ":after": after.unwrap_or(0), ":limit": limit };
    let rows = statement.query_map(parameters, |row| {
        let body: String = row.get(4)?;
        let note: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |key: &str| note.get(key)?.as_str().map(str::to_owned);
        Ok(LogRow {
            seq: row.get(0)?,
            kind: row.get(3)?,
            at: Timestamp::from_millis(row.get(1)?),
            time_proven: row.get(2)?,
            app: String::new(),
            product: text("product").unwrap_or_default(),
            holder: text("holder").unwrap_or_default(),
            holder_value: text("holder_value").unwrap_or_default(),
            feature: text("feature"),
            hardware_id: text("hardware_id").unwrap_or_default(),
            units: 0,
            total: 0,
            event: String::new(),
            state: text("decision")
                .or_else(|| text("what"))
                .unwrap_or_default(),
            late: false,
            batch: note
                .get("batch")
                .and_then(serde_json::Value::as_i64)
                .unwrap_or(0),
            hash: row.get(5)?,
            note: Some(note),
        })
    })?;
    rows.collect()
}

fn read_rows(
    connection: &Connection,
    page: &Page,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<LogRow>> {
    // A row does not know its batch: of those of its lane that were not replaced by others, which do not
    // overlap, it is the one that begins last before it.
    let sql = format!(
        "SELECT c.seq, c.at, c.proven, apps.name, licenses.product, licenses.holder_field,
                licenses.holder_value, accounts.feature, lanes.hardware_id, c.units, c.total,
                lanes.event, batches.state, batches.no, lower(hex(c.hash)), batches.late
         FROM consumptions c
         CROSS JOIN apps ON apps.no = c.app
         CROSS JOIN lanes ON lanes.no = c.lane
         CROSS JOIN accounts ON accounts.no = lanes.account
         CROSS JOIN licenses ON licenses.no = accounts.license
         CROSS JOIN batches ON batches.no = (
             SELECT no FROM batches
             WHERE lane = c.lane AND first_seq <= c.seq AND state != 'superseded'
             ORDER BY first_seq DESC LIMIT 1)
         WHERE c.seq > :after
             AND (:app IS NULL OR apps.name = :app)
             AND (:product IS NULL OR licenses.product = :product)
             AND (:license IS NULL OR licenses.holder_value = :license)
             AND (:state IS NULL OR batches.state = :state)
         ORDER BY c.seq {order} LIMIT :limit",
        order = order(page.after),
    );
    let mut statement = connection.prepare(&sql)?;
    let parameters = named_params! {
        ":after": after,
        ":limit": limit,
        ":app": page.app,
        ":product": page.product,
        ":license": page.license,
        ":state": page.state,
    };
    let rows = statement.query_map(parameters, |row| {
        Ok(LogRow {
            kind: "consumption".to_owned(),
            note: None,
            late: row.get(15)?,
            seq: row.get(0)?,
            at: Timestamp::from_millis(row.get(1)?),
            time_proven: row.get(2)?,
            app: row.get(3)?,
            product: row.get(4)?,
            holder: row.get(5)?,
            holder_value: row.get(6)?,
            feature: row.get(7)?,
            hardware_id: row.get(8)?,
            units: row.get(9)?,
            total: row.get(10)?,
            event: row.get(11)?,
            state: row.get(12)?,
            batch: row.get(13)?,
            hash: row.get(14)?,
        })
    })?;
    rows.collect()
}

fn read_batches(
    connection: &Connection,
    limit: u32,
    owed: bool,
) -> rusqlite::Result<Vec<BatchRow>> {
    // As the index of those that are owed says it.
    let wanted = if owed {
        "WHERE state NOT IN ('settled', 'superseded', 'waived')"
    } else {
        ""
    };
    let mut statement = connection.prepare(&format!(
        "SELECT batches.no, batches.id, state, reason, product, holder_value, feature,
                hardware_id, event, lanes.period, batches.row_count, units,
                coalesce(attempts, 0), sealed_at, sent_at
         FROM batches
         JOIN lanes ON lanes.no = lane
         JOIN accounts ON accounts.no = lanes.account
         JOIN licenses ON licenses.no = accounts.license
         {wanted}
         ORDER BY batches.no DESC LIMIT ?1"
    ))?;
    let time = |millis: Option<i64>| millis.map(Timestamp::from_millis);
    let rows = statement.query_map([limit], |row| {
        Ok(BatchRow {
            batch: row.get(0)?,
            id: row.get(1)?,
            state: row.get(2)?,
            reason: row.get(3)?,
            product: row.get(4)?,
            holder_value: row.get(5)?,
            feature: row.get(6)?,
            hardware_id: row.get(7)?,
            event: row.get(8)?,
            period: time(row.get(9)?),
            rows: row.get(10)?,
            units: row.get(11)?,
            attempts: row.get(12)?,
            sealed_at: time(row.get(13)?),
            sent_at: time(row.get(14)?),
        })
    })?;
    rows.collect()
}

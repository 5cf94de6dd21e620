//! Salvaging a damaged ledger: all that can be read of it, in a new one.
//!
//! SQLite stops at the first page that makes no sense; so the pages are read without it. [`wal`] and
//! [`image`] give the pages, [`btree`] the records on them, [`shapes`] says whose they are, and [`read`]
//! puts them into a new ledger. [`mend`], [`strays`] and [`identity`] then restore what single records
//! lost, and [`books`] with [`cover`] what is owed. The damaged files are only ever read.

mod books;
mod btree;
mod cover;
mod identity;
mod image;
mod mend;
mod read;
mod shapes;
mod strays;
#[cfg(test)]
mod tests;
mod wal;
#[cfg(test)]
mod world;

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};
use tally_shared::time::Timestamp;

pub use self::books::Held;
use super::{
    LedgerError,
    known::{Known, Range},
    schema, store, verify,
};
use crate::core::{book::Book, chain};

/// Tables whose records stand nowhere else: where a part of one is lost, nothing says what it was. What
/// is lost of the others shows by the chain and the sums.
const ALONE: &[(&str, &str)] = &[
    (
        "meta",
        "the clock's correction, and which server the units are owed to",
    ),
    ("licenses", "licences"),
    ("devices", "devices of licences"),
    ("accounts", "limits of accounts"),
    ("apps", "names of applications"),
    (
        "answers",
        "remembered answers: a request that is tried again may be counted again",
    ),
    ("daily", "daily sums of old rows"),
];

/// Where rows stand, and what they came to.
const OF_ROWS: &[&str] = &["consumptions", "notes", "anchors", "daily"];

/// What a salvage found. Written as JSON beside the damaged files; fields are added, never changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When.
    pub at: Timestamp,
    /// Where the damaged files are kept.
    pub folder: String,
    /// How the damage showed.
    pub cause: String,
    /// Whether nothing is missing.
    pub is_whole: bool,
    /// How many records of each table were kept.
    pub kept: BTreeMap<String, i64>,
    /// How many parts of each table could not be read where they should be. Much of it may have been
    /// found elsewhere.
    pub unreadable: BTreeMap<String, usize>,
    /// What is missing, in words.
    pub missing: Vec<String>,
    /// What is known to be missing, for `tally verify`.
    pub known: Known,
    /// How many rows are missing.
    pub missing_rows: i64,
    /// Their units. What is owed of them is owed all the same.
    pub missing_units: i64,
    /// What was restored from what else says the same.
    pub restored: Vec<String>,
    /// Batches that are held until somebody decides.
    pub held: Vec<Held>,
}

/// Whether the log lacks finished commits that SQLite would overlook.
///
/// # Errors
///
/// What the system says.
pub(super) fn is_log_damaged(path: &Path) -> std::io::Result<bool> {
    wal::read(path).map(|found| found.is_damaged)
}

/// Salvages the ledger at `source` into a new file at `target`, in one transaction. The source is only
/// read. `key` is what its chain is keyed with.
///
/// # Errors
///
/// [`LedgerError`], where the new file cannot be written.
pub(super) fn salvage(
    source: &Path,
    target: &Path,
    now: Timestamp,
    key: &chain::Key,
) -> Result<Report, LedgerError> {
    let unreadable = |source_error| LedgerError::Salvage {
        path: source.to_owned(),
        source: source_error,
    };
    let mut image = image::Image::open(source).map_err(unreadable)?;
    let mut connection = schema::open(target)?;
    let failed = LedgerError::while_doing("salvaging it");
    connection
        .pragma_update(None, "foreign_keys", "OFF")
        .map_err(failed)?;
    let failed = LedgerError::while_doing("salvaging it");
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let report = fill(&mut image, &tx, now, key)?;
    tx.commit()
        .map_err(LedgerError::while_doing("keeping what was salvaged"))?;
    let closed = connection.close().map_err(|(_, error)| error);
    closed.map_err(LedgerError::while_doing("closing what was salvaged"))?;
    Ok(report)
}

fn fill(
    image: &mut image::Image,
    tx: &Connection,
    now: Timestamp,
    key: &chain::Key,
) -> Result<Report, LedgerError> {
    let failed = || LedgerError::while_doing("salvaging it");
    let gathered = read::gather(image, tx).map_err(failed())?;
    let kept = count(tx).map_err(failed())?;
    if store::chain_key(tx)?.is_none() {
        // Which key it was is lost; if it was another, no row fits this one.
        store::write_chain_key(tx, &key.fingerprint()).map_err(failed())?;
    }
    let mut missing = mend::records(tx).map_err(failed())?;
    let book = Book::new(store::load(tx, key)?);
    let mut taken = strays::put_back(tx, &book).map_err(failed())?;
    let identities = identity::restore(tx, key)?;
    if !identities.proved.is_empty() {
        let book = Book::new(store::load(tx, key)?);
        taken += strays::put_back(tx, &book).map_err(failed())?;
    }
    let before = Known::read(tx).map_err(failed())?;
    let findings = verify::verify_snapshot(tx, key)?;
    let evidence = books::Evidence {
        missing: &findings.missing,
        changed: &findings.changed,
        lost_lanes: &identities.lost_lanes,
        stale_batches: &gathered.stale_batches,
        is_unread: OF_ROWS
            .iter()
            .any(|table| gathered.damaged.contains_key(table)),
        is_old: image.lost() > 0,
        now,
    };
    let balance = books::balance(tx, evidence).map_err(failed())?;
    tx.execute("UPDATE accounts SET stale = 1", [])
        .map_err(failed())?;
    store::seal_accounts(tx, key)?;
    missing.extend(identities.missing);
    for (table, what) in ALONE {
        if gathered.damaged.contains_key(table) {
            missing.push((*what).to_owned());
        }
    }
    for (table, what) in [("consumptions", "all rows"), ("batches", "all batches")] {
        if gathered.damaged.contains_key(table) && kept.get(table) == Some(&0) {
            missing.push(what.to_owned());
        }
    }
    if image.lost() > 0 {
        missing.push(format!("{} pages of the newest commits", image.lost()));
    }
    if taken > 0 {
        missing.push(format!("where {taken} rows belong"));
    }
    missing.extend(speak_of(&balance.known, &before));
    // What is held for want of a batch's own record is a thing for a person, whole rows or not.
    missing.extend(balance.corrected);
    let shortfalls = balance.known.missing_in_accounts.values();
    let (missing_rows, missing_units) = shortfalls.fold((0, 0), |sum, found| {
        (sum.0 + found.rows, sum.1 + found.units)
    });
    Ok(Report {
        at: now,
        is_whole: missing.is_empty(),
        kept,
        unreadable: gathered
            .damaged
            .iter()
            .map(|(name, parts)| ((*name).to_owned(), *parts))
            .collect(),
        missing,
        known: balance.known,
        missing_rows,
        missing_units,
        restored: identities.proved,
        held: balance.held,
        ..Report::default()
    })
}

/// What is missing now and was not known to be missing before.
fn speak_of(known: &Known, before: &Known) -> Vec<String> {
    let mut said = Vec::new();
    let list = |ranges: &[Range]| {
        let shown = ranges
            .iter()
            .take(5)
            .map(|range| format!("{} to {}", range.0, range.1));
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = ranges.len().checked_sub(5) {
            text = format!("{text} and {more} more ranges");
        }
        text
    };
    let places: Vec<Range> = known
        .missing_places
        .iter()
        .copied()
        .filter(|range| !before.is_missing(*range))
        .collect();
    if !places.is_empty() {
        said.push(format!("the rows at the places {}", list(&places)));
    }
    let is_new = |range: &Range| (range.0..=range.1).any(|place| !before.is_changed(place));
    let changed: Vec<Range> = known.changed_rows.iter().copied().filter(is_new).collect();
    if !changed.is_empty() {
        said.push(format!("the proof of the rows {}", list(&changed)));
    }
    if known.folded_places != before.folded_places {
        said.push("which places were folded into daily sums, or the sums".to_owned());
    }
    for (account, found) in &known.missing_in_accounts {
        if before.missing_in_accounts.get(account) != Some(found) {
            said.push(format!(
                "{} rows with {} units of account {account}",
                found.rows, found.units
            ));
        }
    }
    said
}

fn count(tx: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut kept = BTreeMap::new();
    for table in shapes::TABLES {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        kept.insert(
            table.name.to_owned(),
            tx.query_row(&sql, [], |row| row.get(0))?,
        );
    }
    Ok(kept)
}

impl Report {
    /// What is missing, in one sentence.
    pub fn summary(&self) -> String {
        if self.is_whole {
            return "nothing is missing".to_owned();
        }
        let mut text = format!("missing: {}", self.missing.join("; "));
        let units: i64 = self.held.iter().map(|held| held.units).sum();
        if !self.held.is_empty() {
            let count = self.held.len();
            text = format!(
                "{text}. {count} batches with {units} units are held until `tally resolve` decides"
            );
        }
        text
    }
}

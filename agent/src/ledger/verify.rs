//! Proving the ledger against itself: the chain over every row, and the running sums against the rows.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::Serialize;
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::{
    LedgerError,
    known::{self, Known, Range},
    store,
};
use crate::core::{
    book::{AccountNo, AppNo, Book, LaneNo, NoteKind, Seq},
    chain::{self, Hash},
};

/// So many faults are listed; more say nothing new.
const FAULTS_MAX: usize = 20;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Consumptions that stand there one by one.
    pub rows: u64,
    /// Decisions and recoveries.
    pub notes: u64,
    /// Consumptions that were folded into daily sums.
    pub folded: u64,
    /// What is wrong, first things first; empty where all is well.
    pub faults: Vec<Fault>,
    /// All places that nothing is known of, those that a recovery's note names among them.
    #[serde(skip)]
    pub missing: Vec<Range>,
    /// All rows whose hash does not fit, those that a recovery's note names among them.
    #[serde(skip)]
    pub changed: Vec<Range>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The place, where it concerns one.
    pub seq: Option<i64>,
    /// What is wrong.
    pub what: String,
}

impl Findings {
    /// Whether all is well.
    pub const fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn add(&mut self, seq: Option<Seq>, what: String) {
        if self.faults.len() < FAULTS_MAX {
            let seq = seq.map(|seq| seq.0);
            self.faults.push(Fault { seq, what });
        }
    }
}

/// How many rows there are of something, and the sum of their units.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rows: i64,
    units: i128,
}

impl Sum {
    fn add(&mut self, rows: i64, units: i64) {
        self.rows += rows;
        self.units += i128::from(units);
    }
}

/// Proves the ledger, in one snapshot of it. Reads all of it, in the order of its places.
///
/// # Errors
///
/// [`LedgerError`] where it cannot be read at all; what is wrong with what was read is in the findings.
pub fn verify(connection: &Connection) -> Result<Findings, LedgerError> {
    let failed = LedgerError::while_doing("verifying it");
    connection.execute_batch("BEGIN").map_err(failed)?;
    let findings = verify_snapshot(connection);
    let failed = LedgerError::while_doing("verifying it");
    connection.execute_batch("COMMIT").map_err(failed)?;
    findings
}

/// As [`verify`], within a transaction.
pub(super) fn verify_snapshot(connection: &Connection) -> Result<Findings, LedgerError> {
    let contents = store::load(connection)?;
    let newest = contents.head;
    let book = Book::new(contents);
    let mut findings = Findings::default();
    let failed = LedgerError::while_doing("reading the recoveries");
    let known = Known::read(connection).map_err(failed)?;
    let failed = LedgerError::while_doing("verifying the chain");
    let of_book = (&book, newest, &known);
    let mut sums = walk(connection, of_book, &mut findings).map_err(failed)?;
    let failed = LedgerError::while_doing("verifying the sums");
    add_daily(connection, &known, &mut sums, &mut findings).map_err(failed)?;
    check_accounts(&book, &sums, &known, &mut findings);
    let failed = LedgerError::while_doing("verifying the batches");
    check_batches(connection, &book, &known, &mut findings).map_err(failed)?;
    Ok(findings)
}

/// Walks the chain. Returns what the rows of each lane come to.
fn walk(
    connection: &Connection,
    (book, newest, known): (&Book, (Seq, Hash), &Known),
    findings: &mut Findings,
) -> rusqlite::Result<BTreeMap<LaneNo, Sum>> {
    let mut statement = connection.prepare(
        "SELECT seq, 0, seq, hash, at, proven, lane, app, units, total, NULL, NULL FROM consumptions
         UNION ALL SELECT seq, 1, seq, hash, at, proven, 0, 0, 0, 0, kind, body FROM notes
         UNION ALL SELECT first_seq, 2, last_seq, hash, at, 0, 0, 0, 0, 0, NULL, NULL FROM anchors
         ORDER BY 1",
    )?;
    let mut entries = statement.query([])?;
    let mut sums: BTreeMap<LaneNo, Sum> = BTreeMap::new();
    let mut previous = (Seq(0), Hash::ORIGIN);
    while let Some(row) = entries.next()? {
        let (first, last) = (Seq(row.get(0)?), Seq(row.get(2)?));
        let missing = (previous.0.0 + 1, first.0 - 1);
        let is_next = missing.0 == first.0;
        if !is_next {
            if !known.is_missing(missing) {
                let what = format!("places {} to {} are missing", missing.0, missing.1);
                findings.add(Some(Seq(missing.0)), what);
            }
            findings.missing.push(missing);
        }
        let found = Hash(row.get(3)?);
        let expected = match row.get::<_, i64>(1)? {
            0 => {
                let lane = LaneNo(row.get(6)?);
                sums.entry(lane).or_default().add(1, row.get(8)?);
                findings.rows += 1;
                expected_of_row(row, book, lane, &previous.1)?
            }
            1 => {
                findings.notes += 1;
                expected_of_note(row, &previous.1)?
            }
            _ => Some(found),
        };
        // Behind missing places, there is nothing to prove a row by.
        if is_next && expected != Some(found) {
            if !known.is_changed(first.0) {
                let what = "this row was changed, or one before it".to_owned();
                findings.add(Some(first), what);
            }
            known::add_place(&mut findings.changed, first.0);
        }
        previous = (last, found);
    }
    if previous != newest {
        findings.add(
            Some(newest.0),
            "the chain does not end at the newest row".to_owned(),
        );
    }
    Ok(sums)
}

fn expected_of_row(
    row: &Row<'_>,
    book: &Book,
    lane: LaneNo,
    previous: &Hash,
) -> rusqlite::Result<Option<Hash>> {
    let Some(lane) = book.lane(lane) else {
        return Ok(None);
    };
    let link = chain::Link {
        seq: Seq(row.get(0)?),
        lane: &lane.digest,
        app: AppNo(row.get(7)?),
        units: Units::new(row.get(8)?),
        total: Total::new(row.get(9)?),
        at: Timestamp::from_millis(row.get(4)?),
        time_proven: row.get(5)?,
    };
    Ok(Some(chain::next(previous, &link)))
}

fn expected_of_note(row: &Row<'_>, previous: &Hash) -> rusqlite::Result<Option<Hash>> {
    let (kind, body): (String, String) = (row.get(10)?, row.get(11)?);
    let time = (Timestamp::from_millis(row.get(4)?), row.get(5)?);
    let seq = Seq(row.get(0)?);
    let kind = NoteKind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind);
    Ok(kind.map(|kind| chain::next_note(previous, seq, kind, &body, time)))
}

fn add_daily(
    connection: &Connection,
    known: &Known,
    sums: &mut BTreeMap<LaneNo, Sum>,
    findings: &mut Findings,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare("SELECT lane, sum(row_count), sum(units) FROM daily GROUP BY lane")?;
    let mut rows = statement.query([])?;
    let mut folded = 0;
    while let Some(row) = rows.next()? {
        let count: i64 = row.get(1)?;
        folded += count;
        sums.entry(LaneNo(row.get(0)?))
            .or_default()
            .add(count, row.get(2)?);
    }
    let places: i64 = connection.query_row(
        "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM anchors",
        [],
        |row| row.get(0),
    )?;
    if places != folded + known.folded_places {
        let what = format!("{places} rows were folded, and the daily sums hold {folded}");
        findings.add(None, what);
    }
    findings.folded = u64::try_from(folded).unwrap_or(0);
    Ok(())
}

/// Each account's running sums against its rows, and against where its units are.
fn check_accounts(
    book: &Book,
    sums: &BTreeMap<LaneNo, Sum>,
    known: &Known,
    findings: &mut Findings,
) {
    let mut of_accounts: BTreeMap<AccountNo, Sum> = BTreeMap::new();
    for (lane, sum) in sums {
        match book.lane(*lane) {
            Some(lane) => {
                let total = of_accounts.entry(lane.key.account).or_default();
                total.rows += sum.rows;
                total.units += sum.units;
            }
            None => findings.add(None, format!("the lane {} of some rows is missing", lane.0)),
        }
    }
    let accounts = book
        .licenses()
        .flat_map(|license| book.accounts_of(license.no));
    for account in accounts {
        let mut found = of_accounts.remove(&account.no).unwrap_or_default();
        if let Some(shortfall) = known.missing_in_accounts.get(&account.no.0) {
            found.add(shortfall.rows, shortfall.units);
        }
        let expected = Sum {
            rows: i64::try_from(account.rows).unwrap_or(i64::MAX),
            units: i128::from(account.recorded.get()),
        };
        if found != expected {
            let what = format!(
                "account {} recorded {} units in {} rows, and its rows hold {} in {}",
                account.no.0, expected.units, expected.rows, found.units, found.rows
            );
            findings.add(None, what);
        }
        let owed = book.batches_of(account.no).into_iter();
        let owed: i128 = owed.map(|batch| i128::from(batch.units.get())).sum();
        let done = i128::from(account.settled.get()) + i128::from(account.waived.get());
        if expected.units != done + owed {
            let what = format!(
                "account {} recorded {} units, settled or waived {done}, and owes {owed}",
                account.no.0, expected.units
            );
            findings.add(None, what);
        }
    }
    for account in of_accounts.keys() {
        findings.add(
            None,
            format!("the account {} of some rows is missing", account.0),
        );
    }
}

/// Each owed batch's sum against its rows.
fn check_batches(
    connection: &Connection,
    book: &Book,
    known: &Known,
    findings: &mut Findings,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT count(*), coalesce(sum(units), 0) FROM consumptions
         WHERE seq BETWEEN ?1 AND ?2 AND lane = ?3",
    )?;
    for batch in book.batches() {
        if known.touches((batch.first.0, batch.last.0)) {
            continue;
        }
        let parameters = params![batch.first.0, batch.last.0, batch.lane.0];
        let found: (i64, i64) =
            statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let expected = (
            i64::try_from(batch.rows).unwrap_or(i64::MAX),
            batch.units.get(),
        );
        if found != expected {
            let what = format!(
                "batch {} covers {} units in {} rows, and its rows hold {} in {}",
                batch.no.0, expected.1, expected.0, found.1, found.0
            );
            findings.add(Some(batch.first), what);
        }
    }
    Ok(())
}

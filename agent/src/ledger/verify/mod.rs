//! Proving the ledger against itself: the chain over every row, and the running sums against the rows.

mod entries;
mod walk;

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use self::walk::{Looked, walk};
use super::{
    LedgerError,
    known::{self, Known, Range},
    store,
};
use crate::core::{
    book::{Account, AccountNo, BatchNo, Book, Finding, LaneNo, Seq},
    chain,
    doubt::Doubt,
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
    /// Rows that another key was there for, of which nothing can be proved any more.
    pub unproven: u64,
    /// What the server's totals say that this ledger does not expect, until a person has seen it. Not a fault of the ledger.
    pub findings: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// The place, where it concerns one.
    pub seq: Option<i64>,
    /// What is wrong.
    pub what: String,
}

/// What kind of fault something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The chain or a seal does not fit: somebody changed what it covers.
    Chain,
    /// Sums do not agree with each other, or something that others refer to is missing: the ledger cannot
    /// be gone on with.
    Sums,
    /// Something showed earlier that the ledger was changed, or shows it from outside.
    Evidence,
}

impl Findings {
    /// Whether all is well.
    pub const fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// What says that the ledger is damaged, rather than changed by somebody who knew how.
    pub fn damage(&self) -> Option<&Fault> {
        let mut faults = self.faults.iter();
        faults.find(|fault| fault.kind == FaultKind::Sums)
    }

    /// Adds what shows from outside of the ledger.
    pub fn doubt(&mut self, doubt: &Doubt) {
        let what = match doubt {
            Doubt::KeyReplaced => {
                "the chain's key is another than the ledger's: nothing proves its rows".into()
            }
            Doubt::MarkLost => "the mark beside the ledger is gone".into(),
            Doubt::OlderCopy {
                marked,
                generations,
            } => format!(
                "the ledger is an older copy: its mark had come to place {}, and {generations} commits of \
                 other things are missing",
                marked.0
            ),
            Doubt::Copied { differs, .. } => {
                format!("the ledger is a copy: {}", differs.as_words())
            }
            Doubt::Rewritten { marked } => {
                format!(
                    "place {} is not what it was when its mark was made",
                    marked.0
                )
            }
            // That is what the rest of the findings says.
            Doubt::Changed { .. } => return,
        };
        let seq = match doubt {
            Doubt::OlderCopy { marked, .. } | Doubt::Rewritten { marked } => Some(marked.0),
            _ => None,
        };
        let kind = FaultKind::Evidence;
        self.faults.insert(0, Fault { kind, seq, what });
    }

    fn add(&mut self, kind: FaultKind, seq: Option<Seq>, what: String) {
        // Damage is never left out: a start must know of it.
        let is_first = kind == FaultKind::Sums && self.damage().is_none();
        if self.faults.len() < FAULTS_MAX || is_first {
            let seq = seq.map(|seq| seq.0);
            self.faults.push(Fault { kind, seq, what });
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
pub fn verify(connection: &Connection, key: &chain::Key) -> Result<Findings, LedgerError> {
    verify_telling(connection, key, &|_, _| ())
}

/// As [`verify`]; `tell` hears now and then which place it has come to, and which is the last.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_telling(
    connection: &Connection,
    key: &chain::Key,
    tell: &dyn Fn(i64, i64),
) -> Result<Findings, LedgerError> {
    let failed = LedgerError::while_doing("verifying it");
    connection.execute_batch("BEGIN").map_err(failed)?;
    let findings = prove(connection, key, tell);
    let failed = LedgerError::while_doing("verifying it");
    connection.execute_batch("COMMIT").map_err(failed)?;
    findings
}

/// As [`verify`], within a transaction.
pub(super) fn verify_snapshot(
    connection: &Connection,
    key: &chain::Key,
) -> Result<Findings, LedgerError> {
    prove(connection, key, &|_, _| ())
}

fn prove(
    connection: &Connection,
    key: &chain::Key,
    tell: &dyn Fn(i64, i64),
) -> Result<Findings, LedgerError> {
    let contents = store::load(connection, key)?;
    let newest = contents.head;
    let book = Book::new(contents);
    let mut findings = Findings {
        findings: book.findings().to_vec(),
        ..Findings::default()
    };
    let is_introduced = store::chain_key(connection)?.as_deref() == Some(&key.fingerprint());
    let failed = LedgerError::while_doing("reading the recoveries");
    let known = Known::read(connection).map_err(failed)?;
    let failed = LedgerError::while_doing("verifying the chain");
    let proved_from = if is_introduced {
        proved_from(connection).map_err(failed)?
    } else {
        // Another key, and no note of it yet: who compares the ledger with its mark says so.
        i64::MAX
    };
    let looked = Looked {
        from: 1,
        proved_from,
    };
    let tell = |place| tell(place, newest.0.0);
    let walked = walk(connection, (&book, &known), looked, &tell, &mut findings)?;
    if walked.end != newest {
        let what = "the chain does not end at the newest row".to_owned();
        findings.add(FaultKind::Sums, Some(newest.0), what);
    }
    let mut sums = walked.of_lanes;
    let failed = LedgerError::while_doing("verifying the sums");
    add_daily(connection, &known, &mut sums, &mut findings).map_err(failed)?;
    check_accounts(&book, &sums, &known, &mut findings);
    if is_introduced {
        let failed = LedgerError::while_doing("verifying the seals");
        let broken = broken_seals(connection, &book).map_err(failed)?;
        for account in broken {
            let what = format!("the sums of account {account} were changed");
            findings.add(FaultKind::Chain, None, what);
        }
    }
    check_batches(&book, &walked.of_batches, &known, &mut findings);
    Ok(findings)
}

/// Looks at the newest rows and at the sums' seals. Says nothing of what a note names already.
pub(super) fn recent(
    connection: &Connection,
    key: &chain::Key,
    rows: i64,
) -> Result<Option<Doubt>, LedgerError> {
    let failed = || LedgerError::while_doing("looking at its newest rows");
    let contents = store::load(connection, key)?;
    let from = contents.head.0.0.saturating_sub(rows).max(1);
    let book = Book::new(contents);
    let known = Known::read(connection).map_err(failed())?;
    let proved_from = proved_from(connection).map_err(failed())?;
    let mut findings = Findings::default();
    let looked = Looked { from, proved_from };
    walk(connection, (&book, &known), looked, &|_| (), &mut findings)?;
    let accounts = broken_seals(connection, &book).map_err(failed())?;
    let accounts: Vec<i64> = accounts
        .into_iter()
        .filter(|no| !known.accounts.contains(no))
        .collect();
    let missing = known::beyond(&findings.missing, &known.missing_places);
    let changed = known::beyond(&findings.changed, &known.changed_rows);
    let is_sound = missing.is_empty() && changed.is_empty() && accounts.is_empty();
    Ok((!is_sound).then_some(Doubt::Changed {
        missing,
        changed,
        accounts,
    }))
}

/// From where on the present key proves the rows: the newest note that says that it is another.
fn proved_from(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(seq), 1) FROM notes
               WHERE kind = 'evidence' AND body ->> 'what' = 'key_replaced'";
    connection.query_row(sql, [], |row| row.get(0))
}

/// The accounts whose sums do not fit their seal.
fn broken_seals(connection: &Connection, book: &Book) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare("SELECT no, seal FROM accounts ORDER BY no")?;
    let seals = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, Option<[u8; 32]>>(1)?))
    })?;
    let seals: BTreeMap<i64, Option<[u8; 32]>> = seals.collect::<rusqlite::Result<_>>()?;
    let accounts = book
        .licenses()
        .flat_map(|license| book.accounts_of(license.no));
    let is_broken = |account: &&Account| {
        let seal = seals.get(&account.no.0).copied().flatten();
        seal != Some(book.chain().seal_account(account).0)
    };
    Ok(accounts
        .filter(is_broken)
        .map(|account| account.no.0)
        .collect())
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
        findings.add(FaultKind::Sums, None, what);
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
            None => findings.add(
                FaultKind::Sums,
                None,
                format!("the lane {} of some rows is missing", lane.0),
            ),
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
            findings.add(FaultKind::Sums, None, what);
        }
        let owed = book.batches_of(account.no).into_iter();
        let owed: i128 = owed.map(|batch| i128::from(batch.units.get())).sum();
        let done = i128::from(account.settled.get()) + i128::from(account.waived.get());
        if expected.units != done + owed {
            let what = format!(
                "account {} recorded {} units, settled or waived {done}, and owes {owed}",
                account.no.0, expected.units
            );
            findings.add(FaultKind::Sums, None, what);
        }
    }
    for account in of_accounts.keys() {
        findings.add(
            FaultKind::Sums,
            None,
            format!("the account {} of some rows is missing", account.0),
        );
    }
}

/// Each owed batch's sum against its rows.
fn check_batches(
    book: &Book,
    sums: &BTreeMap<BatchNo, Sum>,
    known: &Known,
    findings: &mut Findings,
) {
    for batch in book.batches() {
        if known.touches((batch.first.0, batch.last.0)) {
            continue;
        }
        let found = sums.get(&batch.no).copied().unwrap_or_default();
        let expected = Sum {
            rows: i64::try_from(batch.rows).unwrap_or(i64::MAX),
            units: i128::from(batch.units.get()),
        };
        if batch.first.0 < 1 {
            let what = format!("batch {} begins before the first place", batch.no.0);
            findings.add(FaultKind::Sums, Some(batch.first), what);
        } else if found != expected {
            let what = format!(
                "batch {} covers {} units in {} rows, and its rows hold {} in {}",
                batch.no.0, expected.units, expected.rows, found.units, found.rows
            );
            findings.add(FaultKind::Sums, Some(batch.first), what);
        }
    }
}

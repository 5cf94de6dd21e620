//! What is owed, from what could be read.
//!
//! The same is written three times: in the rows, in the batches, and in each account's sums. Where the
//! three do not say the same, what is owed is taken from those that are whole; and what cannot be known
//! is held, so that a person decides: it is neither forgotten nor sent twice.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tally_shared::time::Timestamp;

use super::identity::LOST;
use crate::ledger::known::{Known, Range, Shortfall};

/// A batch that names places so far behind the newest one is damaged itself.
const BEYOND_MAX: i64 = 1_000_000;

/// What is known before the sums are looked at.
pub(super) struct Evidence<'a> {
    /// Places that nothing is known of.
    pub(super) missing: &'a [Range],
    /// Rows whose hash does not fit.
    pub(super) changed: &'a [Range],
    /// Lanes of which nobody knows whose they are.
    pub(super) lost_lanes: &'a BTreeSet<i64>,
    /// Batches that may be older than the rest.
    pub(super) stale_batches: &'a BTreeSet<i64>,
    /// Whether a part of what the rows stand in could not be read, so that rows may be missing that no
    /// gap tells of.
    pub(super) is_unread: bool,
    /// Whether finished commits are missing, so that anything may be older than it was.
    pub(super) is_old: bool,
    /// When.
    pub(super) now: Timestamp,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// What is known to be missing from now on.
    pub(super) known: Known,
    /// Batches that are held for a person to decide.
    pub(super) held: Vec<Held>,
    /// Sums that were put right by what is whole.
    pub(super) corrected: Vec<String>,
}

/// A batch that a person must decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number, for `tally resolve`.
    pub batch: i64,
    /// The product, or `lost`.
    pub product: String,
    /// The licence key or the user.
    pub holder_value: String,
    /// The feature, if it is one's.
    pub feature: Option<String>,
    /// Its rows, as far as they are there.
    pub rows: i64,
    /// Its units.
    pub units: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) no: i64,
    recorded: i64,
    settled: i64,
    waived: i64,
    row_count: i64,
    owed: i64,
    found: Shortfall,
}

/// A row that no batch covers.
#[derive(Clone, Copy)]
pub(super) struct Bare {
    pub(super) seq: i64,
    pub(super) lane: i64,
    pub(super) units: i64,
}

pub(super) struct Balancer<'a> {
    pub(super) connection: &'a Connection,
    pub(super) evidence: Evidence<'a>,
    /// The last place that there is.
    head: i64,
    /// The last place that anything speaks of.
    pub(super) end: i64,
    /// Units that are held without a row.
    lost_units: i64,
    pub(super) balance: Balance,
}

/// Makes batches, accounts and rows say the same.
pub(super) fn balance(
    connection: &Connection,
    evidence: Evidence<'_>,
) -> rusqlite::Result<Balance> {
    let of = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let head = of(
        "SELECT max(coalesce((SELECT max(seq) FROM consumptions), 0),
                              coalesce((SELECT max(seq) FROM notes), 0),
                              coalesce((SELECT max(last_seq) FROM anchors), 0))",
    )?;
    let mut balancer = Balancer {
        connection,
        evidence,
        head,
        end: head,
        lost_units: 0,
        balance: Balance::default(),
    };
    balancer.distrust_batches()?;
    let last = of("SELECT coalesce(max(last_seq), 0) FROM batches")?;
    balancer.end = head.max(last);
    for account in balancer.accounts()? {
        balancer.settle_up(account)?;
    }
    balancer.hold_doubtful()?;
    balancer.list_held()?;
    let folded = of(
        "SELECT (SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM anchors)
                          - (SELECT coalesce(sum(row_count), 0) FROM daily)",
    )?;
    let known = &mut balancer.balance.known;
    known.folded_places = folded;
    known.missing_places = balancer.evidence.missing.to_vec();
    known.changed_rows = balancer.evidence.changed.to_vec();
    if balancer.end > head {
        known.missing_places.push((head + 1, balancer.end));
    }
    for account in balancer.accounts()? {
        let shortfall = Shortfall {
            rows: account.row_count - account.found.rows,
            units: account.recorded - account.found.units,
        };
        if shortfall != Shortfall::default() {
            balancer
                .balance
                .known
                .missing_in_accounts
                .insert(account.no, shortfall);
        }
    }
    Ok(balancer.balance)
}

impl Balancer<'_> {
    /// Batches whose rows are all there and come to something else are no evidence of what is owed:
    /// their rows are, and are held below.
    fn distrust_batches(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT no, first_seq, last_seq, row_count, units,
                          (SELECT count(*) FROM consumptions
                           WHERE seq BETWEEN first_seq AND last_seq AND lane = b.lane),
                          (SELECT coalesce(sum(units), 0) FROM consumptions
                           WHERE seq BETWEEN first_seq AND last_seq AND lane = b.lane)
                   FROM batches b WHERE state NOT IN ('settled', 'superseded', 'waived')";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let places: Range = (row.get(1)?, row.get(2)?);
            let sum: (i64, i64) = (row.get(3)?, row.get(4)?);
            let found: (i64, i64) = (row.get(5)?, row.get(6)?);
            Ok((row.get::<_, i64>(0)?, places, sum, found))
        })?;
        let batches: Vec<_> = rows.collect::<Result<_, _>>()?;
        let end = self.end;
        for (no, places, sum, found) in batches {
            if found == sum && found.0 > 0 && places.1 > end {
                let sql = "UPDATE batches SET last_seq = ?2 WHERE no = ?1";
                self.connection.execute(sql, [no, end])?;
                continue;
            }
            let is_whole = !self.is_wrong_within(places) && places.1 <= self.end;
            if found.0 > sum.0 || (is_whole && found != sum) || places.1 > end + BEYOND_MAX {
                self.connection
                    .execute("DELETE FROM batches WHERE no = ?1", [no])?;
                let what = format!(
                    "batch {no} said {} units in {} rows, and its rows hold {} in {}",
                    sum.1, sum.0, found.1, found.0
                );
                self.balance.corrected.push(what);
            }
        }
        let sql = "UPDATE batches SET last_seq = max(first_seq, ?1) WHERE last_seq > ?1 + ?2";
        self.connection.execute(sql, [end, BEYOND_MAX])?;
        let sql = "DELETE FROM batches WHERE first_seq > ?1 + ?2";
        self.connection.execute(sql, [end, BEYOND_MAX])?;
        Ok(())
    }

    fn is_wrong_within(&self, places: Range) -> bool {
        let wrong = self.evidence.missing.iter().chain(self.evidence.changed);
        wrong
            .into_iter()
            .any(|range| range.0 <= places.1 && places.0 <= range.1)
    }

    pub(super) fn accounts(&self) -> rusqlite::Result<Vec<Account>> {
        let found = self.rows_of_accounts()?;
        let mut statement = self.connection.prepare(
            "SELECT no, recorded, settled, waived, row_count,
                    (SELECT coalesce(sum(units), 0) FROM batches WHERE
                         state NOT IN ('settled', 'superseded', 'waived')
                         AND lane IN (SELECT no FROM lanes WHERE account = a.no))
             FROM accounts a ORDER BY no",
        )?;
        let rows = statement.query_map([], |row| {
            let no = row.get(0)?;
            Ok(Account {
                no,
                recorded: row.get(1)?,
                settled: row.get(2)?,
                waived: row.get(3)?,
                row_count: row.get(4)?,
                owed: row.get(5)?,
                found: found.get(&no).copied().unwrap_or_default(),
            })
        })?;
        rows.collect()
    }

    fn rows_of_accounts(&self) -> rusqlite::Result<BTreeMap<i64, Shortfall>> {
        let sql = "SELECT account, sum(row_count), sum(units) FROM (
                       SELECT lane, count(*) row_count, sum(units) units FROM consumptions GROUP BY lane
                       UNION ALL SELECT lane, sum(row_count), sum(units) FROM daily GROUP BY lane)
                   JOIN lanes ON lanes.no = lane GROUP BY account";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let (rows, units) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, Shortfall { rows, units }))
        })?;
        rows.collect()
    }

    fn settle_up(&mut self, mut account: Account) -> rusqlite::Result<()> {
        let no = account.no;
        let is_whole = self.evidence.missing.is_empty()
            && self.evidence.lost_lanes.is_empty()
            && self.end <= self.head
            && (!self.evidence.is_unread || account.found.rows == account.row_count);
        let said = (account.recorded, account.row_count);
        let balances = account.recorded == account.settled + account.waived + account.owed;
        if self.is_lost(no)? && self.lost_units > 0 {
            // The accounts that these rows are of hold them already.
            self.connection.execute(
                "UPDATE batches SET state = 'settled', ended_at = ?2
                 WHERE state NOT IN ('settled', 'superseded', 'waived')
                     AND lane IN (SELECT no FROM lanes WHERE account = ?1)",
                params![no, self.evidence.now.as_millis()],
            )?;
            account.owed = 0;
        }
        let bare = self.bare_rows(no)?;
        let extra = account.found.rows - account.row_count;
        if account.row_count == 0 {
            // Its sums are lost: its rows say what was recorded, and its batches what became of it.
            self.add_up(&mut account, &bare)?;
        } else if is_whole && (!balances || account.recorded == account.found.units || extra > 0) {
            account.recorded = account.found.units;
            account.row_count = account.found.rows;
        } else if extra > 0 {
            // It is older than its newest rows.
            let newest = bare
                .len()
                .saturating_sub(usize::try_from(extra).unwrap_or(usize::MAX));
            let newest = bare.get(newest..).unwrap_or_default();
            account.recorded += newest.iter().map(|row| row.units).sum::<i64>();
            account.row_count = account.found.rows;
        }
        let open = account.recorded - account.settled - account.waived - account.owed;
        let left = open - self.cover(&bare, open.max(0))?;
        if left > 0 && is_whole && bare.is_empty() && !self.evidence.is_old {
            // All rows are there and all are covered: only the sum of those settled can be wrong.
            account.settled += left;
        } else if left > 0 {
            self.lost_units += left;
            self.hold_lost(no, left)?;
        } else if left < 0 {
            // More is owed than the sums allow: some of it may be settled already.
            self.hold_all(no)?;
            account.settled += left;
        }
        let now = (account.recorded, account.row_count);
        if now != said || left != 0 {
            let what = format!(
                "the sums of account {no}: {} units in {} rows were recorded, {} of them settled",
                account.recorded, account.row_count, account.settled
            );
            self.balance.corrected.push(what);
        }
        self.connection.execute(
            "UPDATE accounts SET recorded = ?2, settled = ?3, waived = ?4, row_count = ?5 WHERE no = ?1",
            params![no, account.recorded, account.settled, account.waived, account.row_count],
        )?;
        Ok(())
    }

    pub(super) fn is_lost(&self, account: i64) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM accounts JOIN licenses ON licenses.no = license
                   WHERE accounts.no = ?1 AND product = ?2)";
        self.connection
            .query_row(sql, params![account, LOST], |row| row.get(0))
    }

    /// The sums of an account from its batches and rows.
    fn add_up(&self, account: &mut Account, bare: &[Bare]) -> rusqlite::Result<()> {
        let of = |sql: &str| {
            self.connection
                .query_row(sql, [account.no], |row| row.get::<_, i64>(0))
        };
        let owed_rows = of(
            "SELECT coalesce(sum(c.units), 0) FROM batches b JOIN consumptions c
                            ON c.lane = b.lane AND c.seq BETWEEN first_seq AND last_seq
                            WHERE state NOT IN ('settled', 'superseded', 'waived')
                                AND b.lane IN (SELECT no FROM lanes WHERE account = ?1)",
        )?;
        let waived = of("SELECT (SELECT coalesce(sum(units), 0) FROM batches b
                                 WHERE state = 'waived'
                                     AND lane IN (SELECT no FROM lanes WHERE account = ?1)
                                     AND EXISTS (SELECT 1 FROM consumptions WHERE lane = b.lane
                                                     AND seq BETWEEN first_seq AND last_seq))
                              + (SELECT coalesce(sum(units), 0) FROM daily
                                 WHERE outcome = 'waived'
                                     AND lane IN (SELECT no FROM lanes WHERE account = ?1))")?;
        let bare: i64 = bare.iter().map(|row| row.units).sum();
        account.recorded = account.found.units + account.owed - owed_rows;
        account.row_count = account.found.rows;
        account.waived = waived;
        account.settled = account.recorded - waived - account.owed;
        if self.lost_units == 0 {
            account.settled -= bare;
        }
        Ok(())
    }
}

//! Batches for what no readable one covers: held ones for what is owed, settled ones for the rest.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    books::{Balancer, Bare, Held},
    identity::LOST,
    mend,
};
use crate::ledger::known::Range;

impl Balancer<'_> {
    /// The rows of an account that no batch covers, oldest first.
    pub(super) fn bare_rows(&self, account: i64) -> rusqlite::Result<Vec<Bare>> {
        let sql = "SELECT seq, lane, units FROM consumptions c
                   WHERE lane IN (SELECT no FROM lanes WHERE account = ?1)
                       AND seq > coalesce((SELECT last_seq FROM batches
                           WHERE lane = c.lane AND first_seq <= c.seq AND state != 'superseded'
                           ORDER BY first_seq DESC LIMIT 1), 0)
                   ORDER BY seq";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([account], |row| {
            Ok(Bare {
                seq: row.get(0)?,
                lane: row.get(1)?,
                units: row.get(2)?,
            })
        })?;
        rows.collect()
    }

    /// Covers rows by new batches: the newest of them, as far as something is owed, by held ones, since
    /// what is older is settled first. Returns the units that are held.
    pub(super) fn cover(&mut self, rows: &[Bare], owed: i64) -> rusqlite::Result<i64> {
        let mut sum = 0;
        let mut begin = rows.len();
        for (index, row) in rows.iter().enumerate().rev() {
            if sum == owed {
                break;
            }
            sum += row.units;
            if sum <= owed {
                begin = index;
            }
        }
        let units = |rows: &[Bare]| rows.iter().map(|row| row.units).sum::<i64>();
        let (settled, held) = rows.split_at(begin);
        for (rows, is_held) in [(settled, false), (held, true)] {
            let mut runs: BTreeMap<i64, Vec<Vec<Bare>>> = BTreeMap::new();
            for row in rows {
                let runs = runs.entry(row.lane).or_default();
                match runs.last_mut() {
                    Some(run) if !self.is_batch_between(run, row)? => run.push(*row),
                    _ => runs.push(vec![*row]),
                }
            }
            for run in runs.values().flatten() {
                if let (Some(first), Some(last)) = (run.first(), run.last()) {
                    let sum = (i64::try_from(run.len()).unwrap_or(i64::MAX), units(run));
                    self.add_batch(first.lane, (first.seq, last.seq), sum, is_held)?;
                }
            }
        }
        Ok(units(held))
    }

    fn is_batch_between(&self, run: &[Bare], next: &Bare) -> rusqlite::Result<bool> {
        let Some(last) = run.last() else {
            return Ok(false);
        };
        let sql = "SELECT EXISTS (SELECT 1 FROM batches WHERE lane = ?1 AND state != 'superseded'
                                      AND first_seq BETWEEN ?2 AND ?3)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_row([next.lane, last.seq, next.seq], |row| row.get(0))
    }

    fn add_batch(
        &mut self,
        lane: i64,
        places: Range,
        sum: (i64, i64),
        is_held: bool,
    ) -> rusqlite::Result<()> {
        let (state, ended_at) = if is_held {
            ("open", None)
        } else {
            ("settled", Some(self.evidence.now.as_millis()))
        };
        self.connection.execute(
            "INSERT INTO batches (no, lane, first_seq, last_seq, row_count, units, state, closed,
                                  late, ended_at)
             VALUES ((SELECT coalesce(max(no), 0) + 1 FROM batches), ?1, ?2, ?3, ?4, ?5, ?6, 1, 0, ?7)",
            params![lane, places.0, places.1, sum.0, sum.1, state, ended_at],
        )?;
        let no = self.connection.last_insert_rowid();
        if is_held {
            mend::hold(self.connection, no, self.evidence.now)?;
        } else {
            self.balance.corrected.push(format!(
                "batch {no} stands for settled rows whose own is lost"
            ));
        }
        Ok(())
    }

    /// Units that are owed by the sums, and of which no row is left.
    pub(super) fn hold_lost(&mut self, account: i64, units: i64) -> rusqlite::Result<()> {
        let sql = "SELECT coalesce(max(no), 0) FROM lanes WHERE account = ?1";
        let mut lane: i64 = self
            .connection
            .query_row(sql, [account], |row| row.get(0))?;
        if lane == 0 {
            self.connection.execute(
                "INSERT INTO lanes (account, hardware_id, event)
                 SELECT ?1, coalesce((SELECT min(hardware_id) FROM devices WHERE license = a.license),
                                     ?2), 'add_consumption'
                 FROM accounts a WHERE no = ?1",
                params![account, LOST],
            )?;
            lane = self.connection.last_insert_rowid();
        }
        self.end += 1;
        self.add_batch(lane, (self.end, self.end), (0, units), true)
    }

    pub(super) fn hold_all(&self, account: i64) -> rusqlite::Result<()> {
        self.hold_where("lane IN (SELECT no FROM lanes WHERE account = ?1)", account)
    }

    /// What may be older than it says, or somebody else's, is not sent; nor can be what nobody knows the licence of.
    pub(super) fn hold_doubtful(&self) -> rusqlite::Result<()> {
        for batch in self.evidence.stale_batches {
            self.hold_where("no = ?1", *batch)?;
        }
        for lane in self.evidence.lost_lanes {
            self.hold_where("lane = ?1", *lane)?;
        }
        for account in self.accounts()? {
            if self.is_lost(account.no)? {
                self.hold_all(account.no)?;
            }
        }
        if self.evidence.is_old {
            self.hold_where("state IN ('open', 'sealed') AND ?1", 1)?;
        }
        Ok(())
    }

    fn hold_where(&self, condition: &str, parameter: i64) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT no FROM batches
             WHERE state NOT IN ('settled', 'superseded', 'waived') AND ({condition})"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let found: Vec<i64> = statement
            .query_map([parameter], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for no in found {
            mend::hold(self.connection, no, self.evidence.now)?;
        }
        Ok(())
    }

    pub(super) fn list_held(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT b.no, product, holder_value, feature, b.row_count, b.units
                   FROM batches b JOIN lanes ON lanes.no = b.lane
                   JOIN accounts ON accounts.no = lanes.account
                   JOIN licenses ON licenses.no = license
                   WHERE state = 'held' AND reason = 'undecidable' ORDER BY b.no";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Held {
                batch: row.get(0)?,
                product: row.get(1)?,
                holder_value: row.get(2)?,
                feature: row.get(3)?,
                rows: row.get(4)?,
                units: row.get(5)?,
            })
        })?;
        self.balance.held = rows.collect::<Result<_, _>>()?;
        Ok(())
    }
}

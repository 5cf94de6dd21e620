//! Folding what is done with into daily sums, so that the file stays as small as what is owed.
//!
//! A row whose batch was settled (or waived) before the retention time is added to the sum of its day
//! and deleted. Places that were folded leave an anchor: the hash of the last of them, from which the
//! chain goes on. It works in slices between other work, oldest first; rows that are still owed stay
//! where they are, with anchors around them.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tally_shared::{period::Period, time::Timestamp, units::Units};

use crate::core::{
    book::{AppNo, LaneNo, Seq},
    chain::{self, Hash},
};

/// How many rows a slice looks at: a commit of a few milliseconds.
const SLICE_ROWS: usize = 512;

/// How often the ledger is looked through.
const INTERVAL: Duration = Duration::from_hours(1);

/// A slice begins after this many times as long as the one before took: the rest belongs to requests. With a tenth of
/// the time, folding fell behind a load that took all of the processor, and the file grew.
const SLICE_SPACING: u32 = 5;

/// A sweep over the ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    /// The last place that was looked at.
    reached: i64,
    /// What ended before this time is folded. As it was when the sweep began, so that it comes to an end
    /// while rows are added.
    cutoff: Option<Timestamp>,
}

/// What a slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// How many rows were folded.
    pub folded: usize,
    /// Whether the sweep is over.
    pub is_last: bool,
}

impl Slice {
    /// Nothing was left to fold.
    pub const LAST: Self = Self {
        folded: 0,
        is_last: true,
    };

    /// How long after its beginning the next slice is due, where this one `took` so long.
    pub fn next_after(self, took: Duration) -> Duration {
        if self.is_last {
            INTERVAL
        } else {
            took.saturating_mul(SLICE_SPACING)
        }
    }
}

struct Old {
    seq: Seq,
    lane: LaneNo,
    app: AppNo,
    units: Units,
    at: Timestamp,
    time_proven: bool,
    hash: Hash,
    /// `None` where it is not to be folded.
    outcome: Option<Outcome>,
}

/// `settled` or `waived`, since before the cutoff, and whether it was late.
type Outcome = (&'static str, bool);

/// Folds the next rows of a sweep that ended before `cutoff`. `key` is what the chain is keyed with; `check` is asked
/// within the transaction whether it may write.
///
/// # Errors
///
/// What SQLite says; then nothing is changed, and the slice can be tried again.
pub fn fold(
    connection: &mut Connection,
    sweep: &mut Sweep,
    cutoff: Timestamp,
    key: &chain::Key,
    check: &dyn Fn(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Slice> {
    let cutoff = *sweep.cutoff.get_or_insert(cutoff);
    let rows = read(connection, sweep.reached, cutoff)?;
    let Some(last) = rows.last().map(|row| row.seq) else {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check(&tx)?;
        forget_batches(&tx, cutoff)?;
        forget_judgements(&tx)?;
        tx.commit()?;
        *sweep = Sweep::default();
        return Ok(Slice::LAST);
    };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check(&tx)?;
    let mut folded = 0;
    for run in
        rows.chunk_by(|a, b| a.outcome.is_some() && b.outcome.is_some() && b.seq.0 == a.seq.0 + 1)
    {
        if run.iter().all(|row| row.outcome.is_some()) {
            fold_run(&tx, run, key)?;
            crate::fail_point!("fold.before-commit");
            folded += run.len();
        }
    }
    tx.commit()?;
    if folded > 0 {
        crate::fail_point!("fold.after-commit");
    }
    sweep.reached = last.0;
    Ok(Slice {
        folded,
        is_last: false,
    })
}

fn read(connection: &Connection, after: i64, cutoff: Timestamp) -> rusqlite::Result<Vec<Old>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, lane, app, units, at, proven, hash FROM consumptions
         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let limit = i64::try_from(SLICE_ROWS).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after, limit])?;
    let mut outcomes = Outcomes {
        connection,
        cutoff,
        of_lanes: BTreeMap::new(),
    };
    let mut old = Vec::with_capacity(SLICE_ROWS);
    while let Some(row) = rows.next()? {
        let (seq, lane) = (Seq(row.get(0)?), LaneNo(row.get(1)?));
        let at = Timestamp::from_millis(row.get(4)?);
        if at >= cutoff {
            // Rows are in the order of time: nothing after the first young one is old enough.
            break;
        }
        old.push(Old {
            seq,
            lane,
            app: AppNo(row.get(2)?),
            units: Units::new(row.get(3)?),
            at,
            time_proven: row.get(5)?,
            hash: Hash(row.get(6)?),
            outcome: outcomes.of(lane, seq)?,
        });
    }
    Ok(old)
}

/// What became of rows. A slice asks once for each batch: to ask for each row was most of what folding took.
struct Outcomes<'a> {
    connection: &'a Connection,
    cutoff: Timestamp,
    /// Of each lane, the newest answer, and the first place that it does not hold for.
    of_lanes: BTreeMap<LaneNo, (Option<Outcome>, i64)>,
}

impl Outcomes<'_> {
    /// The outcome of a row; `None` where it is still owed, or not for long enough. Of a lane, rows are asked for in
    /// their order.
    fn of(&mut self, lane: LaneNo, seq: Seq) -> rusqlite::Result<Option<Outcome>> {
        if let Some((outcome, end)) = self.of_lanes.get(&lane)
            && seq.0 < *end
        {
            return Ok(*outcome);
        }
        // The batches of a lane that were not replaced by others do not overlap: a row's is the one that
        // begins last before it.
        let mut statement = self.connection.prepare_cached(
            "SELECT b.state, b.late, b.ended_at < ?3,
                    (SELECT first_seq FROM batches
                     WHERE lane = ?1 AND first_seq > ?2 AND state != 'superseded'
                     ORDER BY first_seq LIMIT 1)
             FROM (SELECT 1) LEFT JOIN batches b ON b.no = (
                 SELECT no FROM batches
                 WHERE lane = ?1 AND first_seq <= ?2 AND state != 'superseded'
                 ORDER BY first_seq DESC LIMIT 1)",
        )?;
        let parameters = params![lane.0, seq.0, self.cutoff.as_millis()];
        let found = statement.query_row(parameters, |row| {
            let is_over = row.get::<_, Option<bool>>(2)? == Some(true);
            let state = match row.get_ref(0)?.as_str_or_null()? {
                Some("settled") if is_over => Some("settled"),
                Some("waived") if is_over => Some("waived"),
                _ => None,
            };
            let is_late: Option<bool> = row.get(1)?;
            let end: Option<i64> = row.get(3)?;
            Ok((state.zip(is_late), end.unwrap_or(i64::MAX)))
        })?;
        self.of_lanes.insert(lane, found);
        Ok(found.0)
    }
}

/// Folds rows without a gap between them.
fn fold_run(tx: &Transaction<'_>, run: &[Old], key: &chain::Key) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for row in run {
        let Some((outcome, late)) = row.outcome else {
            continue;
        };
        let day = Period::Daily.start(row.at).as_millis();
        let sum = sums.entry((day, row.lane.0, row.app.0, outcome, late));
        let (rows, units) = sum.or_default();
        *rows += 1;
        // In range: it is a part of what its account has recorded.
        *units = units.saturating_add(row.units.get());
    }
    let mut add = tx.prepare_cached(
        "INSERT INTO daily VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET row_count = row_count + excluded.row_count,
             units = units + excluded.units",
    )?;
    for ((day, lane, app, outcome, late), (rows, units)) in sums {
        add.execute(params![day, lane, app, outcome, late, rows, units])?;
    }
    tx.prepare_cached("DELETE FROM consumptions WHERE seq BETWEEN ?1 AND ?2")?
        .execute([first.seq.0, last.seq.0])?;
    anchor(tx, first.seq, last, key)
}

/// Notes that the places from `first` to `last` are folded, in one anchor with its neighbours.
fn anchor(tx: &Transaction<'_>, first: Seq, last: &Old, key: &chain::Key) -> rusqlite::Result<()> {
    let mut end = (last.seq, last.hash, last.at.as_millis(), last.time_proven);
    let mut take = tx.prepare_cached(
        "DELETE FROM anchors WHERE first_seq = ?1 RETURNING last_seq, hash, at, proven",
    )?;
    let after = take
        .query_row([last.seq.0 + 1], |row| {
            let hash = Hash(row.get(1)?);
            Ok((Seq(row.get(0)?), hash, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    end = after.unwrap_or(end);
    let before: Option<i64> = tx
        .prepare_cached(
            "SELECT first_seq FROM anchors
             WHERE first_seq = (SELECT max(first_seq) FROM anchors WHERE first_seq < ?1)
                 AND last_seq = ?1 - 1",
        )?
        .query_row([first.0], |row| row.get(0))
        .optional()?;
    let first = before.map_or(first, Seq);
    let (last, hash, at, proven) = end;
    let seal = key.seal_anchor((first, last), &hash);
    tx.prepare_cached("INSERT OR REPLACE INTO anchors VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![first.0, last.0, hash.0, at, proven, seal.0])
        .map(|_| ())
}

/// Forgets batches of which no row is left. The newest stays, so that no number is given twice.
fn forget_batches(connection: &Connection, cutoff: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM batches WHERE no IN (
                 SELECT no FROM batches b
                 WHERE ended_at < ?1 AND no < (SELECT max(no) FROM batches) AND NOT EXISTS (
                     SELECT 1 FROM consumptions
                     WHERE seq BETWEEN b.first_seq AND b.last_seq AND lane = b.lane)
                 LIMIT 4096)",
        )?
        .execute([cutoff.as_millis()])
        .map(|_| ())
}

/// Forgets what only folded rows were judged by.
fn forget_judgements(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM judgements WHERE (account, seq) IN (
                 SELECT account, seq FROM judgements j
                 WHERE seq < (
                     SELECT max(seq) FROM judgements
                     WHERE account = j.account
                         AND seq <= coalesce((SELECT min(seq) FROM consumptions), 1 << 62))
                 LIMIT 4096)",
        )?
        .execute([])
        .map(|_| ())
}

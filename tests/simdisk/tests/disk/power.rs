//! Power loss at every change of a workload: what was acknowledged is there, and nothing else.

use std::collections::BTreeSet;

use rusqlite::Connection;
use tally_simdisk::Disk;

use crate::workload::{self, Mode, Progress, WAL_FULL};

const SEEDS: u64 = 4;

/// What became of a workload that lost its power.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    progress: Progress,
    rows: Result<i64, String>,
}

impl Outcome {
    fn is_whole(&self) -> bool {
        let Progress {
            acknowledged,
            attempted,
        } = self.progress;
        let expected = acknowledged..=attempted;
        self.rows.as_ref().is_ok_and(|rows| expected.contains(rows))
    }
}

/// Runs the workload, cutting the power before a change; `None` if it ended before that change.
fn cut(mode: Mode, change: u64, seed: u64) -> Option<(Disk, Progress)> {
    let disk = workload::empty_ledger(mode);
    let mut progress = Progress::default();
    disk.cut_power_after(change);
    let ended = workload::thirty_commits(&disk, mode, &mut progress);
    if disk.is_on() {
        ended.unwrap();
        return None;
    }
    disk.power_on(seed);
    Some((disk, progress))
}

/// The outcome of every cut with every seed.
fn outcomes(mode: Mode) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for change in 0.. {
        for seed in 0..SEEDS {
            let Some((disk, progress)) = cut(mode, change, seed ^ (change << 8)) else {
                assert!(change > 100, "only {change} changes");
                return outcomes;
            };
            let rows = workload::rows_of(&disk, mode);
            outcomes.push(Outcome { progress, rows });
        }
    }
    outcomes
}

#[track_caller]
fn check_all_whole(mode: Mode) {
    for (at, outcome) in outcomes(mode).iter().enumerate() {
        assert!(outcome.is_whole(), "{at}: {outcome:?}");
    }
}

#[test]
fn acknowledged_commits_survive_in_wal_mode() {
    check_all_whole(WAL_FULL);
}

#[test]
fn acknowledged_commits_survive_with_a_rollback_journal() {
    check_all_whole(Mode {
        journal: "DELETE",
        synchronous: "EXTRA",
    });
}

#[test]
fn both_outcomes_of_a_commit_that_was_cut_come_up() {
    let outcomes = outcomes(WAL_FULL);
    let beyond = |outcome: &&Outcome| outcome.rows != Ok(outcome.progress.acknowledged);
    let kept = outcomes.iter().filter(beyond).count();
    assert!(kept > 0, "no unacknowledged commit survives");
    assert!(kept < outcomes.len(), "every one survives");
}

#[test]
fn without_any_sync_commits_are_lost() {
    let outcomes = outcomes(Mode {
        journal: "WAL",
        synchronous: "OFF",
    });
    let lost = outcomes.iter().filter(|it| !it.is_whole()).count();
    assert!(lost > outcomes.len() / 10, "{lost} of {}", outcomes.len());
}

#[test]
fn without_a_sync_per_commit_commits_are_lost_but_the_ledger_is_whole() {
    let outcomes = outcomes(Mode {
        journal: "WAL",
        synchronous: "NORMAL",
    });
    let lost = outcomes.iter().filter(|it| !it.is_whole()).count();
    assert!(lost > 0);
    for outcome in outcomes {
        let rows = outcome.rows.unwrap();
        assert!(rows <= outcome.progress.attempted);
    }
}

#[test]
fn a_deleted_rollback_journal_may_come_back_if_its_folder_is_not_synced() {
    // SQLite documents this of `FULL`: the commit is whole, but may be rolled back by a power loss.
    let outcomes = outcomes(Mode {
        journal: "DELETE",
        synchronous: "FULL",
    });
    assert!(outcomes.iter().any(|it| !it.is_whole()));
    assert!(outcomes.iter().all(|it| it.rows.is_ok()));
}

#[test]
fn a_new_database_may_vanish_until_its_folder_is_synced() {
    let outcome = |synced: bool, seed| {
        let disk = Disk::new();
        let connection = Connection::open(disk.path("ledger.db")).unwrap();
        connection
            .execute_batch("PRAGMA synchronous = EXTRA; CREATE TABLE entry (id INTEGER)")
            .unwrap();
        if synced {
            disk.sync_folder();
        }
        disk.power_on(seed);
        disk.read("ledger.db").map(|content| content.len())
    };
    let unsynced: BTreeSet<_> = (0..20).map(|seed| outcome(false, seed)).collect();
    assert_eq!(unsynced, BTreeSet::from([None, Some(8192)]));
    assert!((0..20).all(|seed| outcome(true, seed) == Some(8192)));
}

#[test]
fn without_power_everything_fails_and_old_connections_stay_dead() {
    let disk = workload::empty_ledger(WAL_FULL);
    let mut progress = Progress::default();
    let old = workload::connect(&disk, WAL_FULL).unwrap();
    workload::commit(&old, &mut progress).unwrap();
    disk.cut_power_after(0);
    assert!(disk.is_on(), "until the next change");
    assert_eq!(workload::rows(&old), Ok(1), "reading is no change");
    workload::commit(&old, &mut progress).unwrap_err();
    assert!(!disk.is_on());
    let changes = disk.changes();
    workload::rows(&old).unwrap_err();
    workload::connect(&disk, WAL_FULL).unwrap_err();
    disk.sync_folder();
    assert_eq!(disk.changes(), changes);

    disk.power_on(5);
    assert!(disk.is_on());
    let new = workload::connect(&disk, WAL_FULL).unwrap();
    workload::rows(&old).unwrap_err();
    workload::commit(&old, &mut progress).unwrap_err();
    let rows = workload::rows(&new).unwrap();
    assert!((1..=2).contains(&rows));
    old.close().unwrap();
    progress.acknowledged = rows;
    workload::commit(&new, &mut progress).unwrap();
    assert_eq!(workload::rows(&new), Ok(rows + 1));
}

#[test]
fn a_seed_and_the_operations_decide_what_is_left() {
    let mode = Mode {
        journal: "WAL",
        synchronous: "OFF",
    };
    let mut ends = BTreeSet::new();
    for change in (50..250).step_by(10) {
        for seed in 0..4 {
            // The WAL's own bytes are salted by SQLite: its length must do.
            let end = || {
                let (disk, progress) = cut(mode, change, seed).unwrap();
                let ledger = disk.read("ledger.db");
                let wal = disk.read("ledger.db-wal").map(|wal| wal.len());
                let counts = (disk.changes(), disk.used(), progress.acknowledged);
                (disk.files(), ledger, wal, counts)
            };
            let first = end();
            assert_eq!(first, end(), "change {change}, seed {seed}");
            ends.insert(first);
        }
    }
    assert!(ends.len() > 40, "seeds make a difference: {}", ends.len());
}

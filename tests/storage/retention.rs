//! Folding what is done with, and proving what is left.

use std::time::Duration;

use rusqlite::Connection;
use tally_agent::ledger::{schema, verify::verify};

use tally_tests::marks;

use crate::bench::Bench;

const DAY: Duration = Duration::from_hours(24);

fn count(bench: &Bench, sql: &str) -> i64 {
    let connection = Connection::open(bench.disk.path("ledger.db")).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn started() -> Bench {
    let mut bench = Bench::new();
    bench.start().unwrap();
    bench.learn();
    bench
}

#[test]
fn settled_rows_are_folded_into_daily_sums_and_the_chain_goes_on() {
    let mut bench = started();
    for _ in 0..1200 {
        bench.record(2);
    }
    bench.pass(Duration::from_secs(2));
    bench.sync();
    bench.pass(DAY);
    bench.sync();
    assert_eq!(count(&bench, "SELECT count(*) FROM consumptions"), 0);
    assert_eq!(count(&bench, "SELECT sum(units) FROM daily"), 2400);
    assert_eq!(count(&bench, "SELECT count(*) FROM anchors"), 1);
    bench.check("after folding");
    // A start finds the end of the chain in the anchor.
    bench.die();
    bench.start().unwrap();
    bench.record(1);
    bench.check("after a start");
    assert_eq!(count(&bench, "SELECT seq FROM consumptions"), 1201);
    assert_eq!(bench.sums().recorded, 2401);
}

#[test]
fn what_is_owed_is_never_folded() {
    let mut bench = started();
    for _ in 0..10 {
        bench.record(1);
    }
    bench.pass(10 * DAY);
    bench.tick();
    assert_eq!(count(&bench, "SELECT count(*) FROM consumptions"), 10);
    // What was sent is unknown after a start, and sent again.
    bench.die();
    bench.start().unwrap();
    bench.learn();
    bench.sync();
    bench.pass(DAY);
    bench.sync();
    assert_eq!(count(&bench, "SELECT count(*) FROM consumptions"), 0);
    bench.check("after folding what was settled");
}

#[test]
fn what_is_owed_behind_a_settled_batch_is_not_folded() {
    let mut bench = started();
    for _ in 0..10 {
        bench.record(1);
    }
    bench.pass(Duration::from_secs(2));
    bench.sync();
    for _ in 0..10 {
        bench.record(1);
    }
    bench.pass(10 * DAY);
    bench.tick();
    assert_eq!(count(&bench, "SELECT min(seq) FROM consumptions"), 11);
    assert_eq!(count(&bench, "SELECT count(*) FROM consumptions"), 10);
    assert_eq!(count(&bench, "SELECT sum(row_count) FROM daily"), 10);
    bench.check("after folding what was settled");
}

#[test]
fn the_file_stays_flat_while_rows_come_and_go() {
    let mut bench = started();
    let mut lengths = Vec::new();
    for _ in 0..12 {
        for _ in 0..400 {
            bench.record(1);
        }
        bench.pass(Duration::from_secs(2));
        bench.sync();
        bench.pass(DAY);
        bench.sync();
        bench.checkpoint();
        lengths.push(
            bench
                .disk
                .read("ledger.db")
                .map_or(0, |content| content.len()),
        );
    }
    // Answers are kept for an hour, rows for a second: from the second round on, space is used again.
    let (early, late) = (lengths[2], lengths[11]);
    assert!(late <= early + early / 4, "{lengths:?}");
    bench.check("after twelve rounds");
}

#[test]
fn a_reader_that_stays_does_not_let_the_log_grow_for_good() {
    let mut bench = started();
    let reader = schema::open_read_only(&bench.disk.path("ledger.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM consumptions")
        .unwrap();
    for _ in 0..5000 {
        bench.record(1);
    }
    reader.execute_batch("COMMIT").unwrap();
    let log = |bench: &Bench| bench.disk.read("ledger.db-wal").map_or(0, |log| log.len());
    let grown = log(&bench);
    assert!(
        grown > 80_000_000,
        "only {grown} bytes: nothing to give back"
    );
    for _ in 0..5000 {
        bench.record(1);
    }
    assert!(
        log(&bench) < grown / 4 * 3,
        "{} of {grown} bytes are left",
        log(&bench)
    );
}

/// What an edit of the ledger's file is found as.
fn faults_after(sql: &str) -> Vec<String> {
    let mut bench = started();
    for _ in 0..20 {
        bench.record(1);
    }
    let connection = Connection::open(bench.disk.path("ledger.db")).unwrap();
    connection
        .execute_batch("PRAGMA foreign_keys = OFF")
        .unwrap();
    connection.execute_batch(sql).unwrap();
    let findings = verify(&connection, &marks::key()).unwrap();
    findings
        .faults
        .into_iter()
        .map(|fault| fault.what)
        .collect()
}

#[test]
fn a_row_that_is_changed_removed_added_or_moved_shows() {
    for sql in [
        "UPDATE consumptions SET units = 2 WHERE seq = 7",
        "UPDATE consumptions SET app = 99 WHERE seq = 7",
        "UPDATE consumptions SET at = at - 1 WHERE seq = 7",
        "DELETE FROM consumptions WHERE seq = 7",
        "DELETE FROM consumptions WHERE seq = 20",
        "INSERT INTO consumptions SELECT 21, lane, app, units, total, at, proven, hash
         FROM consumptions WHERE seq = 20",
        "UPDATE consumptions SET seq = -seq WHERE seq IN (7, 8);
         UPDATE consumptions SET seq = 15 + seq WHERE seq < 0",
        "UPDATE lanes SET hardware_id = 'another'",
        "UPDATE accounts SET recorded = 19",
        "UPDATE accounts SET settled = 5",
        "UPDATE batches SET units = 19",
        "UPDATE batches SET row_count = 19",
        "UPDATE batches SET first_seq = 2",
        "UPDATE batches SET first_seq = 0",
        "UPDATE batches SET last_seq = 19",
        "DELETE FROM batches",
    ] {
        assert!(!faults_after(sql).is_empty(), "not found: {sql}");
    }
    assert!(faults_after("SELECT 1").is_empty());
}

//! What the disk costs: a measurement, to be run by hand.

use std::time::{Duration, Instant};

use tally_simdisk::{Disk, Kind};

use crate::workload::{self, Mode};

/// The time of a thousand commits of three pages, and the writes that each made.
fn measure(mode: Mode) -> (Duration, u64) {
    let disk: Disk = workload::empty_ledger(mode);
    let connection = workload::connect(&disk, mode).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, n); INSERT INTO a VALUES (1, 0);
             CREATE TABLE b (id INTEGER PRIMARY KEY, n); INSERT INTO b VALUES (1, 0);
             CREATE TABLE c (id INTEGER PRIMARY KEY, n); INSERT INTO c VALUES (1, 0);",
        )
        .unwrap();
    let mut statements = [
        "BEGIN IMMEDIATE",
        "UPDATE a SET n = n + 1",
        "UPDATE b SET n = n + 1",
        "UPDATE c SET n = n + 1",
        "COMMIT",
    ]
    .map(|sql| connection.prepare(sql).unwrap());
    let writes = disk.count(Kind::Write);
    let start = Instant::now();
    for _ in 0..1000 {
        for statement in &mut statements {
            statement.execute([]).unwrap();
        }
    }
    (start.elapsed(), (disk.count(Kind::Write) - writes) / 1000)
}

#[test]
#[ignore = "prints a measurement"]
fn the_cost_of_a_commit() {
    let rounds = (0..20).map(|_| measure(workload::WAL_FULL));
    let (elapsed, writes) = rounds.min().unwrap();
    println!(
        "{} ns per commit of {writes} writes",
        elapsed.as_nanos() / 1000
    );

    let start = Instant::now();
    for _ in 0..1000 {
        drop(workload::empty_ledger(workload::WAL_FULL));
    }
    println!(
        "{} ns per disk with a ledger",
        start.elapsed().as_nanos() / 1000
    );
}

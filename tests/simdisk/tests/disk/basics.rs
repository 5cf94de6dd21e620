//! A disk that works: WAL mode, several connections, threads, and the files beside it.

use std::{sync::Barrier, thread, time::Duration};

use rusqlite::{Connection, ErrorCode};
use tally_simdisk::{Disk, Kind};

use crate::workload::{self, Progress, WAL_FULL};

#[test]
fn a_writer_and_a_reader_share_a_ledger_in_wal_mode() {
    let disk = workload::empty_ledger(WAL_FULL);
    let writer = workload::connect(&disk, WAL_FULL).unwrap();
    let reader = workload::connect(&disk, WAL_FULL).unwrap();
    let journal: String = writer
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(journal, "wal");

    let mut progress = Progress::default();
    workload::commit(&writer, &mut progress).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(workload::rows(&reader), Ok(1));
    writer.busy_timeout(Duration::ZERO).unwrap();
    workload::commit(&writer, &mut progress).unwrap();
    assert_eq!(workload::rows(&reader), Ok(1), "a snapshot does not move");
    let busy: i64 = writer
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 1, "the reader holds up the checkpoint");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(workload::rows(&reader), Ok(2));

    workload::checkpoint(&writer, "TRUNCATE").unwrap();
    assert_eq!(disk.read("ledger.db-wal"), Some(Vec::new()));
    assert_eq!(workload::rows(&reader), Ok(2));
    writer.close().unwrap();
    reader.close().unwrap();
    assert_eq!(disk.files(), ["ledger.db"]);
    assert!(Kind::ALL.iter().all(|&kind| disk.count(kind) > 0));
}

#[test]
fn there_is_one_writer_at_a_time_in_every_journal_mode() {
    for journal in ["WAL", "DELETE"] {
        let mode = workload::Mode {
            journal,
            synchronous: "FULL",
        };
        let disk = workload::empty_ledger(mode);
        let first = workload::connect(&disk, mode).unwrap();
        let second = workload::connect(&disk, mode).unwrap();
        second.busy_timeout(Duration::ZERO).unwrap();
        first.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = second.execute_batch("BEGIN IMMEDIATE").unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        first.execute_batch("COMMIT").unwrap();
        second.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
    }
}

#[test]
fn threads_take_turns_on_one_disk() {
    for journal in ["WAL", "DELETE"] {
        let mode = workload::Mode {
            journal,
            synchronous: "FULL",
        };
        let disk = workload::empty_ledger(mode);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let connection = Connection::open(disk.path("ledger.db")).unwrap();
                    connection.busy_timeout(Duration::from_secs(30)).unwrap();
                    start.wait();
                    for _ in 0..50 {
                        connection
                            .execute("INSERT INTO entry (body) VALUES (x'')", [])
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(workload::rows_of(&disk, mode), Ok(200));
    }
}

#[test]
fn two_disks_on_two_threads_know_nothing_of_each_other() {
    let run = |commits: i64| {
        let disk = workload::empty_ledger(WAL_FULL);
        for seed in 0..20 {
            let connection = workload::connect(&disk, WAL_FULL).unwrap();
            let rows = workload::rows(&connection).unwrap();
            let mut progress = Progress {
                acknowledged: rows,
                attempted: rows,
            };
            for _ in 0..commits {
                workload::commit(&connection, &mut progress).unwrap();
            }
            disk.power_on(seed);
        }
        workload::rows_of(&disk, WAL_FULL)
    };
    let (few, many) = thread::scope(|scope| {
        let few = scope.spawn(|| run(3));
        let many = scope.spawn(|| run(7));
        (few.join().unwrap(), many.join().unwrap())
    });
    assert_eq!((few, many), (Ok(60), Ok(140)));
}

#[test]
fn a_file_is_read_damaged_copied_and_removed_from_outside() {
    let disk = workload::empty_ledger(WAL_FULL);
    assert_eq!(disk.read("absent"), None);
    let copy = disk.read("ledger.db").unwrap();
    assert_eq!(disk.used(), copy.len() as u64);

    disk.write("ledger.db", vec![7; copy.len()]);
    assert!(workload::rows_of(&disk, WAL_FULL).is_err());
    disk.remove("ledger.db");
    assert!(disk.files().is_empty());
    let other = Disk::new();
    other.write("ledger.db", copy);
    other.power_on(1);
    assert_eq!(workload::rows_of(&other, WAL_FULL), Ok(0));
}

#[test]
fn temporary_files_are_kept_elsewhere() {
    let disk = workload::empty_ledger(WAL_FULL);
    let connection = workload::connect(&disk, WAL_FULL).unwrap();
    let files = disk.files();
    connection
        .execute_batch(
            "PRAGMA temp_store = FILE; PRAGMA temp.cache_size = 5;
             CREATE TEMP TABLE big AS
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 SELECT i, zeroblob(1000) AS body FROM n;",
        )
        .unwrap();
    let rows: i64 = connection
        .query_row(
            "SELECT count(*) FROM big WHERE length(body) = 1000",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rows, 2000);
    assert_eq!(disk.files(), files);
}

#[test]
fn paths_of_no_disk_lead_to_real_files() {
    let _disk = Disk::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("real.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE entry (id INTEGER PRIMARY KEY)")
        .unwrap();
    assert!(folder.path().join("real.db-shm").exists());
    connection.close().unwrap();
    assert!(path.metadata().unwrap().len() > 0);
    assert!(!folder.path().join("real.db-wal").exists());
}

//! Operations that fail, and a disk that is full: errors surface, and what was acknowledged stays.

use rusqlite::{Error, ErrorCode};
use tally_simdisk::{Disk, ErrorKind, Fault, Kind};

use crate::workload::{self, Mode, Progress, WAL_FULL};

/// A mode in which an error of that kind surfaces: in WAL mode only a close deletes, which says
/// nothing of it.
fn mode(kind: Kind) -> Mode {
    match kind {
        Kind::Delete => Mode {
            journal: "DELETE",
            synchronous: "EXTRA",
        },
        _ => WAL_FULL,
    }
}

/// A session from open to close, with every kind of operation in it.
fn session(disk: &Disk, mode: Mode, progress: &mut Progress) -> Result<(), Error> {
    let connection = workload::connect(disk, mode)?;
    for _ in 0..5 {
        workload::commit(&connection, progress)?;
    }
    workload::checkpoint(&connection, "TRUNCATE")?;
    connection.close().map_err(|(_, error)| error)
}

#[test]
fn each_kind_fails_once_and_for_good_and_heals() {
    for kind in Kind::ALL {
        for error in [ErrorKind::Io, ErrorKind::Full, ErrorKind::ReadOnly] {
            for times in [Some(1), None] {
                for skip in [0, 1, 2, 5] {
                    check_fault(Fault {
                        kind,
                        skip,
                        times,
                        error,
                    });
                }
            }
        }
    }
}

fn check_fault(fault: Fault) {
    let mode = mode(fault.kind);
    let disk = workload::empty_ledger(mode);
    let mut progress = Progress::default();
    session(&disk, mode, &mut progress).unwrap();

    disk.fail(fault);
    let ended = session(&disk, mode, &mut progress);
    match fault.times {
        // A single failure may be one that SQLite makes good, or of which a close does not speak.
        Some(times) => assert!(disk.fired() <= times, "{fault:?}"),
        None if disk.fired() > 0 && fault.skip == 0 => assert!(ended.is_err(), "{fault:?}"),
        None => {}
    }
    if fault.skip == 0 {
        assert!(disk.fired() > 0, "{fault:?}");
    }
    disk.heal();

    let rows = workload::rows_of(&disk, mode).unwrap();
    let expected = progress.acknowledged..=progress.attempted;
    assert!(expected.contains(&rows), "{fault:?}: {rows}, {progress:?}");
    progress.acknowledged = rows;
    session(&disk, mode, &mut progress).unwrap();
    disk.power_on(3);
    assert_eq!(workload::rows_of(&disk, mode), Ok(rows + 5));
}

#[test]
fn a_connection_goes_on_after_the_healing() {
    for kind in [Kind::Write, Kind::Sync] {
        let disk = workload::empty_ledger(WAL_FULL);
        let mut progress = Progress::default();
        let connection = workload::connect(&disk, WAL_FULL).unwrap();
        workload::commit(&connection, &mut progress).unwrap();
        disk.fail(Fault {
            kind,
            skip: 0,
            times: None,
            error: ErrorKind::Io,
        });
        for failures in 1..=3 {
            workload::commit(&connection, &mut progress).unwrap_err();
            assert!(disk.fired() >= failures);
        }
        assert_eq!(workload::rows(&connection), Ok(1));
        disk.heal();
        for _ in 0..5 {
            workload::commit(&connection, &mut progress).unwrap();
        }
        assert_eq!(workload::rows(&connection), Ok(6));
        disk.power_on(9);
        assert_eq!(workload::rows_of(&disk, WAL_FULL), Ok(6));
    }
}

#[test]
fn an_error_has_the_code_of_its_operation() {
    let codes = [
        (Kind::Open, ErrorKind::Io, rusqlite::ffi::SQLITE_CANTOPEN),
        (Kind::Read, ErrorKind::Io, rusqlite::ffi::SQLITE_IOERR_READ),
        (
            Kind::Write,
            ErrorKind::Io,
            rusqlite::ffi::SQLITE_IOERR_WRITE,
        ),
        (Kind::Write, ErrorKind::Full, rusqlite::ffi::SQLITE_FULL),
        (
            Kind::Write,
            ErrorKind::ReadOnly,
            rusqlite::ffi::SQLITE_READONLY,
        ),
        (Kind::Sync, ErrorKind::Io, rusqlite::ffi::SQLITE_IOERR_FSYNC),
        (
            Kind::Truncate,
            ErrorKind::Io,
            rusqlite::ffi::SQLITE_IOERR_TRUNCATE,
        ),
        (
            Kind::Delete,
            ErrorKind::Io,
            rusqlite::ffi::SQLITE_IOERR_DELETE,
        ),
    ];
    for (kind, error, code) in codes {
        let mode = mode(kind);
        let disk = workload::empty_ledger(mode);
        disk.fail(Fault {
            kind,
            skip: 0,
            times: None,
            error,
        });
        let failed = session(&disk, mode, &mut Progress::default()).unwrap_err();
        let extended = failed.sqlite_error().map(|error| error.extended_code);
        assert_eq!(extended, Some(code), "{kind:?}: {failed}");
    }
}

#[test]
fn a_full_disk_says_so_and_recovers() {
    for mode in [WAL_FULL, mode(Kind::Delete)] {
        let disk = workload::empty_ledger(mode);
        let mut progress = Progress::default();
        let connection = workload::connect(&disk, mode).unwrap();
        workload::commit(&connection, &mut progress).unwrap();
        let capacity = disk.used() + 100_000;
        disk.set_capacity(Some(capacity));
        let full = loop {
            match workload::commit(&connection, &mut progress) {
                Ok(()) => assert!(progress.acknowledged < 100, "never full"),
                Err(error) => break error,
            }
        };
        assert_eq!(full.sqlite_error_code(), Some(ErrorCode::DiskFull));
        assert!(disk.used() <= capacity);
        assert_eq!(workload::rows(&connection), Ok(progress.acknowledged));

        disk.set_capacity(None);
        workload::commit(&connection, &mut progress).unwrap();
        disk.power_on(11);
        assert_eq!(workload::rows_of(&disk, mode), Ok(progress.acknowledged));
    }
}

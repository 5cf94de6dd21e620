//! Opening the ledger: settings that the promises depend on, and migrations on `user_version`.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{LedgerError, upgrade};

/// Each migration, in order. Only ever added to: a released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_decisions_and_retention.sql"),
    include_str!("migrations/0003_evidence.sql"),
    include_str!("migrations/0004_judgements.sql"),
    include_str!("migrations/0005_stale_totals.sql"),
    include_str!("migrations/0006_counted_once.sql"),
];

/// A log that a reader let grow beyond this is cut off when it is next written from its start. In use it
/// stays far below, and is written over.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// "Tall", so that `file` and a person can tell what the file is.
pub(super) const APPLICATION_ID: i64 = 0x5461_6c6c;

/// More statements than the writer has, so that none is prepared twice.
const STATEMENTS_MAX: usize = 64;

/// After so many pages, the write-ahead log is copied back, and then written from its start again. So many that fewer
/// than one in a hundred requests of who asks one thing at a time meets that, beside a flood as well, and so few that the
/// pause cannot be felt and the log has 5 MB on the disk.
pub(super) const CHECKPOINT_PAGES: u64 = 1000;

/// Where nobody copies the log back in a quiet moment, SQLite does within the commit that finds it this
/// long.
const LOG_PAGES_MAX: i64 = 3000;

/// Opens the ledger for writing, creating or migrating it. Of one of an older version, a copy is kept
/// beside it first.
///
/// # Errors
///
/// [`LedgerError::Newer`] for a file of a newer version, and [`LedgerError::Upgrade`] for an older one that
/// cannot be migrated; both are left as they are. Otherwise [`LedgerError::Open`] or what SQLite says.
pub fn open(path: &Path) -> Result<Connection, LedgerError> {
    let (mut connection, version) = connect(path)?;
    if version >= 1 && !is_current(version) {
        upgrade(&mut connection, path, version)?;
    }
    migrated(connection, path)
}

/// The same for a ledger on a disk of which only SQLite knows, as simulations have: there, no copy is kept.
///
/// # Errors
///
/// As [`open()`].
pub fn open_simulated(path: &Path) -> Result<Connection, LedgerError> {
    let (connection, _) = connect(path)?;
    migrated(connection, path)
}

fn connect(path: &Path) -> Result<(Connection, i64), LedgerError> {
    let connection = Connection::open(path).map_err(|source| unusable(path, source))?;
    let version = check_version(&connection, path)?;
    // Before an upgrade too: it is to be as durable as all else.
    configure(&connection)?;
    Ok((connection, version))
}

fn migrated(mut connection: Connection, path: &Path) -> Result<Connection, LedgerError> {
    migrate(&mut connection).map_err(|source| unusable(path, source))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Migrates an older ledger, all of it or nothing, once a copy of it is kept.
fn upgrade(connection: &mut Connection, path: &Path, version: i64) -> Result<(), LedgerError> {
    let failed = |source| LedgerError::Upgrade {
        path: path.to_owned(),
        version,
        source: Box::new(source),
    };
    let copy = upgrade::keep_copy(path, version).map_err(failed)?;
    if let Err(error) = migrate(connection) {
        // The ledger is as it was: the copy has no use, and would take an older one's place.
        let _ = std::fs::remove_file(&copy);
        return Err(failed(unusable(path, error)));
    }
    tracing::info!(
        from = version,
        to = version_of(MIGRATIONS.len()),
        copy = %copy.display(),
        "upgraded the ledger; a copy of it as it was is kept"
    );
    if let Err(error) = upgrade::forget_old_copies(path) {
        tracing::warn!(%error, "cannot remove an old copy of the ledger");
    }
    Ok(())
}

/// Opens an existing ledger for reading only.
///
/// # Errors
///
/// [`LedgerError::Open`].
pub fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |source| LedgerError::Open {
        path: path.to_owned(),
        source,
    };
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(failed)?;
    Ok(connection)
}

fn unusable(path: &Path, source: rusqlite::Error) -> LedgerError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            LedgerError::Damaged { path, source }
        }
        _ => LedgerError::Open { path, source },
    }
}

/// The version of a ledger, where it is not newer than what is known here.
pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let known = version_of(MIGRATIONS.len());
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| unusable(path, source))?;
    if found > known {
        return Err(LedgerError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(found)
}

/// Sets what "durable" rests on, and reads it back: SQLite answers an unknown pragma with silence.
fn configure(connection: &Connection) -> Result<(), LedgerError> {
    let settings: [(&'static str, &str, &str); 4] = [
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", "2"),
        ("fullfsync", "ON", "1"),
        ("foreign_keys", "ON", "1"),
    ];
    for (name, value, expected) in settings {
        let doing = LedgerError::while_doing("configuring it");
        let found: String = connection
            .pragma_update_and_check(None, name, value, |row| row.get(0))
            .or_else(|_| connection.pragma_query_value(None, name, text_of))
            .map_err(doing)?;
        if found != expected {
            return Err(LedgerError::Setting { name, found });
        }
    }
    connection
        .pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
        .map_err(LedgerError::while_doing("configuring it"))?;
    connection
        .pragma_update(None, "wal_autocheckpoint", LOG_PAGES_MAX)
        .map_err(LedgerError::while_doing("configuring it"))
}

fn text_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get::<_, i64>(0)
        .map(|number| number.to_string())
        .or_else(|_| row.get(0))
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version_of(index + 1))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

/// Whether this is the version that the migrations lead to.
pub(super) fn is_current(version: i64) -> bool {
    version == version_of(MIGRATIONS.len())
}

fn version_of(migrations: usize) -> i64 {
    i64::try_from(migrations).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_a_newer_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        drop(open(&path).unwrap());
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(
            open(&path),
            Err(LedgerError::Newer { found: 99, .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        std::fs::write(&path, "not a database ".repeat(100)).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(open(&path), Err(LedgerError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    /// A ledger as the first version left it, with one application.
    fn first_version(path: &Path) {
        let old = Connection::open(path).unwrap();
        old.pragma_update(None, "journal_mode", "wal").unwrap();
        old.execute_batch(include_str!("migrations/0001_init.sql"))
            .unwrap();
        old.execute_batch("INSERT INTO apps (name) VALUES ('inspector')")
            .unwrap();
        old.pragma_update(None, "application_id", APPLICATION_ID)
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
    }

    fn version_and_app(path: &Path) -> (i64, String) {
        let connection = open_read_only(path).unwrap();
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        let name = connection.query_row("SELECT name FROM apps", [], |row| row.get(0));
        (version.unwrap(), name.unwrap())
    }

    #[test]
    fn before_an_upgrade_a_copy_of_the_older_ledger_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        first_version(&path);
        drop(open(&path).unwrap());
        let current = version_of(MIGRATIONS.len());
        assert_eq!(version_and_app(&path), (current, "inspector".to_owned()));
        let copy = folder.path().join("ledger.db.v1-1");
        assert_eq!(version_and_app(&copy), (1, "inspector".to_owned()));
        drop(open(&path).unwrap());
        assert!(!folder.path().join("ledger.db.v6-1").exists());
        // What is kept can be gone back to, and is upgraded again.
        std::fs::remove_file(&path).unwrap();
        std::fs::copy(&copy, &path).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(version_and_app(&path).0, current);
        assert!(folder.path().join("ledger.db.v1-2").exists());
    }

    #[test]
    fn the_newest_three_copies_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        for number in [1, 2, 9, 10] {
            let earlier = folder.path().join(format!("ledger.db.v1-{number}"));
            std::fs::write(earlier, "an earlier copy").unwrap();
        }
        let other = folder.path().join("ledger.db.v1-of-mine");
        std::fs::write(&other, "not one of ours").unwrap();
        first_version(&path);
        drop(open(&path).unwrap());
        let names = |wanted: &[u32]| {
            wanted.iter().all(|number| {
                folder
                    .path()
                    .join(format!("ledger.db.v1-{number}"))
                    .exists()
            })
        };
        assert!(names(&[9, 10, 11]) && other.exists());
        assert!(!names(&[1]) && !names(&[2]));
    }

    #[test]
    fn without_a_copy_there_is_no_upgrade_and_the_ledger_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        first_version(&path);
        // Stands where the copy would be written.
        let in_the_way = folder.path().join("ledger.db.v1-1.part");
        std::fs::create_dir(&in_the_way).unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, LedgerError::Upgrade { version: 1, .. }));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(open(&path).is_ok());
    }

    #[test]
    fn an_upgrade_that_fails_leaves_the_ledger_as_it_was_and_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        first_version(&path);
        // A later migration makes this table.
        let taken = Connection::open(&path).unwrap();
        taken.execute_batch("CREATE TABLE judgements (a)").unwrap();
        drop(taken);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(open(&path), Err(LedgerError::Upgrade { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(!folder.path().join("ledger.db.v1-1").exists());
    }

    #[test]
    fn opening_twice_migrates_once_and_keeps_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        drop(open(&path).unwrap());
        let connection = open(&path).unwrap();
        let read = |name| connection.pragma_query_value(None, name, text_of).unwrap();
        assert_eq!(read("user_version"), MIGRATIONS.len().to_string());
        assert_eq!(read("journal_mode"), "wal");
        assert_eq!(read("synchronous"), "2");
    }
}

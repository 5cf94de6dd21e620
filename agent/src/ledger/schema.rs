//! Opening the ledger: settings that the promises depend on, and migrations on `user_version`.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::LedgerError;

/// Each migration, in order. Only ever added to: a released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_decisions_and_retention.sql"),
    include_str!("migrations/0003_evidence.sql"),
    include_str!("migrations/0004_judgements.sql"),
];

/// A log that a reader let grow beyond this is cut off when it is next written from its start. In use it
/// stays far below, and is written over.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// "Tall", so that `file` and a person can tell what the file is.
pub(super) const APPLICATION_ID: i64 = 0x5461_6c6c;

/// More statements than the writer has, so that none is prepared twice.
const STATEMENTS_MAX: usize = 64;

/// After so many pages, the write-ahead log is copied back, and then written from its start again. Small
/// enough that the pause cannot be felt.
pub(super) const CHECKPOINT_PAGES: u64 = 500;

/// Where nobody copies the log back in a quiet moment, SQLite does within the commit that finds it this
/// long.
const LOG_PAGES_MAX: i64 = 1500;

/// Opens the ledger for writing, creating or migrating it.
///
/// # Errors
///
/// [`LedgerError::Newer`] for a file of a newer version, which is left untouched; otherwise
/// [`LedgerError::Open`] or what SQLite says.
pub fn open(path: &Path) -> Result<Connection, LedgerError> {
    let failed = |source| unusable(path, source);
    let mut connection = Connection::open(path).map_err(failed)?;
    check_version(&connection, path)?;
    configure(&connection)?;
    migrate(&mut connection).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
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

pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
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
    Ok(())
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

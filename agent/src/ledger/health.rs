//! Looking at the ledger before a start: whether it is whole enough to go on with. It only reads.
//!
//! What is owed is looked at each time; that is little, however many rows there are. A small ledger is
//! proved as a whole, and so is any in which damage was met since the last start.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, params};

use super::{LedgerError, beside, known::Known, log_file, salvage, schema, store, verify};
use crate::core::{
    book::{Book, Seq},
    chain,
};

/// Up to this size, without the length that the log is made at, all of it is looked at: that takes no longer than people
/// notice.
const SMALL_BYTES: u64 = 4 << 20;

/// More migrations than there will ever be.
const VERSION_MAX: i64 = 10_000;

/// What the ledger looks like.
#[derive(Debug)]
pub enum Health {
    /// There is none, and never was one.
    New,
    /// Nothing is wrong with it.
    Sound,
    /// It cannot be gone on with: how that shows.
    Damaged(String),
}

/// Looks at the ledger at `path`. `had_one` says that there was one; `thorough` has all of it looked at.
/// A chain that does not fit is not damage: somebody changed the ledger, and the agent says so and goes
/// on.
///
/// # Errors
///
/// [`LedgerError`] where the ledger may be sound and cannot be used: the disk refuses, or it is newer.
pub fn look(
    path: &Path,
    had_one: bool,
    thorough: bool,
    key: &chain::Key,
) -> Result<Health, LedgerError> {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    // Before SQLite sees the files.
    let is_log_damaged = salvage::is_log_damaged(path).unwrap_or(false);
    let log = bytes(&beside(path, "-wal"));
    match bytes(path) {
        0 if had_one || log > 0 => {
            let what = if path.exists() { "is empty" } else { "is gone" };
            let what = format!("it {what}, and there are other files of an earlier run");
            return Ok(Health::Damaged(what));
        }
        0 => return Ok(Health::New),
        _ => {}
    }
    if is_log_damaged {
        return Ok(Health::Damaged("its write-ahead log is damaged".to_owned()));
    }
    let thorough = thorough || is_small(bytes(path), log);
    match look_inside(path, thorough, key) {
        Ok(None) => Ok(Health::Sound),
        Ok(Some(what)) => Ok(Health::Damaged(what)),
        Err(error) if is_damage(&error) => Ok(Health::Damaged(cause(error))),
        Err(error) => Err(error),
    }
}

fn is_small(ledger: u64, log: u64) -> bool {
    ledger + log.saturating_sub(log_file::LENGTH) <= SMALL_BYTES
}

/// Whether the error says that the ledger is damaged, rather than the disk or the program.
pub fn is_damage(error: &LedgerError) -> bool {
    match error {
        LedgerError::Damaged { .. } | LedgerError::Malformed { .. } => true,
        LedgerError::Newer { found, .. } => *found > VERSION_MAX,
        LedgerError::Open { source, .. } | LedgerError::Sqlite { source, .. } => match source {
            rusqlite::Error::SqliteFailure(error, _)
            | rusqlite::Error::SqlInputError { error, .. } => matches!(
                error.code,
                // "Unknown" is what SQLite says of a schema that lacks what is asked for.
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::Unknown
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
            ),
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows => true,
            _ => false,
        },
        // A step of it that does not fit its tables is none: the ledger is as it was, and the older version reads it.
        LedgerError::Upgrade { source, .. } => matches!(**source, LedgerError::Damaged { .. }),
        LedgerError::Setting { .. }
        | LedgerError::Salvage { .. }
        | LedgerError::Copy { .. }
        | LedgerError::Key { .. }
        | LedgerError::Mark { .. }
        | LedgerError::Thread { .. } => false,
    }
}

/// How damage shows, in few words.
pub(super) fn cause(error: LedgerError) -> String {
    match error {
        LedgerError::Damaged { source, .. } | LedgerError::Sqlite { source, .. } => {
            source.to_string()
        }
        other => format!("{:#}", anyhow::Error::from(other)),
    }
}

fn look_inside(
    path: &Path,
    thorough: bool,
    key: &chain::Key,
) -> Result<Option<String>, LedgerError> {
    let connection = schema::open_read_only(path)?;
    let version = schema::check_version(&connection, path)?;
    let failed = || LedgerError::while_doing("looking at it");
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(failed())?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed())?;
    if version == 0 && tables == 0 {
        // A start was cut off before its first commit.
        return Ok(None);
    }
    if version < 1 || application != schema::APPLICATION_ID {
        return Ok(Some("its header is not a ledger's".to_owned()));
    }
    if thorough {
        let found: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed())?;
        if found != "ok" {
            return Ok(Some(found.replace('\n', " ")));
        }
    }
    if !schema::is_current(version) {
        // It is looked at after its migration.
        return Ok(None);
    }
    look_at_books(&connection, thorough, key)
}

/// Looks at what is owed, and where `thorough` at all.
pub(super) fn look_at_books(
    connection: &Connection,
    thorough: bool,
    key: &chain::Key,
) -> Result<Option<String>, LedgerError> {
    // What a start reads beside the books: it must not fail there.
    store::load_clock(connection)?;
    store::high_water(connection)?;
    store::generation(connection)?;
    if thorough {
        let findings = verify::verify(connection, key)?;
        return Ok(findings.damage().map(|fault| fault.what.clone()));
    }
    let failed = || LedgerError::while_doing("looking at it");
    let contents = store::load(connection, key)?;
    let head = contents.head.0;
    let known = Known::read(connection).map_err(failed())?;
    let dangling: i64 = connection
        .query_row(
            "SELECT (SELECT count(*) FROM lanes WHERE account NOT IN (SELECT no FROM accounts))
                  + (SELECT count(*) FROM accounts WHERE license NOT IN (SELECT no FROM licenses))
                  + (SELECT count(*) FROM batches WHERE state NOT IN ('settled', 'superseded', 'waived')
                         AND lane NOT IN (SELECT no FROM lanes))",
            [],
            |row| row.get(0),
        )
        .map_err(failed())?;
    if dangling > 0 {
        return Ok(Some(
            "a licence, an account or a lane is missing".to_owned(),
        ));
    }
    let book = Book::new(contents);
    for account in book
        .licenses()
        .flat_map(|license| book.accounts_of(license.no))
    {
        let owed = book.batches_of(account.no).into_iter();
        let owed: i128 = owed.map(|batch| i128::from(batch.units.get())).sum();
        let done = i128::from(account.settled.get()) + i128::from(account.waived.get());
        if i128::from(account.recorded.get()) != done + owed {
            return Ok(Some(format!(
                "the sums of account {} are wrong",
                account.no.0
            )));
        }
    }
    let exists = |lane: i64, seq: Seq| {
        let sql = "SELECT EXISTS (SELECT 1 FROM consumptions WHERE seq = ?1 AND lane = ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        statement.query_row(params![seq.0, lane], |row| row.get::<_, bool>(0))
    };
    for batch in book.batches() {
        if known.touches((batch.first.0, batch.last.0)) {
            continue;
        }
        let ends = [batch.first, batch.last];
        for seq in ends {
            if seq > head || !exists(batch.lane.0, seq).map_err(failed())? {
                return Ok(Some(format!("rows of batch {} are missing", batch.no.0)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_that_a_crash_left_does_not_make_a_ledger_large() {
        assert!(is_small(SMALL_BYTES, 0));
        assert!(is_small(SMALL_BYTES, log_file::LENGTH));
        assert!(!is_small(SMALL_BYTES, log_file::LENGTH + 1));
        assert!(!is_small(SMALL_BYTES + 1, 0));
    }
}

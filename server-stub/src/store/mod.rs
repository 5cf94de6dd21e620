//! What the stub keeps, in SQLite: in a file, or in memory.
//!
//! [`Store`] has one connection and gives out one [`Tx`] at a time; all reading and writing is done
//! through it, so that a request is one transaction. WAL without a sync at each commit is enough here:
//! what the process wrote survives its end, and a test machine that loses power starts over.

mod activity;
mod answers;
mod callers;
mod clock;
mod history;
mod licenses;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tally_shared::time::Timestamp;

use self::history::{Change, History};
use crate::seed::Seed;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i64 = 1;

/// A transaction in progress; without [`Tx::commit`], nothing of it remains.
pub(crate) struct Tx<'a> {
    transaction: Transaction<'a>,
    history: &'a mut History,
    change: RefCell<Change>,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    history: History,
}

/// A database that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another stub works on it.
    #[error("{} is in use by another stub", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version of the stub.
    #[error("{} has version {found}, and this stub knows version {VERSION}", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite refuses it.
    #[error("cannot open {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl Store {
    /// Opens the database, and fills a new one with the seed. A database that exists wins over the seed.
    pub(crate) fn open(
        path: Option<&Path>,
        seed: &Seed,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let path = path.unwrap_or(Path::new(":memory:"));
        let failed = |source| sqlite(path, source);
        let mut store = Self {
            connection: Connection::open(path).map_err(failed)?,
            history: History::default(),
        };
        lock(&store.connection).map_err(failed)?;
        // Before anything is written: a file of another version stays as it is.
        let version = version(&store.connection).map_err(failed)?;
        if !(0..=VERSION).contains(&version) {
            return Err(OpenError::OtherVersion {
                path: path.to_owned(),
                found: version,
            });
        }
        configure(&store.connection).map_err(failed)?;
        let tx = store.begin().map_err(failed)?;
        if version < VERSION {
            tx.create(seed, now).map_err(failed)?;
        }
        tx.commit().map_err(failed)?;
        store.forget_history();
        Ok(store)
    }

    /// How far the stub's clock was from the system's when it was last moved.
    pub(crate) fn clock_offset_ms(&mut self, path: Option<&Path>) -> Result<i64, OpenError> {
        let offset_ms = self.begin().and_then(|tx| tx.clock_offset_ms());
        offset_ms.map_err(|source| sqlite(path.unwrap_or(Path::new(":memory:")), source))
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<Tx<'_>> {
        let behavior = TransactionBehavior::Immediate;
        Ok(Tx {
            transaction: self.connection.transaction_with_behavior(behavior)?,
            history: &mut self.history,
            change: RefCell::default(),
        })
    }
}

impl Tx<'_> {
    /// Makes what was written in this transaction last.
    pub(crate) fn commit(self) -> rusqlite::Result<()> {
        self.transaction.commit()?;
        history::keep(self.history, self.change);
        Ok(())
    }

    fn create(&self, seed: &Seed, now: Timestamp) -> rusqlite::Result<()> {
        self.transaction.execute_batch(SCHEMA)?;
        for key in &seed.api_keys {
            self.put_api_key(key)?;
        }
        for product in &seed.products {
            self.add_product(&product.code)?;
        }
        for license in &seed.licenses {
            self.put_license(license, now)?;
        }
        self.transaction
            .pragma_update(None, "user_version", VERSION)
    }
}

/// Locks the file for as long as it is open: a second stub on it would not know which requests the
/// first one is running.
fn lock(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")
}

fn sqlite(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(_) | None => OpenError::Sqlite { path, source },
    }
}

/// Reads an enumeration or document that is stored as JSON text.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Writes an enumeration or document as JSON text.
fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

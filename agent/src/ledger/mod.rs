//! The ledger: one SQLite file that is the truth of what was granted and what is owed.
//!
//! [`schema`] opens and migrates it, [`store`] writes a book's changes and reads a book back,
//! [`engine`] takes work in and commits it, [`writer`] is the only thread that does so, and [`reader`]
//! answers questions on its own connection. [`retention`] folds what is done with.

pub mod answers;
pub mod engine;
pub mod reader;
pub mod retention;
pub mod schema;
pub mod storage;
pub mod store;
pub mod verify;
pub mod writer;

use std::{path::PathBuf, time::Duration};

/// The ledger's file in the data directory.
pub const FILE_NAME: &str = "ledger.db";

/// How long the ledger keeps what is done with.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// Settled rows, one by one; older ones are folded into daily sums.
    pub rows: Duration,
    /// Answers under an `Idempotency-Key`.
    pub answers: Duration,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened.
    #[error("cannot open the ledger {path}; check that the folder exists and is writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is not a ledger, or not one any more.
    #[error(
        "{path} is not a ledger, or is damaged; it was left as it is. Restore a copy of it, or move \
         it away to start with an empty one: what it owes is then forgotten"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "the ledger {path} has version {found} and this tally knows up to {known}; \
         install the newer tally again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// SQLite refused a setting that the promises depend on.
    #[error("SQLite did not accept the setting {name}: it is {found}")]
    Setting {
        /// The pragma.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// A stored value cannot be understood.
    #[error("the ledger holds {what} that cannot be understood: {value}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// A statement failed.
    #[error("the ledger failed while {doing}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
}

impl LedgerError {
    /// For `map_err`: names what was being done.
    pub(crate) const fn while_doing(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { doing, source }
    }
}

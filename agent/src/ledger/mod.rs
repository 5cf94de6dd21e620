//! The ledger: one SQLite file that is the truth of what was granted and what is owed.
//!
//! [`schema`] opens and migrates it (`upgrade` keeps a copy first), [`store`] writes a book's changes and
//! reads a book back, [`engine`] takes work in and commits it, [`writer`] is the only thread that does so,
//! and [`reader`] answers questions on its own connection. [`evidence`] guards it against changes from
//! outside. [`retention`] folds what is done with. [`health`] looks at it before a start, and [`recovery`]
//! has a damaged one salvaged and puts what was salvaged in its place.

pub mod answers;
pub mod copy;
pub mod delivery;
mod desk;
pub mod engine;
pub mod evidence;
pub mod explain;
mod fence;
pub mod files;
pub mod health;
mod instances;
pub mod job;
pub mod known;
mod log_file;
mod queue;
pub mod reader;
pub mod recovery;
pub mod retention;
mod salvage;
pub mod schema;
pub mod storage;
pub mod store;
mod upgrade;
pub mod usage;
pub mod verify;
pub mod writer;

use std::{path::PathBuf, time::Duration};

/// The ledger's file in the data directory.
pub const FILE_NAME: &str = "ledger.db";

/// How long the ledger keeps what is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Settled rows, one by one; older ones are folded into daily sums.
    pub rows: Duration,
    /// Answers under an `Idempotency-Key`.
    pub answers: Duration,
}

/// Why an agent that runs writes its ledger no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Another one does.
    #[error(
        "another agent writes this ledger: this one stops, and has written nothing since the other began. One agent \
         only may run on {path}: see how the other was started (`tally status` shows it), and keep one of the two"
    )]
    Rival {
        /// The ledger.
        path: PathBuf,
    },
    /// Another file stands at its place.
    #[error(
        "another file was put at {path} while this agent ran: it was left as it is, and the ledger that this agent held \
         is kept as {kept}, whole. Give the one that is to be gone on with the name {path}, and start tally again"
    )]
    Replaced {
        /// The ledger's place.
        path: PathBuf,
        /// Where the ledger is.
        kept: PathBuf,
    },
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
        "{path} is not a ledger, or is damaged; it was left as it is. `tally run` keeps it, and salvages \
         what can be read of it"
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
    /// It cannot be brought into the form of this version.
    #[error(
        "cannot upgrade the ledger {path} from version {version}; it was left as it was. A copy of it is kept \
         beside it first: make space for that on the disk, or install the older tally again, and start it"
    )]
    Upgrade {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// Why.
        source: Box<LedgerError>,
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
    /// The system has no thread to give.
    #[error(
        "cannot start a thread to prove the ledger with, so it was not proved; let this user have more threads \
         or memory, and try again"
    )]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// The damaged files cannot be read at all, or not be kept.
    #[error(
        "the ledger is damaged, and {path} cannot be read or written; nothing was changed. \
         Make space, or mend the disk, and start tally again"
    )]
    Salvage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A copy cannot be written to its end.
    #[error("cannot write the copy {path}")]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key of the ledger's chain cannot be used.
    #[error(
        "cannot use {path}, the key that the ledger is proved with; put it back, or remove it to go on \
         with a new one, which the ledger then says"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The mark beside the ledger cannot be read.
    #[error("cannot read the ledger's mark; make it readable for this user")]
    Mark {
        /// Why.
        source: std::io::Error,
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

/// The path of a file that belongs to another, such as its write-ahead log.
pub(crate) fn beside(path: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl LedgerError {
    /// For `map_err`: names what was being done.
    pub(crate) const fn while_doing(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { doing, source }
    }
}

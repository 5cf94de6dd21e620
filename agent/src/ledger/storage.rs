//! What the disk says: whether the ledger can be written, and a reserve for when it is full.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;
use serde::Serialize;

use crate::private_file;

/// Whether the ledger can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Storage {
    /// It can.
    #[default]
    Ok,
    /// The disk is full. Nothing is recorded until there is space; what the server answers still is.
    Full,
    /// The disk refuses, or is read-only. Nothing is recorded until it no longer does.
    Failing,
    /// The ledger was deleted or moved away. Nothing is recorded until the agent has written it back.
    Gone,
    /// The ledger is damaged. Nothing is recorded until tally is started again, which salvages it.
    Damaged,
}

impl Storage {
    /// What an error of SQLite's says of the disk.
    pub fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            _ => Self::Failing,
        }
    }

    /// What to do about it, for a person.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::Full => "the disk is full: make space, and recording goes on by itself",
            Self::Failing => {
                "the disk cannot be written: mend it or make it writable, and recording goes on by itself"
            }
            Self::Gone => {
                "the ledger was deleted or moved away, and this agent holds the only copy: do not stop it. It writes the \
                 ledger back by itself, as soon as the folder can be written"
            }
            Self::Damaged => {
                "the ledger is damaged: start tally again, which keeps the file and salvages it"
            }
        }
    }
}

/// Space that is set aside, so that what the server has answered can be written on a full disk.
pub trait Reserve: Send {
    /// Takes the space, if it is not held. Fails where there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn take(&mut self) -> io::Result<()>;
    /// Gives the space back. Returns whether there was any.
    fn release(&mut self) -> bool;
}

/// A file of a fixed size in the data directory.
pub struct ReserveFile {
    path: PathBuf,
}

/// Enough for the answers to everything that can be under way, many times over.
const RESERVE_BYTES: usize = 512 * 1024;

impl ReserveFile {
    /// A reserve at this path.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Reserve for ReserveFile {
    fn take(&mut self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        // Bytes that no file system folds into a hole.
        private_file::replace(&self.path, &vec![0x5a; RESERVE_BYTES])
    }

    fn release(&mut self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

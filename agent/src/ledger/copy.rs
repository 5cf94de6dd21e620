//! A consistent copy of a ledger that may be in use.

use std::path::Path;

use rusqlite::Connection;

use super::{LedgerError, schema};
use crate::private_file;

/// Writes the ledger as it is at one moment into an empty file, and waits until that is on disk. Returns
/// its length in bytes.
///
/// # Errors
///
/// [`LedgerError`]; then the file is of no use.
pub fn write(ledger: &Path, file: &Path) -> Result<u64, LedgerError> {
    write_from(&schema::open_read_only(ledger)?, file)
}

/// The same, of the ledger that a connection has open, wherever its name leads.
pub(super) fn write_from(connection: &Connection, file: &Path) -> Result<u64, LedgerError> {
    let name = file.to_string_lossy();
    connection
        .execute("VACUUM INTO ?1", [&name])
        .map_err(LedgerError::while_doing("copying it"))?;
    let synced = std::fs::File::open(file).and_then(|copy| {
        copy.sync_all()?;
        private_file::sync_folder(file)?;
        Ok(copy.metadata()?.len())
    });
    synced.map_err(|source| LedgerError::Copy {
        path: file.to_owned(),
        source,
    })
}

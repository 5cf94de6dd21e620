//! A copy of the ledger as it was, kept beside it before a newer version changes its form.
//!
//! Copies are called `ledger.db.v3-1`: the version that the ledger had, and a number that only grows. The
//! newest three stay. Without a copy on disk there is no upgrade; a ledger whose upgrade failed is as it was.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::{LedgerError, beside, copy};
use crate::private_file;

/// Enough to go back over two upgrades that were noticed late; each is as large as the ledger.
const COPIES_MAX: usize = 3;

/// A copy that is not whole.
const PART: &str = ".part";

/// Writes a copy of the ledger of this version, and waits until it is on disk. Returns where it is.
pub(super) fn keep_copy(ledger: &Path, version: i64) -> Result<PathBuf, LedgerError> {
    let last = copies(ledger).map_err(|source| unwritten(ledger, source))?;
    let number = last.last().map_or(1, |(last, _)| last.saturating_add(1));
    let whole = beside(ledger, &format!(".v{version}-{number}"));
    let part = beside(&whole, PART);
    let written = write(ledger, &part).and_then(|()| {
        let renamed = fs::rename(&part, &whole).and_then(|()| private_file::sync_folder(&whole));
        renamed.map_err(|source| unwritten(&whole, source))
    });
    if written.is_err() {
        // A part of a copy is none. Where even this fails, the next start removes it.
        let _ = fs::remove_file(&part);
    }
    written.map(|()| whole)
}

fn write(ledger: &Path, part: &Path) -> Result<(), LedgerError> {
    // A start that was cut off may have left one.
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => private_file::create(part, &[]),
    }
    .map_err(|source| unwritten(part, source))?;
    copy::write(ledger, part).map(|_| ())
}

/// Removes the oldest copies, so that the newest three are left.
pub(super) fn forget_old_copies(ledger: &Path) -> io::Result<()> {
    let mut copies = copies(ledger)?;
    let surplus = copies.len().saturating_sub(COPIES_MAX);
    for (_, path) in copies.drain(..surplus) {
        fs::remove_file(&path)?;
        tracing::info!(copy = %path.display(), "removed an old copy of the ledger");
    }
    Ok(())
}

/// The copies, oldest first, with their numbers.
fn copies(ledger: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let folder = ledger.parent().unwrap_or(Path::new("."));
    let name = ledger.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.extend(number_of(name, &entry.file_name()).map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// The number of `ledger.db.v3-7` is 7.
fn number_of(ledger: &OsStr, file: &OsStr) -> Option<u32> {
    let (version, number) = file
        .to_str()?
        .strip_prefix(ledger.to_str()?)?
        .strip_prefix(".v")?
        .split_once('-')?;
    version.parse::<u32>().ok()?;
    number.parse().ok()
}

fn unwritten(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Copy {
        path: path.to_owned(),
        source,
    }
}

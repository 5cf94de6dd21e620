//! The write-ahead log's file, made at its full length before it is used.
//!
//! A commit that lengthens a file waits for the file system's own records as well as for its data: twice
//! as long as one that writes over what is there. SQLite removes the log when it closes the ledger, so
//! that a copy of the ledger alone is whole; hence it is made at each start, which takes milliseconds.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::{beside, schema};

const PAGE_BYTES: usize = 4096;

/// A frame of the log: a page, and what the log says of it.
const FRAME_BYTES: u64 = 24 + PAGE_BYTES as u64;

/// Commits that come while the log is being copied back, and what their number of pages is more than it was taken for.
const SPARE_PAGES: u64 = 250;

/// As long as the log gets in use, where it is copied back in time.
pub(super) const LENGTH: u64 = 32 + (schema::CHECKPOINT_PAGES + SPARE_PAGES) * FRAME_BYTES;

/// Makes the log of an existing ledger long enough. What it holds stays, and to SQLite it ends there.
///
/// # Errors
///
/// What the system says. The ledger can be used all the same: its log then grows as it is written.
pub(super) fn prepare(ledger: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(beside(ledger, "-wal"))?;
    let end = file.seek(SeekFrom::End(0))?;
    if end < LENGTH {
        let made = fill(&mut file, LENGTH - end);
        if let Err(error) = made.and_then(|()| file.sync_all()) {
            // What there is of space is for rows.
            file.set_len(end)?;
            return Err(error);
        }
    }
    Ok(())
}

/// In pieces of a page. Of a larger one Linux keeps a larger folio in its cache, and then every commit
/// walks over all blocks of the folio to write one: a tenth of its time.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let page = [0; PAGE_BYTES];
    let mut missing = usize::try_from(bytes).unwrap_or(usize::MAX);
    while missing > 0 {
        let piece = missing.min(PAGE_BYTES);
        file.write_all(&page[..piece])?;
        missing -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_of_a_crash_is_made_long_enough_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let connection = schema::open(&path).unwrap();
        connection
            .execute("INSERT INTO apps (name) VALUES ('inspector')", [])
            .unwrap();
        let crashed = tempfile::tempdir().unwrap();
        let copy = crashed.path().join("ledger.db");
        for suffix in ["", "-wal"] {
            fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
        }
        prepare(&copy).unwrap();
        assert_eq!(fs::metadata(beside(&copy, "-wal")).unwrap().len(), LENGTH);
        let connection = schema::open(&copy).unwrap();
        let name: String = connection
            .query_row("SELECT name FROM apps", [], |row| row.get(0))
            .unwrap();
        assert_eq!(name, "inspector");
    }
}

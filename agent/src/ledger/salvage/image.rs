//! The pages of a damaged ledger, without SQLite: the file, with what its write-ahead log has newer.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use super::wal::{self, Wal};
use crate::ledger::beside;

/// The size of a page. SQLite's default, which no migration changes, so that a header that lies about
/// it need not be believed.
pub(super) const PAGE_BYTES: usize = 4096;

/// A page.
pub(super) type Page = Box<[u8; PAGE_BYTES]>;

/// The pages.
pub(super) struct Image {
    file: Option<File>,
    log: Option<File>,
    wal: Wal,
    page_count: u32,
}

impl Image {
    /// Opens the files, of which any may be missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let wal = wal::read(path).unwrap_or_default();
        let file = open(path)?;
        let length = file
            .as_ref()
            .map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?;
        let in_file = u32::try_from(length.div_ceil(PAGE_BYTES as u64)).unwrap_or(u32::MAX);
        Ok(Self {
            file,
            log: open(&beside(path, "-wal"))?,
            page_count: in_file.max(wal.page_count),
            wal,
        })
    }

    /// How many pages there are, from 1.
    pub(super) const fn page_count(&self) -> u32 {
        self.page_count
    }

    /// How many pages of finished commits are lost in the log.
    pub(super) const fn lost(&self) -> usize {
        self.wal.lost
    }

    /// Reads a page, where it can be read. Of one that the file ends in, the rest is zeros, as SQLite
    /// reads it.
    pub(super) fn page(&mut self, no: u32) -> Option<Page> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let (file, offset) = if let Some(offset) = self.wal.pages.get(&no) {
            (self.log.as_mut()?, *offset)
        } else {
            let index = u64::from(no.checked_sub(1)?);
            (self.file.as_mut()?, index * PAGE_BYTES as u64)
        };
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut read = 0;
        while let Some(rest) = page.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read(rest).ok()? {
                0 => break,
                more => read += more,
            }
        }
        (read > 0).then_some(page)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

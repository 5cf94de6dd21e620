//! The floor: how often the disk confirms 4 KiB that overwrite what is there.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;

/// As many blocks as a write-ahead log has that is written over and over.
const BLOCKS: u64 = 1024;

pub(crate) struct Disk {
    file: File,
    written: u64,
}

impl Disk {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path)?;
        for block in 0..BLOCKS {
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, written: 0 })
    }

    /// Overwrites the next block, and returns when it is on disk.
    pub(crate) fn overwrite(&mut self) -> io::Result<()> {
        let block = [self.written.to_le_bytes()[0]; BLOCK];
        let at = (self.written % BLOCKS) * BLOCK as u64;
        self.file.write_all_at(&block, at)?;
        self.written += 1;
        self.file.sync_data()
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    pub(crate) fn overwrites_per_second(&mut self, duration: Duration) -> io::Result<f64> {
        let (start, before) = (Instant::now(), self.written);
        while start.elapsed() < duration {
            self.overwrite()?;
        }
        Ok((self.written - before) as f64 / start.elapsed().as_secs_f64())
    }
}

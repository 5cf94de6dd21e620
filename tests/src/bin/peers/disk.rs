//! The floor: how often the disk confirms 4 KiB that overwrite what is there.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;

/// As many blocks as a write-ahead log has that is written over and over.
const BLOCKS: u64 = 1024;

pub(crate) struct Disk(File);

impl Disk {
    pub(crate) fn create(path: &Path) -> tally_tests::Result<Self> {
        let file = File::create_new(path)?;
        for block in 0..BLOCKS {
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(Self(file))
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    pub(crate) fn overwrites_per_second(&self, duration: Duration) -> tally_tests::Result<f64> {
        let start = Instant::now();
        let mut written = 0_u64;
        while start.elapsed() < duration {
            let block = [u8::try_from(written % 251)?; BLOCK];
            self.0
                .write_all_at(&block, (written % BLOCKS) * BLOCK as u64)?;
            self.0.sync_data()?;
            written += 1;
        }
        Ok(written as f64 / start.elapsed().as_secs_f64())
    }
}

//! `tally backup`

use anyhow::{Context as _, ensure};

use super::{
    args::BackupArgs,
    output::{self, Outcome},
    progress::Progress,
};
use crate::{config::paths::DataDir, ledger::copy, private_file};

/// Reads the ledger itself: it works whether the agent runs or not.
pub(super) fn run(data_dir: &DataDir, args: &BackupArgs) -> anyhow::Result<Outcome> {
    let file = &args.file;
    ensure!(
        !file.exists(),
        "{} exists; a backup takes nothing's place: give another name",
        file.display()
    );
    // For its owner only, before anything is in it.
    private_file::create(file, &[])
        .with_context(|| format!("cannot write the backup {}", file.display()))?;
    let progress = Progress::start("copying the ledger");
    let written = copy::write(&data_dir.ledger(), file);
    drop(progress);
    if written.is_err() {
        // A part of a copy is none.
        let _ = std::fs::remove_file(file);
    }
    let bytes = written?;
    output::line(&format!(
        "{} holds the ledger: {bytes} bytes",
        file.display()
    ))?;
    Ok(Outcome::Done)
}

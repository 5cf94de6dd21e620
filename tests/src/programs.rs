//! What every measuring program is given: the programs it measures, and where.

use std::path::PathBuf;

/// The programs, and a folder on the disk to measure.
#[derive(Debug, clap::Args)]
pub struct Programs {
    /// The program `tally`
    #[arg(long)]
    pub tally: String,
    /// The program `tally-stub`
    #[arg(long)]
    pub stub: String,
    /// Where the databases are: a folder on the disk to measure
    #[arg(long)]
    pub folder: PathBuf,
}

//! Makes a ledger of many rows, and measures what a user waits for: its opening, and `tally verify`.

use std::{num::NonZeroUsize, path::PathBuf, time::Instant};

use clap::Parser;
use tally_agent::{
    config::paths::DataDir,
    ledger::{evidence, schema, verify::verify},
};
use tally_tests::recorder::{Recorder, open_engine};

/// Make a ledger of many rows, and measure its opening.
#[derive(Debug, Parser)]
struct Args {
    /// How many rows
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Over how many licences, each with a batch that is owed
    #[arg(long, default_value = "1")]
    licenses: NonZeroUsize,
    /// Leave the ledger in this folder
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> tally_tests::Result {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    let names = DataDir::new(folder.to_owned());
    let started = Instant::now();
    Recorder::open(folder, args.licenses.get())?.fill(args.rows)?;
    println!("{} rows recorded in {:.1?}", args.rows, started.elapsed());
    println!(
        "ledger: {} MB",
        std::fs::metadata(names.ledger())?.len() / 1_000_000
    );
    let mut openings = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        drop(open_engine(folder)?);
        openings.push(started.elapsed());
    }
    openings.sort();
    println!("opened in {:.1?} (median of 5)", openings[2]);
    let key = evidence::open_key(&names.chain_key())?;
    let started = Instant::now();
    let findings = verify(&schema::open_read_only(&names.ledger())?, &key)?;
    println!(
        "verified in {:.1?}: sound {}, {} rows",
        started.elapsed(),
        findings.is_sound(),
        findings.rows
    );
    Ok(())
}

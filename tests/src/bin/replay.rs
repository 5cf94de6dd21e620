//! What an outage costs when it is over: a ledger with many pending rows, an agent that is started on it,
//! and a server that can be reached. How long until all is settled, what of the processor and of memory it
//! takes, and with how many requests.
//!
//! The rows are of one event kind, one overage setting and no period, so one request for each licence is
//! all that it should take; and memory should be that of an agent that owes nothing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use serde_json::Value;
use tally_shared::wire::{ADD_CONSUMPTION, CHECK_LICENSE};
use tally_tests::{
    agent::{Agent, Setup},
    programs::Programs,
    recorder::Recorder,
    seed,
    stub::{Keys, Stub},
    wait,
    watched::Watched,
};

/// How long a replay may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The stub remembers its last 1,000 requests; each licence takes two, and some are left to find a defect.
const LICENSES_MAX: u64 = 400;

/// Measure the replay of pending rows
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How many rows are pending, one measurement each; 0 is an agent that owes nothing
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100_000, 1_000_000])]
    rows: Vec<u64>,
    /// Over how many licences
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=LICENSES_MAX))]
    licenses: u64,
}

/// What a replay came to.
struct Replayed {
    /// From the start of the program to its readiness line.
    ready: Duration,
    /// From the readiness line until everything was settled.
    settled: Duration,
    /// Processor time of the agent since its start.
    cpu: Duration,
    /// Requests that the server got.
    sent: usize,
    looked_up: usize,
    /// Resident memory in MB when nothing was left to do, and the most that it has been.
    memory: f64,
    memory_peak: f64,
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> tally_tests::Result {
    let args = Args::parse();
    std::fs::create_dir_all(&args.programs.folder)?;
    let licenses = usize::try_from(args.licenses)?;
    println!("{licenses} licences; times until everything is settled\n");
    println!(
        "{:>10}{:>10}{:>11}{:>8}{:>18}{:>15}{:>13}{:>10}",
        "rows",
        "ready ms",
        "settled ms",
        "CPU ms",
        "add_consumption",
        "check_license",
        "MB at rest",
        "MB most"
    );
    for &rows in &args.rows {
        let found = replay(&args, licenses, rows)?;
        println!(
            "{rows:>10}{:>10}{:>11}{:>8}{:>18}{:>15}{:>13.1}{:>10.1}",
            found.ready.as_millis(),
            found.settled.as_millis(),
            found.cpu.as_millis(),
            found.sent,
            found.looked_up,
            found.memory,
            found.memory_peak
        );
    }
    Ok(())
}

fn replay(args: &Args, licenses: usize, rows: u64) -> tally_tests::Result<Replayed> {
    let seeded: Vec<Value> = (1..=licenses).map(seed::numbered_license).collect();
    let stub = Stub::start(
        args.programs.stub.as_str(),
        &seed::seed(&seeded),
        Keys::Kept,
    )?;
    // As they are where nobody sets them.
    let setup = Setup {
        flags: ["--sync-interval", "5s", "--settle-wait", "30s"]
            .map(str::to_owned)
            .to_vec(),
    };
    // It makes the data directory, and rests while the ledger is filled.
    let mut agent = Agent::start_in(
        &args.programs.folder,
        args.programs.tally.as_str(),
        stub.url(),
        &setup,
    )?;
    agent.terminate()?;
    Recorder::open(&agent.data_dir(), licenses)?.fill(rows)?;

    let started = Instant::now();
    agent.restart()?;
    let (ready, since) = (started.elapsed(), Instant::now());
    let watched = Watched(agent.process_id()?);
    // The stub is asked, and the agent only at the end: asking it costs its time.
    let units = i64::try_from(rows)?;
    wait::within(
        PATIENCE,
        "the server to count everything",
        || stub.total_of_all(),
        |total| *total >= units,
    )?;
    let sums = wait::within(
        PATIENCE,
        "everything to be settled",
        || agent.sums_of_all(),
        |sums| sums.settled == sums.recorded,
    )?;
    let (settled, cpu) = (since.elapsed(), watched.used()?.cpu);
    ensure!(
        sums.recorded == units && stub.total_of_all()? == units,
        "{rows} rows were recorded, and the agent knows of {}, the server of {}",
        sums.recorded,
        stub.total_of_all()?
    );
    let asked = |path: &str| -> tally_tests::Result<usize> {
        let requests = stub.requests()?.into_iter();
        let of_path = |request: &Value| request.get("path").is_some_and(|found| found == path);
        Ok(requests.filter(of_path).count())
    };
    // After a start, each licence is read once.
    wait::within(
        PATIENCE,
        "each licence to be read",
        || asked(CHECK_LICENSE),
        |looked_up| *looked_up >= licenses,
    )?;
    Ok(Replayed {
        ready,
        settled,
        cpu,
        sent: asked(ADD_CONSUMPTION)?,
        looked_up: asked(CHECK_LICENSE)?,
        memory: watched.memory()?,
        memory_peak: watched.memory_peak()?,
    })
}

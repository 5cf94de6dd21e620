//! What a durable grant costs, beside what a user might pick instead: the raw disk, Redis with
//! `appendfsync always`, an agent, and a server that does nothing else than to wait for the disk, over TCP and over a Unix
//! socket, in one run on one machine.
//!
//! Rounds are interleaved, so that a noisy minute falls on all alike; every figure is a median of rounds.

mod bare;
mod disk;
mod measure;
mod redis;
mod report;
mod sign;
mod tally;

use std::{path::PathBuf, time::Duration};

use self::{
    bare::Bare,
    disk::Disk,
    measure::{Cell, Measured, Peer},
    redis::Redis,
    report::Report,
    tally::Tally,
};
use anyhow::Context as _;
use clap::Parser;
use tally_tests::programs::Programs;

/// Measure an agent beside Redis, the raw disk and a bare server
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// The program `redis-server`; without it, Redis is left out
    #[arg(long)]
    redis_server: Option<PathBuf>,
    /// The program `redis-benchmark`
    #[arg(long, default_value = "redis-benchmark")]
    redis_benchmark: PathBuf,
    /// How many rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How many connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    connections: Vec<usize>,
    /// Write all figures as JSON as well
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw grants and p99 over connections, as SVG
    #[arg(long)]
    chart: Option<PathBuf>,
}

#[expect(clippy::print_stderr, reason = "progress")]
fn main() -> tally_tests::Result {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == bare::ROLE) {
        return bare::serve(&PathBuf::from(arguments.next().context("no folder")?));
    }
    let args = Args::parse();
    std::fs::create_dir_all(&args.programs.folder)?;
    let folder = tempfile::tempdir_in(&args.programs.folder)?;
    let duration = Duration::from_secs(args.seconds);
    let mut disk = Disk::create(&folder.path().join("raw"))?;
    let redis = match &args.redis_server {
        Some(server) => Some(Redis::start(
            server,
            &args.redis_benchmark,
            &folder.path().join("redis"),
        )?),
        None => None,
    };
    let tally = Tally::start(
        &args.programs.tally,
        &args.programs.stub,
        &folder.path().join("tally"),
    )?;
    let bare = Bare::start(&folder.path().join("bare"))?;
    let idle = tally.idle()?;

    let mut report = Report::new(&args.connections, idle);
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        report.disk(disk.overwrites_per_second(duration)?);
        for &connections in &args.connections {
            for unix in [false, true] {
                let cell = Cell::new(Peer::Bare, unix, connections);
                report.add(cell, bare.measure(unix, connections, duration)?);
                if let Some(redis) = &redis {
                    let cell = Cell::new(Peer::Redis, unix, connections);
                    report.add(cell, redis.measure(unix, connections, duration)?);
                }
                let cell = Cell::new(Peer::Tally, unix, connections);
                report.add(cell, tally.measure(unix, connections, duration)?);
            }
        }
        report.signing(sign::per_second(duration)?);
        report.signed(tally.measure_signed(64, duration)?);
        report.fairness(tally.measure_fairness(64, duration)?);
    }
    report.print();
    if let Some(path) = &args.json {
        std::fs::write(path, report.to_json()?)?;
    }
    if let Some(path) = &args.chart {
        report.chart().draw(path)?;
    }
    Ok(())
}

//! Runs seeds of the simulation, or replays one.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use tally_tests::sim::{self, Counts, Failed};

/// Simulate worlds of drops, crashes, power losses and clock jumps, and check that every unit is counted
/// exactly once.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,

    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Replay this seed alone, with the shortest plan that fails, and print what happens
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,

    /// How many run at once [default: as many as there are cores]
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) => replay(seed),
        None => run_all(&args),
    }
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn replay(seed: u64) -> ExitCode {
    let Some(failed) = sim::shrink(seed) else {
        println!("seed {seed} passes");
        return ExitCode::SUCCESS;
    };
    for line in &failed.trace {
        println!("{line}");
    }
    println!("seed {seed}, {} steps: {}", failed.steps, failed.why);
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn run_all(args: &Args) -> ExitCode {
    let threads = args
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    let next = AtomicU64::new(args.first);
    let end = args.first.saturating_add(args.seeds);
    let stop = AtomicBool::new(false);
    let sums = Mutex::new((Counts::default(), 0_u64));
    let failed: Mutex<Vec<Box<Failed>>> = Mutex::new(Vec::new());
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match sim::run(seed) {
                        Ok(counts) => add(&sums, counts),
                        Err(found) => {
                            stop.store(true, Ordering::Relaxed);
                            failed
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(found);
                        }
                    }
                }
            });
        }
    });
    let (counts, passed) = *sums.lock().unwrap_or_else(PoisonError::into_inner);
    let took = Duration::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(0));
    println!(
        "{passed} seeds passed in {took:?} on {threads} threads: {} requests, {} turns, {} kills and \
         power losses, {} batches counted, {} licences forgotten",
        counts.requests, counts.turns, counts.crashes, counts.counted, counts.forgotten
    );
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(first) = failed.iter().min_by_key(|failed| failed.seed) else {
        return ExitCode::SUCCESS;
    };
    println!(
        "seed {} fails after {} steps: {}",
        first.seed, first.steps, first.why
    );
    println!(
        "replay it: cargo run --release -p tally-tests --bin simulate -- --seed {}",
        first.seed
    );
    ExitCode::FAILURE
}

fn add(sums: &Mutex<(Counts, u64)>, counts: Counts) {
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    sums.0.turns += counts.turns;
    sums.0.requests += counts.requests;
    sums.0.crashes += counts.crashes;
    sums.0.counted += counts.counted;
    sums.0.forgotten += counts.forgotten;
    sums.1 += 1;
}

//! Runs seeds of the simulation, or replays one.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use tally_tests::sim::{
    self, Counts, Failed, Kind, Kinds,
    fleet::{self, Shared, Sharing},
    habits::Habit,
};

/// Simulate worlds of drops, crashes, power losses and clock jumps, and check that every unit is counted
/// exactly once.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
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

    /// A kind of trouble that every world has, and no others; may be given several times
    #[arg(long, value_enum, value_name = "KIND")]
    only: Vec<Kind>,

    /// A kind of trouble that no world has, where each of the others is in some; may be given several times
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "only")]
    without: Vec<Kind>,

    /// No kind of trouble but weather, crashes, disks and clocks
    #[arg(long, conflicts_with_all = ["only", "without"])]
    plain: bool,

    /// Instead: so many devices share one licence of a server that keeps no keys, and lose answers; say what
    /// became of these
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["seed", "seeds", "clones"])]
    devices: Option<u32>,

    /// Go on with other worlds until so many lost answers have their verdict
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "devices")]
    verdicts: usize,

    /// All of those devices consume all of the time, in rows of one to three units; else each has its bursts and quiet
    #[arg(long, requires = "devices")]
    busy: bool,

    /// The server does not say how many devices are activated for the licence
    #[arg(long, requires = "devices")]
    says_no_devices: bool,

    /// How many answers those lose, in percent; a third as many requests are lost on their way there
    #[arg(long, default_value_t = 10, requires = "devices")]
    lost: u8,

    /// Instead: so many devices are started from one disk that owes something; say what was counted
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["seed", "seeds"])]
    clones: Option<u32>,

    /// Go on after a failure, and say how often each came and at which seed first
    #[arg(long, conflicts_with = "seed")]
    all: bool,

    /// How many run at once [default: as many as there are cores]
    #[arg(long)]
    threads: Option<usize>,
}

impl Args {
    fn kinds(&self) -> Kinds {
        if self.plain || !self.only.is_empty() {
            Kinds::only(&self.only)
        } else {
            Kinds::but(&self.without)
        }
    }

    /// The same kinds, for the command line that replays a seed.
    fn kinds_again(&self) -> String {
        let flags = [("only", &self.only), ("without", &self.without)];
        let named = flags.into_iter().flat_map(|(flag, kinds)| {
            let names = kinds.iter().filter_map(ValueEnum::to_possible_value);
            names.map(move |kind| format!(" --{flag} {}", kind.get_name()))
        });
        let plain = self.plain.then(|| " --plain".to_owned());
        named.chain(plain).collect()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(devices) = args.devices {
        return share(devices, &args);
    }
    if let Some(count) = args.clones {
        return start_clones(count, args.first);
    }
    match args.seed {
        Some(seed) => replay(seed, args.kinds()),
        None => run_all(&args),
    }
}

/// Where others add exactly as many units as a batch right while its answer is lost, nobody can tell. That is expected of one in
/// so many at most.
const COINCIDENCES_IN: usize = 1_000;

/// Fails where a batch was found not to be counted and was, or is still unknown; and where more were taken for counted by
/// coincidence than can be helped.
#[expect(clippy::print_stdout, reason = "what the program is for")]
fn share(devices: u32, args: &Args) -> ExitCode {
    let started = Instant::now();
    let next = AtomicU64::new(args.first + 1);
    let sum = Mutex::new((Shared::default(), 0_u32));
    let failed: Mutex<Option<String>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..threads(args) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let found = share_once(devices, args, seed);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    match found {
                        Ok(shared) => sum.0.add(&shared),
                        Err(why) => {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(format!("seed {seed}: {why}"));
                            return;
                        }
                    }
                    sum.1 += 1;
                    if sum.0.verdicts() >= args.verdicts {
                        return;
                    }
                }
            });
        }
    });
    if let Some(why) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        println!("{why}");
        return ExitCode::FAILURE;
    }
    let (shared, worlds) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let per_mille = 1000 * shared.undecidable.0 / shared.doubted.max(1);
    println!(
        "{devices} devices, {worlds} worlds in {} s, {} units granted, {} counted, {} requests, at most {} of one device \
         in 10 s; {} batches in doubt: {} found counted, {} found not counted, {} taken for counted by coincidence, \
         {} wrongly for not counted, {} undecidable ({}.{} %; {} units), {} still unknown",
        started.elapsed().as_secs(),
        shared.granted,
        shared.counted,
        shared.requests,
        shared.most_at_once,
        shared.doubted,
        shared.applied,
        shared.not_applied,
        shared.coincidences,
        shared.wrong,
        shared.undecidable.0,
        per_mille / 10,
        per_mille % 10,
        shared.undecidable.1,
        shared.open
    );
    let is_wrong = shared.wrong > 0 || shared.coincidences * COINCIDENCES_IN > shared.verdicts();
    ExitCode::from(u8::from(is_wrong || shared.open > 0))
}

fn share_once(devices: u32, args: &Args, seed: u64) -> Result<Shared, String> {
    let habit = if args.busy { Habit::Busy } else { Habit::Drawn };
    fleet::share(Sharing {
        devices,
        says_devices: !args.says_no_devices,
        habit,
        seconds: 1200,
        lost: args.lost,
        lost_before: args.lost.div_ceil(3),
        seed,
    })
}

/// Fails where anything was counted more than once.
#[expect(clippy::print_stdout, reason = "what the program is for")]
fn start_clones(count: u32, seed: u64) -> ExitCode {
    let mut is_right = true;
    for keeps_keys in [true, false] {
        let cloned = match fleet::clones(count, keeps_keys, seed) {
            Ok(cloned) => cloned,
            Err(why) => {
                println!("{why}");
                return ExitCode::FAILURE;
            }
        };
        is_right &= cloned.counted <= cloned.owed;
        println!(
            "{count} devices from one disk, a server {} keys: {} units owed, {} counted; {} settled, {} hold \
             it, {} neither; {} requests, at most {} in 10 s",
            if keeps_keys { "with" } else { "without" },
            cloned.owed,
            cloned.counted,
            cloned.settled,
            cloned.held,
            cloned.open,
            cloned.requests,
            cloned.most_at_once
        );
    }
    ExitCode::from(u8::from(!is_right))
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn replay(seed: u64, kinds: Kinds) -> ExitCode {
    let Some(failed) = sim::shrink(seed, kinds) else {
        println!("seed {seed} passes");
        return ExitCode::SUCCESS;
    };
    for line in &failed.trace {
        println!("{line}");
    }
    println!("seed {seed}, {} steps: {}", failed.steps, failed.why);
    ExitCode::FAILURE
}

fn threads(args: &Args) -> usize {
    args.threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from))
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn run_all(args: &Args) -> ExitCode {
    let threads = threads(args);
    let kinds = args.kinds();
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
                    match sim::run(seed, kinds) {
                        Ok(counts) => add(&sums, counts),
                        Err(found) => {
                            stop.store(!args.all, Ordering::Relaxed);
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
         power losses, {} batches counted, {} licences forgotten; at most {} requests to the server in \
         10 s, {} for one licence",
        counts.requests,
        counts.turns,
        counts.crashes,
        counts.counted,
        counts.forgotten,
        counts.most_at_once,
        counts.most_of_one
    );
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    if args.all {
        print_each(&failed);
    }
    let Some(first) = failed.iter().min_by_key(|failed| failed.seed) else {
        return ExitCode::SUCCESS;
    };
    println!(
        "seed {} fails after {} steps: {}",
        first.seed, first.steps, first.why
    );
    println!(
        "replay it: cargo run --release -p tally-tests --bin simulate -- --seed {}{}",
        first.seed,
        args.kinds_again()
    );
    ExitCode::FAILURE
}

/// Prints each failure once, the most frequent first.
#[expect(clippy::print_stdout, reason = "what the program is for")]
fn print_each(failed: &[Box<Failed>]) {
    let mut kinds: BTreeMap<String, Vec<&Failed>> = BTreeMap::new();
    for found in failed {
        kinds.entry(found.kind()).or_default().push(found);
    }
    let mut kinds: Vec<Vec<&Failed>> = kinds.into_values().collect();
    kinds.sort_by_key(|found| std::cmp::Reverse(found.len()));
    for found in kinds {
        if let Some(first) = found.iter().min_by_key(|found| found.seed) {
            println!(
                "{} times, seed {} first: {}",
                found.len(),
                first.seed,
                first.why
            );
        }
    }
}

fn add(sums: &Mutex<(Counts, u64)>, counts: Counts) {
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    sums.0.turns += counts.turns;
    sums.0.requests += counts.requests;
    sums.0.crashes += counts.crashes;
    sums.0.counted += counts.counted;
    sums.0.forgotten += counts.forgotten;
    sums.0.most_at_once = sums.0.most_at_once.max(counts.most_at_once);
    sums.0.most_of_one = sums.0.most_of_one.max(counts.most_of_one);
    sums.1 += 1;
}

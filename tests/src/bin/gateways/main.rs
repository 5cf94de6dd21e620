//! What really stands between an agent and a licence server: gateways that send a request again by themselves, caches,
//! and replicas that are behind. Behind each of them answers get lost, the server keeps no idempotency keys, and each
//! unit must be counted once, or the agent must say that it was not.
//!
//! Everything runs as real processes over real sockets; `tests/gateways/run` builds and installs what it takes. The
//! server's own log of activity is the judge, not its answers and not the agent.
//!
//! * [`chain`] says what can stand between, and builds it; [`go`], [`program`], [`cache`] and [`replica`] are these,
//!   and [`loss`] is where answers get lost.
//! * [`world`] is one run; [`agents`] is what the agents say afterwards; [`judge`] compares.

mod agents;
mod cache;
mod chain;
mod go;
mod hop;
mod judge;
mod loss;
mod message;
mod program;
mod replica;
mod world;

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum as _};

use self::{
    chain::Between,
    world::{Outcome, Plan},
};

/// Lose answers behind gateways, caches and replicas, and count what the server counted
#[derive(Debug, Parser)]
struct Args {
    /// The program `tally`
    #[arg(long, default_value = "target/debug/tally")]
    tally: String,
    /// The program `tally-stub`
    #[arg(long, default_value = "target/debug/tally-stub")]
    stub: String,
    /// What stands between; everything, one after the other, where nothing is named
    #[arg(value_enum)]
    between: Vec<Between>,
    /// How many answers are lost behind each
    #[arg(long, default_value_t = 300)]
    losses: u64,
    /// For how many seconds applications consume at most, behind each
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// How many agents
    #[arg(long, default_value_t = 2)]
    agents: usize,
    /// How many licences each of them has
    #[arg(long, default_value_t = 25)]
    licenses: usize,
    /// How many chains run at a time
    #[arg(long, default_value_t = 7)]
    jobs: usize,
    /// Write what the agents say and log into this folder, to find the cause of a defect
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The seed of the losses; the timing of the processes stays its own
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> tally_tests::Result<ExitCode> {
    let mut args = Args::parse();
    if args.between.is_empty() {
        args.between = Between::value_variants().to_vec();
    }
    let outcomes = run(&args)?;
    print(&outcomes);
    let defects: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| outcome.defects(args.losses))
        .collect();
    Ok(say(&defects))
}

/// Runs all that was asked for, some at a time, and gives their outcomes in the order of the question.
fn run(args: &Args) -> tally_tests::Result<Vec<Outcome>> {
    let plan = Plan {
        tally: args.tally.clone(),
        stub: args.stub.clone(),
        losses: args.losses,
        patience: Duration::from_secs(args.seconds),
        agents: args.agents,
        licenses: args.licenses,
        keep: args.keep.clone(),
        seed: args.seed,
    };
    let waiting = Mutex::new(args.between.iter().copied().enumerate());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .next();
                    let Some((place, between)) = next else { break };
                    let outcome = plan.run(between);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push((place, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn print(outcomes: &[Outcome]) {
    let titles = COLUMNS.iter().map(|(title, _)| (*title).to_owned());
    println!("{}", row("between", titles));
    for outcome in outcomes {
        let name = format!("{:?}", outcome.between);
        let figures = COLUMNS.iter().map(|(_, figure)| figure(outcome));
        println!("{}", row(&name, figures.map(|figure| figure.to_string())));
    }
    println!("{FOOT}");
}

/// The columns of the table: a title, and the figure below.
type Column = (&'static str, fn(&Outcome) -> i128);
const COLUMNS: [Column; 16] = [
    ("lost answers", |outcome| outcome.lost_answers.into()),
    ("sent", |outcome| outcome.sent.into()),
    ("reached", |outcome| outcome.reached.into()),
    ("recorded", |outcome| outcome.verdict.recorded.into()),
    ("counted", |outcome| outcome.verdict.counted.into()),
    ("batches", |outcome| outcome.verdict.batches.into()),
    ("held", |outcome| outcome.verdict.held.into()),
    ("unknown", |outcome| outcome.verdict.unknown.into()),
    ("twice", |outcome| outcome.verdict.surplus.into()),
    ("findings", |outcome| outcome.verdict.findings.into()),
    ("their units", |outcome| {
        outcome.verdict.finding_units.into()
    }),
    ("false", |outcome| outcome.verdict.false_units.into()),
    ("shared", |outcome| outcome.verdict.shared.into()),
    ("UNNOTICED", |outcome| outcome.verdict.unnoticed.into()),
    ("LOST", |outcome| outcome.verdict.lost.into()),
    ("seconds", |outcome| outcome.took.as_secs().into()),
];

const FOOT: &str = "
sent, reached: consumptions that agents sent, and that reached the server: the rest was sent again on the way
recorded, counted, their units, false (units of findings beyond those), UNNOTICED, LOST: units
batches, held, unknown: batches; twice: how often one was counted again; shared: licences that others are said to use";

fn row(name: &str, figures: impl Iterator<Item = String>) -> String {
    let mut row = format!("{name:<10}");
    for ((title, _), figure) in COLUMNS.iter().zip(figures) {
        let is_units = matches!(*title, "recorded" | "counted" | "UNNOTICED" | "LOST");
        let width = title.len().max(if is_units { 11 } else { 6 });
        // Writing to a string does not fail.
        let _ = write!(row, "  {figure:>width$}");
    }
    row
}

#[expect(clippy::print_stderr, reason = "what the program is for")]
fn say(defects: &[String]) -> ExitCode {
    for defect in defects {
        eprintln!("{defect}");
    }
    if defects.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

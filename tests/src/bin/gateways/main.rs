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
        .filter_map(|outcome| outcome.defect(args.losses))
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
    println!(
        "{:<11}{:>7}{:>8}{:>8}{:>9}{:>15}{:>15}{:>7}{:>9}{:>7}{:>9}{:>11}{:>7}{:>12}{:>11}{:>6}",
        "between",
        "sent",
        "reached",
        "answers",
        "batches",
        "units",
        "units",
        "held",
        "unknown",
        "counted",
        "finding",
        "finding",
        "false",
        "unnoticed",
        "units",
        "s"
    );
    println!(
        "{:<11}{:>7}{:>8}{:>8}{:>9}{:>15}{:>15}{:>7}{:>9}{:>7}{:>9}{:>11}{:>7}{:>12}{:>11}{:>6}",
        "",
        "",
        "",
        "lost",
        "",
        "recorded",
        "counted",
        "",
        "",
        "twice",
        "s",
        "units",
        "units",
        "units",
        "lost",
        ""
    );
    for outcome in outcomes {
        let verdict = &outcome.verdict;
        println!(
            "{:<11}{:>7}{:>8}{:>8}{:>9}{:>15}{:>15}{:>7}{:>9}{:>7}{:>9}{:>11}{:>7}{:>12}{:>11}{:>6}",
            format!("{:?}", outcome.between),
            outcome.sent,
            outcome.reached,
            outcome.lost_answers,
            verdict.batches,
            verdict.recorded,
            verdict.counted,
            verdict.held,
            verdict.unknown,
            verdict.surplus,
            verdict.findings,
            verdict.finding_units,
            verdict.false_units,
            verdict.unnoticed,
            verdict.lost,
            outcome.took.as_secs(),
        );
    }
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

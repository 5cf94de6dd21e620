//! The simulation: the real state machine, the real limit rules and the real ledger on a simulated disk,
//! against a model server, in a world drawn from a seed.
//!
//! After every step it checks that units are conserved, that none is counted twice and that what was
//! acknowledged is there; once the world is calm, that all is settled but what cannot be known. A seed
//! that fails is replayed by `cargo run --release -p tally-tests --bin simulate -- --seed N`, with the
//! shortest plan that still fails.
//!
//! Beside weather, crashes, disks and clocks, each [`Kind`] of trouble is in some of the worlds; `--only` and
//! `--without` choose among them. [`fleet`] has several devices on one server.

mod answer;
mod asked;
mod calm;
mod check;
mod counter;
mod device;
pub mod fleet;
pub mod habits;
mod kinds;
mod known;
mod lives;
mod network;
mod pace;
mod people;
mod plan;
mod server;
mod settled;
mod steps;
mod talk;
mod trace;
mod trouble;
mod truth;
mod world;

pub use self::kinds::{Kind, Kinds};

use self::{
    plan::{Setup, Step},
    world::World,
};

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Turns of the agent.
    pub turns: u64,
    /// Requests of applications.
    pub requests: u64,
    /// Kills and power losses.
    pub crashes: u64,
    /// Batches that the server counted.
    pub counted: u64,
    /// Licences that were forgotten.
    pub forgotten: u64,
    /// The most requests to the server in any ten seconds.
    pub most_at_once: usize,
    /// The same, for one licence.
    pub most_of_one: usize,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its seed.
    pub seed: u64,
    /// What does not hold.
    pub why: String,
    /// What happened, for people.
    pub trace: Vec<String>,
    /// How many steps it took.
    pub steps: usize,
}

/// Runs a seed.
///
/// # Errors
///
/// [`Failed`], with the whole trace.
pub fn run(seed: u64, kinds: Kinds) -> Result<Counts, Box<Failed>> {
    let (setup, steps) = plan::draw(seed, kinds);
    run_plan(seed, &setup, &steps, false)
}

/// Finds the shortest plan that fails where this seed's does: takes steps away as long as it still fails.
pub fn shrink(seed: u64, kinds: Kinds) -> Option<Box<Failed>> {
    let (setup, mut steps) = plan::draw(seed, kinds);
    let mut failed = run_plan(seed, &setup, &steps, false).err()?;
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match run_plan(seed, &setup, &fewer, false) {
                Err(found) if found.kind() == failed.kind() => {
                    steps = fewer;
                    failed = found;
                }
                _ => at += size,
            }
        }
        size /= 2;
    }
    failed = run_plan(seed, &setup, &steps, true).err()?;
    failed.trace.insert(0, format!("{setup:?}"));
    Some(failed)
}

impl Failed {
    /// What it says, but for the numbers: failures that say the same are of one kind.
    pub fn kind(&self) -> String {
        let letters = self.why.chars().filter(|letter| !letter.is_ascii_digit());
        letters.take(40).collect()
    }
}

fn run_plan(
    seed: u64,
    setup: &Setup,
    steps: &[Step],
    is_traced: bool,
) -> Result<Counts, Box<Failed>> {
    let mut world = World::new(seed, setup);
    world.is_traced = is_traced;
    let ended = live(&mut world, steps);
    match ended {
        Ok(()) => Ok(Counts {
            turns: world.turns,
            requests: world.requests,
            crashes: world.crashes,
            counted: world.server.store.truth.requests,
            forgotten: world.times_forgotten,
            most_at_once: world.pace.most.0,
            most_of_one: world.pace.most.1,
        }),
        Err(why) => Err(Box::new(Failed {
            seed,
            why,
            trace: world.trace,
            steps: steps.len(),
        })),
    }
}

fn live(world: &mut World, steps: &[Step]) -> Result<(), String> {
    world.begin()?;
    for step in steps {
        world.take(*step)?;
    }
    end(world)?;
    if world.twin.is_some() {
        world.swap()?;
        end(world)?;
    }
    Ok(())
}

/// The world calms down, and the agent brings everything to its end.
fn end(world: &mut World) -> Result<(), String> {
    world.calm()?;
    world.check_calm()?;
    world.raise_limits()?;
    world.resolve_all()?;
    world.serve_all()?;
    world.check_end()
}

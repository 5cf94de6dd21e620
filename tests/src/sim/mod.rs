//! The simulation: the real state machine, the real limit rules and the real ledger on a simulated disk,
//! against a model server, in a world drawn from a seed.
//!
//! After every step it checks that units are conserved, that none is counted twice and that what was
//! acknowledged is there; once the world is calm, that all is settled but what cannot be known. A seed
//! that fails is replayed by `cargo run --release -p tally-tests --bin simulate -- --seed N`, with the
//! shortest plan that still fails.

mod calm;
mod check;
mod device;
mod known;
mod network;
mod people;
mod plan;
mod server;
mod trace;
mod world;

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
pub fn run(seed: u64) -> Result<Counts, Box<Failed>> {
    let (setup, steps) = plan::draw(seed);
    run_plan(seed, &setup, &steps, false)
}

/// Finds the shortest plan that fails where this seed's does: takes steps away as long as it still fails.
pub fn shrink(seed: u64) -> Option<Box<Failed>> {
    let (setup, mut steps) = plan::draw(seed);
    let mut failed = run_plan(seed, &setup, &steps, false).err()?;
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match run_plan(seed, &setup, &fewer, false) {
                Err(found) if is_alike(&found, &failed) => {
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

/// Whether two failures are of the same kind: they say the same but for the numbers.
fn is_alike(a: &Failed, b: &Failed) -> bool {
    let words = |failed: &Failed| {
        let letters = failed.why.chars().filter(|letter| !letter.is_ascii_digit());
        letters.take(40).collect::<String>()
    };
    words(a) == words(b)
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
            requests: u64::try_from(world.asked.len()).unwrap_or(0),
            crashes: world.crashes,
            counted: u64::try_from(world.server.counted.len()).unwrap_or(0),
            forgotten: world.times_forgotten,
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
    world.calm()?;
    world.check_calm()?;
    world.raise_limits()?;
    world.resolve_all()?;
    world.check_end()
}

//! One round after the other: the agent works, is killed, and is started again.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, KILL_AT, Sums},
    client::Client,
    seed,
    stub::{Keys, Stub},
    wait,
};

use super::{Point, When, consumers::Consumers};
use crate::{agent_with, stub};

const APPS: usize = 4;

/// How many units are granted, and how many settled, before a run that an earlier one must have left
/// work for.
const PROGRESS: i64 = 30;

/// How much of the agent's log is shown with a failure.
const LOG_BYTES: usize = 4000;

/// Within this time a point is reached, or the test fails.
const REACH_MAX: Duration = Duration::from_secs(20);

/// How many scenes are played at a time: more would only wait for each other.
const SCENES_MAX: usize = 4;

/// SIGKILL.
const KILL: i32 = 9;

static PLAYING: Mutex<usize> = Mutex::new(0);
static PLAYED: Condvar = Condvar::new();

/// A place among the scenes that are played.
struct Place;

impl Place {
    fn take() -> Self {
        let playing = PLAYING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut playing = PLAYED
            .wait_while(playing, |playing| *playing >= SCENES_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *playing += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLAYING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        PLAYED.notify_one();
    }
}

/// How often the process ended by SIGKILL.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Killed {
    /// By itself, at a point of its code.
    pub(super) at_points: u32,
    /// By the test.
    pub(super) from_outside: u32,
}

/// An agent, its server, and its applications.
pub(super) struct Scene {
    stub: Stub,
    agent: Agent,
    app: Client,
    consumers: Consumers,
    killed: Killed,
    random: StdRng,
    _place: Place,
}

impl Scene {
    /// Starts everything, with a network that fails.
    pub(super) fn set(keys: Keys) -> Result<Self> {
        let place = Place::take();
        let stub = stub(&[seed::license(1_000_000, json!({}))], keys)?;
        let flags = [
            ["--sync-interval", "20ms"],
            ["--settle-wait", "300ms"],
            ["--refresh-interval", "200ms"],
            ["--retention", "1ms"],
        ];
        let mut agent = agent_with(stub.url(), flags.as_flattened())?;
        let app = agent.app("inspector")?;
        agent.add_license()?;
        stub.faults(&json!([
            {"action": {"delay_ms": 20}, "probability": 0.1, "seed": 1},
            {"action": {"drop": "after"}, "probability": 0.06, "seed": 2},
            {"action": {"drop": "before"}, "probability": 0.04, "seed": 3},
            {"action": {"truncate": 30}, "probability": 0.04, "seed": 4},
            {"action": {"garbage": true}, "probability": 0.04, "seed": 5},
            {"action": {"status": 503}, "probability": 0.04, "seed": 6},
        ]))?;
        agent.terminate()?;
        Ok(Self {
            stub,
            agent,
            app,
            consumers: Consumers::default(),
            killed: Killed::default(),
            random: StdRng::seed_from_u64(7),
            _place: place,
        })
    }

    /// Plays rounds while the applications consume; then mends the network and checks that each unit
    /// that was granted is counted once.
    pub(super) fn play(&mut self, rounds: impl FnOnce(&mut Stage<'_>) -> Result) -> Result<Killed> {
        let consumers = &self.consumers;
        let mut stage = Stage {
            agent: &mut self.agent,
            consumers,
            killed: &mut self.killed,
            random: &mut self.random,
        };
        let app = &self.app;
        thread::scope(|scope| {
            for name in 0..APPS {
                scope.spawn(move || consumers.consume(app, &name.to_string()));
            }
            let played = rounds(&mut stage).and_then(|()| stage.run());
            match played {
                Ok(()) => consumers.stop(),
                Err(_) => consumers.abandon(),
            }
            played
        })
        .with_context(|| self.last_words())?;
        self.check()?;
        Ok(self.killed)
    }

    /// What the agent said last.
    fn last_words(&self) -> String {
        let said = self.agent.said().unwrap_or_default();
        let from = said.ceil_char_boundary(said.len().saturating_sub(LOG_BYTES));
        said[from..].to_owned()
    }

    fn check(&mut self) -> Result {
        let fired: u64 = self.stub.fired()?.iter().sum();
        assert!(fired > 0, "the network never failed");
        self.stub.faults(&json!([]))?;
        let granted = self.consumers.granted()?;
        let expected = Sums {
            recorded: granted,
            settled: granted,
            ..Sums::default()
        };
        assert_eq!(self.agent.wait_settled(0)?, expected);
        assert_eq!(self.stub.total(1)?, granted);
        assert!(self.agent.terminate()?.success());
        // Nothing was folded twice, or lost while it was.
        let rows = "SELECT (SELECT coalesce(sum(units), 0) FROM consumptions)
                         + (SELECT coalesce(sum(units), 0) FROM daily),
                           (SELECT * FROM pragma_integrity_check)";
        let found: (i64, String) =
            ledger(&self.agent)?.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        assert_eq!(found, (granted, "ok".to_owned()));
        Ok(())
    }
}

/// What a round works with, while the applications consume.
pub(super) struct Stage<'a> {
    agent: &'a mut Agent,
    consumers: &'a Consumers,
    killed: &'a mut Killed,
    random: &'a mut StdRng,
}

impl Stage<'_> {
    /// The agent comes to a point of its code, and is killed there.
    pub(super) fn kill_at(&mut self, point: Point, round: u32) -> Result {
        let reached = |status: ExitStatus| {
            ensure!(
                status.signal() == Some(KILL),
                "round {round} at {point:?}: ended with {status}"
            );
            Ok(())
        };
        let times = match point.when {
            // The first time, the last, and what lies between.
            When::Working(max) => match round {
                0 => 1,
                1 => max,
                _ => self.random.random_range(1..=max),
            },
            When::Starting => {
                self.run()?;
                self.progress()?;
                self.kill()?;
                1
            }
            When::Stopping => 1,
        };
        let process = self
            .agent
            .spawn(&[(KILL_AT, &format!("{}:{times}", point.name))])?;
        if let Some(status) = process.ready()? {
            reached(status)?;
        } else {
            self.consumers.open(process.url());
            let status = if point.when == When::Stopping {
                self.progress()?;
                self.agent.terminate()?
            } else {
                process
                    .ended_within(REACH_MAX)
                    .with_context(|| format!("round {round}: {point:?} is not reached"))?
            };
            self.consumers.close();
            reached(status)?;
        }
        self.killed.at_points += 1;
        Ok(())
    }

    /// The agent is killed at any moment: while it starts, soon after, or after a while.
    pub(super) fn kill_at_random(&mut self) -> Result {
        let moment = |random: &mut StdRng, max| Duration::from_millis(random.random_range(0..=max));
        if self.random.random_ratio(1, 4) {
            let while_starting = moment(self.random, 60);
            self.agent.spawn(&[])?;
            thread::sleep(while_starting);
        } else {
            let longest = [30, 200, 800][self.random.random_range(0..3)];
            let while_working = moment(self.random, longest);
            self.run()?;
            thread::sleep(while_working);
        }
        self.kill()
    }

    /// Starts the agent, to stay.
    fn run(&mut self) -> Result {
        self.agent.restart()?;
        self.consumers.open(self.agent.url()?);
        Ok(())
    }

    fn kill(&mut self) -> Result {
        let status = self.agent.kill()?;
        self.consumers.close();
        ensure!(status.signal() == Some(KILL), "ended with {status}");
        self.killed.from_outside += 1;
        Ok(())
    }

    /// Waits until the agent has granted units, and knows that units were counted.
    fn progress(&self) -> Result {
        let ledger = ledger(self.agent)?;
        let now = || {
            let settled: i64 =
                ledger.query_row("SELECT settled FROM accounts", [], |row| row.get(0))?;
            Ok((self.consumers.granted()?, settled))
        };
        let (granted, settled) = now()?;
        wait::until("some progress", now, |now| {
            now.0 >= granted + PROGRESS && now.1 >= settled + PROGRESS
        })?;
        Ok(())
    }
}

/// The agent's ledger, to read: cheaper than to ask the agent again and again.
fn ledger(agent: &Agent) -> Result<Connection> {
    let path = agent.data_dir().join("ledger.db");
    let ledger = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    ledger.busy_timeout(REACH_MAX)?;
    Ok(ledger)
}

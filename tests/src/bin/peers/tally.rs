//! An agent that syncs with a stub, as it is shipped.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tally_tests::{
    agent::{Agent, Setup},
    load::Load,
    seed,
    stub::{Keys, Stub},
    watched::Watched,
};

use crate::measure::{self, KeyPair, Measured, WARM_UP, micros};

/// How long the agent is left alone to see what it uses then.
const IDLE: Duration = Duration::from_secs(2);

pub(crate) struct Tally {
    agent: Agent,
    _stub: Stub,
    plain: KeyPair,
    other: KeyPair,
    signed: KeyPair,
}

/// How long one application waits for its answers, in microseconds, and what another gets.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Fairness {
    /// Its p99 where nobody else asks.
    pub(crate) alone: f64,
    /// Its p99 beside one that floods.
    pub(crate) beside: f64,
    /// How many grants a second the one that floods gets meanwhile.
    pub(crate) flood: f64,
}

/// What an agent uses while nothing happens.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Idle {
    /// Resident memory in MB.
    pub(crate) memory: f64,
    /// Context switches per second.
    pub(crate) switches: f64,
}

impl Tally {
    pub(crate) fn start(tally: &str, stub: &str, folder: &Path) -> tally_tests::Result<Self> {
        std::fs::create_dir(folder)?;
        let unlimited = seed::license(0, json!({"allow_unlimited_consumptions": true}));
        let stub = Stub::start(stub, &seed::seed(&[unlimited]), Keys::Kept)?;
        let setup = Setup {
            flags: ["--sync-interval", "5s", "--settle-wait", "30s"]
                .map(str::to_owned)
                .to_vec(),
        };
        let agent = Agent::start_in(folder, tally, stub.url(), &setup)?;
        agent.add_license()?;
        let keys = |args: &[&str]| {
            let keys = agent.json(args)?;
            let text = |key| keys.get(key).and_then(Value::as_str).map(str::to_owned);
            let pair = text("api_key").zip(text("shared_key"));
            pair.context("a key pair")
        };
        let plain = keys(&["app", "add", "plain", "--unsigned-answers"])?;
        let other = keys(&["app", "add", "other", "--unsigned-answers"])?;
        let signed = keys(&["app", "add", "signed"])?;
        Ok(Self {
            agent,
            _stub: stub,
            plain,
            other,
            signed,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "figures, for people")]
    pub(crate) fn idle(&self) -> tally_tests::Result<Idle> {
        let watched = Watched(self.agent.process_id()?);
        let before = watched.used()?;
        thread::sleep(IDLE);
        let switches = watched.used()?.since(before).switches;
        Ok(Idle {
            memory: watched.memory()?,
            switches: switches as f64 / IDLE.as_secs_f64(),
        })
    }

    pub(crate) fn measure(
        &self,
        unix: bool,
        connections: usize,
        duration: Duration,
    ) -> tally_tests::Result<Measured> {
        self.load(unix, connections, duration, &self.plain)
    }

    pub(crate) fn measure_signed(
        &self,
        connections: usize,
        duration: Duration,
    ) -> tally_tests::Result<Measured> {
        self.load(false, connections, duration, &self.signed)
    }

    /// One application asks one thing at a time, alone and then beside another that floods.
    pub(crate) fn measure_fairness(
        &self,
        connections: usize,
        duration: Duration,
    ) -> tally_tests::Result<Fairness> {
        let one = self.load_of(false, 1, duration, &self.other)?;
        let flood = duration + 3 * WARM_UP;
        let flood = self.load_of(false, connections, flood, &self.plain)?;
        let p99 = || Ok::<_, anyhow::Error>(micros(&one.run()?, 0.99));
        let alone = p99()?;
        thread::scope(|scope| {
            let flooding = scope.spawn(|| flood.run());
            thread::sleep(WARM_UP);
            let beside = p99();
            ensure!(!flooding.is_finished(), "the flood was over too early");
            let flooded = flooding.join();
            let flooded = flooded.unwrap_or_else(|_| bail!("the flood panicked"))?;
            Ok(Fairness {
                alone,
                beside: beside?,
                flood: flooded.rate(),
            })
        })
    }

    fn load(
        &self,
        unix: bool,
        connections: usize,
        duration: Duration,
        keys: &KeyPair,
    ) -> tally_tests::Result<Measured> {
        let load = self.load_of(unix, connections, duration, keys)?;
        measure::under(&load, Watched(self.agent.process_id()?))
    }

    fn load_of(
        &self,
        unix: bool,
        connections: usize,
        duration: Duration,
        keys: &KeyPair,
    ) -> tally_tests::Result<Load> {
        let socket = self.agent.data_dir().join("tally.sock");
        let target = measure::target(unix, &socket, self.agent.url()?)?;
        Ok(measure::load(target, connections, duration, keys))
    }
}

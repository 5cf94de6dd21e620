//! A step of a scenario: a time, and one thing that happens then.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{Amount, duration, some_duration};
use crate::{
    control::ClockChange, engine::state::License, faults::spec::Fault, network::spec::NetworkState,
    seed::ApiKeyState,
};

/// The longest wait of a `wait` that does not say.
const WAIT: Duration = Duration::from_secs(10);

/// Something that happens: when, and exactly one thing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, from the moment that everything was ready; without it, right after the step before.
    #[serde(default, deserialize_with = "some_duration")]
    pub at: Option<Duration>,
    /// Faults, in the place of all others.
    pub faults: Option<Vec<Fault>>,
    /// A state of the network.
    pub network: Option<NetworkState>,
    /// The server's clock is moved.
    pub clock: Option<ClockChange>,
    /// A licence is edited or removed.
    pub license: Option<LicenseEdit>,
    /// A licence is added, in the seed's shape.
    pub add_license: Option<License>,
    /// Idempotency keys are kept from now on, or no longer.
    pub idempotency: Option<bool>,
    /// A key pair is added, changed or revoked.
    pub api_key: Option<ApiKeyOrder>,
    /// An application consumes.
    pub consume: Option<Consume>,
    /// An agent is stopped, started or switched.
    pub agent: Option<AgentOrder>,
    /// Nothing goes on until something holds.
    pub wait: Option<Wait>,
    /// A program is run to its end.
    pub run: Option<RunProgram>,
}

/// An edit of a licence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenseEdit {
    /// Which one.
    pub id: i64,
    /// Fields of the seed's shape, with their new values.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// Fields that get their default back.
    #[serde(default)]
    pub unset: Vec<String>,
    /// True to remove it.
    #[serde(default)]
    pub remove: bool,
}

/// A key pair is added, changed or revoked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyOrder {
    /// The key's name.
    pub name: String,
    /// The secret that signs; a new key needs one.
    pub shared_key: Option<String>,
    /// The key's rights: `active`, `revoked` or `read_only`.
    pub state: Option<ApiKeyState>,
}

/// An application consumes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consume {
    /// Through which agent; the first one.
    pub agent: Option<String>,
    /// The application.
    #[serde(default = "an_app")]
    pub app: String,
    /// Of which licence; the first one.
    pub license: Option<i64>,
    /// Of which feature of it.
    pub feature: Option<String>,
    /// The device; the agent's own where it is left out.
    pub hardware_id: Option<String>,
    /// The request names the holder and no id: `license` is the one that the server would take.
    #[serde(default)]
    pub without_id: bool,
    /// Allows overage, or no longer.
    pub allow_overages: Option<bool>,
    /// The most overage.
    pub max_overages: Option<i64>,
    /// Units at a time.
    #[serde(default = "one")]
    pub units: i64,
    /// The number of times.
    #[serde(default = "once")]
    pub times: u32,
    /// The application's rest in between.
    #[serde(default, deserialize_with = "duration")]
    pub every: Duration,
}

/// An agent is stopped, started or switched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOrder {
    /// Which one; the first.
    pub name: Option<String>,
    /// The order.
    pub action: AgentAction,
    /// The agent whose folder is copied; with `copy`.
    pub from: Option<String>,
    /// The key pair that it has from now on; with `start` and `restart`.
    pub api_key: Option<String>,
}

/// An order for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentAction {
    /// Asked to stop, and waited for.
    Stop,
    /// Killed, as by a power cut.
    Kill,
    /// Started again.
    Start,
    /// Stopped and started again.
    Restart,
    /// Sends what it owes now.
    Sync,
    /// Its own network switch is put to offline.
    Offline,
    /// And back to online.
    Online,
    /// Its data folder is copied to the side.
    Save,
    /// Its data folder is put back as it was saved.
    PutBack,
    /// Gets a copy of another agent's data folder.
    Copy,
}

/// Nothing goes on until all of this holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Of which agent; the first one.
    pub agent: Option<String>,
    /// Of which licence; the first one.
    pub license: Option<i64>,
    /// Of which feature of it.
    pub feature: Option<String>,
    /// Units granted to applications.
    pub recorded: Option<Amount>,
    /// Units that the server has counted.
    pub settled: Option<Amount>,
    /// Units not sent yet.
    pub pending: Option<Amount>,
    /// Units sent, and not answered yet.
    pub in_flight: Option<Amount>,
    /// Units sent, and the answer was lost.
    pub unknown: Option<Amount>,
    /// Units that wait for something to change.
    pub held: Option<Amount>,
    /// The number of findings that nobody has seen, of any licence.
    pub findings: Option<Amount>,
    /// The strikes of the faults in force, together.
    pub fired: Option<Amount>,
    /// The longest wait.
    #[serde(default = "wait", deserialize_with = "duration")]
    pub within: Duration,
}

/// A program is run to its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunProgram {
    /// The agent that `{data_dir}` and `{agent_url}` are of; the first one.
    pub agent: Option<String>,
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// The exit code that is right.
    #[serde(default)]
    pub exit: i32,
    /// A text that must stand in its output.
    pub says: Option<String>,
    /// The longest wait.
    #[serde(default = "wait", deserialize_with = "duration")]
    pub within: Duration,
}

fn an_app() -> String {
    "inspector".to_owned()
}

const fn one() -> i64 {
    1
}

const fn once() -> u32 {
    1
}

const fn wait() -> Duration {
    WAIT
}

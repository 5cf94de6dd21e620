//! The server's side of a scenario, played on a stub that somebody works with: from the lab's page, say.
//!
//! What applications and agents do in the story is theirs to do; the timeline says when.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};
use tally_shared::wire::ApiError;
use tokio_util::sync::CancellationToken;

use super::file::{Scenario, Step};
use crate::{
    api::state::Shared,
    control::{self, ApiKeyEdit},
    network::spec::NetworkState,
};

/// How long a tester gets for a step that only agents can do, where the next one has no time of its own.
const TESTERS_TURN: Duration = Duration::from_secs(3);

/// The scenario that is played, or was played last.
#[derive(Debug, Default)]
pub(crate) struct Playback {
    shown: Option<Shown>,
    stop: CancellationToken,
    /// Counts what was played, so that one that was stopped does not write into the next.
    count: u64,
}

/// What is played, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    name: String,
    story: String,
    state: State,
    steps: Vec<ShownStep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Running,
    Done,
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ShownStep {
    at_ms: Option<u64>,
    kind: &'static str,
    what: String,
    state: StepState,
    result: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StepState {
    /// Its time has not come.
    Waiting,
    /// It was carried out.
    Done,
    /// It is for agents and their applications.
    Yours,
    /// The stub refused it.
    Failed,
}

/// Plays a scenario, in the place of one that is played.
pub(crate) fn play(shared: &Arc<Shared>, scenario: Scenario) -> Shown {
    let mut playback = shared.playback();
    playback.stop.cancel();
    let stop = shared.stopping.child_token();
    let count = playback.count + 1;
    let shown = Shown::new(&scenario);
    *playback = Playback {
        shown: Some(shown.clone()),
        stop: stop.clone(),
        count,
    };
    drop(playback);
    shared.live.tell("scenario", &shown);
    let stub = Arc::clone(shared);
    shared.tasks.spawn(async move {
        tokio::select! {
            () = carry_out(&stub, &scenario, count) => {}
            () = stop.cancelled() => {}
        }
    });
    shown
}

/// Stops what is played, ends every fault, and puts the network up. The clock and the licences stay.
pub(crate) fn stop(shared: &Arc<Shared>) -> Result<Option<Shown>, ApiError> {
    {
        let mut playback = shared.playback();
        playback.stop.cancel();
        playback.count += 1;
        if let Some(shown) = &mut playback.shown
            && shown.state == State::Running
        {
            shown.state = State::Stopped;
        }
    }
    control::set_faults(shared, Vec::new())?;
    control::set_network(shared, NetworkState::Up)?;
    let shown = shown(shared);
    shared.live.tell("scenario", &shown);
    Ok(shown)
}

/// What is played, or was played last.
pub(crate) fn shown(shared: &Shared) -> Option<Shown> {
    shared.playback().shown.clone()
}

async fn carry_out(shared: &Arc<Shared>, scenario: &Scenario, count: u64) {
    let began = tokio::time::Instant::now();
    if let Some(now) = scenario.world.now {
        let change = control::ClockChange {
            now: Some(now),
            ..control::ClockChange::default()
        };
        if let Err(error) = control::move_clock(shared, &change).await {
            tracing::warn!(%error, "the clock of a scenario cannot be set");
        }
    }
    if !scenario.idempotency {
        // The story of a server that keeps none; it stays one.
        control::keep_keys(shared, false);
    }
    for (index, spanned) in scenario.steps.iter().enumerate() {
        let step = spanned.get_ref();
        if let Some(at) = step.at {
            tokio::time::sleep_until(began + at).await;
        }
        let (state, result) = match step.on_server(shared, scenario.seed).await {
            Some(Ok(result)) => (StepState::Done, result),
            Some(Err(error)) => (StepState::Failed, error.message),
            None => (StepState::Yours, String::new()),
        };
        tell(shared, count, |shown| {
            if let Some(step) = shown.steps.get_mut(index) {
                step.state = state;
                step.result = result;
            }
        });
        if state == StepState::Yours {
            tokio::time::sleep(TESTERS_TURN).await;
        }
    }
    tell(shared, count, |shown| shown.state = State::Done);
}

fn tell(shared: &Shared, count: u64, change: impl FnOnce(&mut Shown)) {
    let mut playback = shared.playback();
    if playback.count != count {
        return;
    }
    if let Some(shown) = &mut playback.shown {
        change(shown);
        shared.live.tell("scenario", shown);
    }
}

impl Shown {
    fn new(scenario: &Scenario) -> Self {
        let step = |step: &Step| {
            let (kind, what) = step.described();
            ShownStep {
                at_ms: step
                    .at
                    .map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
                kind,
                what,
                state: StepState::Waiting,
                result: String::new(),
            }
        };
        Self {
            name: scenario.name.clone(),
            story: scenario.story.trim().to_owned(),
            state: State::Running,
            steps: scenario.steps.iter().map(|it| step(it.get_ref())).collect(),
        }
    }
}

impl Step {
    /// Carries the step out where it is one of the server's side; `None` where it is not.
    pub(super) async fn on_server(
        &self,
        shared: &Arc<Shared>,
        seed: u64,
    ) -> Option<Result<String, ApiError>> {
        if let Some(faults) = &self.faults {
            let mut faults = faults.clone();
            for fault in faults.iter_mut().filter(|fault| fault.seed == 0) {
                fault.seed = seed;
            }
            return Some(control::set_faults(shared, faults).map(|_| String::new()));
        }
        if let Some(network) = &self.network {
            let state = network.clone().seeded(seed);
            return Some(control::set_network(shared, state).map(|_| String::new()));
        }
        if let Some(change) = &self.clock {
            let moved = control::move_clock(shared, change).await;
            return Some(moved.map(|reading| format!("the server's clock shows {}", reading.now)));
        }
        if let Some(enabled) = self.idempotency {
            control::keep_keys(shared, enabled);
            return Some(Ok(String::new()));
        }
        if let Some(order) = &self.api_key {
            let edit = ApiKeyEdit {
                shared_key: order.shared_key.clone(),
                state: order.state,
            };
            let stored = control::put_api_key(shared, order.name.clone(), edit).await;
            return Some(stored.map(|_| String::new()));
        }
        if let Some(license) = &self.add_license {
            let stored = control::put_license(shared, license.clone()).await;
            return Some(stored.map(|_| String::new()));
        }
        let edit = self.license.as_ref()?;
        if edit.remove {
            let removed = control::remove_license(shared, edit.id).await;
            return Some(removed.map(|_| String::new()));
        }
        let mut fields: Map<String, Value> = edit.set.clone();
        fields.extend(edit.unset.iter().map(|name| (name.clone(), Value::Null)));
        let edited = control::patch_license(shared, edit.id, fields).await;
        Some(edited.map(|_| String::new()))
    }

    /// Its kind, and what it does in words.
    pub(super) fn described(&self) -> (&'static str, String) {
        if let Some(faults) = &self.faults {
            let words: Vec<String> = faults.iter().map(|fault| short(&fault.action)).collect();
            let text = if words.is_empty() {
                "none".to_owned()
            } else {
                words.join(", ")
            };
            ("faults", text)
        } else if let Some(network) = &self.network {
            ("network", short(network))
        } else if let Some(clock) = &self.clock {
            ("clock", short(clock))
        } else if let Some(enabled) = self.idempotency {
            let words = if enabled { "kept" } else { "not kept" };
            ("keys", format!("{words} from now on"))
        } else if let Some(order) = &self.api_key {
            let state = order
                .state
                .map_or(String::new(), |it| format!(": {}", short(&it)));
            ("api key", format!("{}{state}", order.name))
        } else if let Some(license) = &self.add_license {
            let holder = license.holder();
            let name = holder.as_ref().map_or("", |it| it.value());
            (
                "license",
                format!("licence {} of {name} is added", license.id),
            )
        } else if let Some(edit) = self.license.as_ref().filter(|edit| edit.remove) {
            ("license", format!("licence {} is removed", edit.id))
        } else if let Some(edit) = &self.license {
            let unset = edit.unset.iter().map(|name| format!("{name} unset"));
            let set = edit
                .set
                .iter()
                .map(|(name, value)| format!("{name} = {value}"));
            let words: Vec<String> = set.chain(unset).collect();
            (
                "license",
                format!("licence {}: {}", edit.id, words.join(", ")),
            )
        } else if let Some(consume) = &self.consume {
            let of = consume
                .license
                .map_or(String::new(), |id| format!(" of licence {id}"));
            let by = consume
                .agent
                .as_ref()
                .map_or(String::new(), |name| format!(" on {name}"));
            let feature = consume
                .feature
                .as_ref()
                .map_or(String::new(), |code| format!(" of {code}"));
            let units = if consume.units == 1 { "unit" } else { "units" };
            let what = format!(
                "{} × {} {units}{feature}{of}{by} by {}",
                consume.times, consume.units, consume.app
            );
            ("consume", what)
        } else if let Some(order) = &self.agent {
            let name = order.name.as_deref().unwrap_or("the agent");
            (
                "agent",
                format!("{name}: {}", format!("{:?}", order.action).to_lowercase()),
            )
        } else if let Some(wait) = &self.wait {
            ("wait", format!("until {}", wait.described()))
        } else if let Some(run) = &self.run {
            ("run", run.command.join(" "))
        } else {
            ("nothing", String::new())
        }
    }
}

/// An order as short JSON, for a line of a report.
fn short(order: &impl Serialize) -> String {
    // Every order is a plain structure with text keys, which always has a JSON form.
    let json = serde_json::to_string(order).unwrap_or_default();
    let json = json.trim_matches(['{', '}']).replace('"', "");
    let words = json.replace(',', ", ").replace(':', " ");
    // What goes without saying.
    words
        .replace(", jitter_ms 0", "")
        .replace(", seed 0", "")
        .replace("state ", "")
}

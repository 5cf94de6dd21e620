//! One scenario, carried out: a stub inside this program, agents as children, the timeline, and the end.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use fs_err as fs;
use serde_json::Value;
use tally_shared::wire::ApiError;
use tempfile::TempDir;

use super::{
    agent::{Agent, Setting},
    agent_error::AgentError,
    expect::{self, Account, Seen, Tally},
    file::Scenario,
    options::Options,
    placeholder::{TemplateError, Values},
    report::{AgentLog, Expectation, Report, StepReport},
    timeline::fired,
};
use crate::{
    control,
    engine::state::{DeviceState, License},
    seed::{ApiKey, ApiKeyState, Product, Seed},
    server::{RunningStub, StartError, Stub, StubConfig},
};

/// How often what is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// The key pair of every scenario's world.
const API_KEY: &str = "scenario-key";
const SHARED_KEY: &str = "scenario-shared-key";

/// Why a scenario broke off.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The stub of the scenario cannot start.
    #[error("the stub cannot start")]
    Stub(#[from] StartError),
    /// An agent cannot be worked with.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The stub refuses a step.
    #[error("line {line}: the stub refuses: {}", error.message)]
    Refused {
        /// The step's line.
        line: usize,
        /// Why.
        error: ApiError,
    },
    /// What a step waits for did not come.
    #[error("line {line}: within {within:?} it did not come to {what}; there was {found}")]
    Waited {
        /// The step's line.
        line: usize,
        /// How long it waited.
        within: Duration,
        /// For what.
        what: String,
        /// What there was instead.
        found: String,
    },
    /// A program of the timeline failed.
    #[error("line {line}: `{program}` {how}")]
    Program {
        /// The step's line.
        line: usize,
        /// The program.
        program: String,
        /// What happened.
        how: String,
    },
    /// A program of the timeline has an unknown placeholder.
    #[error("line {line}: {source}")]
    Template {
        /// The step's line.
        line: usize,
        /// What is wrong.
        source: TemplateError,
    },
    /// Files cannot be written.
    #[error("cannot write the scenario's files")]
    Files(#[from] std::io::Error),
}

/// A scenario that is being carried out.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) text: &'a str,
    pub(super) stub: RunningStub,
    pub(super) agents: Vec<Agent>,
    pub(super) values: Values,
    pub(super) tallies: BTreeMap<(String, Account), Tally>,
    /// Removed with everything in it when the scenario is over.
    _folder: Option<TempDir>,
}

/// Carries a scenario out. `talk` hears of each step when it is done.
pub async fn run(
    file: &Path,
    text: &str,
    scenario: &Scenario,
    options: &Options,
    talk: &mut (dyn FnMut(&StepReport) + Send),
) -> Report {
    let began = Instant::now();
    let mut report = Report {
        name: scenario.name.clone(),
        file: file.display().to_string(),
        seed: scenario.seed,
        steps: Vec::new(),
        expectations: Vec::new(),
        error: None,
        seconds: 0.0,
        passed: false,
        logs: Vec::new(),
    };
    match World::open(file, text, scenario, options).await {
        Err(error) => report.error = Some(chain(&error)),
        Ok(mut world) => {
            let mut told = |step: StepReport| {
                talk(&step);
                report.steps.push(step);
            };
            match world.timeline(&mut told).await {
                Ok(()) => report.expectations = world.end().await,
                Err(error) => report.error = Some(chain(&error)),
            }
            report.passed = report.error.is_none() && report.expectations.iter().all(|it| it.ok);
            if !report.passed {
                report.logs = world.logs();
            }
            if let Err(error) = world.close().await {
                report.passed = false;
                report.error.get_or_insert_with(|| chain(&error));
            }
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    report
}

impl<'a> World<'a> {
    async fn open(
        file: &Path,
        text: &'a str,
        scenario: &'a Scenario,
        options: &Options,
    ) -> Result<Self, RunError> {
        let (folder, temporary) = options.folder_for(file)?;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let stub = Stub::start(StubConfig {
            listen: local,
            control: Some(local),
            data_dir: None,
            seed: seed_of(scenario),
            idempotency: scenario.idempotency,
            allowed_hosts: Vec::new(),
        })
        .await?;
        let public_key = folder.join("server_public_key.pem");
        fs::write(&public_key, stub.public_key())?;
        let values = Values::from([
            ("server_url", stub.url()),
            ("control_url", stub.control_url()),
            ("api_key", API_KEY.to_owned()),
            ("shared_key", SHARED_KEY.to_owned()),
            ("public_key", public_key.display().to_string()),
        ]);
        let mut world = Self {
            scenario,
            text,
            stub,
            agents: Vec::new(),
            values,
            tallies: BTreeMap::new(),
            _folder: temporary,
        };
        if let Some(now) = scenario.world.now {
            let change = control::ClockChange {
                now: Some(now),
                ..control::ClockChange::default()
            };
            let moved = control::move_clock(world.stub.shared(), &change).await;
            moved.map_err(|error| RunError::Refused { line: 1, error })?;
        }
        for spec in scenario.agent_specs() {
            let mut values = world.values.clone();
            let folder = folder.join(&spec.name);
            values.insert("data_dir", folder.join("data").display().to_string());
            values.insert("agent", spec.name.clone());
            values.insert("hardware_id", spec.hardware_id.clone());
            let setting = Setting {
                agent_command: options.agent_command.clone(),
                app_command: options.app_command.clone(),
                values,
                folder,
            };
            let mut agent = Agent::new(spec.clone(), setting)?;
            if !spec.absent {
                agent.start().await?;
                let licenses = scenario.world.licenses.iter();
                for license in licenses.filter(|it| is_usable(it, &spec.hardware_id)) {
                    agent.add_license(license).await?;
                }
            }
            world.agents.push(agent);
        }
        Ok(world)
    }

    /// Waits until everything expected holds, and the last word is said: what comes too late counts too.
    async fn end(&mut self) -> Vec<Expectation> {
        let expect = &self.scenario.expect;
        let first = self.license(None).map_or(0, |license| license.id);
        let began = Instant::now();
        loop {
            let lines = expect::judge(expect, first, &self.seen().await);
            let holds = lines.iter().all(|line| line.ok);
            if holds || began.elapsed() > expect.within {
                return lines;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn seen(&self) -> Seen {
        let shared = self.stub.shared();
        // Agents first: what they call settled, the server has counted before.
        let mut agents = Vec::new();
        for agent in &self.agents {
            let is_there = agent.is_running() || !agent.spec.absent;
            if is_there {
                let status: Option<Value> = agent.status().await.ok();
                agents.push((agent.spec.name.clone(), status));
            }
        }
        let under_way = shared.requests_under_way() > 0;
        let licenses = control::licenses(shared).await.unwrap_or_default();
        let activity = shared
            .blocking(|shared| Ok(shared.store().begin()?.activity(None)?))
            .await;
        Seen {
            tallies: self.tallies.clone(),
            agents,
            licenses,
            activity: activity.unwrap_or_default(),
            requests: i64::try_from(shared.requests().count()).unwrap_or(i64::MAX),
            fired: fired(&self.stub),
            under_way,
        }
    }

    fn logs(&self) -> Vec<AgentLog> {
        let log = |agent: &Agent| AgentLog {
            agent: agent.spec.name.clone(),
            lines: agent.log_tail(),
        };
        let logs = self.agents.iter().map(log);
        logs.filter(|log| !log.lines.is_empty()).collect()
    }

    async fn close(mut self) -> Result<(), RunError> {
        // With the network back, an agent that is in the middle of something can end it.
        control::set_network(self.stub.shared(), crate::network::spec::NetworkState::Up)
            .map_err(|error| RunError::Refused { line: 1, error })?;
        for agent in &mut self.agents {
            agent.stop().await?;
        }
        self.stub.shutdown().await;
        Ok(())
    }

    pub(super) fn license(&self, id: Option<i64>) -> Option<&'a License> {
        let mut licenses = self.scenario.licenses();
        match id {
            Some(id) => licenses.find(|license| license.id == id),
            None => licenses.next(),
        }
    }
}

fn is_usable(license: &License, hardware_id: &str) -> bool {
    license.license_enabled
        && license.is_active()
        && license.device(hardware_id) == Some(DeviceState::Active)
}

fn seed_of(scenario: &Scenario) -> Seed {
    let mut products: Vec<Product> = Vec::new();
    for license in scenario.licenses() {
        if !products.iter().any(|known| known.code == license.product) {
            products.push(Product {
                code: license.product.clone(),
            });
        }
    }
    Seed {
        api_keys: vec![ApiKey {
            api_key: API_KEY.to_owned(),
            shared_key: SHARED_KEY.to_owned(),
            state: ApiKeyState::Active,
        }],
        products,
        licenses: scenario.world.licenses.clone(),
    }
}

/// An error with everything behind it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

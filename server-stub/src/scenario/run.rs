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
    agent::{Agent, AgentError, Answer, Setting, run_program},
    expect::{self, Account, Seen, Tally},
    file::{AgentAction, AgentOrder, Amount, Consume, RunProgram, Scenario, Step, Wait, line_of},
    options::Options,
    placeholder::{Template, TemplateError, Values},
    report::{AgentLog, Expectation, Report, StepReport},
};
use crate::{
    control,
    engine::state::{DeviceState, License},
    seed::{ApiKey, ApiKeyState, Product, Seed},
    server::{RunningStub, StartError, Stub, StubConfig},
};

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The key pair of every scenario's world.
const API_KEY: &str = "scenario-key";
const SHARED_KEY: &str = "scenario-shared-key";

/// What a program of the timeline may have.
const RUN_PLACEHOLDERS: [&str; 6] = [
    "server_url",
    "control_url",
    "api_key",
    "shared_key",
    "public_key",
    "agent_url",
];

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

struct World<'a> {
    scenario: &'a Scenario,
    text: &'a str,
    stub: RunningStub,
    agents: Vec<Agent>,
    values: Values,
    tallies: BTreeMap<(String, Account), Tally>,
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
            agent.start().await?;
            for license in scenario
                .world
                .licenses
                .iter()
                .filter(|it| is_usable(it, &spec.hardware_id))
            {
                agent.add_license(license).await?;
            }
            world.agents.push(agent);
        }
        Ok(world)
    }

    async fn timeline(
        &mut self,
        told: &mut (dyn FnMut(StepReport) + Send),
    ) -> Result<(), RunError> {
        let began = Instant::now();
        for spanned in &self.scenario.steps {
            let step = spanned.get_ref();
            let line = line_of(self.text, spanned.span().start);
            if let Some(at) = step.at {
                tokio::time::sleep_until((began + at).into()).await;
            }
            let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (kind, what) = step.described();
            let result = self.carry_out(step, line).await?;
            told(StepReport {
                at_ms,
                line,
                kind,
                what,
                result,
            });
        }
        Ok(())
    }

    async fn carry_out(&mut self, step: &Step, line: usize) -> Result<String, RunError> {
        let refused = |error| RunError::Refused { line, error };
        if let Some(done) = step.on_server(self.stub.shared(), self.scenario.seed).await {
            return done.map_err(refused);
        }
        if let Some(consume) = &step.consume {
            return self.consume(consume).await;
        }
        if let Some(order) = &step.agent {
            return self.order(order).await;
        }
        if let Some(wait) = &step.wait {
            return self.wait(wait, line).await;
        }
        if let Some(program) = &step.run {
            return self.program(program, line).await;
        }
        Ok(String::new())
    }

    async fn consume(&mut self, consume: &Consume) -> Result<String, RunError> {
        let Some(license) = self.license(consume.license).cloned() else {
            return Ok(String::new());
        };
        let Some(agent) = find(&mut self.agents, consume.agent.as_deref()) else {
            return Ok(String::new());
        };
        let mut tally = Tally::default();
        for turn in 0..consume.times {
            if turn > 0 {
                tokio::time::sleep(consume.every).await;
            }
            let feature = consume.feature.as_deref();
            match agent
                .consume(&consume.app, &license, feature, consume.units)
                .await?
            {
                Answer::Granted => tally.granted += consume.units,
                Answer::Refused(code) => *tally.refused.entry(code).or_default() += 1,
                Answer::None => {
                    tally.unanswered += 1;
                    tally.unanswered_units += consume.units;
                }
            }
        }
        let result = said(&tally);
        let account = (license.id, consume.feature.clone());
        let sum = self
            .tallies
            .entry((agent.spec.name.clone(), account))
            .or_default();
        sum.granted += tally.granted;
        sum.unanswered += tally.unanswered;
        sum.unanswered_units += tally.unanswered_units;
        for (code, count) in tally.refused {
            *sum.refused.entry(code).or_default() += count;
        }
        Ok(result)
    }

    async fn order(&mut self, order: &AgentOrder) -> Result<String, RunError> {
        let Some(agent) = find(&mut self.agents, order.name.as_deref()) else {
            return Ok(String::new());
        };
        match order.action {
            AgentAction::Stop => agent.stop().await?,
            AgentAction::Kill => agent.kill().await?,
            AgentAction::Start => agent.start().await?,
            AgentAction::Restart => {
                agent.stop().await?;
                agent.start().await?;
            }
            AgentAction::Sync => agent.sync().await?,
            AgentAction::Offline => agent.set_network("offline").await?,
            AgentAction::Online => agent.set_network("online").await?,
        }
        Ok("done".to_owned())
    }

    async fn wait(&mut self, wait: &Wait, line: usize) -> Result<String, RunError> {
        let began = Instant::now();
        let account = (
            self.license(wait.license).map_or(0, |it| it.id),
            wait.feature.clone(),
        );
        loop {
            let status = match find(&mut self.agents, wait.agent.as_deref()) {
                Some(agent) if agent.is_running() => agent.status().await.ok(),
                _ => None,
            };
            let fired = fired(&self.stub);
            let found = wait.found(status.as_ref(), &account, fired);
            if found
                .iter()
                .all(|(_, right, found)| found.is_some_and(|it| right.allows(it)))
            {
                return Ok(format!("after {} ms", began.elapsed().as_millis()));
            }
            if began.elapsed() > wait.within {
                let words: Vec<String> = found
                    .iter()
                    .map(|(name, _, found)| {
                        format!(
                            "{name} {}",
                            found.map_or("nothing".to_owned(), |it| it.to_string())
                        )
                    })
                    .collect();
                return Err(RunError::Waited {
                    line,
                    within: wait.within,
                    what: wait.described(),
                    found: words.join(", "),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn program(&mut self, run: &RunProgram, line: usize) -> Result<String, RunError> {
        let template = Template::of(run.command.clone(), &RUN_PLACEHOLDERS)
            .map_err(|source| RunError::Template { line, source })?;
        let mut values = self.values.clone();
        let agent_url = self.agents.first().map_or("", Agent::url);
        values.insert("agent_url", agent_url.to_owned());
        let words = template.filled(&values);
        let failed = |how| RunError::Program {
            line,
            program: words.first().cloned().unwrap_or_default(),
            how,
        };
        match run_program(&words, &values, run.within).await? {
            None => Err(failed(format!("did not end within {:?}", run.within))),
            Some((status, said)) if status.code() != Some(run.exit) => {
                let last = said.lines().last().unwrap_or_default();
                Err(failed(format!(
                    "ended with {status}, not with {}: {last}",
                    run.exit
                )))
            }
            Some(_) => Ok(format!("exit {}", run.exit)),
        }
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
            let status: Option<Value> = agent.status().await.ok();
            agents.push((agent.spec.name.clone(), status));
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

    fn license(&self, id: Option<i64>) -> Option<&'a License> {
        let mut licenses = self.scenario.world.licenses.iter();
        match id {
            Some(id) => licenses.find(|license| license.id == id),
            None => licenses.next(),
        }
    }
}

impl Wait {
    /// What is waited for: its name, what is right, and what there is.
    fn found(
        &self,
        status: Option<&Value>,
        account: &Account,
        fired: i64,
    ) -> Vec<(&'static str, Amount, Option<i64>)> {
        let sum = |field| status.and_then(|status| expect::sum_of(status, account, field));
        let all = [
            ("recorded", self.recorded),
            ("settled", self.settled),
            ("pending", self.pending),
            ("in_flight", self.in_flight),
            ("unknown", self.unknown),
            ("held", self.held),
        ];
        let sums = all
            .into_iter()
            .filter_map(|(field, right)| Some((field, right?, sum(field))));
        let fired = self.fired.map(|right| ("fired", right, Some(fired)));
        sums.chain(fired).collect()
    }

    /// In words.
    pub(super) fn described(&self) -> String {
        let account = (0, None);
        let words: Vec<String> = self
            .found(None, &account, 0)
            .iter()
            .map(|(name, right, _)| format!("{name} {right}"))
            .collect();
        words.join(", ")
    }
}

fn find<'w>(agents: &'w mut [Agent], name: Option<&str>) -> Option<&'w mut Agent> {
    match name {
        Some(name) => agents.iter_mut().find(|agent| agent.spec.name == name),
        None => agents.first_mut(),
    }
}

fn fired(stub: &RunningStub) -> i64 {
    let fired: u64 = stub
        .shared()
        .faults()
        .report()
        .iter()
        .map(|fault| fault.fired)
        .sum();
    i64::try_from(fired).unwrap_or(i64::MAX)
}

fn is_usable(license: &License, hardware_id: &str) -> bool {
    license.license_enabled
        && license.is_active()
        && license.device(hardware_id) == Some(DeviceState::Active)
}

fn seed_of(scenario: &Scenario) -> Seed {
    let mut products: Vec<Product> = Vec::new();
    for license in &scenario.world.licenses {
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

fn said(tally: &Tally) -> String {
    let mut words = vec![format!("{} granted", tally.granted)];
    words.extend(
        tally
            .refused
            .iter()
            .map(|(code, count)| format!("{count} × {code}")),
    );
    if tally.unanswered > 0 {
        words.push(format!("{} without an answer", tally.unanswered));
    }
    words.join(", ")
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

//! The timeline of a scenario: its steps, carried out one after the other.

use std::time::Instant;

use serde_json::Value;

use super::{
    agent::{Agent, Answer},
    agent_error::AgentError,
    expect::{self, Account, Tally},
    file::{AgentAction, AgentOrder, Amount, Consume, RunProgram, Step, Wait, line_of},
    placeholder::Template,
    program::run_program,
    report::StepReport,
    run::{LOOK, RunError, World},
};
use crate::{control, server::RunningStub};

/// The placeholders of a program of the timeline.
const RUN_PLACEHOLDERS: [&str; 8] = [
    "server_url",
    "control_url",
    "api_key",
    "shared_key",
    "public_key",
    "agent_url",
    "agent_program",
    "data_dir",
];

impl World<'_> {
    pub(super) async fn timeline(
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
            return self.order(order, line).await;
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
            match agent.consume(consume, &license).await? {
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

    async fn order(&mut self, order: &AgentOrder, line: usize) -> Result<String, RunError> {
        let pair = match &order.api_key {
            Some(name) => Some(
                control::api_key(self.stub.shared(), name)
                    .await
                    .map_err(|error| RunError::Refused { line, error })?,
            ),
            None => None,
        };
        let Some(place) = place_of(&self.agents, order.name.as_deref()) else {
            return Ok(String::new());
        };
        // Taken out for this moment: a copy is made of one agent for another.
        let mut agent = self.agents.remove(place);
        if let Some(pair) = pair {
            agent.set_key_pair(pair);
        }
        let from = place_of(&self.agents, order.from.as_deref());
        let from = from.and_then(|place| self.agents.get(place));
        let done = carry_out(&mut agent, order.action, from).await;
        let name = agent.spec.name.clone();
        self.agents.insert(place, agent);
        done?;
        if let (AgentAction::Copy, Some(from)) = (order.action, &order.from) {
            self.inherit(&name, from);
        }
        Ok("done".to_owned())
    }

    /// Takes over what stands in the ledger that was copied, in the place of what stood in the agent's own.
    fn inherit(&mut self, name: &str, from: &str) {
        let of_it = self.tallies.iter().filter(|((agent, _), _)| agent == from);
        let of_it: Vec<(Account, Tally)> = of_it
            .map(|((_, account), tally)| (account.clone(), tally.clone()))
            .collect();
        for (account, tally) in of_it {
            let copy = self.tallies.entry((name.to_owned(), account)).or_default();
            copy.inherited = tally.granted.saturating_add(tally.inherited);
            copy.unanswered_units = tally.unanswered_units;
        }
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
            let found = wait.found(status.as_ref(), &account, fired(&self.stub));
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
        if let Some(agent) = find(&mut self.agents, run.agent.as_deref()) {
            values.extend(agent.place());
        }
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
            Some((_, said)) => match run.says.as_deref() {
                Some(right) if !said.contains(right) => {
                    Err(failed(format!("did not say {right:?}, but: {said}")))
                }
                _ => Ok(format!("exit {}", run.exit)),
            },
        }
    }
}

impl Wait {
    /// Everything that is waited for: its name, the right amount, and the amount there is.
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
        let findings = self
            .findings
            .map(|right| ("findings", right, status.map(expect::findings_of)));
        sums.chain(findings).chain(fired).collect()
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

async fn carry_out(
    agent: &mut Agent,
    action: AgentAction,
    from: Option<&Agent>,
) -> Result<(), AgentError> {
    match action {
        AgentAction::Stop => agent.stop().await,
        AgentAction::Kill => agent.kill().await,
        AgentAction::Start => agent.start().await,
        AgentAction::Restart => {
            agent.stop().await?;
            agent.start().await
        }
        AgentAction::Sync => agent.sync().await,
        AgentAction::Offline => agent.set_network("offline").await,
        AgentAction::Online => agent.set_network("online").await,
        AgentAction::Save => agent.save(),
        AgentAction::PutBack => agent.put_back(),
        AgentAction::Copy => from.map_or(Ok(()), |from| agent.copy_of(from)),
    }
}

fn place_of(agents: &[Agent], name: Option<&str>) -> Option<usize> {
    match name {
        Some(name) => agents.iter().position(|agent| agent.spec.name == name),
        None => (!agents.is_empty()).then_some(0),
    }
}

fn find<'w>(agents: &'w mut [Agent], name: Option<&str>) -> Option<&'w mut Agent> {
    match name {
        Some(name) => agents.iter_mut().find(|agent| agent.spec.name == name),
        None => agents.first_mut(),
    }
}

/// The strikes of the faults in force, together.
pub(super) fn fired(stub: &RunningStub) -> i64 {
    let fired: u64 = stub
        .shared()
        .faults()
        .report()
        .iter()
        .map(|fault| fault.fired)
        .sum();
    i64::try_from(fired).unwrap_or(i64::MAX)
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

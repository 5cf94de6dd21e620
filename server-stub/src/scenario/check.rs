//! What contradicts itself in a scenario, with its line and what would be right.

use std::time::Duration;

use tally_shared::wire::ErrorCode;
use toml::Spanned;

use super::file::{AgentAction, AgentOrder, AgentSpec, Expect, Mistake, Scenario, Step, line_of};
use crate::{engine::state::License, faults::plan::Plan, seed};

/// The longest timeline: a scenario is a story of seconds, and a mistyped unit is found at once.
const TIMELINE_MAX: Duration = Duration::from_mins(10);
/// The most consumptions of one step.
const TIMES_MAX: u32 = 100_000;

/// What a step must have exactly one of.
const KINDS: &str =
    "faults, network, clock, license, add_license, idempotency, api_key, consume, agent, wait, run";

/// Everything that other parts are held against.
struct Checker<'a> {
    text: &'a str,
    agents: Vec<String>,
    licenses: Vec<&'a License>,
}

impl Scenario {
    /// Numbers the licences, adds the agent that goes without saying, and checks that everything fits.
    pub(super) fn checked(mut self, text: &str) -> Result<Self, Mistake> {
        let products: Vec<String> = self
            .world
            .licenses
            .iter()
            .map(|it| it.product.clone())
            .collect();
        let products: Vec<&str> = products.iter().map(String::as_str).collect();
        let world_at = text.find("[world").or_else(|| text.find("[[world"));
        seed::complete_licenses(&mut self.world.licenses, &products).map_err(|mistake| {
            Mistake {
                line: line_of(text, world_at.unwrap_or(0)),
                problem: format!("`world`: {mistake}"),
            }
        })?;
        if self.agents.is_none() {
            let devices = self.world.licenses.iter().flat_map(|it| &it.devices);
            let alone = devices.take(1).map(|device| AgentSpec {
                name: "agent".to_owned(),
                hardware_id: device.hardware_id.clone(),
                args: Vec::new(),
                absent: false,
            });
            self.agents = Some(alone.map(|it| Spanned::new(0..0, it)).collect());
        }
        let checker = Checker {
            text,
            agents: self.agent_specs().map(|it| it.name.clone()).collect(),
            licenses: self.licenses().collect(),
        };
        checker.agents(self.agents.as_deref().unwrap_or_default())?;
        checker.timeline(&self.steps)?;
        checker.expect(&self.expect)?;
        Ok(self)
    }

    /// The licences that there are at some time: at the start, and those that are added.
    pub fn licenses(&self) -> impl Iterator<Item = &License> {
        let added = self.steps.iter().map(Spanned::get_ref);
        let added = added.filter_map(|step| step.add_license.as_ref());
        self.world.licenses.iter().chain(added)
    }

    /// The agents, in order.
    pub fn agent_specs(&self) -> impl Iterator<Item = &AgentSpec> {
        self.agents.iter().flatten().map(Spanned::get_ref)
    }
}

impl Checker<'_> {
    fn agents(&self, agents: &[Spanned<AgentSpec>]) -> Result<(), Mistake> {
        for (index, agent) in agents.iter().enumerate() {
            let spec = agent.get_ref();
            let plain = |sign: char| sign.is_ascii_alphanumeric() || "-_".contains(sign);
            if spec.name.is_empty() || !spec.name.chars().all(plain) {
                let problem = "`name` must be of letters, digits, `-` and `_`: it names a folder";
                return self.wrong(agent, problem.to_owned());
            }
            let earlier = self.agents.iter().take(index);
            if earlier.into_iter().any(|name| *name == spec.name) {
                return self.wrong(agent, format!("`name` {:?} appears twice", spec.name));
            }
        }
        Ok(())
    }

    fn timeline(&self, steps: &[Spanned<Step>]) -> Result<(), Mistake> {
        let mut earlier = Duration::ZERO;
        for step in steps {
            self.step(step)?;
            let at = step.get_ref().at.unwrap_or(earlier);
            if at < earlier {
                return self.wrong(step, "`at` is before that of the step before".to_owned());
            }
            if at > TIMELINE_MAX {
                return self.wrong(step, format!("`at` must be at most {TIMELINE_MAX:?}"));
            }
            earlier = at;
        }
        Ok(())
    }

    fn step(&self, spanned: &Spanned<Step>) -> Result<(), Mistake> {
        let step = spanned.get_ref();
        let given = [
            step.faults.is_some(),
            step.network.is_some(),
            step.clock.is_some(),
            step.license.is_some(),
            step.add_license.is_some(),
            step.idempotency.is_some(),
            step.api_key.is_some(),
            step.consume.is_some(),
            step.agent.is_some(),
            step.wait.is_some(),
            step.run.is_some(),
        ];
        let count = given.into_iter().filter(|given| *given).count();
        if count != 1 {
            return self.wrong(
                spanned,
                format!("a step must have exactly one of {KINDS}; this one has {count}"),
            );
        }
        let problem = self.problem_of(step);
        problem.map_or(Ok(()), |problem| self.wrong(spanned, problem))
    }

    fn problem_of(&self, step: &Step) -> Option<String> {
        if let Some(faults) = &step.faults {
            return Plan::new(faults.clone())
                .err()
                .map(|error| error.to_string());
        }
        if let Some(network) = &step.network {
            return network.check().err().map(|error| error.to_string());
        }
        if let Some(clock) = &step.clock {
            let moved = clock.applied_to(tally_shared::time::Timestamp::default());
            return moved.err().map(str::to_owned);
        }
        if let Some(license) = &step.license {
            let edits = !(license.set.is_empty() && license.unset.is_empty());
            if edits == license.remove {
                return Some("`license` needs `set`, `unset` or both, or `remove`".to_owned());
            }
            return self.no_license(Some(license.id));
        }
        if let Some(added) = &step.add_license {
            let alone = added.id < 1 || added.holder().is_none();
            return alone.then(|| {
                "`add_license` needs an `id`, and one of `license_key` and `username`".to_owned()
            });
        }
        if let Some(consume) = &step.consume {
            if !(1..=TIMES_MAX).contains(&consume.times) {
                return Some(format!("`times` must be between 1 and {TIMES_MAX}"));
            }
            return self
                .no_agent(consume.agent.as_deref())
                .or_else(|| self.no_license(consume.license));
        }
        if let Some(agent) = &step.agent {
            return self.problem_of_order(agent);
        }
        if let Some(wait) = &step.wait {
            let sums = [
                wait.findings,
                wait.recorded,
                wait.settled,
                wait.pending,
                wait.in_flight,
                wait.unknown,
                wait.held,
            ];
            let about_agent = sums.into_iter().any(|amount| amount.is_some());
            if !about_agent && wait.fired.is_none() {
                let problem = "`wait` needs at least one of recorded, settled, pending, in_flight, \
                               unknown, held, findings, fired";
                return Some(problem.to_owned());
            }
            if !about_agent {
                return None;
            }
            return self
                .no_agent(wait.agent.as_deref())
                .or_else(|| self.no_license(wait.license));
        }
        let run = step.run.as_ref()?;
        if run.command.is_empty() {
            return Some("`command` needs a program".to_owned());
        }
        run.agent
            .as_deref()
            .and_then(|name| self.no_agent(Some(name)))
    }

    fn problem_of_order(&self, order: &AgentOrder) -> Option<String> {
        use AgentAction::{Copy, Restart, Start};
        if (order.action == Copy) != order.from.is_some() {
            return Some("`from` goes with `copy`, and `copy` needs it".to_owned());
        }
        let first = self.agents.first();
        if order.from.is_some() && order.from.as_ref() == order.name.as_ref().or(first) {
            return Some("`from` is the agent itself".to_owned());
        }
        if order.api_key.is_some() && !matches!(order.action, Start | Restart) {
            return Some("`api_key` goes with `start` and `restart` only".to_owned());
        }
        let from = order.from.as_deref();
        let from = from.and_then(|name| self.no_agent(Some(name)));
        from.or_else(|| self.no_agent(order.name.as_deref()))
    }

    fn expect(&self, expect: &Expect) -> Result<(), Mistake> {
        for spanned in &expect.server {
            let expected = spanned.get_ref();
            if let Some(problem) = self.no_license(expected.license) {
                return self.wrong(spanned, problem);
            }
        }
        for spanned in &expect.agents {
            let expected = spanned.get_ref();
            let problem = self
                .no_agent(expected.agent.as_deref())
                .or_else(|| self.no_license(expected.license));
            if let Some(problem) = problem {
                return self.wrong(spanned, problem);
            }
        }
        let unknown = |code: &&String| ErrorCode::from_name(code).is_none();
        if let Some(code) = expect.refused.keys().find(unknown) {
            let names: Vec<&str> = ErrorCode::ALL.iter().map(|it| it.as_str()).collect();
            let place = self.text.find(&format!("{code} ")).unwrap_or(0);
            return Err(Mistake {
                line: line_of(self.text, place),
                problem: format!(
                    "`expect.refused` has no code `{code}`; there are {}",
                    names.join(", ")
                ),
            });
        }
        Ok(())
    }

    fn no_agent(&self, name: Option<&str>) -> Option<String> {
        match name {
            None if self.agents.is_empty() => Some("there is no agent".to_owned()),
            Some(name) if !self.agents.iter().any(|it| it == name) => {
                let known = self.agents.join(", ");
                Some(format!("there is no agent {name:?}; there are: {known}"))
            }
            _ => None,
        }
    }

    fn no_license(&self, id: Option<i64>) -> Option<String> {
        match id {
            None if self.licenses.is_empty() => {
                Some("there is no licence: `world` has none".to_owned())
            }
            Some(id) if !self.licenses.iter().any(|it| it.id == id) => {
                let known: Vec<String> = self.licenses.iter().map(|it| it.id.to_string()).collect();
                let known = known.join(", ");
                Some(format!(
                    "there is no licence with id {id}; there are: {known}"
                ))
            }
            _ => None,
        }
    }

    fn wrong<T>(&self, place: &Spanned<T>, problem: String) -> Result<(), Mistake> {
        Err(Mistake {
            line: line_of(self.text, place.span().start),
            problem,
        })
    }
}

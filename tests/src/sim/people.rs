//! What people do in a simulated world: applications that ask, devices elsewhere, the vendor, and whoever
//! decides about what is held.

use std::sync::Arc;

use tally_agent::{
    core::{
        Decision,
        book::{BatchNo, BatchState, Hold},
        chain::Hash,
    },
    ledger::{
        answers::RequestKey,
        engine::{Job, RecordError, RecordJob, Recording, Resolution, ResolveJob},
    },
};
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, Subject},
};
use tokio::sync::oneshot;

use super::{
    plan::{Asked, FOREIGN, Known, Step},
    server::{Counter, DeviceState, PRODUCT},
    trace::show_answer,
    world::{Failure, HARDWARE, World},
};

impl World {
    /// Others change something on the server.
    pub(super) fn interfere(&mut self, step: Step) {
        match step {
            Step::Foreign {
                license,
                counter,
                units,
            } => self.consume_elsewhere((license, counter), units),
            Step::SetLimit {
                license,
                counter,
                max,
            } => self.edit((license, counter), |counter| counter.max = max),
            Step::SetTotal { license, counter } => {
                self.edit((license, counter), |counter| counter.total += 2 * FOREIGN);
            }
            Step::SetEnabled { license, enabled } => {
                self.server.licenses[license].enabled = enabled;
            }
            Step::SetDevice { license, active } => {
                let state = if active {
                    DeviceState::Active
                } else {
                    DeviceState::Blacklisted
                };
                self.server.licenses[license]
                    .devices
                    .insert(HARDWARE.to_owned(), state);
            }
            _ => {}
        }
    }

    /// Applications ask for these requests, all at once.
    pub(super) fn ask(&mut self, numbers: &[usize]) -> Result<(), Failure> {
        let mut jobs = Vec::new();
        let mut answers = Vec::new();
        for no in numbers {
            let asked = &self.asked[*no];
            let Some(app) = self.device.apps.get(asked.app) else {
                continue;
            };
            let (reply, answer) = oneshot::channel();
            jobs.push(Job::Record(RecordJob {
                app: *app,
                request: Arc::new(self.request(asked)),
                key: asked.key.as_ref().map(|key| RequestKey {
                    key: key.clone(),
                    fingerprint: Hash([7; 32]),
                }),
                recipient: reply.into(),
            }));
            answers.push((*no, answer));
        }
        let is_killed = self.kill_in_turn;
        self.turn(jobs)?;
        let mut unknown = Vec::new();
        for (no, mut answer) in answers {
            let answer: Option<Recording> = answer.try_recv().ok().filter(|_| !is_killed);
            self.note(|| format!("   request {no}: {}", show_answer(answer.as_ref())));
            if matches!(answer, Some(Err(RecordError::Unknown))) {
                unknown.push(self.asked[no].counter.0);
            }
            self.check_answer(no, answer.as_ref())?;
            self.asked[no].known = Known::of(answer.as_ref());
        }
        // The agent asks the server for what it does not know.
        unknown
            .into_iter()
            .try_for_each(|license| self.add_license(license))
    }

    pub(super) fn request(&self, asked: &Asked) -> AddConsumption {
        let license = &self.server.licenses[asked.counter.0];
        AddConsumption {
            subject: Subject::by_key(PRODUCT, &license.key, HARDWARE),
            feature: license.counters[asked.counter.1].feature.clone(),
            units: Units::new(asked.units),
            setting: OverageSetting {
                allow_overages: asked.overages.map(|_| true),
                max_overages: asked.overages,
            },
            event: ConsumptionEvent::Add,
        }
    }

    pub(super) fn consume_elsewhere(&mut self, (license, counter): (usize, usize), units: i64) {
        let now = self.now;
        let counter = &mut self.server.licenses[license].counters[counter];
        counter.roll(now);
        if counter.fits(units) {
            counter.total += units;
            counter.foreign.push(now);
        }
    }

    pub(super) fn edit(
        &mut self,
        (license, counter): (usize, usize),
        change: impl FnOnce(&mut Counter),
    ) {
        let now = self.now;
        let counter = &mut self.server.licenses[license].counters[counter];
        counter.roll(now);
        change(counter);
        counter.foreign.push(now);
    }

    /// Somebody who knows the truth decides about a held batch.
    pub(super) fn resolve(&mut self, nth: usize, waive: bool) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let held: Vec<(BatchNo, Hold, Option<String>)> = engine
            .core()
            .book()
            .batches()
            .filter_map(|batch| match batch.state {
                BatchState::Held(hold) => {
                    let key = batch.sealed.as_ref().map(|sealed| sealed.id.to_string());
                    Some((batch.no, hold, key))
                }
                _ => None,
            })
            .collect();
        let Some((batch, why, key)) = held.get(nth).cloned() else {
            return Ok(());
        };
        let is_counted = key.is_some_and(|key| self.server.counted.contains_key(&key));
        let decision = match why {
            Hold::Undecidable if is_counted => Decision::Applied,
            Hold::Undecidable => Decision::NotApplied,
            _ if waive => Decision::Waive,
            _ => Decision::Resend,
        };
        self.note(|| format!("decided: batch {} {decision:?}", batch.0));
        let (reply, _) = oneshot::channel();
        let reason = Some("simulated".to_owned());
        self.turn(vec![Job::Resolve(ResolveJob {
            resolution: Resolution::Batch(batch, decision),
            reason,
            reply,
        })])
    }
}

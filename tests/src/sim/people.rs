//! What people do in a simulated world: applications that ask, devices elsewhere, the vendor, and whoever
//! decides about what is held.

use std::sync::Arc;

use tally_agent::{
    core::{
        Decision,
        book::{BatchState, Hold},
        chain::Hash,
    },
    ledger::{
        answers::RequestKey,
        engine::{Job, RecordError, RecordJob, Recording, Resolution, ResolveError, ResolveJob},
    },
};
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent},
};
use tokio::sync::oneshot;

use super::{
    asked::{Asked, Known, Wish},
    check::require,
    counter::{Counter, Presence},
    plan::{FOREIGN, Step},
    server::{DeviceState, Shape},
    trace::show_answer,
    truth::Fallen,
    world::{Failure, HARDWARE, World},
};

impl World {
    /// Others change something on the server.
    pub(super) fn interfere(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Foreign {
                license,
                counter,
                units,
            } => return self.consume_elsewhere((license, counter), units),
            Step::SetLimit {
                license,
                counter,
                max,
            } => return self.edit((license, counter), |counter| counter.max = max),
            Step::SetTotal { license, counter } => {
                return self.edit((license, counter), |counter| counter.total += 2 * FOREIGN);
            }
            Step::SetOverage { license, overage } => {
                return self.edit((license, 0), |counter| {
                    counter.overages = overage.allow;
                    counter.max_overages = overage.max.unwrap_or(counter.max_overages);
                    counter.overage_edits.push(now);
                });
            }
            Step::MoveKey { license, to } => return self.move_key(license, to),
            Step::KeepKeys(keeps) => {
                self.server.keeps_keys = keeps;
                if !keeps {
                    self.server.store.remembered.clear();
                    self.server.has_stopped = true;
                }
                return;
            }
            Step::BackUp => {
                self.backup = Some(self.server.store.clone());
                return;
            }
            Step::RollBack => return self.roll_back(),
            _ => {}
        }
        self.change(step);
    }

    /// The vendor changes what a licence is.
    fn change(&mut self, step: Step) {
        let now = self.now;
        let licenses = &mut self.server.store.licenses;
        match step {
            Step::SetEnabled { license, enabled } => licenses[license].enabled = enabled,
            Step::SetExpiry { license, after } => {
                licenses[license].expires = after.map(|after| now + after);
            }
            Step::SetDevice {
                license,
                device,
                active,
            } => {
                let state = if active {
                    DeviceState::Active
                } else {
                    DeviceState::Blacklisted
                };
                let devices = &mut licenses[license].devices;
                devices.insert(HARDWARE[device].to_owned(), state);
            }
            Step::SetFeature {
                license,
                counter,
                presence,
            } => licenses[license].counters[counter].presence = presence,
            Step::SetShape { license, shape } => licenses[license].shape = shape,
            Step::SetGone {
                license,
                device: Some(device),
                gone,
            } => {
                let devices = &mut licenses[license].devices;
                let device = HARDWARE[device].to_owned();
                if gone {
                    devices.remove(&device);
                } else {
                    devices.entry(device).or_insert(DeviceState::Active);
                }
            }
            Step::SetGone { license, gone, .. } => licenses[license].is_gone = gone,
            Step::Contradict { license, on } => licenses[license].contradicts = on,
            _ => {}
        }
        self.note_names();
    }

    fn move_key(&mut self, license: usize, to: usize) {
        let licenses = &mut self.server.store.licenses;
        let key = licenses[license].key.clone();
        for license in &mut *licenses {
            license.keys.remove(&key);
        }
        licenses[to].keys.insert(key);
        self.note_names();
    }

    /// The server stands as it did when it was copied: what it counted since, it counts no more.
    fn roll_back(&mut self) {
        let Some(backup) = self.backup.clone() else {
            return;
        };
        let (now, before) = (self.now, std::mem::replace(&mut self.server.store, backup));
        for (no, license) in before.licenses.into_iter().enumerate() {
            for (index, counter) in license.counters.into_iter().enumerate() {
                // Whichever device sent them.
                let counted = before.truth.sum_of_all((no, index));
                let is_less = counted != self.server.store.truth.sum_of_all((no, index));
                let is_moved = self.counter((no, index)).total != counter.total;
                let heard = self.life.heard.get(&(license.id, counter.feature.clone()));
                let heard = heard.copied().unwrap_or(0);
                let restored = &mut self.server.store.licenses[no].counters[index];
                restored.foreign = counter.foreign;
                restored.repeated = counter.repeated;
                restored.rolled_back = counter.rolled_back;
                restored.forgotten = counter.forgotten;
                restored.counted_at = counter.counted_at;
                restored.overage_edits = counter.overage_edits;
                restored.overage_edits.push(now);
                if is_moved {
                    restored.rolled_back.push(now);
                }
                if is_less {
                    self.fallen.push(Fallen {
                        place: (no, index),
                        at: now,
                        heard,
                        seen: None,
                    });
                }
            }
        }
        self.note_names();
    }

    /// Applications ask for these requests, all at once. What the agent does not know, it asks the server for,
    /// and then decides again.
    pub(super) fn ask(&mut self, numbers: &[usize]) -> Result<(), Failure> {
        let unknown = self.ask_once(numbers)?;
        for no in unknown {
            let wish = self.life.asked[no].wish;
            let subject = self.subject_of(&wish);
            let process = self.process;
            self.add_named(subject)?;
            let is_served = self.server_describes(&wish);
            if process != self.process || self.kill_in_turn || self.power_cut.is_some() {
                continue;
            }
            let still = self.ask_once(&[no])?;
            let can_write = !self.disk_is_bad && !self.device.is_short_of_space();
            require(still.is_empty() || !is_served || !can_write, || {
                format!("still unknown to the agent, after the server described it: {wish:?}")
            })?;
        }
        Ok(())
    }

    /// Whether the server's answer about a licence has the counter that an application means.
    fn server_describes(&self, wish: &Wish) -> bool {
        let subject = self.subject_of(wish);
        let store = &self.server.store;
        self.server.find(&subject).is_some_and(|no| {
            let license = &store.licenses[no];
            let device = license.devices.get(&subject.hardware_id);
            let counter = license.counters.get(wish.counter);
            license.enabled
                && license.expires.is_none()
                && license.shape != Shape::Bare
                && device == Some(&DeviceState::Active)
                && counter.is_some_and(|counter| counter.presence == Presence::There)
        })
    }

    /// Applications ask for these requests. Returns those that the agent does not know the licence of.
    fn ask_once(&mut self, numbers: &[usize]) -> Result<Vec<usize>, Failure> {
        let mut jobs = Vec::new();
        let mut answers = Vec::new();
        for no in numbers {
            let asked = &self.life.asked[*no];
            let Some(app) = self.device.apps.get(asked.wish.app) else {
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
                unknown.push(no);
            }
            self.check_answer(no, answer.as_ref())?;
            self.life.asked[no].known = Known::of(answer.as_ref());
        }
        Ok(unknown)
    }

    fn request(&self, asked: &Asked) -> AddConsumption {
        let wish = &asked.wish;
        let feature = self.counter((wish.license, wish.counter)).feature.clone();
        AddConsumption {
            subject: self.subject_of(wish),
            feature,
            units: Units::new(wish.units),
            setting: OverageSetting {
                allow_overages: wish.overage.map(|overage| overage.allow),
                max_overages: wish.overage.and_then(|overage| overage.max),
            },
            event: ConsumptionEvent::Add,
        }
    }

    fn consume_elsewhere(&mut self, (license, counter): (usize, usize), units: i64) {
        let now = self.now;
        let license = &mut self.server.store.licenses[license];
        let pool = &mut self.server.store.pool;
        license.counters[counter].roll(now);
        if license.fits(*pool, &license.counters[counter], units) {
            if license.is_pooled && counter == 0 {
                pool.total += units;
            }
            let counter = &mut license.counters[counter];
            counter.total += units;
            counter.foreign.push(now);
            if units < 0 {
                counter.lowered.push(now);
            }
        }
    }

    pub(super) fn edit(
        &mut self,
        (license, counter): (usize, usize),
        change: impl FnOnce(&mut Counter),
    ) {
        let now = self.now;
        let counter = &mut self.server.store.licenses[license].counters[counter];
        counter.roll(now);
        change(counter);
        counter.foreign.push(now);
    }

    /// Somebody who knows the truth decides about a held batch.
    pub(super) fn resolve(&mut self, nth: usize, waive: bool) -> Result<(), Failure> {
        let held = |state| matches!(state, BatchState::Held(_));
        self.resolve_one(nth, waive, held).map(|_| ())
    }

    /// The same about any batch in such a state. Returns whether there was one.
    pub(super) fn resolve_one(
        &mut self,
        nth: usize,
        waive: bool,
        waits: impl Fn(BatchState) -> bool,
    ) -> Result<bool, Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(false);
        };
        let batches = engine.core().book().batches();
        let waiting: Vec<_> = batches.filter(|batch| waits(batch.state)).collect();
        let Some(batch) = waiting.get(nth) else {
            return Ok(false);
        };
        let (no, state) = (batch.no, batch.state);
        let (rows, units, place) = (
            self.rows_of(batch),
            batch.units.get(),
            self.place_of_batch(batch),
        );
        let is_counted = self.server.store.truth.has(&rows);
        let uncounted = units - self.server.store.truth.units_of(&rows);
        let is_away = self.is_ending && self.is_away(batch);
        let is_left_to_the_other = self.twin.as_ref().is_some_and(|(_, other)| {
            let is_sent_there = |rows| other.to_send.contains(rows);
            state == BatchState::Held(Hold::Copy) || rows.iter().any(is_sent_there)
        });
        let decision = match state {
            _ if is_counted => Decision::Applied,
            _ if is_away => Decision::Waive,
            // The other device has the same rows, and sends them.
            _ if is_left_to_the_other => Decision::Waive,
            BatchState::Held(Hold::Undecidable | Hold::Copy | Hold::Gone(_)) => {
                Decision::NotApplied
            }
            _ if waive && !self.copies => Decision::Waive,
            _ => Decision::Resend,
        };
        self.note(|| format!("decided: batch {} {decision:?}", no.0));
        let (reply, mut answer) = oneshot::channel();
        let reason = Some("simulated".to_owned());
        self.turn(vec![Job::Resolve(ResolveJob {
            resolution: Resolution::Batch(no, decision),
            reason,
            reply,
        })])?;
        let answer = answer.try_recv().ok();
        self.note(|| format!("   {answer:?}"));
        let is_refused = matches!(&answer, Some(Err(ResolveError::Unresolvable(_))));
        require(!is_refused, || format!("nobody may decide: {answer:?}"))?;
        if let (Decision::Applied, Some(Ok(_)), Some(place)) = (decision, &answer, place) {
            // The original sent a part of what the copy has in one batch, and a batch has one answer.
            *self.life.misjudged.entry(place).or_default() += uncounted;
            self.life.decided.push((place, self.now, units.abs()));
        }
        if let (Decision::NotApplied | Decision::Resend, Some(Ok(_))) = (decision, &answer) {
            self.life.to_send.extend(rows.iter().copied());
        }
        if let (Decision::Waive, Some(Ok(_)), Some(place)) = (decision, &answer, place) {
            self.life.given_up.push((place, rows));
        }
        Ok(true)
    }
}

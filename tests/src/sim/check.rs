//! What must hold: after every step, after every start, and once the world is calm.

use tally_agent::{
    core::{
        book::{BatchState, Hold},
        report::Conservation,
    },
    ledger::{engine::Recording, schema, verify::verify},
};
use tally_shared::{units::Units, wire::Counter as CounterBody};

use crate::marks;

use super::{
    plan::Known,
    server::Counter,
    world::{Failure, World},
};

/// What is wrong, unless all is well.
fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    /// After every step.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.check_sums()?;
        self.check_forgotten()?;
        self.check_nothing_twice()
    }

    /// recorded = settled + pending + in flight + unknown + held + waived, for each counter.
    pub(super) fn check_sums(&self) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        for status in engine.core().status(engine.now()).licenses {
            let sums = status.conservation;
            require(sums.holds(), || format!("units are lost or made: {sums:?}"))?;
        }
        Ok(())
    }

    /// What is forgotten stays so until somebody asks for it, and the server has counted all of it.
    fn check_forgotten(&self) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let book = engine.core().book();
        for license in &self.forgotten {
            let key = &self.server.licenses[*license].key;
            let mut licenses = book.licenses();
            let Some(known) = licenses.find(|known| known.holder.value() == key) else {
                return Err(format!("{key} was forgotten with all of its rows"));
            };
            require(known.devices.is_empty(), || {
                format!("{key} was forgotten, and is known again unasked")
            })?;
            for account in book.accounts_of(known.no) {
                let [recorded, settled, waived] =
                    [account.recorded, account.settled, account.waived].map(Units::get);
                let counter = self.counter_of(key, account.feature.as_deref());
                let mine = counter.map_or(0, |counter| counter.mine);
                require(recorded - waived == mine && settled == mine, || {
                    format!(
                        "{key} is forgotten, and owed: {recorded} units recorded, {waived} waived, \
                         {settled} settled, {mine} counted"
                    )
                })?;
            }
        }
        Ok(())
    }

    /// No batch was counted twice, and none that was never granted.
    fn check_nothing_twice(&self) -> Result<(), Failure> {
        for (key, counted) in &self.server.counted {
            require(counted.times == 1 || counted.units == 0, || {
                format!(
                    "{key}: {} units were counted {} times",
                    counted.units, counted.times
                )
            })?;
        }
        Ok(())
    }

    /// What an application was just told is what the contract says.
    pub(super) fn check_answer(
        &self,
        no: usize,
        answer: Option<&Recording>,
    ) -> Result<(), Failure> {
        let asked = &self.asked[no];
        let Some(Ok(answer)) = answer else {
            return Ok(());
        };
        if answer.status != 200 || answer.replayed || asked.units <= 0 || asked.counter.1 > 0 {
            return Ok(());
        }
        let told: CounterBody = serde_json::from_str(&answer.body)
            .map_err(|error| format!("not the contract's: {error}"))?;
        let standing = told.standing(super::server::date(self.now));
        let (total, cap) = (standing.total.get(), standing.limits.cap());
        require(cap.is_none_or(|cap| total <= cap), || {
            format!("granted beyond the limit: {}", answer.body)
        })?;
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let (license, counter) = (&self.server.licenses[asked.counter.0], asked.counter.1);
        let counter = &license.counters[counter];
        if counter.period.is_some() || !counter.foreign.is_empty() {
            return Ok(());
        }
        // Nobody else moved the total: it is all that was ever recorded here.
        let status = engine.core().status(engine.now());
        let known = status
            .licenses
            .into_iter()
            .find(|known| known.id == license.id && known.feature == counter.feature);
        let sums = known.map(|known| known.conservation).unwrap_or_default();
        // Others of the same turn may have been recorded after this one.
        let expected = counter.initial + sums.recorded - sums.waived;
        let slack: i64 = self
            .asked
            .iter()
            .skip(no + 1)
            .map(|asked| asked.units.abs())
            .sum();
        require((total - expected).abs() <= slack, || {
            format!("told a total of {total}, and {expected} units are recorded")
        })
    }

    /// After every start: the ledger is sound, and holds what was acknowledged.
    pub(super) fn check_ledger(&self) -> Result<(), Failure> {
        if !self.device.disk.is_on() {
            return Ok(());
        }
        let path = self.device.disk.path("ledger.db");
        let connection = schema::open_read_only(&path)
            .map_err(|error| format!("cannot be opened: {error:?}"))?;
        let findings = verify(&connection, &marks::key())
            .map_err(|error| format!("not readable: {error:?}"))?;
        require(findings.is_sound(), || {
            format!("the ledger is not sound: {findings:?}")
        })?;
        let backward: i64 = connection
            .query_row(
                "SELECT count(*) FROM consumptions a JOIN consumptions b ON b.seq = a.seq + 1
                 WHERE b.at < a.at AND a.proven",
                [],
                |row| row.get(0),
            )
            .map_err(|error| error.to_string())?;
        require(backward == 0, || {
            "time went backward over a proven row".to_owned()
        })?;
        self.check_recorded()
    }

    /// What is recorded is what was acknowledged, and at most what was asked for without an answer.
    pub(super) fn check_recorded(&self) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let book = engine.core().book();
        // Those that were forgotten as well.
        let accounts = book.licenses().flat_map(|license| {
            let accounts = book.accounts_of(license.no);
            accounts.map(move |account| (license.id, account))
        });
        for (id, account) in accounts {
            let mut licenses = self.server.licenses.iter();
            let Some(license) = licenses.position(|license| license.id == id) else {
                continue;
            };
            let mut counters = self.server.licenses[license].counters.iter();
            let Some(counter) = counters.position(|counter| counter.feature == account.feature)
            else {
                continue;
            };
            let asked = self
                .asked
                .iter()
                .filter(|asked| asked.counter == (license, counter));
            let (mut least, mut most) = (0, 0);
            for asked in asked {
                match asked.known {
                    Known::Granted => {
                        least += asked.units;
                        most += asked.units;
                    }
                    Known::Unknown => {
                        least += asked.units.min(0);
                        most += asked.units.max(0);
                    }
                    Known::Refused => {}
                }
            }
            let recorded = account.recorded.get();
            require((least..=most).contains(&recorded), || {
                format!("{recorded} units are recorded, and {least} to {most} were acknowledged")
            })?;
        }
        Ok(())
    }

    /// Once the world is calm: everything is settled but what cannot be, and that is said.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check_calm(&mut self) -> Result<(), Failure> {
        self.check()?;
        self.check_ledger()?;
        let now = self.now;
        for license in &mut self.server.licenses {
            license
                .counters
                .iter_mut()
                .for_each(|counter| counter.roll(now));
        }
        let Some(engine) = self.device.engine() else {
            return Err("the agent does not run".to_owned());
        };
        let book = engine.core().book();
        for status in engine.core().status(engine.now()).licenses {
            let Conservation {
                pending,
                in_flight,
                unknown,
                ..
            } = status.conservation;
            require((pending, in_flight, unknown) == (0, 0, 0), || {
                format!("not settled, though the world is calm: {status:?}")
            })?;
        }
        for license in book.licenses() {
            for account in book.accounts_of(license.no) {
                let mut settled = account.settled.get();
                let Some(counter) =
                    self.counter_of(license.holder.value(), account.feature.as_deref())
                else {
                    continue;
                };
                for batch in book.batches_of(account.no) {
                    let key = batch.sealed.as_ref().map(|sealed| sealed.id.to_string());
                    let is_counted = key
                        .as_ref()
                        .is_some_and(|key| self.server.counted.contains_key(key));
                    if is_counted {
                        settled += batch.units.get();
                    }
                    if let BatchState::Held(hold) = batch.state {
                        // The batch's own setting comes before its units are judged.
                        let mut wanted = counter.clone();
                        if let Some(lane) = book.lane(batch.lane) {
                            let setting = lane.key.setting;
                            wanted.overages = setting.allow_overages.unwrap_or(wanted.overages);
                            wanted.max_overages =
                                setting.max_overages.unwrap_or(wanted.max_overages);
                        }
                        self.check_held(hold, key.as_deref(), is_counted, &wanted)?;
                    }
                }
                require(settled == counter.mine, || {
                    format!(
                        "{} settled units, and the server counted {}",
                        settled, counter.mine
                    )
                })?;
            }
        }
        Ok(())
    }

    /// A batch is held only for a reason.
    fn check_held(
        &self,
        hold: Hold,
        key: Option<&str>,
        is_counted: bool,
        counter: &Counter,
    ) -> Result<(), Failure> {
        if hold == Hold::Undecidable {
            let since = key
                .and_then(|key| self.unseen_since.get(key))
                .copied()
                .unwrap_or(0);
            return require(counter.is_disturbed(since, self.now), || {
                format!("{key:?} is held as undecidable, and nobody disturbed its counter")
            });
        }
        require(!is_counted, || {
            format!("{key:?} was counted and is held as {hold:?}")
        })?;
        match hold {
            Hold::Limit { .. } => require(!counter.fits(30), || {
                format!("held for the limit, and there is room: {counter:?}")
            }),
            Hold::Undecidable | Hold::Late | Hold::Gone(_) | Hold::Copy => Ok(()),
            Hold::Refused(_) | Hold::Defect(_) => Err(format!("{key:?} is held as {hold:?}")),
        }
    }

    fn counter_of(&self, key: &str, feature: Option<&str>) -> Option<&Counter> {
        let license = self
            .server
            .licenses
            .iter()
            .find(|license| license.key == key)?;
        license
            .counters
            .iter()
            .find(|counter| counter.feature.as_deref() == feature)
    }

    /// At the very end nothing is owed.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check_end(&mut self) -> Result<(), Failure> {
        self.check_calm()?;
        let held = self
            .device
            .engine()
            .map_or(0, |engine| engine.core().book().batches().count());
        require(held == 0, || {
            format!("{held} batches are still owed when all is decided")
        })
    }
}

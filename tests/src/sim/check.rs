//! What must hold after every step and after every start.

use std::collections::BTreeSet;

use tally_agent::core::book::{BatchState, Hold};
use tally_agent::ledger::{
    engine::Recording,
    schema,
    verify::{Fault, FaultKind, verify},
};
use tally_shared::{
    units::Units,
    wire::{Counter as CounterBody, ErrorCode, error::ErrorBody},
};

use crate::marks;

use super::{
    asked::Known,
    server::name_of,
    truth::Place,
    world::{Failure, World},
};

/// What is wrong, unless all is well.
pub(super) fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what()) }
}

/// A counter is refused for nothing that concerns another.
fn check_refusal(counter: usize, body: &str) -> Result<(), Failure> {
    let error: Option<ErrorBody> = serde_json::from_str(body).ok();
    let code = error.and_then(|error| ErrorCode::from_name(&error.code));
    let is_others = match code {
        Some(ErrorCode::LicenseNotConsumption) => counter > 0,
        Some(ErrorCode::UnsupportedProductFeature | ErrorCode::InvalidLicenseFeatureCode) => {
            counter == 0
        }
        _ => false,
    };
    require(!is_others, || {
        format!("counter {counter} is refused for what concerns another: {body}")
    })
}

impl World {
    /// After every step.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.check_sums()?;
        self.check_forgotten()?;
        if let Some(misplaced) = &self.server.misplaced {
            return Err(misplaced.clone());
        }
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
        for license in &self.life.forgotten {
            let (id, key) = {
                let license = &self.server.store.licenses[*license];
                (license.id, &license.key)
            };
            let licenses: Vec<_> = book.licenses().filter(|known| known.id == id).collect();
            require(!licenses.is_empty(), || {
                format!("{key} was forgotten with all of its rows")
            })?;
            let is_known = licenses.iter().any(|known| !known.devices.is_empty());
            require(!is_known, || {
                format!("{key} was forgotten, and is known again unasked")
            })?;
            let accounts = licenses.iter().flat_map(|known| book.accounts_of(known.no));
            for account in accounts {
                let [recorded, settled, waived] =
                    [account.recorded, account.settled, account.waived].map(Units::get);
                require(recorded - waived == settled, || {
                    format!(
                        "{key} is forgotten, and owed: {recorded} units recorded, {waived} waived, \
                         {settled} settled"
                    )
                })?;
            }
            for counter in 0..self.server.store.licenses[*license].counters.len() {
                self.check_balance((*license, counter))?;
            }
        }
        Ok(())
    }

    /// No row was counted twice by the agent's doing. What stands between may do it without being asked: that
    /// must be told, which is looked at when the world is calm.
    fn check_nothing_twice(&self) -> Result<(), Failure> {
        for counted in self.server.store.truth.all() {
            let rows = counted.rows;
            let by_agent = counted.times - counted.repeats;
            require(by_agent <= 1 || rows.units == 0, || {
                format!(
                    "{} units were counted {} times: rows {} to {} of lane {}, recorded in life {}",
                    rows.units, counted.times, rows.first, rows.last, rows.lane, rows.life
                )
            })?;
        }
        Ok(())
    }

    /// What an application was just told is what the contract says.
    pub(super) fn check_answer(
        &mut self,
        no: usize,
        answer: Option<&Recording>,
    ) -> Result<(), Failure> {
        let wish = self.life.asked[no].wish;
        let Some(Ok(answer)) = answer else {
            return Ok(());
        };
        if answer.status != 200 {
            return check_refusal(wish.counter, &answer.body);
        }
        let place = self.check_told(no, &answer.body)?;
        self.granted += 1;
        self.life.asked[no].granted = (!answer.replayed).then_some(self.granted);
        if answer.replayed || wish.units <= 0 || wish.counter > 0 {
            return Ok(());
        }
        let told: CounterBody = serde_json::from_str(&answer.body)
            .map_err(|error| format!("not the contract's: {error}"))?;
        let standing = told.standing(super::server::date(self.now));
        let (total, cap) = (standing.total.get(), standing.limits.cap());
        require(cap.is_none_or(|cap| total <= cap), || {
            format!("granted beyond the limit: {}", answer.body)
        })?;
        self.check_pool(place.0)?;
        self.check_told_total(no, place, total)
    }

    /// It was recorded where the server would have taken it, by what it ever said of that name.
    fn check_told(&mut self, no: usize, body: &str) -> Result<Place, Failure> {
        let wish = self.life.asked[no].wish;
        let told: serde_json::Value =
            serde_json::from_str(body).map_err(|error| format!("not the contract's: {error}"))?;
        let id = told.get("id").and_then(serde_json::Value::as_i64);
        let mut licenses = self.server.store.licenses.iter();
        let license = licenses
            .position(|license| Some(license.id) == id)
            .ok_or_else(|| format!("recorded for a licence that is not there: {body}"))?;
        let name = name_of(&self.subject_of(&wish));
        let opened = self.server.opened.get(&name);
        require(
            opened.is_some_and(|opened| opened.contains(&license)),
            || {
                format!(
                    "{name} was recorded for licence {id:?}, and the server takes it for these, by \
                     index: {opened:?}"
                )
            },
        )?;
        self.life.asked[no].told = Some(license);
        Ok((license, wish.counter))
    }

    fn check_told_total(&self, no: usize, place: Place, total: i64) -> Result<(), Failure> {
        let counter = self.counter(place);
        let is_pooled = self.server.store.licenses[place.0].is_pooled;
        let is_alone = counter.is_the_agents_alone() && self.lives == 1 && !is_pooled;
        if counter.period.is_some() || !is_alone || self.server.is_read_late {
            return Ok(());
        }
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        // Nobody else moved the total: it is all that was ever recorded here.
        let (recorded, waived) = self.recorded(engine, place);
        // Others of the same turn may have been recorded after this one.
        let expected = counter.initial + recorded - waived;
        let asked = self.life.asked.iter().skip(no + 1);
        let slack: i64 = asked.map(|asked| asked.wish.units.abs()).sum();
        let slack = slack + self.taken_twice(engine, place);
        require((total - expected).abs() <= slack, || {
            format!("told a total of {total}, and {expected} units are recorded")
        })
    }

    /// All that was ever granted of a pool fits it, where nobody else consumes of its licences, and the server forgot nothing.
    fn check_pool(&self, license: usize) -> Result<(), Failure> {
        let store = &self.server.store;
        let Some(engine) = self.device.engine().filter(|_| self.lives == 1) else {
            return Ok(());
        };
        let pooled = |license: &usize| store.licenses[*license].is_pooled;
        let mut all = (0..store.licenses.len()).filter(pooled);
        let is_disturbed = |license: usize| {
            let counter = &store.licenses[license].counters[0];
            !counter.foreign.is_empty() || !counter.rolled_back.is_empty()
        };
        if !pooled(&license) || all.clone().any(is_disturbed) {
            return Ok(());
        }
        let granted = all.try_fold(0_i64, |sum, license| {
            let (recorded, waived) = self.recorded(engine, (license, 0));
            sum.checked_add(recorded - waived)
        });
        let max = store.pool.max;
        require(granted.is_some_and(|granted| granted <= max), || {
            format!("granted {granted:?} units of a pool that has {max}")
        })
    }

    /// What is recorded and what was given up of a counter, under all names that its licence has here.
    fn recorded(
        &self,
        engine: &tally_agent::ledger::engine::Engine,
        (license, counter): Place,
    ) -> (i64, i64) {
        let book = engine.core().book();
        let id = self.server.store.licenses[license].id;
        let feature = &self.counter((license, counter)).feature;
        let licenses = book.licenses().filter(|known| known.id == id);
        let accounts = licenses.flat_map(|known| book.accounts_of(known.no));
        let of_it = accounts.filter(|account| account.feature == *feature);
        of_it.fold((0, 0), |(recorded, waived), account| {
            (
                recorded + account.recorded.get(),
                waived + account.waived.get(),
            )
        })
    }

    /// Units of batches that may be in the total and take room beside it: a person must decide about them, since the server
    /// counts devices that the agent does not know.
    fn taken_twice(&self, engine: &tally_agent::ledger::engine::Engine, place: Place) -> i64 {
        let license = &self.server.store.licenses[place.0];
        if !license.may_be_activated_elsewhere() {
            return 0;
        }
        let batches = engine.core().book().batches();
        let batches = batches.filter(|batch| batch.state == BatchState::Held(Hold::Undecidable));
        let of_it = batches.filter(|batch| self.place_of_batch(batch) == Some(place));
        of_it.map(|batch| batch.units.get().abs()).sum()
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
        // A copy is told, and nothing else.
        let is_told_copy = |fault: &Fault| {
            let is_note = fault.kind == FaultKind::Evidence && fault.seq.is_some();
            is_note && fault.what.contains("was a copy") && self.lives > 1
        };
        let is_sound = findings.faults.iter().all(is_told_copy);
        require(is_sound, || {
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
        for (no, license) in self.server.store.licenses.iter().enumerate() {
            for counter in 0..license.counters.len() {
                let (least, most) = self.acknowledged((no, counter));
                let (recorded, _) = self.recorded(engine, (no, counter));
                require((least..=most).contains(&recorded), || {
                    format!(
                        "{recorded} units are recorded, and {least} to {most} were acknowledged"
                    )
                })?;
            }
        }
        Ok(())
    }

    /// The least and the most that can be recorded of a counter, by what applications were told.
    fn acknowledged(&self, (license, counter): Place) -> (i64, i64) {
        let (mut least, mut most) = (0, 0);
        let nowhere = BTreeSet::new();
        for asked in &self.life.asked {
            let (units, known) = (asked.wish.units, asked.known);
            let is_here = asked.wish.counter == counter
                && match asked.told {
                    Some(told) => told == license,
                    None if known == Known::Unknown => {
                        let name = name_of(&self.subject_of(&asked.wish));
                        let opened = self.server.opened.get(&name);
                        opened.unwrap_or(&nowhere).contains(&license)
                    }
                    None => asked.wish.license == license,
                };
            match known {
                Known::Granted if is_here => {
                    least += units;
                    most += units;
                }
                Known::Unknown if is_here => {
                    least += units.min(0);
                    most += units.max(0);
                }
                _ => {}
            }
        }
        (least, most)
    }
}

//! What must hold once the world is calm: everything is settled but what cannot be, and that is said.

use std::collections::BTreeMap;

use tally_agent::{
    core::book::{Batch, BatchState, Hold},
    ledger::schema,
};

use super::{
    asked::Known,
    check::require,
    server::{DeviceState, Instant},
    truth::{Place, Seen},
    world::{Failure, World},
};

/// The longest time, in milliseconds, between the two readings of a fall, on a network that is often away.
const FALL_MAX: Instant = 48 * 3_600_000;

/// What the agent said of a counter by itself: the difference that it found, over all of its findings.
type Told = BTreeMap<(i64, Option<String>), i64>;

impl World {
    /// Once the world is calm.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check_calm(&mut self) -> Result<(), Failure> {
        self.check()?;
        self.check_ledger()?;
        let now = self.now;
        for license in &mut self.server.store.licenses {
            for counter in &mut license.counters {
                counter.roll(now);
            }
        }
        let Some(engine) = self.device.engine() else {
            return Err("the agent does not run".to_owned());
        };
        for batch in engine.core().book().batches() {
            let is_waiting = match batch.state {
                BatchState::Held(_) => false,
                // It was never sent, and waits for its licence or device to come back.
                BatchState::Open | BatchState::Sealed => !self.is_away(batch),
                _ => true,
            };
            require(!is_waiting, || {
                format!("not settled, though the world is calm: {batch:?}")
            })?;
            self.check_held(batch)?;
        }
        for license in 0..self.server.store.licenses.len() {
            for counter in 0..self.server.store.licenses[license].counters.len() {
                self.check_balance((license, counter))?;
            }
        }
        Ok(())
    }

    /// Whether a batch's licence or device was taken away for good, or is refused for good.
    pub(super) fn is_away(&self, batch: &Batch) -> bool {
        let Some((license, _)) = self.place_of_batch(batch) else {
            return false;
        };
        let book = self.device.engine().map(|engine| engine.core().book());
        let lane = book.and_then(|book| book.lane(batch.lane));
        lane.is_some_and(|lane| !self.is_served(license, &lane.key.hardware_id))
    }

    /// Whether the server takes units of a licence on a device.
    pub(super) fn is_served(&self, license: usize, device: &str) -> bool {
        let license = &self.server.store.licenses[license];
        !license.is_gone && license.devices.get(device) == Some(&DeviceState::Active)
    }

    /// What the server counted of a counter is what is settled, and what is held though it was counted. Where
    /// something else came between, the agent said so.
    pub(super) fn check_balance(&self, place: Place) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let book = engine.core().book();
        let id = self.server.store.licenses[place.0].id;
        let feature = &self.counter(place).feature;
        let licenses = book.licenses().filter(|license| license.id == id);
        let accounts = licenses.flat_map(|license| book.accounts_of(license.no));
        let (mut settled, mut unclear) = (0, 0);
        for account in accounts.filter(|account| account.feature == *feature) {
            settled += account.settled.get();
            let batches = book.batches_of(account.no).into_iter();
            for batch in batches {
                settled += self.counted_of(batch);
                if batch.state == BatchState::Held(Hold::Undecidable) {
                    unclear += batch.units.get().abs();
                }
            }
        }
        // Somebody called a whole batch counted of which the original had sent a part.
        settled -= self.life.misjudged.get(&place).copied().unwrap_or(0);
        let counted = self.server.store.truth.sum(place, &self.life.lineage);
        let surplus = counted - settled;
        // Somebody gave up, on a copy, what the original had still to send.
        let given_up = self.life.given_up.iter().filter(|(at, _)| *at == place);
        let truth = &self.server.store.truth;
        let sent_since: i64 = given_up.map(|(_, rows)| truth.units_of(rows)).sum();
        if surplus == 0 || surplus == sent_since || self.is_unseen(place, surplus) {
            return Ok(());
        }
        let told = self.findings()?.get(&(id, feature.clone())).copied();
        // What is held because nobody can tell may be a part of the difference, or may not.
        let told = told.map_or(0, |told| told + unclear);
        // Of a total that fell, a batch in doubt hides as much, until a person has decided about it.
        let is_hidden = |at| {
            let mut fallen = self.fallen.iter();
            fallen.any(|fallen| fallen.place == place && fallen.at <= at)
        };
        let decided = self.life.decided.iter();
        let decided = decided.filter(|(of, at, _)| *of == place && is_hidden(*at));
        let hidden: i64 = decided.map(|(_, _, units)| units).sum();
        require(told + hidden >= surplus.abs(), || {
            format!(
                "the server counted {counted} units, {settled} are settled, and the agent says \
                 nothing of it"
            )
        })
    }

    fn is_counted(&self, batch: &Batch) -> bool {
        self.server.store.truth.has(&self.rows_of(batch))
    }

    /// The units of a batch that the server counted: of a copy's, that can be some.
    fn counted_of(&self, batch: &Batch) -> i64 {
        self.server.store.truth.units_of(&self.rows_of(batch))
    }

    /// Whether nobody can see a difference: others moved the total too, or its period turned between the two
    /// times that the agent looked.
    fn is_unseen(&self, place: Place, surplus: i64) -> bool {
        let counter = self.counter(place);
        let has_fallen = self.fallen.iter().any(|fallen| fallen.place == place);
        let has_changed = has_fallen || !counter.repeated.is_empty();
        if !counter.forgotten.is_empty() || (counter.negative && has_changed) {
            return true;
        }
        if surplus > 0 {
            // On a counter that others are known to use, what they may have done is no finding.
            let repeated = counter.repeated.iter();
            let mut turned = repeated.map(|at| {
                counter.period_no(*at) != counter.period_no(*at - 2 * super::network::LATEST)
            });
            let life = self.life.lineage.life();
            let mut others = counter.counted_at.iter();
            let is_shared = !counter.foreign.is_empty() || others.any(|(_, by, _)| *by != life);
            return !counter.repeated.is_empty() && (is_shared || turned.any(|turned| turned));
        }
        if counter.has_equal(-surplus, self.life.lineage.life()) {
            return true;
        }
        let mut fallen = self.fallen.iter().filter(|fallen| fallen.place == place);
        if has_fallen && self.lives > 1 {
            // The other device may have seen it.
            return true;
        }
        fallen.any(|fallen| {
            let foreign = |from, until| {
                let mut others = counter.foreign.iter();
                others.any(|at| (from..=until).contains(at))
            };
            let Some(Seen {
                said_at: seen,
                is_clear,
                is_confirmed,
                ..
            }) = fallen.seen
            else {
                return true;
            };
            counter.negative
                || !is_clear
                || !is_confirmed
                || counter.period_no(fallen.heard) != counter.period_no(seen)
                // A fall is believed when it was read twice in its period.
                || counter.period_no(seen) != counter.period_no(self.now)
                || foreign(fallen.heard, seen + FALL_MAX)
        })
    }

    /// What the agent found by itself, for each counter.
    fn findings(&self) -> Result<Told, Failure> {
        let path = self.device.disk.path("ledger.db");
        let connection = schema::open_read_only(&path)
            .map_err(|error| format!("cannot be opened: {error:?}"))?;
        let mut told = Told::new();
        let mut statement = connection
            .prepare("SELECT body FROM notes WHERE kind = 'finding'")
            .map_err(|error| error.to_string())?;
        let bodies = statement
            .query_map([], |row| row.get::<_, String>(0))
            .map_err(|error| error.to_string())?;
        for body in bodies {
            let body = body.map_err(|error| error.to_string())?;
            let body: serde_json::Value =
                serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let number = |name| body.get(name).and_then(serde_json::Value::as_i64);
            let feature = body.get("feature").and_then(serde_json::Value::as_str);
            let difference = number("found").unwrap_or(0) - number("expected").unwrap_or(0);
            let counter = (
                number("license_id").unwrap_or(0),
                feature.map(str::to_owned),
            );
            *told.entry(counter).or_default() += difference.abs();
        }
        Ok(told)
    }

    /// A batch is held only for a reason.
    fn check_held(&self, batch: &Batch) -> Result<(), Failure> {
        let BatchState::Held(hold) = batch.state else {
            return Ok(());
        };
        let Some(place) = self.place_of_batch(batch) else {
            return Ok(());
        };
        let (license, counter) = (&self.server.store.licenses[place.0], self.counter(place));
        let key = batch.sealed.as_ref().map(|sealed| sealed.id.to_string());
        if hold == Hold::Undecidable {
            let since = key.as_ref().and_then(|key| self.unseen_since.get(key));
            let since = since.copied().unwrap_or(0);
            let life = self.life.lineage.life();
            let is_copied = self.lives > 1;
            // Of a counter that others use, or may use, a total that moves by the batch later than at once may have been moved
            // by them.
            let may_be_shared = !counter.foreign.is_empty() || license.may_be_activated_elsewhere();
            let is_late = may_be_shared && self.is_counted(batch);
            // Of a request that something in between sent twice, the first copy was counted and the second refused.
            let is_hidden = !counter.repeated.is_empty() && self.is_counted(batch);
            return require(
                is_copied || is_late || is_hidden || counter.is_disturbed(since, self.now, life),
                || format!("held as undecidable, and nobody disturbed its counter: {key:?}"),
            );
        }
        if self.is_away(batch) {
            return Ok(());
        }
        if hold == Hold::Copy {
            return require(self.lives > 1, || {
                format!("held as a copy, and there is none: {key:?}")
            });
        }
        // The other device has counted it.
        let is_excused = !counter.forgotten.is_empty() || self.lives > 1;
        require(is_excused || !self.is_counted(batch), || {
            format!("counted, and held as {hold:?}: {key:?}")
        })?;
        match hold {
            // Later ones wait for the first.
            Hold::Limit { .. } if !self.is_first_held(batch) => Ok(()),
            Hold::Limit { .. } => {
                // The batch's own setting comes before its units are judged.
                let mut wanted = counter.clone();
                let engine = self.device.engine();
                let lane = engine.and_then(|engine| engine.core().book().lane(batch.lane));
                if let Some(lane) = lane {
                    let setting = lane.key.setting;
                    wanted.overages = setting.allow_overages.unwrap_or(wanted.overages);
                    wanted.max_overages = setting.max_overages.unwrap_or(wanted.max_overages);
                }
                let pool = self.server.store.pool;
                require(!license.fits(pool, &wanted, 30), || {
                    format!("held for the limit, and there is room: {batch:?} {counter:?}")
                })
            }
            Hold::Undecidable | Hold::Late | Hold::Gone(_) | Hold::Copy => Ok(()),
            Hold::Refused(_) | Hold::Defect(_) => Err(format!(
                "held as {hold:?}, though the world is calm: {key:?}"
            )),
        }
    }

    fn is_first_held(&self, batch: &Batch) -> bool {
        let Some(engine) = self.device.engine() else {
            return false;
        };
        let batches = engine.core().book().batches_of(batch.account);
        let mut held = batches
            .into_iter()
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. })));
        held.next().is_some_and(|first| first.no == batch.no)
    }

    pub(super) fn place_of_batch(&self, batch: &Batch) -> Option<Place> {
        let book = self.device.engine()?.core().book();
        for license in book.licenses() {
            let mut accounts = book.accounts_of(license.no);
            if let Some(account) = accounts.find(|account| account.no == batch.account) {
                return self.place_of(license.id, account.feature.as_deref());
            }
        }
        None
    }

    /// At the very end nothing is owed, and each overage is as the last request that set it says.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check_end(&mut self) -> Result<(), Failure> {
        self.check_calm()?;
        let batches = self
            .device
            .engine()
            .map(|engine| engine.core().book().batches().collect::<Vec<_>>());
        let owed = batches.map_or(0, |batches| batches.len());
        require(owed == 0, || {
            format!("{owed} batches are still owed when all is decided")
        })?;
        (0..self.server.store.licenses.len()).try_for_each(|license| self.check_overage(license))
    }

    /// The server has the overage that the last granted request set, unless the vendor set it meanwhile, or
    /// nobody knows which was the last.
    fn check_overage(&self, license: usize) -> Result<(), Failure> {
        let counter = self.counter((license, 0));
        let is_of_it = |told: Option<usize>, wish: usize| told.unwrap_or(wish) == license;
        let mut wishes: Vec<_> = self
            .life
            .asked
            .iter()
            .filter(|asked| is_of_it(asked.told, asked.wish.license))
            .filter_map(|asked| Some((asked, asked.wish.overage?)))
            .filter(|(asked, _)| asked.known != Known::Refused)
            .collect();
        wishes.sort_by_key(|(asked, _)| asked.granted);
        if wishes.iter().any(|(asked, _)| asked.granted.is_none()) {
            return Ok(());
        }
        let (mut allow, mut max) = (None, None);
        for (_, overage) in wishes {
            allow = Some(overage.allow);
            max = overage.max.or(max);
        }
        if !counter.overage_edits.is_empty() || self.lives > 1 || self.has_given_up() {
            return Ok(());
        }
        require(
            allow.is_none_or(|allow| allow == counter.overages)
                && max.is_none_or(|max| max == counter.max_overages),
            || {
                format!(
                    "the last request that set the overage said {allow:?} and {max:?}, and the \
                     server has {} and {}",
                    counter.overages, counter.max_overages
                )
            },
        )
    }

    fn has_given_up(&self) -> bool {
        let Some(engine) = self.device.engine() else {
            return true;
        };
        let book = engine.core().book();
        let mut accounts = book
            .licenses()
            .flat_map(|license| book.accounts_of(license.no));
        accounts.any(|account| account.waived.get() != 0)
    }
}

//! The end of a world: everything works again, and all is decided.

use rand::RngExt as _;
use tally_agent::{
    core::{book::BatchState, event::Event, link::NetworkMode},
    ledger::engine::Job,
};
use tally_shared::wire::Subject;

use super::{
    asked::{Known, Wish},
    check::require,
    counter::Presence,
    plan::{Between, FOREIGN, Weather},
    server::{DeviceState, Shape},
    world::{Failure, HARDWARE, World},
};

impl World {
    /// The world becomes friendly: everything works, and nobody interferes.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn calm(&mut self) -> Result<(), Failure> {
        self.note(|| "calm".to_owned());
        self.network.weather = Weather {
            slowness: 50,
            ..Weather::default()
        };
        self.network.between = Between::default();
        self.is_ending = true;
        self.kill_in_turn = false;
        self.heal_disk();
        self.device.set_room(None);
        if let Some(seed) = self.power_cut.take() {
            self.lose_power(seed)?;
        }
        self.mend_server();
        if !self.is_running() {
            self.start()?;
        }
        self.name_owed()?;
        self.turn(vec![Job::Event(Event::SetNetwork(NetworkMode::Online))])?;
        let open: Vec<usize> = (0..self.life.asked.len())
            .filter(|no| {
                let asked = &self.life.asked[*no];
                asked.known == Known::Unknown && asked.key.is_some()
            })
            .collect();
        self.ask(&open)?;
        self.pass(26 * 3_600_000)
    }

    /// Somebody adds what the device owes of by a key that opens it, where no name that the agent had of it does so any more.
    fn name_owed(&mut self) -> Result<(), Failure> {
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let book = engine.core().book();
        let mut lost = Vec::new();
        for batch in book.batches() {
            let Some((license, _)) = self.place_of_batch(batch) else {
                continue;
            };
            let lane = book.lane(batch.lane);
            let device = lane.and_then(|lane| {
                let mut devices = HARDWARE.iter();
                devices.position(|device| *device == lane.key.hardware_id)
            });
            let Some(subject) = book.request_of(batch).map(|request| request.subject) else {
                continue;
            };
            let licenses = book.licenses().map(|license| (license.id, license.no));
            let known = licenses.filter(|(id, _)| Some(*id) == subject.license_id);
            let names = known.flat_map(|(_, no)| book.names_of(no));
            let mut holders = names.map(|(name, _)| &name.holder).chain([&subject.holder]);
            let is_opened = holders.any(|holder| {
                let (holder, subject) = (holder.clone(), subject.clone());
                let asked = Subject { holder, ..subject };
                self.server.find(&asked).is_some()
            });
            if let (Some(device), false) = (device, is_opened) {
                lost.push(Wish {
                    device,
                    ..Wish::of((license, 0), 0)
                });
            }
        }
        for wish in lost {
            let subject = self.subject_of(&wish);
            self.add_named(subject)?;
        }
        Ok(())
    }

    fn mend_server(&mut self) {
        let (stays_gone, refused) = (self.stays_gone, self.stays_refused.map(|no| HARDWARE[no]));
        for license in &mut self.server.store.licenses {
            license.enabled = true;
            license.expires = None;
            license.shape = Shape::Consumed;
            license.contradicts = false;
            license.keys = [license.key.clone()].into();
            license.is_gone &= stays_gone;
            for counter in &mut license.counters {
                counter.presence = Presence::There;
            }
            for (device, state) in &mut license.devices {
                *state = if refused == Some(device.as_str()) {
                    DeviceState::Blacklisted
                } else {
                    DeviceState::Active
                };
            }
            if !stays_gone {
                let device = HARDWARE[0].to_owned();
                license.devices.entry(device).or_insert(DeviceState::Active);
            }
        }
        self.note_names();
    }

    /// Every limit is raised beyond all that is owed.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn raise_limits(&mut self) -> Result<(), Failure> {
        self.server.store.pool.max += 100 * FOREIGN;
        for license in 0..self.server.store.licenses.len() {
            for counter in 0..self.server.store.licenses[license].counters.len() {
                self.edit((license, counter), |counter| counter.max += 100 * FOREIGN);
            }
        }
        self.turn(vec![Job::Event(Event::Nudge)])?;
        self.pass(3 * 3_600_000)
    }

    /// Each licence that is there can be consumed by its key.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn serve_all(&mut self) -> Result<(), Failure> {
        // Long enough for each licence to be read again: the limits are new.
        self.pass(13 * 3_600_000)?;
        for license in 0..self.server.store.licenses.len() {
            let mut devices =
                (0..HARDWARE.len()).filter(|no| self.is_served(license, HARDWARE[*no]));
            let Some(device) = devices.next() else {
                continue;
            };
            for counter in 0..self.server.store.licenses[license].counters.len() {
                self.wish(Wish {
                    device,
                    ..Wish::of((license, counter), 1)
                });
                let no = self.life.asked.len() - 1;
                self.ask(&[no])?;
                let known = self.life.asked[no].known;
                require(known == Known::Granted, || {
                    format!("licence {license} is not served though the world is calm: {known:?}")
                })?;
            }
        }
        self.pass(600_000)
    }

    /// Decides all that is left to decide, by the truth; of licences that were taken away for good, everything.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn resolve_all(&mut self) -> Result<(), Failure> {
        let is_held = |state: BatchState| matches!(state, BatchState::Held(_));
        for _ in 0..self.random.random_range(200..201) {
            if !self.resolve_one(0, false, is_held)? {
                break;
            }
            self.pass(600_000)?;
        }
        // What waits for a licence that is away was never sent.
        let is_lasting = self.stays_gone || self.stays_refused.is_some();
        while is_lasting && self.resolve_one(0, true, |_| true)? {}
        Ok(())
    }
}

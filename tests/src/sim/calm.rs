//! The end of a world: everything works again, and all is decided.

use rand::RngExt as _;
use tally_agent::{
    core::{book::BatchState, event::Event, link::NetworkMode},
    ledger::engine::Job,
};

use super::{
    plan::{FOREIGN, Known, Weather},
    server::DeviceState,
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
        self.kill_in_turn = false;
        self.heal_disk();
        self.device.set_room(None);
        if let Some(seed) = self.power_cut.take() {
            self.lose_power(seed)?;
        }
        for license in &mut self.server.licenses {
            license.enabled = true;
            license
                .devices
                .insert(HARDWARE.to_owned(), DeviceState::Active);
        }
        if !self.is_running() {
            self.start()?;
        }
        self.turn(vec![Job::Event(Event::SetNetwork(NetworkMode::Online))])?;
        let open: Vec<usize> = (0..self.asked.len())
            .filter(|no| self.asked[*no].known == Known::Unknown && self.asked[*no].key.is_some())
            .collect();
        self.ask(&open)?;
        self.pass(26 * 3_600_000)
    }

    /// Every limit is raised beyond all that is owed.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn raise_limits(&mut self) -> Result<(), Failure> {
        for license in 0..self.server.licenses.len() {
            for counter in 0..self.server.licenses[license].counters.len() {
                self.edit((license, counter), |counter| counter.max += 100 * FOREIGN);
            }
        }
        self.turn(vec![Job::Event(Event::Nudge)])?;
        self.pass(3 * 3_600_000)
    }

    /// Decides all that is left to decide, by the truth.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn resolve_all(&mut self) -> Result<(), Failure> {
        for _ in 0..self.random.random_range(200..201) {
            let is_held = |state: BatchState| matches!(state, BatchState::Held(_));
            let engine = self.device.engine();
            if !engine.is_some_and(|engine| {
                engine
                    .core()
                    .book()
                    .batches()
                    .any(|batch| is_held(batch.state))
            }) {
                break;
            }
            self.resolve(0, false)?;
            self.pass(600_000)?;
        }
        Ok(())
    }
}

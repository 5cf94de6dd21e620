//! A world: applications, a device, a network, a server and what others do; moved on step by step.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use tally_agent::{
    core::{LateUsage, Policy, UndecidablePolicy, event::Event},
    ledger::{Keeping, engine::Job},
};
use tally_shared::wire::LicenseBody;

use super::{
    counter::Counter,
    device::Device,
    lives::{Life, Snapshot},
    network::{LATEST, Network},
    pace::Pace,
    plan::Setup,
    server::{DeviceState, Instant, License, Pool, Server, Shape, Store},
    talk::peer_of,
    truth::{Fallen, Place},
};

/// The devices' ids.
pub(super) const HARDWARE: [&str; 2] = ["device", "device-2"];

/// So many turns, and one more for each of these intervals, are no busy loop.
const TURNS_MAX: u64 = 500;
const TURN_INTERVAL: Instant = 10_000;

/// What went wrong.
pub(super) type Failure = String;

/// A world.
#[expect(clippy::struct_excessive_bools, reason = "each can be so by itself")]
pub(super) struct World {
    pub(super) server: Server,
    pub(super) device: Device,
    /// What goes with the ledger that the device has.
    pub(super) life: Life,
    /// The other device, and its life, where there is one.
    pub(super) twin: Option<(Device, Life)>,
    pub(super) snapshot: Option<Snapshot>,
    /// Whether there may be copies.
    pub(super) copies: bool,
    /// How many lives there were.
    pub(super) lives: u32,
    /// The server's own copy of itself.
    pub(super) backup: Option<Store>,
    /// What it no longer counts since it was put back.
    pub(super) fallen: Vec<Fallen>,
    pub(super) network: Network,
    pub(super) random: StdRng,
    pub(super) now: Instant,
    pub(super) process: u64,
    /// Under which credentials the agent asks.
    pub(super) credentials: u32,
    pub(super) pace: Pace,
    /// How many licences are known to the agent at first.
    known: usize,
    /// The device that is refused in the end.
    pub(super) stays_refused: Option<usize>,
    /// Whether what is taken away stays away in the end.
    pub(super) stays_gone: bool,
    /// Whether the world is calm.
    pub(super) is_ending: bool,
    /// The last answer about each licence that was kept as a file.
    pub(super) on_file: BTreeMap<usize, LicenseBody>,
    /// For each batch's id, from when on others may have disturbed its counter unseen.
    pub(super) unseen_since: BTreeMap<String, Instant>,
    pub(super) kill_in_turn: bool,
    pub(super) power_cut: Option<u64>,
    pub(super) disk_is_bad: bool,
    /// What happened, for people.
    pub(super) trace: Vec<String>,
    /// Whether that is noted at all: it takes longer than what it tells of.
    pub(super) is_traced: bool,
    /// How many turns the agent took.
    pub(super) turns: u64,
    /// How many requests of applications there were.
    pub(super) requests: u64,
    /// How many of them were granted.
    pub(super) granted: u64,
    /// How often it was killed, or lost its power.
    pub(super) crashes: u64,
    /// How often a licence was forgotten.
    pub(super) times_forgotten: u64,
}

impl World {
    /// A world before anything happened.
    pub(super) fn new(seed: u64, setup: &Setup) -> Self {
        let policy = Policy {
            sync_interval: Duration::from_secs(5),
            settle_wait: Duration::from_millis(u64::try_from(LATEST).unwrap_or(0)),
            refresh_interval: Duration::from_hours(12),
            undecidable: UndecidablePolicy::Hold,
            late_usage: if setup.holds_late {
                LateUsage::Hold
            } else {
                LateUsage::Report
            },
        };
        let keeping = Keeping {
            rows: Duration::from_millis(u64::try_from(setup.retention).unwrap_or(0)),
            answers: Duration::from_hours(7 * 24),
        };
        let mut world = Self {
            server: server_of(setup),
            device: Device::new(seed, (policy, keeping), setup.wall_error),
            life: Life::new(),
            twin: None,
            snapshot: None,
            copies: setup.more.copies,
            lives: 1,
            backup: None,
            fallen: Vec::new(),
            network: Network::new(),
            random: StdRng::seed_from_u64(seed ^ 0x5eed),
            now: 0,
            process: 0,
            credentials: 0,
            pace: Pace::default(),
            known: setup.known,
            stays_refused: setup.more.stays_refused,
            stays_gone: setup.more.stays_gone,
            is_ending: false,
            on_file: BTreeMap::new(),
            unseen_since: BTreeMap::new(),
            kill_in_turn: false,
            power_cut: None,
            disk_is_bad: false,
            trace: Vec::new(),
            is_traced: false,
            turns: 0,
            requests: 0,
            granted: 0,
            crashes: 0,
            times_forgotten: 0,
        };
        world.note_names();
        world
    }

    /// Starts the agent and makes licences known to it; of each, an answer is kept.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.start()?;
        for license in 0..self.server.store.licenses.len() {
            self.file(license);
        }
        (0..self.known).try_for_each(|license| self.add_license(license))
    }

    /// Whether the agent runs.
    pub(super) const fn is_running(&self) -> bool {
        self.device.engine().is_some()
    }

    /// A counter on the server.
    pub(super) fn counter(&self, (license, counter): Place) -> &Counter {
        &self.server.store.licenses[license].counters[counter]
    }

    /// The counter that an account of the agent's is of.
    pub(super) fn place_of(&self, id: i64, feature: Option<&str>) -> Option<Place> {
        let licenses = &self.server.store.licenses;
        let license = licenses.iter().position(|license| license.id == id)?;
        let mut counters = licenses[license].counters.iter();
        let counter = counters.position(|counter| counter.feature.as_deref() == feature)?;
        Some((license, counter))
    }

    /// Adds to the trace.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced {
            let text = text();
            self.trace.push(format!("{:>12} {text}", self.now));
        }
    }

    // === the agent ===

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        self.process += 1;
        if self.disk_is_bad || self.device.is_short_of_space() {
            // What was heard last may never have come to the disk.
            self.life.heard.clear();
            self.unsee(0);
        }
        match self.device.start(peer_of(self.credentials)) {
            Ok(commands) => {
                self.carry_out(commands)?;
                self.check_recorded()
            }
            Err(_) if !self.device.disk.is_on() => self.lose_power(self.power_cut.unwrap_or(0)),
            Err(error) if self.disk_is_bad || self.device.is_short_of_space() => {
                self.note(|| format!("cannot start: {error}"));
                Ok(())
            }
            Err(error) => Err(format!("the agent cannot start: {error:?}")),
        }
    }

    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.crashes += 1;
        self.device.kill();
        self.start()
    }

    pub(super) fn lose_power(&mut self, seed: u64) -> Result<(), Failure> {
        self.crashes += 1;
        self.power_cut = None;
        self.device.lose_power(seed);
        self.life.heard.clear();
        self.start()?;
        if self.is_running() {
            self.check_ledger()?;
        }
        Ok(())
    }

    /// What the agent heard from this time on of units that fell never came to its disk.
    fn unsee(&mut self, since: Instant) {
        for fallen in &mut self.fallen {
            fallen.seen = fallen.seen.filter(|seen| seen.heard_at < since);
        }
    }

    pub(super) fn heal_disk(&mut self) {
        self.disk_is_bad = false;
        self.device.disk.heal();
    }

    /// Lets the agent take jobs, unless it dies of it.
    pub(super) fn turn(&mut self, jobs: Vec<Job>) -> Result<(), Failure> {
        self.turns += 1;
        let commands = self.device.turn(jobs);
        if std::mem::take(&mut self.kill_in_turn) {
            return self.kill();
        }
        if let Some(seed) = self.power_cut
            && !self.device.disk.is_on()
        {
            self.unsee(self.now);
            return self.lose_power(seed);
        }
        self.carry_out(commands)
    }

    /// Time passes, and what is due happens.
    pub(super) fn pass(&mut self, time: Instant) -> Result<(), Failure> {
        let until = self.now + time;
        let most = self.turns + TURNS_MAX + (time / TURN_INTERVAL).unsigned_abs();
        loop {
            if self.turns > most {
                return Err("the agent is busy without end".to_owned());
            }
            let Some(at) = self.next().filter(|at| *at <= until) else {
                break;
            };
            self.happen(at, until)?;
            if !self.is_running() {
                break;
            }
            self.check_sums()?;
        }
        self.set_now(until);
        Ok(())
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Instant> {
        let wakeup = self.device.wakeup().map(|at| at.max(self.now));
        [self.network.next(), wakeup].into_iter().flatten().min()
    }

    /// What is next happens, at this time, or a little later but no later than that.
    pub(super) fn happen(&mut self, at: Instant, until: Instant) -> Result<(), Failure> {
        self.set_now(at.max(self.now));
        if self.network.next().is_some_and(|at| at <= self.now) {
            let delivered = self
                .network
                .deliver(self.now, &mut self.server, &mut self.random);
            if let Some((message, heard)) = delivered {
                self.hear(&message, heard)?;
            }
        } else {
            // As the driver does: never two ticks at once.
            self.set_now((self.now + 5).min(until));
            self.turn(vec![Job::Event(Event::Tick)])?;
        }
        if !self.is_running() {
            self.start()?;
        }
        Ok(())
    }

    /// The device sleeps: for everybody else time passes, and what reaches it waits until it wakes.
    pub(super) fn sleep(&mut self, time: Instant) -> Result<(), Failure> {
        let until = self.now + time;
        self.device.sleep(time);
        let mut waiting = Vec::new();
        while let Some(at) = self.network.next().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            let delivered = self
                .network
                .deliver(self.now, &mut self.server, &mut self.random);
            waiting.extend(delivered);
        }
        self.set_now(until);
        for (message, heard) in waiting {
            self.hear(&message, heard)?;
            if !self.is_running() {
                self.start()?;
            }
        }
        Ok(())
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.device.set_now(now);
    }
}

fn server_of(setup: &Setup) -> Server {
    let more = &setup.more;
    let licenses = setup.licenses.iter().enumerate().map(|(no, counters)| {
        let counters = counters.iter().enumerate().map(|(index, counter)| {
            let (max, period, total, negative) = *counter;
            let feature = (index > 0).then(|| format!("feature-{index}"));
            Counter::new(feature, (max, total), period, negative)
        });
        let has_second = more.second_device.contains(&no);
        let devices = HARDWARE.iter().take(1 + usize::from(has_second));
        let key = format!("KEY-{no}");
        License {
            keys: BTreeSet::from([key.clone()]),
            key,
            is_users: more.users.contains(&no),
            id: i64::try_from(no).unwrap_or(0) + 1,
            is_gone: false,
            enabled: true,
            expires: None,
            shape: Shape::Consumed,
            contradicts: false,
            is_pooled: more.pool.as_ref().is_some_and(|pool| pool.1.contains(&no)),
            devices: devices
                .map(|device| ((*device).to_owned(), DeviceState::Active))
                .collect(),
            counters: counters.collect(),
            elsewhere: more.elsewhere,
        }
    });
    let mut server = Server::new(setup.keeps_keys, licenses.collect());
    server.refuses_first = more.refuses_first;
    server.says_duplicate = more.says_duplicate;
    server.store.pool = Pool {
        max: more.pool.as_ref().map_or(0, |pool| pool.0),
        total: 0,
    };
    server
}

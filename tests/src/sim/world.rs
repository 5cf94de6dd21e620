//! A world: applications, a device, a network, a server and what others do; moved on step by step.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use tally_agent::{
    core::{
        LateUsage, Policy, UndecidablePolicy,
        book::BatchNo,
        command::Command,
        event::{Event, KeyEcho},
        link::NetworkMode,
        outcome::{Exchange, LicenseFound, LookUpOutcome, SendOutcome, of_look_up, of_send},
    },
    ledger::{
        Keeping,
        engine::{Job, lock},
    },
};
use tally_shared::wire::{ErrorCode, LicenseBody, Subject};

use super::{
    device::Device,
    network::{Heard, LATEST, Message, Network, Purpose},
    plan::{Asked, Known, Setup, Step},
    server::{Counter, DeviceState, Instant, License, Server},
    trace::{show_command, show_heard},
};

/// The device's id.
pub(super) const HARDWARE: &str = "device";

/// So many turns, and one more for each of these intervals, are no busy loop.
const TURNS_MAX: u64 = 500;
const TURN_INTERVAL: Instant = 10_000;

/// What went wrong.
pub(super) type Failure = String;

/// A world.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) device: Device,
    pub(super) network: Network,
    pub(super) random: StdRng,
    pub(super) now: Instant,
    process: u64,
    pub(super) asked: Vec<Asked>,
    /// How many licences are known to the agent at first.
    known: usize,
    /// The licences that the agent said it has forgotten.
    pub(super) forgotten: BTreeSet<usize>,
    /// The last answer about each licence that was kept as a file.
    pub(super) on_file: BTreeMap<usize, LicenseBody>,
    /// When the server last said of a counter what the agent knows.
    heard: BTreeMap<(i64, Option<String>), Instant>,
    /// For each key, from when on others may have disturbed its counter unseen.
    pub(super) unseen_since: BTreeMap<String, Instant>,
    pub(super) kill_in_turn: bool,
    pub(super) power_cut: Option<u64>,
    disk_is_bad: bool,
    /// What happened, for people.
    pub(super) trace: Vec<String>,
    /// Whether that is noted at all: it takes longer than what it tells of.
    pub(super) is_traced: bool,
    /// How many turns the agent took.
    pub(super) turns: u64,
    /// How often it was killed, or lost its power.
    pub(super) crashes: u64,
    /// How often a licence was forgotten.
    pub(super) times_forgotten: u64,
}

impl World {
    /// A world before anything happened.
    pub(super) fn new(seed: u64, setup: &Setup) -> Self {
        let licenses = setup.licenses.iter().enumerate().map(|(no, counters)| {
            let counters = counters.iter().enumerate().map(|(index, counter)| {
                let (max, period, total, negative) = *counter;
                let feature = (index > 0).then(|| format!("feature-{index}"));
                Counter::new(feature, (max, total), period, negative)
            });
            License {
                key: format!("KEY-{no}"),
                id: i64::try_from(no).unwrap_or(0) + 1,
                enabled: true,
                devices: BTreeMap::from([(HARDWARE.to_owned(), DeviceState::Active)]),
                counters: counters.collect(),
            }
        });
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
        let device = Device::new(seed, (policy, keeping), setup.wall_error);
        Self {
            server: Server::new(setup.keeps_keys, licenses.collect()),
            device,
            network: Network::new(),
            random: StdRng::seed_from_u64(seed ^ 0x5eed),
            now: 0,
            process: 0,
            asked: Vec::new(),
            known: setup.known,
            forgotten: BTreeSet::new(),
            on_file: BTreeMap::new(),
            heard: BTreeMap::new(),
            unseen_since: BTreeMap::new(),
            kill_in_turn: false,
            power_cut: None,
            disk_is_bad: false,
            trace: Vec::new(),
            is_traced: false,
            turns: 0,
            crashes: 0,
            times_forgotten: 0,
        }
    }

    /// Starts the agent and makes licences known to it; of each, an answer is kept.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.start()?;
        for license in 0..self.server.licenses.len() {
            self.file(license);
        }
        (0..self.known).try_for_each(|license| self.add_license(license))
    }

    /// Lets a step happen.
    ///
    /// # Errors
    ///
    /// What does not hold after it.
    pub(super) fn take(&mut self, step: Step) -> Result<(), Failure> {
        self.note(|| format!("{step:?}"));
        if !self.is_running() {
            self.start()?;
        }
        match step {
            Step::Pass(time) => self.pass(time)?,
            Step::Consume {
                app,
                license,
                counter,
                units,
                keyed,
                overages,
            } => {
                let key = keyed.then(|| format!("request-{}", self.asked.len()));
                let overages = overages.filter(|_| counter == 0);
                let counter = (license, counter);
                let known = Known::Unknown;
                self.asked.push(Asked {
                    counter,
                    app,
                    units,
                    overages,
                    key,
                    known,
                });
                self.ask(&[self.asked.len() - 1])?;
            }
            Step::Retry => {
                let is_open = |asked: &Asked| asked.known == Known::Unknown && asked.key.is_some();
                if let Some(no) = self.asked.iter().position(is_open) {
                    self.ask(&[no])?;
                }
            }
            Step::Burst { license, count } => {
                let first = self.asked.len();
                for units in 1..=count {
                    let (app, key, overages) = (0, None, None);
                    let (counter, known) = ((license, 0), Known::Unknown);
                    let units = 1 + units % 3;
                    self.asked.push(Asked {
                        counter,
                        app,
                        units,
                        overages,
                        key,
                        known,
                    });
                }
                self.ask(&(first..self.asked.len()).collect::<Vec<_>>())?;
            }
            Step::Foreign { .. }
            | Step::SetLimit { .. }
            | Step::SetTotal { .. }
            | Step::SetEnabled { .. }
            | Step::SetDevice { .. } => self.interfere(step),
            Step::Weather(weather) => self.network.weather = weather,
            Step::Kill => self.kill()?,
            Step::KillInTurn => self.kill_in_turn = true,
            Step::LosePower { seed } => self.lose_power(seed)?,
            Step::LosePowerAfter { changes, seed } => {
                self.device.disk.cut_power_after(changes);
                self.power_cut = Some(seed);
            }
            Step::Reboot { wall_error } => {
                self.device.set_wall_error(wall_error);
                self.lose_power(1)?;
            }
            Step::SetWall(error) => self.device.set_wall_error(error),
            Step::Room(room) => self.device.set_room(room),
            Step::DiskFails { sync, times } => {
                self.disk_is_bad = true;
                self.device.break_disk(sync, times);
            }
            Step::DiskHeals => self.heal_disk(),
            Step::Nudge => self.turn(vec![Job::Event(Event::Nudge)])?,
            Step::Network { online } => {
                let mode = if online {
                    NetworkMode::Online
                } else {
                    NetworkMode::Offline
                };
                self.turn(vec![Job::Event(Event::SetNetwork(mode))])?;
            }
            Step::Resolve { nth, waive } => self.resolve(nth, waive)?,
            Step::Forget { license } => self.forget(license)?,
            Step::TakeIn { license, now } => self.take_in(license, now)?,
        }
        self.check()
    }

    /// Whether the agent runs.
    pub(super) const fn is_running(&self) -> bool {
        self.device.engine().is_some()
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
            self.heard.clear();
        }
        match self.device.start() {
            Ok(commands) => {
                self.carry_out(commands);
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

    fn kill(&mut self) -> Result<(), Failure> {
        self.crashes += 1;
        self.device.kill();
        self.start()
    }

    pub(super) fn lose_power(&mut self, seed: u64) -> Result<(), Failure> {
        self.crashes += 1;
        self.power_cut = None;
        self.device.lose_power(seed);
        self.heard.clear();
        self.start()?;
        if self.is_running() {
            self.check_ledger()?;
        }
        Ok(())
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
            return self.lose_power(seed);
        }
        self.carry_out(commands);
        Ok(())
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.note(|| format!("-> {}", show_command(&command)));
            let purpose = match command {
                Command::Send {
                    batch,
                    key,
                    request,
                    ..
                } => {
                    let is_keyed = key.is_some();
                    let key = self.id_of(batch);
                    let counter = (license_id(&request.subject), request.feature.clone());
                    let seen = self.heard.get(&counter).copied().unwrap_or(0);
                    self.unseen_since.entry(key.clone()).or_insert(seen);
                    Purpose::Send {
                        batch,
                        key,
                        is_keyed,
                        request,
                    }
                }
                Command::LookUp { license, subject } => Purpose::LookUp { license, subject },
                Command::FindPrefix { .. } => continue,
            };
            let Some(engine) = self.device.engine() else {
                continue;
            };
            let mono = engine.now().mono;
            let dated = lock(&engine.clock()).corrected(mono);
            // Where no keys are kept, a request that arrives twice is beyond any client.
            let may_repeat = self.server.keeps_keys;
            let sent = (purpose, self.process, dated);
            self.network
                .send(self.now, sent, may_repeat, &mut self.random);
        }
    }

    /// The id of a batch: what the server counts it under in truth, whether it is told or not.
    fn id_of(&self, batch: BatchNo) -> String {
        let engine = self.device.engine();
        let batch = engine.and_then(|engine| engine.core().book().batch(batch));
        let sealed = batch.and_then(|batch| batch.sealed.as_ref());
        sealed
            .map(|sealed| sealed.id.to_string())
            .unwrap_or_default()
    }

    /// Time passes, and what is due happens.
    pub(super) fn pass(&mut self, time: Instant) -> Result<(), Failure> {
        let until = self.now + time;
        let most = self.turns + TURNS_MAX + (time / TURN_INTERVAL).unsigned_abs();
        loop {
            if self.turns > most {
                return Err("the agent is busy without end".to_owned());
            }
            let wakeup = self.device.wakeup().map(|at| at.max(self.now));
            let next = [self.network.next(), wakeup].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= until) else {
                break;
            };
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
                if !self.is_running() {
                    break;
                }
            }
            self.check_sums()?;
        }
        self.set_now(until);
        Ok(())
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.device.set_now(now);
    }

    /// An answer reaches the agent, if the process that asked still runs.
    fn hear(&mut self, message: &Message, heard: Heard) -> Result<(), Failure> {
        self.note(|| format!("<- {}", show_heard(message, &heard)));
        let Some(engine) = self
            .device
            .engine()
            .filter(|_| message.process == self.process)
        else {
            return Ok(());
        };
        if let (Exchange::Answer(answer), Some(date)) = (&heard.exchange, heard.date)
            && answer.is_contractual()
        {
            let mono = engine.now().mono;
            let took = Duration::from_millis((self.now - message.sent_at).unsigned_abs());
            let accepted = !answer.refuses(ErrorCode::DateHeaderDiff);
            lock(&engine.clock()).correct(date, took, mono, accepted);
        }
        let event = match &message.purpose {
            Purpose::Send { batch, request, .. } => {
                let outcome = of_send(heard.exchange, request.feature.is_some(), None);
                let key = match &outcome {
                    SendOutcome::Unknown(..) | SendOutcome::Unreached(_) => KeyEcho::NoAnswer,
                    _ => heard.echo,
                };
                if matches!(outcome, SendOutcome::Applied(_)) && key != KeyEcho::Replayed {
                    let counter = (license_id(&request.subject), request.feature.clone());
                    self.heard.insert(counter, heard.made_at);
                }
                Event::Answered {
                    batch: *batch,
                    outcome,
                    key,
                }
            }
            Purpose::LookUp { license, subject } => {
                let outcome = of_look_up(heard.exchange, subject, None);
                let key = match &outcome {
                    LookUpOutcome::Found(_) => heard.echo,
                    _ => KeyEcho::NoAnswer,
                };
                if let LookUpOutcome::Found(found) = &outcome {
                    self.heard_of(found, heard.made_at);
                }
                let hardware_id = subject.hardware_id.clone();
                Event::LookedUp {
                    license: *license,
                    hardware_id,
                    outcome,
                    key,
                }
            }
        };
        self.turn(vec![Job::Event(event)])
    }

    pub(super) fn heard_of(&mut self, found: &LicenseFound, made_at: Instant) {
        let id = found.body.counter.id;
        self.heard.insert((id, None), made_at);
        for feature in &found.body.product_features {
            self.heard.insert((id, Some(feature.code.clone())), made_at);
        }
    }
}

fn license_id(subject: &Subject) -> i64 {
    let no = subject
        .holder
        .value()
        .trim_start_matches("KEY-")
        .parse::<i64>();
    no.unwrap_or(-1) + 1
}

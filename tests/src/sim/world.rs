//! A world: applications, a device, a network, a server and what others do; moved on step by step.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tally_agent::{
    core::{
        Decision, LateUsage, Policy, UndecidablePolicy,
        book::{BatchNo, BatchState, Hold},
        chain::Hash,
        command::Command,
        event::{Event, KeyEcho},
        link::NetworkMode,
        outcome::{Exchange, LicenseFound, LookUpOutcome, SendOutcome, of_look_up, of_send},
    },
    ledger::{
        Keeping,
        answers::RequestKey,
        engine::{Job, RecordError, RecordJob, Recording, ResolveJob, lock},
    },
};
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, LicenseBody, Subject},
};
use tokio::sync::oneshot;

use super::{
    device::Device,
    network::{Heard, LATEST, Message, Network, Purpose},
    plan::{Asked, FOREIGN, Known, Setup, Step, Weather},
    server::{self, Counter, DeviceState, Instant, License, PRODUCT, Server},
};

/// The device's id.
const HARDWARE: &str = "device";

/// So many turns, and one more for each of these intervals, are no busy loop.
const TURNS_MAX: u64 = 500;
const TURN_INTERVAL: Instant = 10_000;

/// What went wrong.
pub(super) type Failure = String;

/// A world.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) device: Device,
    network: Network,
    random: StdRng,
    pub(super) now: Instant,
    process: u64,
    pub(super) asked: Vec<Asked>,
    /// When the server last said of a counter what the agent knows.
    heard: BTreeMap<(i64, Option<String>), Instant>,
    /// For each key, from when on others may have disturbed its counter unseen.
    pub(super) unseen_since: BTreeMap<String, Instant>,
    kill_in_turn: bool,
    power_cut: Option<u64>,
    disk_is_bad: bool,
    /// What happened, for people.
    pub(super) trace: Vec<String>,
    /// Whether that is noted at all: it takes longer than what it tells of.
    pub(super) is_traced: bool,
    /// How many turns the agent took.
    pub(super) turns: u64,
    /// How often it was killed, or lost its power.
    pub(super) crashes: u64,
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
            heard: BTreeMap::new(),
            unseen_since: BTreeMap::new(),
            kill_in_turn: false,
            power_cut: None,
            disk_is_bad: false,
            trace: Vec::new(),
            is_traced: false,
            turns: 0,
            crashes: 0,
        }
    }

    /// Starts the agent and makes the licences known to it.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.start()?;
        for license in 0..self.server.licenses.len() {
            self.add_license(license)?;
        }
        Ok(())
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
                self.server.licenses[license].enabled = enabled
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
        }
        self.check()
    }

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

    /// Whether the agent runs.
    pub(super) const fn is_running(&self) -> bool {
        self.device.engine().is_some()
    }

    /// Adds to the trace.
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced {
            let text = text();
            self.trace.push(format!("{:>12} {text}", self.now));
        }
    }

    // === the agent ===

    fn start(&mut self) -> Result<(), Failure> {
        self.process += 1;
        match self.device.start() {
            Ok(commands) => {
                self.carry_out(commands);
                self.check_ledger()
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

    fn lose_power(&mut self, seed: u64) -> Result<(), Failure> {
        self.crashes += 1;
        self.power_cut = None;
        self.device.lose_power(seed);
        self.start()
    }

    fn heal_disk(&mut self) {
        self.disk_is_bad = false;
        self.device.disk.heal();
    }

    /// Lets the agent take jobs, unless it dies of it.
    fn turn(&mut self, jobs: Vec<Job>) -> Result<(), Failure> {
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
                    let key = key.to_string();
                    let counter = (license_id(&request.subject), request.feature.clone());
                    let seen = self.heard.get(&counter).copied().unwrap_or(0);
                    self.unseen_since.entry(key.clone()).or_insert(seen);
                    Purpose::Send {
                        batch,
                        key,
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

    /// Time passes, and what is due happens.
    fn pass(&mut self, time: Instant) -> Result<(), Failure> {
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

    fn heard_of(&mut self, found: &LicenseFound, made_at: Instant) {
        let id = found.body.counter.id;
        self.heard.insert((id, None), made_at);
        for feature in &found.body.product_features {
            self.heard.insert((id, Some(feature.code.clone())), made_at);
        }
    }

    // === people ===

    fn add_license(&mut self, license: usize) -> Result<(), Failure> {
        let subject = Subject::by_key(PRODUCT, &self.server.licenses[license].key, HARDWARE);
        let answer = self
            .server
            .check(self.now, &subject, server::date(self.now));
        let Ok(body) = serde_json::from_slice::<LicenseBody>(&answer.raw.body) else {
            return Ok(());
        };
        let found = LicenseFound { subject, body };
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let asked_at = engine.now().mono;
        lock(&engine.clock()).correct(answer.date, Duration::ZERO, asked_at, false);
        self.heard_of(&found, answer.made_at);
        let (reply, _) = oneshot::channel();
        self.turn(vec![Job::Learn(
            Box::new(found),
            asked_at,
            answer.echo,
            reply,
        )])
    }

    /// Applications ask for these requests, all at once.
    fn ask(&mut self, numbers: &[usize]) -> Result<(), Failure> {
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
                request: Box::new(self.request(asked)),
                key: asked.key.as_ref().map(|key| RequestKey {
                    key: key.clone(),
                    fingerprint: Hash([7; 32]),
                }),
                reply,
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

    fn request(&self, asked: &Asked) -> AddConsumption {
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

    fn consume_elsewhere(&mut self, (license, counter): (usize, usize), units: i64) {
        let now = self.now;
        let counter = &mut self.server.licenses[license].counters[counter];
        counter.roll(now);
        if counter.fits(units) {
            counter.total += units;
            counter.foreign.push(now);
        }
    }

    fn edit(&mut self, (license, counter): (usize, usize), change: impl FnOnce(&mut Counter)) {
        let now = self.now;
        let counter = &mut self.server.licenses[license].counters[counter];
        counter.roll(now);
        change(counter);
        counter.foreign.push(now);
    }

    /// Somebody who knows the truth decides about a held batch.
    fn resolve(&mut self, nth: usize, waive: bool) -> Result<(), Failure> {
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
        let Some((batch, hold, key)) = held.get(nth).cloned() else {
            return Ok(());
        };
        let is_counted = key.is_some_and(|key| self.server.counted.contains_key(&key));
        let decision = match hold {
            Hold::Undecidable if is_counted => Decision::Applied,
            Hold::Undecidable => Decision::NotApplied,
            _ if waive => Decision::Waive,
            _ => Decision::Resend,
        };
        self.note(|| format!("decided: batch {} {decision:?}", batch.0));
        let (reply, _) = oneshot::channel();
        let reason = Some("simulated".to_owned());
        self.turn(vec![Job::Resolve(ResolveJob {
            batch,
            decision,
            reason,
            reply,
        })])
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

fn license_id(subject: &Subject) -> i64 {
    let no = subject
        .holder
        .value()
        .trim_start_matches("KEY-")
        .parse::<i64>();
    no.unwrap_or(-1) + 1
}

fn show_command(command: &Command) -> String {
    match command {
        Command::Send {
            batch,
            key,
            request,
            ..
        } => format!(
            "send batch {} ({} {:?}: {} units {:?}) under {key}",
            batch.0,
            request.subject.holder.value(),
            request.feature,
            request.units,
            request.setting
        ),
        Command::LookUp { subject, .. } => format!("look {} up", subject.holder.value()),
        Command::FindPrefix { batch, .. } => format!("find what fits of batch {}", batch.0),
    }
}

fn show_heard(message: &Message, heard: &Heard) -> String {
    let what = match &message.purpose {
        Purpose::Send { batch, .. } => format!("batch {}", batch.0),
        Purpose::LookUp { subject, .. } => subject.holder.value().to_owned(),
    };
    let answer = match &heard.exchange {
        Exchange::Answer(answer) => {
            let body = String::from_utf8_lossy(&answer.body);
            let short = match serde_json::from_str::<serde_json::Value>(&body) {
                Ok(body) => [
                    "code",
                    "max_consumptions",
                    "total_consumptions",
                    "product_features",
                ]
                .into_iter()
                .filter_map(|name| Some(format!("{name} {}", body.get(name)?)))
                .collect::<Vec<_>>()
                .join(", "),
                Err(_) => format!("{} bytes", body.len()),
            };
            format!("{} {short}", answer.status)
        }
        Exchange::NotSent(why) | Exchange::NoAnswer(why) => why.clone(),
    };
    let from = message.process;
    format!("{what} of process {from}: {answer} ({:?})", heard.echo)
}

fn show_answer(answer: Option<&Recording>) -> String {
    match answer {
        None => "no answer".to_owned(),
        Some(Ok(answer)) => format!("{} {}", answer.status, answer.body),
        Some(Err(error)) => error.to_string(),
    }
}

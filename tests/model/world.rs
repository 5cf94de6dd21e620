//! The world: the agent's real core, its disk, the server, and the network between them.

use std::{fmt::Debug, time::Duration};

use tally_agent::core::{
    Core, LateUsage, Policy,
    book::{AppNo, BatchNo, Book, LaneNo},
    clock::Moment,
    command::Command,
    event::Event,
};
use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent},
};

use crate::{
    disk::Disk,
    facts::Resolved,
    network::{Exchange, LICENSE, Stray, found, subject},
    server::{Request, Server},
    setup::{Budget, Setup},
};

/// How long a request may still be on its way after the agent gave up on it. Three of the readings by which a total is followed
/// fit in it: each more of them multiplies the states.
pub(crate) const SETTLE_WAIT: Duration = Duration::from_secs(6);

/// How long rows wait for company.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// How often the licence is read while nothing else happens.
pub(crate) const REFRESH_INTERVAL: Duration = Duration::from_hours(1);

/// What [`Action::Minute`] takes: more than the minute for which the core counts a total as fresh.
pub(crate) const MINUTE: Duration = Duration::from_secs(61);

/// What [`Action::Refresh`] takes: the shortest time that the clock shows.
const MOMENT: Duration = Duration::from_nanos(1);

/// When the ledger's writer tries again after a commit failed.
const RETRY_STORAGE: Duration = Duration::from_secs(1);

/// A step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// An application records the next row.
    Record,
    /// Time jumps to when the core wants to be woken.
    Wait,
    /// A minute passes in which nobody does anything.
    Minute,
    /// What the agent sent reaches the server; the answer is under way.
    Arrive,
    /// The answer reaches the agent.
    Answer,
    /// The agent gives up on what it sent: a request that has not arrived may arrive late or never.
    Lose,
    /// No connection came about, and the agent knows.
    Refuse,
    /// A request that the agent gave up on reaches the server after all.
    ArriveLate(usize),
    /// The agent's process ends and starts again.
    Crash,
    /// The other device adds its units.
    Other,
    /// The next commit will fail.
    FillDisk,
    /// Somebody asks to sync now.
    Nudge,
    /// Somebody else's reading of the licence begins; the server is asked at once.
    Refresh,
    /// Its answer reaches the agent.
    Refreshed,
}

/// All that does not end with the agent's process.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) now: Moment,
    pub(crate) disk: Disk,
    /// What a disk that lies still has after the process ends.
    stale_disk: Option<Box<Disk>>,
    pub(crate) server: Server,
    pub(crate) strays: Vec<Stray>,
    pub(crate) budget: Budget,
    /// Whether the core ever had two requests under way.
    pub(crate) overlapped: bool,
}

/// The agent's process, and everything outside of it.
pub(crate) struct World<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) core: Core,
    pub(crate) outside: Outside,
    pub(crate) exchange: Option<Exchange>,
    /// When somebody else's reading of the licence was asked for, and what the server said.
    pub(crate) refresh: Option<(Duration, i64)>,
    /// Facts whose commit failed.
    pub(crate) kept: Vec<Event>,
    pub(crate) disk_is_full: bool,
    /// The numbers of batches and lanes that went with the commits that failed: they are not used again.
    pub(crate) lost_numbers: Vec<(Option<BatchNo>, Option<LaneNo>)>,
    pub(crate) resolved: Resolved,
}

impl Outside {
    /// What a disk that lies would show after a crash.
    pub(crate) fn stale_facts(&self) -> Option<impl Debug + '_> {
        self.stale_disk.as_deref().map(Disk::facts)
    }

    /// The world before the agent first starts.
    pub(crate) fn new(setup: &Setup) -> Self {
        let start = if setup.turns { "23:59:30" } else { "12:00:00" };
        let time = Timestamp::parse(&format!("2026-11-23T{start}Z")).expect("a time");
        Self {
            now: Moment {
                time,
                proven: true,
                mono: Duration::from_secs(1),
            },
            disk: Disk::default(),
            stale_disk: None,
            server: Server::new(setup, time),
            strays: Vec::new(),
            budget: setup.budget,
            overlapped: false,
        }
    }

    /// Time passes. Where the network keeps its promise, what was given up on long ago is gone.
    fn pass(&mut self, setup: &Setup, time: Duration) {
        self.now.mono += time;
        self.now.time = self.now.time.plus(time);
        if !setup.arrives_at_any_time {
            let now = self.now.mono;
            self.strays.retain(|stray| now < stray.since + SETTLE_WAIT);
        }
    }
}

impl<'a> World<'a> {
    /// Starts the agent on what the disk holds; where that is nothing, the licence is added.
    pub(crate) fn start(setup: &'a Setup, outside: Outside) -> Self {
        let policy = Policy {
            sync_interval: SYNC_INTERVAL,
            settle_wait: SETTLE_WAIT,
            refresh_interval: REFRESH_INTERVAL,
            late_usage: LateUsage::Report,
            undecidable: setup.policy,
        };
        let book = Book::new(outside.disk.contents());
        let core = Core::new(
            book,
            policy,
            Box::new(|| 0),
            outside.now,
            ("server".to_owned(), "peer".to_owned()),
        );
        let mut world = Self {
            setup,
            core,
            outside,
            exchange: None,
            refresh: None,
            kept: Vec::new(),
            disk_is_full: false,
            lost_numbers: Vec::new(),
            resolved: Resolved::Nothing,
        };
        if world.core.book().license(LICENSE).is_none() {
            world.learn(world.outside.now.mono, 0);
        }
        world.tell(Event::Tick);
        world
    }

    /// Ends the process: what it had under way, nobody waits for any more.
    pub(crate) fn crash(self) -> Outside {
        let mut outside = self.outside;
        outside.budget.crashes -= 1;
        if let Some(Exchange::Send(request, None)) = self.exchange {
            let since = outside.now.mono;
            outside.strays.push(Stray { request, since });
        }
        if let Some(stale) = outside.stale_disk.take() {
            outside.disk = *stale;
        }
        outside
    }

    /// Takes a step other than [`Action::Crash`].
    pub(crate) fn step(&mut self, action: Action) {
        let unknown = self.unknown();
        self.take(action);
        self.resolved = self.became_of(unknown);
    }

    fn take(&mut self, action: Action) {
        let now = self.outside.now;
        let budget = &mut self.outside.budget;
        match action {
            Action::Record => self.record(),
            Action::Wait => {
                let until = self.wakeup().unwrap_or(now.mono);
                let time = until.saturating_sub(now.mono);
                self.outside.pass(self.setup, time);
                self.tell(Event::Tick);
            }
            Action::Minute => {
                budget.minutes -= 1;
                self.outside.pass(self.setup, MINUTE);
            }
            Action::Arrive => self.arrive(),
            Action::Answer => self.answer(),
            Action::Lose => {
                budget.losses -= 1;
                self.lose();
            }
            Action::Refuse => {
                budget.refusals -= 1;
                self.refuse();
            }
            Action::ArriveLate(at) => {
                let stray = self.outside.strays.remove(at);
                self.outside.server.add(now.time, &stray.request);
            }
            // Needs another core: see `crash`.
            Action::Crash => {}
            Action::Other => {
                budget.others -= 1;
                let units = self.setup.others_units;
                self.outside.server.add_for_other(now.time, units);
            }
            Action::FillDisk => {
                budget.full_disks -= 1;
                self.disk_is_full = true;
            }
            Action::Nudge => {
                budget.nudges -= 1;
                self.tell(Event::Nudge);
            }
            Action::Refresh => {
                budget.refreshes -= 1;
                let total = self.outside.server.total(now.time);
                self.refresh = Some((now.mono, total));
                // What follows is heard of later than this was asked.
                self.outside.pass(self.setup, MOMENT);
            }
            Action::Refreshed => {
                if let Some((asked_at, total)) = self.refresh.take() {
                    self.learn(asked_at, total);
                    self.tell(Event::Tick);
                }
            }
        }
    }

    /// How far ahead a time on the monotonic clock is; nothing where it is over.
    pub(crate) fn ahead(&self, at: Duration) -> Duration {
        at.saturating_sub(self.outside.now.mono)
    }

    /// When the writer would wake the core.
    pub(crate) fn wakeup(&self) -> Option<Duration> {
        let now = self.outside.now;
        let wakeup = self.core.next_wakeup(now);
        if self.kept.is_empty() {
            return wakeup;
        }
        let retry = now.mono + RETRY_STORAGE;
        Some(wakeup.map_or(retry, |at| at.min(retry)))
    }

    // === the agent's writer ===

    fn record(&mut self) {
        let next = self.outside.disk.rows.len();
        let request = AddConsumption {
            subject: subject(),
            feature: None,
            units: Units::new(self.setup.rows[next]),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        };
        // A refusal for the limit records nothing: the application was told so.
        let _ = self.core.record(self.outside.now, AppNo(1), &request);
        self.commit(Vec::new(), Vec::new());
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let mut events = std::mem::take(&mut self.kept);
        events.push(event);
        let mut orders = Vec::new();
        for event in events.clone() {
            orders.extend(self.handle(event));
        }
        events.retain(|event| !matches!(event, Event::Tick));
        self.commit(events, orders);
    }

    fn handle(&mut self, event: Event) -> Vec<Command> {
        let now = self.outside.now;
        let mut orders = Vec::new();
        for order in self.core.handle(now, event) {
            let Command::FindPrefix {
                batch,
                lane,
                first,
                last,
                room,
            } = order
            else {
                orders.push(order);
                continue;
            };
            let prefix = self.outside.disk.find_prefix(lane, (first, last), room);
            orders.extend(self.handle(Event::PrefixFound {
                batch,
                room,
                prefix,
            }));
        }
        orders
    }

    fn learn(&mut self, asked_at: Duration, total: i64) {
        let found = found(self.setup, total);
        let echo = self.outside.server.echo();
        self.core.learn(self.outside.now, &found, asked_at, echo);
        self.commit(Vec::new(), Vec::new());
    }

    /// Commits, and only then releases the orders; or takes all of it back.
    fn commit(&mut self, events: Vec<Event>, orders: Vec<Command>) {
        if self.disk_is_full && self.core.book().has_changes() {
            self.disk_is_full = false;
            let book = self.core.book();
            let batch = book.changed_batches().map(|batch| batch.no).max();
            let lane = book.new_lanes().map(|lane| lane.no).max();
            self.lost_numbers.push((batch, lane));
            self.core.roll_back(&orders);
            self.kept = events;
            return;
        }
        let sends = orders
            .iter()
            .any(|order| matches!(order, Command::Send { .. }));
        if self.setup.disk_lies && sends {
            self.outside.stale_disk = Some(Box::new(self.outside.disk.clone()));
        }
        self.outside.disk.write(self.core.book());
        self.core.book_mut().committed();
        for order in orders {
            self.release(order);
        }
    }

    fn release(&mut self, order: Command) {
        self.outside.overlapped |= self.exchange.is_some();
        self.exchange = match order {
            Command::Send { batch, request, .. } => {
                let disk = &self.outside.disk;
                let covered = &disk.batches[&batch];
                let rows = disk.rows_of(covered.lane, (covered.first, covered.last));
                let request = Request {
                    batch,
                    rows: rows.map(|row| disk.index(row.seq)).collect(),
                    units: request.units.get(),
                };
                Some(Exchange::Send(request, None))
            }
            Command::LookUp { subject, .. } => Some(Exchange::LookUp(subject, None)),
            Command::FindPrefix { .. } => None,
        };
    }
}

//! Several devices and one server: what becomes of lost answers where a licence is shared, and of many devices
//! that were started from one disk.

use std::collections::{BTreeMap, VecDeque};

use rand::{SeedableRng as _, rngs::StdRng};
use tally_agent::core::book::{BatchState, Hold};

use super::{
    asked::Wish,
    habits::{Consumer, Habit},
    plan::{Between, More, Setup, Weather},
    server::{Instant, Server},
    truth::Rows,
    world::{Failure, World},
};

/// How many devices share a licence, and how many answers they lose.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// The devices.
    pub devices: u32,
    /// Set where the server says how many devices are activated.
    pub says_devices: bool,
    /// How they consume.
    pub habit: Habit,
    /// For how long they consume, in seconds.
    pub seconds: u32,
    /// How many answers are cut off, in percent.
    pub lost: u8,
    /// How many requests are cut off before they are through, in percent.
    pub lost_before: u8,
    /// What makes the run its own.
    pub seed: u64,
}

/// What became of lost answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared {
    /// Units that were granted.
    pub granted: i64,
    /// Units of them that the server counted.
    pub counted: i64,
    /// Requests to the server.
    pub requests: usize,
    /// Batches whose outcome was unknown at some time.
    pub doubted: usize,
    /// Of these, those that were found to be counted, rightly.
    pub applied: usize,
    /// Those that were found not to be counted, rightly.
    pub not_applied: usize,
    /// Those that were found to be counted and are not: others added exactly as many units.
    pub coincidences: usize,
    /// Those that were found not to be counted and are.
    pub wrong: usize,
    /// Those that a person must decide about, and their units.
    pub undecidable: (usize, i64),
    /// Those that are still unknown.
    pub open: usize,
    /// The most requests of one device in ten seconds.
    pub most_at_once: usize,
}

impl Shared {
    /// How many were decided, or given to a person.
    pub const fn verdicts(&self) -> usize {
        self.doubted - self.open
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.counted += other.counted;
        self.requests += other.requests;
        self.doubted += other.doubted;
        self.applied += other.applied;
        self.not_applied += other.not_applied;
        self.coincidences += other.coincidences;
        self.wrong += other.wrong;
        self.undecidable.0 += other.undecidable.0;
        self.undecidable.1 += other.undecidable.1;
        self.open += other.open;
        self.most_at_once = self.most_at_once.max(other.most_at_once);
    }
}

/// What became of many devices that were started from one disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned {
    /// Units that were owed on the disk.
    pub owed: i64,
    /// Units that the server counted.
    pub counted: i64,
    /// Devices that take all of it as settled.
    pub settled: usize,
    /// Devices that hold some of it.
    pub held: usize,
    /// The others.
    pub open: usize,
    /// Requests to the server.
    pub requests: usize,
    /// The most of them in any ten seconds.
    pub most_at_once: usize,
}

/// Devices that use one server.
struct Fleet {
    server: Server,
    members: Vec<World>,
    now: Instant,
    sent: VecDeque<Instant>,
    most_at_once: usize,
}

/// Batches whose outcome is unknown: the device, the batch's id, its rows and its units.
type Doubts = BTreeMap<(usize, String), (Vec<Rows>, i64)>;

fn setup(keeps_keys: bool, elsewhere: Option<usize>) -> Setup {
    Setup {
        keeps_keys,
        holds_late: false,
        retention: 90 * 86_400_000,
        wall_error: 0,
        licenses: vec![vec![(1_000_000_000, None, 0, false)]],
        known: 1,
        more: More {
            copies: true,
            elsewhere,
            ..More::default()
        },
    }
}

impl Fleet {
    fn new(server: Server, members: Vec<World>) -> Self {
        Self {
            server,
            members,
            now: 0,
            sent: VecDeque::new(),
            most_at_once: 0,
        }
    }

    /// Lets a member do something with the server.
    fn with<T>(&mut self, no: usize, act: impl FnOnce(&mut World) -> T) -> T {
        let member = &mut self.members[no];
        std::mem::swap(&mut self.server, &mut member.server);
        let before = member.network.sent();
        member.set_now(self.now);
        let done = act(member);
        let sent = member.network.sent() - before;
        std::mem::swap(&mut self.server, &mut member.server);
        self.sent.extend(std::iter::repeat_n(self.now, sent));
        while self.sent.front().is_some_and(|at| *at <= self.now - 10_000) {
            self.sent.pop_front();
        }
        self.most_at_once = self.most_at_once.max(self.sent.len());
        done
    }

    /// Time passes, and what is due happens, each time followed by a look.
    fn pass(
        &mut self,
        time: Instant,
        mut look: impl FnMut(&mut Self, usize),
    ) -> Result<(), Failure> {
        let until = self.now + time;
        loop {
            let members = self.members.iter().enumerate();
            let next = members.filter_map(|(no, member)| Some((member.next()?, no)));
            let Some((at, no)) = next.min().filter(|(at, _)| *at <= until) else {
                break;
            };
            self.now = at.max(self.now);
            let now = self.now;
            self.with(no, |member| member.happen(now, until))?;
            look(self, no);
        }
        self.now = until;
        Ok(())
    }

    fn requests(&self) -> usize {
        self.members
            .iter()
            .map(|member| member.network.sent())
            .sum()
    }

    fn recorded(&self) -> i64 {
        let books = self
            .members
            .iter()
            .filter_map(|member| member.device.engine());
        let accounts = books.flat_map(|engine| {
            let book = engine.core().book();
            let licenses = book.licenses().map(|license| license.no);
            let accounts = licenses.flat_map(|no| book.accounts_of(no));
            accounts
                .map(|account| account.recorded.get())
                .collect::<Vec<_>>()
        });
        accounts.sum()
    }

    fn counted(&self) -> i64 {
        let all = self.server.store.truth.all();
        all.map(|found| found.rows.units * found.times).sum()
    }
}

/// Devices that share a licence of a server without keys, and lose answers.
///
/// # Errors
///
/// What does not hold.
pub fn share(sharing: Sharing) -> Result<Shared, Failure> {
    let mut random = StdRng::seed_from_u64(sharing.seed);
    let others = usize::try_from(sharing.devices).unwrap_or(usize::MAX) - 1;
    let setup = setup(false, sharing.says_devices.then_some(others));
    let server = World::new(0, &setup).server;
    let members = (0..sharing.devices).map(|no| {
        let mut member = World::new(sharing.seed * 1000 + u64::from(no) + 1, &setup);
        member.life.lineage = member.life.lineage.branch(0, no + 1);
        member.lives = sharing.devices + 1;
        member
    });
    let mut fleet = Fleet::new(server, members.collect());
    let between = Between {
        cut_before: sharing.lost_before,
        cut_after: sharing.lost,
        ..Between::default()
    };
    for no in 0..fleet.members.len() {
        fleet.with(no, World::begin)?;
        fleet.members[no].network.between = between;
    }
    let (mut doubts, mut shared) = (Doubts::new(), Shared::default());
    let end = fleet.now + i64::from(sharing.seconds) * 1000;
    let now = fleet.now;
    let consumers = fleet.members.iter();
    let consumers = consumers.map(|_| Consumer::draw(sharing.habit, now, &mut random));
    let mut consumers: Vec<Consumer> = consumers.collect();
    loop {
        let next = consumers.iter().enumerate();
        let next = next.min_by_key(|(_, consumer)| consumer.next_at);
        let Some((no, at)) = next.map(|(no, consumer)| (no, consumer.next_at)) else {
            break;
        };
        let wait = at.min(end) - fleet.now;
        fleet.pass(wait.max(0), |fleet, no| {
            judge(fleet, no, &mut doubts, &mut shared);
        })?;
        if at > end {
            break;
        }
        let wish = Wish::of((0, 0), consumers[no].consume(&mut random));
        fleet.with(no, |member| {
            member.wish(wish);
            member.ask(&[member.life.asked.len() - 1])
        })?;
    }
    for member in &mut fleet.members {
        member.network.between = Between::default();
    }
    fleet.pass(3_600_000, |fleet, no| {
        judge(fleet, no, &mut doubts, &mut shared);
    })?;
    shared.open = doubts.len();
    shared.most_at_once = fleet
        .members
        .iter()
        .map(|member| member.pace.most.1)
        .max()
        .unwrap_or(0);
    shared.requests = fleet.requests();
    shared.granted = fleet.recorded();
    shared.counted = fleet.counted();
    Ok(shared)
}

/// Looks at what became of a member's batches whose outcome was unknown.
fn judge(fleet: &Fleet, no: usize, doubts: &mut Doubts, shared: &mut Shared) {
    let member = &fleet.members[no];
    let Some(engine) = member.device.engine() else {
        return;
    };
    let book = engine.core().book();
    let mut states = BTreeMap::new();
    for batch in book.batches() {
        let Some(sealed) = &batch.sealed else {
            continue;
        };
        let id = sealed.id.to_string();
        states.insert(id.clone(), (batch.state, sealed.doubtful));
        if matches!(batch.state, BatchState::Unknown { .. }) {
            let key = (no, id);
            doubts.entry(key).or_insert_with(|| {
                shared.doubted += 1;
                (member.rows_of(batch), batch.units.get())
            });
        }
    }
    let truth = &fleet.server.store.truth;
    doubts.retain(|(of, id), (rows, units)| {
        if *of != no {
            return true;
        }
        let is_counted = truth.has(rows);
        match states.get(id) {
            Some((BatchState::Held(Hold::Undecidable), _)) => {
                shared.undecidable.0 += 1;
                shared.undecidable.1 += *units;
            }
            Some((_, true)) => return true,
            Some(_) if is_counted => shared.wrong += 1,
            Some(_) => shared.not_applied += 1,
            None if is_counted => shared.applied += 1,
            None => shared.coincidences += 1,
        }
        false
    });
}

/// Devices that are started from the disk of one that owes something.
///
/// # Errors
///
/// What does not hold.
pub fn clones(count: u32, keeps_keys: bool, seed: u64) -> Result<Cloned, Failure> {
    let setup = setup(keeps_keys, None);
    let mut first = World::new(seed, &setup);
    first.begin()?;
    first.pass(60_000)?;
    first.network.weather = Weather {
        unreached: 100,
        ..Weather::default()
    };
    for units in 1..=10 {
        first.wish(Wish::of((0, 0), units));
        first.ask(&[first.life.asked.len() - 1])?;
        first.pass(20_000)?;
    }
    first.kill()?;
    first.take_snapshot();
    let owed = 55;
    let members = (1..=count).map(|no| first.clone_device(World::new(seed, &setup), no));
    let members: Vec<World> = members.collect();
    let mut fleet = Fleet::new(first.server.clone(), members);
    fleet.now = first.now;
    for no in 0..fleet.members.len() {
        fleet.with(no, World::start)?;
    }
    fleet.pass(3_600_000, |_, _| {})?;
    let mut cloned = Cloned {
        owed,
        counted: fleet.counted(),
        requests: fleet.requests(),
        most_at_once: fleet.most_at_once,
        ..Cloned::default()
    };
    for member in &fleet.members {
        let Some(engine) = member.device.engine() else {
            continue;
        };
        let states: Vec<BatchState> = engine
            .core()
            .book()
            .batches()
            .map(|batch| batch.state)
            .collect();
        let is_held = |state: &BatchState| matches!(state, BatchState::Held(_));
        if states.is_empty() {
            cloned.settled += 1;
        } else if states.iter().any(is_held) {
            cloned.held += 1;
        } else {
            cloned.open += 1;
        }
    }
    Ok(cloned)
}

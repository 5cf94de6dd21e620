//! Taking work into the ledger: decide, commit, then answer. The writer's thread runs it; so does a
//! simulation, step by step.
//!
//! A turn decides each job against the book in memory, commits once, and only then answers and releases
//! the orders that follow. Where the commit fails, everything is put back, requests are answered with
//! [`RecordError::Storage`], and facts of the sync driver are kept and tried again: an answer of the
//! server must not be forgotten because the disk was full. On a full disk they take the space that was
//! reserved for them.

mod place;
mod upkeep;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::Connection;

pub use super::job::{
    Changing, Job, Learning, Membership, MembershipError, Pulse, Question, RecordError, RecordJob,
    Recording, Replies, Reply, Resolution, ResolveError, ResolveJob, Resolving, Turn,
};
use super::{
    Ended, Keeping, LedgerError,
    answers::{self, Answer},
    delivery::{Recipient, deliver},
    evidence::Evidence,
    fence::Fence,
    files::{Files, Place},
    instances::Instances,
    recovery,
    retention::Sweep,
    schema,
    storage::{Reserve, Storage},
    store,
};
use crate::{
    core::{
        Core, Policy, Random, Rejected,
        book::{AppNo, Book},
        chain::Hash,
        clock::{Clock, Moment},
        command::Command,
        event::Event,
        instance::Instance,
    },
    deps::Clocks,
};

/// When the disk failed, what must not be forgotten is tried again after this time, then after twice
/// that, and so on.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// But no later than this, so that it goes on soon after somebody made space.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// What waits is told this at the end, whatever the reason.
const STOPPING: RecordError = RecordError::Unavailable("the agent is stopping");

/// The corrected clock, shared by those who read and correct it.
pub type SharedClock = Arc<Mutex<Clock>>;

/// What an [`Engine`] is opened with.
pub struct Opening {
    /// The ledger.
    pub connection: Connection,
    /// The settings that decisions depend on.
    pub policy: Policy,
    /// How long the ledger keeps what is done with.
    pub keeping: Keeping,
    /// Random bits.
    pub random: Random,
    /// The device's clocks.
    pub clocks: Arc<dyn Clocks>,
    /// Space for what must be written on a full disk.
    pub reserve: Box<dyn Reserve>,
    /// What guards the ledger against changes from outside.
    pub evidence: Evidence,
    /// The ledger's files.
    pub files: Files,
    /// The place that the ledger lives at.
    pub instance: Instance,
    /// What names the server: see [`Core::new`].
    pub server: String,
    /// What stands for the server and the credentials together: see [`Core::new`].
    pub peer: String,
}

/// The core and its ledger.
pub struct Engine {
    connection: Connection,
    core: Core,
    clock: SharedClock,
    clocks: Arc<dyn Clocks>,
    keeping: Keeping,
    reserve: Box<dyn Reserve>,
    evidence: Evidence,
    fence: Fence,
    files: Files,
    instances: Instances,
    /// What was at the names of the files, when they were last looked at.
    place: Place,
    /// When they are looked at next, where nothing is written.
    look_at: Duration,
    /// When it is next tried to write the ledger back.
    write_back_at: Duration,
    written_back: u64,
    /// What is to be said in the ledger of itself, as soon as it can be written.
    notices: Vec<String>,
    /// Why nothing may be written any more.
    ended: Option<Ended>,
    storage: Storage,
    /// Whether the last commit failed.
    is_failing: bool,
    /// Whether the reserve is spent, so that only facts may be written.
    is_short: bool,
    /// Facts whose commit failed.
    kept: VecDeque<Event>,
    facts: u64,
    /// What there was to wait for after the last turn.
    pulse: Pulse,
    /// About how many pages the log has grown by since it was last copied back.
    logged: u64,
    sweep: Sweep,
    /// When the ledger is looked through next.
    sweep_at: Duration,
    /// When the reserve was last asked for.
    asked_at: Duration,
    /// How long the next retry waits.
    retry_wait: Duration,
}

/// What a group of jobs came to, before its commit.
#[derive(Default)]
struct Group {
    records: Vec<(Recipient, Recording)>,
    learned: Replies<Learning>,
    resolved: Replies<Resolving>,
    changed: Replies<Changing>,
    answers: HashMap<(AppNo, String), (Hash, Answer)>,
    /// Answered after the commit: nobody is told what is not on disk.
    questions: Vec<Question>,
    events: Vec<Event>,
    commands: Vec<Command>,
    /// Whether there may be something else to wait for than before. More rows of batches that are there
    /// change nothing of that.
    stirs: bool,
    stop: bool,
}

impl Engine {
    /// Takes up the work where the ledger left it.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] where the ledger cannot be read.
    pub fn open(opening: Opening) -> Result<Self, LedgerError> {
        let Opening {
            connection,
            policy,
            keeping,
            mut random,
            clocks,
            mut reserve,
            mut evidence,
            files,
            instance,
            server,
            peer,
        } = opening;
        // Before anything is read: from here on, nobody else writes.
        let fence = Fence::claim(&connection, &mut random)?;
        let instances = Instances::look(&connection, instance, files.path())?;
        let reading = clocks.reading();
        let saved = store::load_clock(&connection)?;
        let high_water = store::high_water(&connection)?;
        let mut clock = Clock::start(&reading, saved.as_ref(), high_water);
        let now = clock.now(reading.mono);
        let contents = store::load(&connection, evidence.key())?;
        // Written with the first turn, and again where that fails.
        let mut doubts = evidence.examine(&connection, &contents)?;
        instances.doubt(&mut doubts, (high_water, &contents));
        let book = Book::new(contents);
        if let Err(error) = reserve.take() {
            tracing::warn!(%error, "no space can be set aside for a full disk");
        }
        Ok(Self {
            connection,
            core: Core::new(book, policy, random, now, (server, peer)),
            clock: Arc::new(Mutex::new(clock)),
            clocks,
            keeping,
            reserve,
            evidence,
            fence,
            files,
            instances,
            place: Place::Same,
            look_at: Duration::ZERO,
            write_back_at: Duration::ZERO,
            written_back: 0,
            notices: Vec::new(),
            ended: None,
            storage: Storage::Ok,
            is_failing: false,
            is_short: false,
            kept: doubts.into_iter().map(Event::Doubted).collect(),
            facts: 0,
            pulse: Pulse::default(),
            logged: 0,
            sweep: Sweep::default(),
            sweep_at: Duration::ZERO,
            asked_at: Duration::ZERO,
            retry_wait: RETRY_MIN,
        })
    }

    /// The corrected clock, for those who sign requests and correct it.
    pub fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }

    /// Takes jobs into the ledger, with one commit for all.
    pub fn turn(&mut self, jobs: impl Iterator<Item = Job>) -> Turn {
        let now = self.now();
        let mut group = Group {
            stirs: self.is_failing || self.is_short || now.mono >= self.sweep_at,
            ..Group::default()
        };
        self.fold(now);
        self.regain(now);
        self.tell_notices(now);
        let kept: Vec<Event> = self.kept.drain(..).collect();
        for event in kept {
            self.take_event(now, event, &mut group);
        }
        for job in jobs {
            self.take(now, job, &mut group);
        }
        group.stirs |= self.core.book().has_structural_changes();
        let changed = group.stirs || self.core.book().has_changes();
        let failed = match self.commit(now, &group) {
            Ok(()) => None,
            Err(error) => {
                self.core.roll_back(&group.commands);
                group.commands.clear();
                group.stirs = true;
                self.fail(&error);
                let failed = match self.storage {
                    _ if self.ended.is_some() => STOPPING,
                    storage => RecordError::Storage(storage),
                };
                let may_write = match self.storage {
                    Storage::Full => self.spend_reserve(),
                    Storage::Gone => self.write_back(now),
                    Storage::Ok | Storage::Failing | Storage::Damaged => false,
                };
                if may_write {
                    self.commit_facts(now, &mut group);
                }
                self.kept.extend(group.events.drain(..));
                Some(failed)
            }
        };
        Turn {
            changed,
            ..self.finish(now, group, failed.as_ref())
        }
    }

    /// Whether there is something to [tidy](Self::tidy).
    pub const fn is_untidy(&self) -> bool {
        self.logged >= schema::CHECKPOINT_PAGES
    }

    /// Copies the log back into the ledger, where it has grown: in a moment of its own, so that no request
    /// waits for it that has been decided already.
    pub fn tidy(&mut self) {
        if !self.is_untidy() {
            return;
        }
        // What cannot be copied now can be later; until then the log grows.
        self.logged = 0;
        if let Err(error) = self.checkpoint("PASSIVE") {
            tracing::debug!(%error, "cannot copy the log back");
            self.meet(&error);
        }
    }

    /// The corrected time.
    pub fn now(&self) -> Moment {
        lock(&self.clock).now(self.clocks.reading().mono)
    }

    /// The core, to look at.
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// Keeps the clock's correction over a restart.
    pub fn save_clock(&mut self) {
        let clock = lock(&self.clock).save(&self.clocks.reading());
        if let Err(error) = self.transact(|connection| store::write_clock(connection, &clock)) {
            tracing::warn!(%error, "cannot save the clock's correction");
        }
    }

    fn take(&mut self, now: Moment, job: Job, group: &mut Group) {
        group.stirs |= !matches!(job, Job::Record(_) | Job::Ask(_));
        match job {
            Job::Record(job) => {
                let result = self.record(now, &job, group);
                group.records.push((job.recipient, result));
            }
            Job::Event(event) => {
                self.facts += u64::from(!matches!(event, Event::Tick));
                self.take_event(now, event, group);
            }
            Job::Learn(found, asked_at, key, reply) => {
                let license = self.core.learn(now, &found, asked_at, key);
                self.take_event(now, Event::Tick, group);
                group.learned.push((reply, Ok(license)));
            }
            Job::Resolve(job) => {
                let resolved = job.apply(&mut self.core, now);
                self.take_event(now, Event::Tick, group);
                group.resolved.push((job.reply, resolved));
            }
            Job::Membership(change, reply) => {
                let changed = change.apply(&mut self.core, now);
                self.take_event(now, Event::Tick, group);
                group.changed.push((reply, changed));
            }
            Job::App(name, reply) => {
                let found = self.transact(|connection| store::app_no(connection, &name));
                let found = found.map_err(|error| {
                    self.meet(&error);
                    RecordError::Storage(self.storage_of(&error))
                });
                let _ = reply.send(found);
            }
            Job::Settings(policy, keeping, peer) => {
                self.keeping = keeping;
                self.core.set_policy(now, policy);
                self.core.set_peer(peer);
                self.take_event(now, Event::Tick, group);
            }
            Job::Ask(question) => group.questions.push(question),
            Job::Stop => {
                self.core.close_batches();
                group.stop = true;
            }
        }
    }

    fn take_event(&mut self, now: Moment, event: Event, group: &mut Group) {
        if !matches!(event, Event::Tick) {
            group.events.push(event.clone());
        }
        let mut orders = VecDeque::from(self.core.handle(now, event));
        while let Some(order) = orders.pop_front() {
            let Command::FindPrefix {
                batch,
                lane,
                first,
                last,
                room,
            } = order
            else {
                group.commands.push(order);
                continue;
            };
            match store::find_prefix(&self.connection, lane, (first, last), room) {
                Ok(prefix) => {
                    let found = Event::PrefixFound {
                        batch,
                        room,
                        prefix,
                    };
                    orders.extend(self.core.handle(now, found));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot read the rows of a held batch");
                    self.meet(&error);
                }
            }
        }
    }

    fn record(&mut self, now: Moment, job: &RecordJob, group: &mut Group) -> Recording {
        if self.is_short || self.storage == Storage::Damaged {
            return Err(RecordError::Storage(self.storage));
        }
        if let Some(key) = &job.key {
            let earlier = match group.answers.get(&(job.app, key.key.clone())) {
                Some(found) => Some(found.clone()),
                None => answers::find(&self.connection, job.app, &key.key)
                    .map_err(|error| RecordError::Storage(Storage::of(&error)))?,
            };
            match earlier {
                Some((fingerprint, answer)) if fingerprint == key.fingerprint => {
                    return Ok(Answer {
                        replayed: true,
                        ..answer
                    });
                }
                Some(_) => return Err(RecordError::KeyReused),
                None => {}
            }
        }
        let answer = match self.core.record(now, job.app, &job.request) {
            Ok(recorded) => Answer::granted(&recorded),
            Err(Rejected::Refused(error)) => Answer::refused(&error),
            Err(Rejected::Unknown) => return Err(RecordError::Unknown),
        };
        if let Some(key) = &job.key {
            let remembered = (key.fingerprint, answer.clone());
            group.answers.insert((job.app, key.key.clone()), remembered);
        }
        Ok(answer)
    }

    fn commit(&mut self, now: Moment, group: &Group) -> rusqlite::Result<()> {
        if !self.core.book().has_changes() && group.answers.is_empty() {
            self.look_at_times(now, group)?;
            if group.stop {
                self.renew_record(now);
            }
            self.is_failing = false;
            return Ok(());
        }
        if self.storage == Storage::Damaged {
            // Nothing is written into what is damaged: it is salvaged as it is.
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                None,
            ));
        }
        self.instances.make_beside(now.mono);
        self.begin()?;
        let written = self.write(now, group).and_then(|()| {
            crate::fail_point!("turn.before-commit");
            self.execute("COMMIT")
        });
        if let Err(error) = written {
            self.take_back();
            return Err(error);
        }
        crate::fail_point!("turn.after-commit");
        let book = self.core.book();
        let (head, is_structural) = (book.head(), book.has_structural_changes());
        self.evidence.committed(head, is_structural);
        let generation = is_structural.then(|| self.evidence.generation());
        self.fence.committed(generation, head.0);
        self.notices.clear();
        self.instances.committed();
        self.logged += store::pages_of(book);
        self.core.book_mut().committed();
        self.is_failing = false;
        if !self.is_short {
            self.recovered();
        }
        Ok(())
    }

    fn write(&self, now: Moment, group: &Group) -> rusqlite::Result<()> {
        let book = self.core.book();
        self.fence.seal(&self.connection, book)?;
        self.instances.write(&self.connection)?;
        store::write_changes(&self.connection, book)?;
        self.evidence
            .write(&self.connection, book.has_structural_changes())?;
        for ((app, key), remembered) in &group.answers {
            let age = (now, self.keeping.answers);
            answers::remember(&self.connection, age, (*app, key), remembered)?;
        }
        if !(group.events.is_empty() && group.learned.is_empty()) {
            let clock = lock(&self.clock).save(&self.clocks.reading());
            store::write_clock(&self.connection, &clock)?;
        }
        Ok(())
    }

    /// Parsed once: these run in every turn.
    fn execute(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// What the server said is written alone, into the space that was kept for it.
    fn commit_facts(&mut self, now: Moment, group: &mut Group) {
        let mut facts = Group::default();
        self.tell_notices(now);
        for event in group.events.clone() {
            self.take_event(now, event, &mut facts);
        }
        match self.commit(now, &facts) {
            Ok(()) => {
                group.commands = facts.commands;
                group.events.clear();
            }
            Err(error) => {
                self.core.roll_back(&facts.commands);
                self.fail(&error);
            }
        }
    }

    /// Answers, and gives the orders out.
    fn finish(&mut self, now: Moment, group: Group, failed: Option<&RecordError>) -> Turn {
        let answers = group.records.into_iter().map(|(recipient, result)| {
            let failed = failed.map(|error| Err(error.clone()));
            (recipient, failed.unwrap_or(result))
        });
        deliver(answers);
        answer(group.learned, failed);
        answer(group.resolved, failed);
        answer(group.changed, failed);
        for question in group.questions {
            question(&self.core, now);
        }
        if group.stirs {
            self.pulse = self.next_pulse(now);
        }
        Turn {
            commands: group.commands,
            stop: group.stop,
            ended: self.ended.clone(),
            changed: group.stirs,
            pulse: self.pulse,
        }
    }

    fn next_pulse(&self, now: Moment) -> Pulse {
        let must_retry = self.is_failing || self.is_short;
        let retry = must_retry.then(|| now.mono.saturating_add(self.retry_wait));
        let sweep = self.may_fold(now).then_some(self.sweep_at);
        // While the disk fails, what the core wants next would fail as well.
        let core = self.core.next_wakeup(now).filter(|_| !self.is_failing);
        let wakeups = [core, retry, sweep, self.next_look(now)];
        Pulse {
            wakeup: wakeups.into_iter().flatten().min(),
            working: self.core.is_working(now),
            facts: self.facts,
            storage: self.storage,
            written_back: self.written_back,
        }
    }

    fn recovered(&mut self) {
        self.storage = Storage::Ok;
        self.retry_wait = RETRY_MIN;
    }

    fn wait_longer(&mut self) {
        self.retry_wait = self.retry_wait.saturating_mul(2).min(RETRY_MAX);
    }

    /// Takes note of what a failed commit says of the disk.
    fn fail(&mut self, error: &rusqlite::Error) {
        self.is_failing = true;
        self.wait_longer();
        if self.is_rivalled(error) {
            return;
        }
        let found = self.storage_of(error);
        if self.storage != Storage::Damaged {
            if self.storage != found {
                tracing::error!(%error, "{}", RecordError::Storage(found));
            }
            self.storage = found;
            if let (Storage::Damaged, Some(path)) = (found, self.connection.path()) {
                recovery::suspect(Path::new(path));
            }
        }
    }

    /// Damage that was met in reading stops the writing as well.
    fn meet(&mut self, error: &rusqlite::Error) {
        let found = self.storage_of(error);
        if self.is_rivalled(error) || matches!(found, Storage::Damaged | Storage::Gone) {
            self.fail(error);
        }
    }
}

/// Tells what was done, or why nothing was: its commit failed.
fn answer<T, E: From<RecordError>>(replies: Replies<Result<T, E>>, failed: Option<&RecordError>) {
    for (reply, result) in replies {
        let failed = failed.map(|error| error.clone().into());
        let _ = reply.send(failed.map_or(result, Err));
    }
}

/// Locks the clock. A panic while it was held cannot have left it half-changed: it has no such state.
pub fn lock(clock: &SharedClock) -> std::sync::MutexGuard<'_, Clock> {
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}

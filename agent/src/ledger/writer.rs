//! The one thread that writes. Requests that arrive together share a commit.
//!
//! It takes what is in its queue, decides each against the book in memory, commits once, and only then
//! answers and releases the orders that follow. Where the commit fails, everything is put back,
//! requests are answered with [`RecordError::Storage`], and facts of the sync driver are kept and
//! tried again: an answer of the server must not be forgotten because the disk was full.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tally_shared::{
    time::Timestamp,
    wire::{AddConsumption, ApiError, ErrorCode},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::store;
use crate::{
    core::{
        Core, Recorded, Rejected,
        book::{AppNo, LicenseNo},
        chain::Hash,
        clock::{Clock, Moment},
        command::Command,
        event::{Event, KeyEcho},
        outcome::LicenseFound,
    },
    deps::Clocks,
};

/// How many jobs may wait. A full queue is answered with 503 at once, so that memory stays bounded.
const QUEUE_MAX: usize = 4096;

/// How many jobs share a commit at most, so that the first of them does not wait for long.
const GROUP_MAX: usize = 512;

/// How many orders may be under way. The core starts at most 8 operations at once.
const COMMANDS_MAX: usize = 64;

/// When a commit failed, what must not be forgotten is tried again after this time.
const RETRY_STORAGE: Duration = Duration::from_secs(1);

/// For how long an answer under an `Idempotency-Key` is remembered. Longer than an agent trusts its
/// server to remember one (24 hours).
const ANSWERS_KEPT: Duration = Duration::from_hours(7 * 24);

/// A request's `Idempotency-Key`, and what it may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The key, as the application sent it.
    pub key: String,
    /// A digest of the request.
    pub fingerprint: Hash,
}

/// An answer to an application, as it is sent and as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Whether this is the stored answer of an earlier request.
    pub replayed: bool,
}

/// Why a request has no answer of the contract's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The licence, the device or the feature is not known here; the server may know it.
    #[error("not known to this agent")]
    Unknown,
    /// The key came with another request before.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// Nothing could be written, so nothing was recorded.
    #[error("the ledger cannot be written: {0}")]
    Storage(String),
    /// The agent is stopping, or too much waits already.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// What observers may wait for; re-readable at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// When the core wants its next tick, on the monotonic clock.
    pub wakeup: Option<Duration>,
    /// Whether something is under way or due.
    pub working: bool,
    /// How many facts of the server were taken in.
    pub facts: u64,
}

/// What a request came to.
type Recording = Result<Answer, RecordError>;
type Question = Box<dyn FnOnce(&Core, Moment) + Send>;

enum Job {
    Record(RecordJob),
    Event(Event),
    Learn(
        Box<LicenseFound>,
        Duration,
        KeyEcho,
        oneshot::Sender<Result<LicenseNo, RecordError>>,
    ),
    App(String, oneshot::Sender<Result<AppNo, RecordError>>),
    Ask(Question),
    Stop,
}

struct RecordJob {
    app: AppNo,
    request: Box<AddConsumption>,
    key: Option<RequestKey>,
    reply: oneshot::Sender<Recording>,
}

/// A handle to the ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    pulse: watch::Receiver<Pulse>,
}

/// The writer's thread, and the orders that it releases.
pub struct Writer {
    /// The orders, each released after the commit that gave it.
    pub commands: mpsc::Receiver<Command>,
    /// The thread; it ends after [`Ledger::stop`], and otherwise only by a defect.
    pub thread: thread::JoinHandle<()>,
}

/// The corrected clock, shared by those who read and correct it.
pub type SharedClock = Arc<Mutex<Clock>>;

/// Starts the writer.
///
/// # Errors
///
/// Where the system has no thread to give.
pub fn start(
    connection: Connection,
    core: Core,
    clock: SharedClock,
    clocks: Arc<dyn Clocks>,
) -> std::io::Result<(Ledger, Writer)> {
    let (jobs, queue) = mpsc::channel(QUEUE_MAX);
    let (commands_out, commands) = mpsc::channel(COMMANDS_MAX);
    let (pulse_out, pulse) = watch::channel(Pulse::default());
    let state = State {
        connection,
        core,
        clock,
        clocks,
        commands: commands_out,
        pulse: pulse_out,
        kept: VecDeque::new(),
        facts: 0,
    };
    let thread = thread::Builder::new()
        .name("tally-ledger".to_owned())
        .spawn(move || state.run(queue))?;
    Ok((Ledger { jobs, pulse }, Writer { commands, thread }))
}

// === Ledger ===

impl Ledger {
    /// Decides and records a consumption; answers when it is on disk.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; then nothing is recorded. A refusal is an [`Answer`].
    pub async fn record(
        &self,
        app: AppNo,
        request: AddConsumption,
        key: Option<RequestKey>,
    ) -> Result<Answer, RecordError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Record(RecordJob {
            app,
            request: Box::new(request),
            key,
            reply,
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                RecordError::Unavailable("too many requests wait already; try again")
            }
            mpsc::error::TrySendError::Closed(_) => STOPPING,
        })?;
        answer.await.map_err(|_| STOPPING)?
    }

    /// Tells the core a fact.
    pub async fn tell(&self, event: Event) {
        // Fails only after a stop; what was sent and not settled is unknown at the next start.
        let _ = self.jobs.send(Job::Event(event)).await;
    }

    /// Makes a licence known, by what the server said when it was asked at `asked_at` on the monotonic
    /// clock.
    ///
    /// # Errors
    ///
    /// [`RecordError::Storage`] or [`RecordError::Unavailable`].
    pub async fn learn(
        &self,
        found: LicenseFound,
        asked_at: Duration,
        key: KeyEcho,
    ) -> Result<LicenseNo, RecordError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Learn(Box::new(found), asked_at, key, reply);
        self.jobs.send(job).await.map_err(|_| STOPPING)?;
        answer.await.map_err(|_| STOPPING)?
    }

    /// The number of an application.
    ///
    /// # Errors
    ///
    /// [`RecordError::Storage`] or [`RecordError::Unavailable`].
    pub async fn app(&self, name: &str) -> Result<AppNo, RecordError> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Job::App(name.to_owned(), reply))
            .await
            .map_err(|_| STOPPING)?;
        answer.await.map_err(|_| STOPPING)?
    }

    /// Asks the core a question.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unavailable`] where the agent is stopping.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core, Moment) -> T + Send + 'static,
    ) -> Result<T, RecordError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Ask(Box::new(move |core, now| {
            // The asker may have gone away.
            let _ = reply.send(question(core, now));
        }));
        self.jobs.send(job).await.map_err(|_| STOPPING)?;
        answer.await.map_err(|_| STOPPING)
    }

    /// What the core waits for.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.clone()
    }

    /// Commits what is in the queue and ends the thread.
    pub async fn stop(&self) {
        // Fails only where it has stopped already.
        let _ = self.jobs.send(Job::Stop).await;
    }
}

const STOPPING: RecordError = RecordError::Unavailable("the agent is stopping");

// === the thread ===

struct State {
    connection: Connection,
    core: Core,
    clock: SharedClock,
    clocks: Arc<dyn Clocks>,
    commands: mpsc::Sender<Command>,
    pulse: watch::Sender<Pulse>,
    /// Facts whose commit failed.
    kept: VecDeque<Event>,
    facts: u64,
}

/// What a group of jobs came to, before its commit.
#[derive(Default)]
struct Group {
    records: Vec<(oneshot::Sender<Recording>, Recording)>,
    learned: Vec<(oneshot::Sender<Result<LicenseNo, RecordError>>, LicenseNo)>,
    answers: HashMap<(AppNo, String), (Hash, Answer)>,
    /// Answered after the commit: nobody is told what is not on disk.
    questions: Vec<Question>,
    events: Vec<Event>,
    commands: Vec<Command>,
    stop: bool,
}

impl State {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let now = self.now();
        self.take_and_commit(now, std::iter::once(Job::Event(Event::Tick)));
        let mut jobs = Vec::with_capacity(GROUP_MAX);
        loop {
            jobs.clear();
            if queue.blocking_recv_many(&mut jobs, GROUP_MAX) == 0 {
                break;
            }
            let now = self.now();
            if self.take_and_commit(now, jobs.drain(..)) {
                break;
            }
        }
        self.save_clock();
    }

    /// Returns whether to stop.
    fn take_and_commit(&mut self, now: Moment, jobs: impl Iterator<Item = Job>) -> bool {
        let mut group = Group::default();
        let kept: Vec<Event> = self.kept.drain(..).collect();
        for event in kept {
            self.take_event(now, event, &mut group);
        }
        for job in jobs {
            self.take(now, job, &mut group);
        }
        let committed = self.commit(now, &group);
        if committed.is_ok() {
            self.core.book_mut().committed();
        } else {
            self.core.roll_back(&group.commands);
        }
        let stop = group.stop;
        self.finish(now, group, committed);
        stop
    }

    fn take(&mut self, now: Moment, job: Job, group: &mut Group) {
        match job {
            Job::Record(job) => {
                let result = self.record(now, &job, group);
                group.records.push((job.reply, result));
            }
            Job::Event(event) => self.take_event(now, event, group),
            Job::Learn(found, asked_at, key, reply) => {
                let license = self.core.learn(now, &found, asked_at, key);
                self.take_event(now, Event::Tick, group);
                group.learned.push((reply, license));
            }
            Job::App(name, reply) => {
                let found = store::app_no(&self.connection, &name);
                // The asker may have gone away.
                let _ = reply.send(found.map_err(|error| RecordError::Storage(error.to_string())));
            }
            Job::Ask(question) => group.questions.push(question),
            Job::Stop => group.stop = true,
        }
    }

    fn take_event(&mut self, now: Moment, event: Event, group: &mut Group) {
        if !matches!(event, Event::Tick) {
            group.events.push(event.clone());
            self.facts += 1;
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
                Err(error) => tracing::error!(%error, "cannot read the rows of a held batch"),
            }
        }
    }

    fn record(
        &mut self,
        now: Moment,
        job: &RecordJob,
        group: &mut Group,
    ) -> Result<Answer, RecordError> {
        if let Some(key) = &job.key {
            let earlier = match group.answers.get(&(job.app, key.key.clone())) {
                Some(found) => Some(found.clone()),
                None => self
                    .earlier_answer(job.app, &key.key)
                    .map_err(|error| RecordError::Storage(error.to_string()))?,
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
            Ok(recorded) => granted(&recorded),
            Err(Rejected::Refused(error)) => refused(&error),
            Err(Rejected::Unknown) => return Err(RecordError::Unknown),
        };
        if let Some(key) = &job.key {
            let remembered = (key.fingerprint, answer.clone());
            group.answers.insert((job.app, key.key.clone()), remembered);
        }
        Ok(answer)
    }

    fn earlier_answer(&self, app: AppNo, key: &str) -> rusqlite::Result<Option<(Hash, Answer)>> {
        self.connection
            .prepare_cached(
                "SELECT fingerprint, status, answer FROM answers WHERE app = ?1 AND key = ?2",
            )?
            .query_row(params![app.0, key], |row| {
                let answer = Answer {
                    status: row.get(1)?,
                    body: row.get(2)?,
                    replayed: true,
                };
                Ok((Hash(row.get(0)?), answer))
            })
            .optional()
    }

    fn commit(&mut self, now: Moment, group: &Group) -> rusqlite::Result<()> {
        if !self.core.book().has_changes() && group.answers.is_empty() {
            return Ok(());
        }
        let tx = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        store::write_changes(&tx, self.core.book())?;
        for ((app, key), (fingerprint, answer)) in &group.answers {
            write_answer(&tx, now.time, (*app, key), fingerprint, answer)?;
        }
        if !group.events.is_empty() {
            let clock = lock(&self.clock).save(&self.clocks.reading());
            store::write_clock(&tx, &clock)?;
        }
        tx.commit()
    }

    /// Answers, and releases the orders.
    fn finish(&mut self, now: Moment, group: Group, committed: rusqlite::Result<()>) {
        let storage = committed.err().map(|error| {
            tracing::error!(%error, "the ledger cannot be written; nothing is recorded");
            RecordError::Storage(error.to_string())
        });
        for (reply, result) in group.records {
            let result = match &storage {
                Some(error) => Err(error.clone()),
                None => result,
            };
            // The application may have gone away; what is recorded stays recorded.
            let _ = reply.send(result);
        }
        for (reply, license) in group.learned {
            let _ = reply.send(storage.clone().map_or(Ok(license), Err));
        }
        for question in group.questions {
            question(&self.core, now);
        }
        if storage.is_some() {
            self.kept.extend(group.events);
        } else {
            for command in group.commands {
                // Never blocks for long: the driver only hands orders on. Fails only after a stop.
                let _ = self.commands.blocking_send(command);
            }
        }
        self.publish(now);
    }

    fn publish(&self, now: Moment) {
        let mut wakeup = self.core.next_wakeup(now);
        if !self.kept.is_empty() {
            let retry = now.mono.saturating_add(RETRY_STORAGE);
            wakeup = Some(wakeup.map_or(retry, |at| at.min(retry)));
        }
        let working = self.core.is_working(now);
        let pulse = Pulse {
            wakeup,
            working,
            facts: self.facts,
        };
        self.pulse.send_if_modified(|last| {
            let news = *last != pulse;
            *last = pulse;
            news
        });
    }

    fn now(&self) -> Moment {
        lock(&self.clock).now(self.clocks.reading().mono)
    }

    fn save_clock(&self) {
        let clock = lock(&self.clock).save(&self.clocks.reading());
        if let Err(error) = store::write_clock(&self.connection, &clock) {
            tracing::warn!(%error, "cannot save the clock's correction");
        }
    }
}

/// Locks the clock. A panic while it was held cannot have left it half-changed: it has no such state.
pub fn lock(clock: &SharedClock) -> std::sync::MutexGuard<'_, Clock> {
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn granted(recorded: &Recorded) -> Answer {
    match serde_json::to_string(&recorded.answer) {
        Ok(body) => Answer {
            status: 200,
            body,
            replayed: false,
        },
        Err(error) => refused(&ApiError::new(ErrorCode::InternalError, error.to_string())),
    }
}

/// The answer that carries an error.
pub fn refused(error: &ApiError) -> Answer {
    // Two texts and a number: this cannot fail, and an empty body would be no answer of the contract.
    let body = serde_json::to_string(&error.body()).unwrap_or_default();
    Answer {
        status: error.code.status(),
        body,
        replayed: false,
    }
}

fn write_answer(
    connection: &Connection,
    now: Timestamp,
    (app, key): (AppNo, &str),
    fingerprint: &Hash,
    answer: &Answer,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            app.0,
            key,
            fingerprint.0,
            answer.status,
            answer.body,
            now.as_millis()
        ])?;
    // A few at a time, so that no single request pays for all.
    let oldest = now.plus_millis(-i64::try_from(ANSWERS_KEPT.as_millis()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "DELETE FROM answers WHERE (app, key) IN
                 (SELECT app, key FROM answers WHERE at < ?1 ORDER BY at LIMIT 2)",
        )?
        .execute([oldest.as_millis()])
        .map(|_| ())
}

//! The one thread that writes. Requests that arrive together share a commit: it takes what is in its
//! queue, lets the [`Engine`] decide and commit, and releases the orders that follow.

use std::{thread, time::Duration};

use tally_shared::wire::AddConsumption;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    answers::{Answer, RequestKey},
    engine::{Engine, Job, Pulse, RecordError, RecordJob, ResolveError, ResolveJob},
};
use crate::core::{
    Core, Decision,
    book::{AppNo, BatchNo, LicenseNo, Seq},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    outcome::LicenseFound,
};

/// How many jobs may wait. A full queue is answered with 503 at once, so that memory stays bounded.
const QUEUE_MAX: usize = 4096;

/// How many jobs share a commit at most, so that the first of them does not wait for long.
const GROUP_MAX: usize = 512;

/// How many orders may be under way. The core starts at most 8 operations at once.
const COMMANDS_MAX: usize = 64;

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

/// Starts the writer.
///
/// # Errors
///
/// Where the system has no thread to give.
pub fn start(engine: Engine) -> std::io::Result<(Ledger, Writer)> {
    let (jobs, queue) = mpsc::channel(QUEUE_MAX);
    let (commands_out, commands) = mpsc::channel(COMMANDS_MAX);
    let (pulse_out, pulse) = watch::channel(Pulse::default());
    let thread = thread::Builder::new()
        .name("tally-ledger".to_owned())
        .spawn(move || run(engine, queue, &commands_out, &pulse_out))?;
    Ok((Ledger { jobs, pulse }, Writer { commands, thread }))
}

fn run(
    mut engine: Engine,
    mut queue: mpsc::Receiver<Job>,
    commands: &mpsc::Sender<Command>,
    pulse: &watch::Sender<Pulse>,
) {
    let mut jobs = vec![Job::Event(Event::Tick)];
    loop {
        let turn = engine.turn(jobs.drain(..));
        for command in turn.commands {
            crate::fail_point!("turn.before-release");
            // Never blocks for long: the driver only hands orders on. Fails only after a stop.
            let _ = commands.blocking_send(command);
        }
        pulse.send_if_modified(|last| {
            let news = *last != turn.pulse;
            *last = turn.pulse;
            news
        });
        if turn.stop || queue.blocking_recv_many(&mut jobs, GROUP_MAX) == 0 {
            break;
        }
    }
    crate::fail_point!("stop.before-clock");
    engine.save_clock();
}

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

    /// Decides what became of a held batch. Answers when that is on disk, with the place of its note.
    ///
    /// # Errors
    ///
    /// [`ResolveError`]; then nothing is changed.
    pub async fn resolve(
        &self,
        batch: BatchNo,
        decision: Decision,
        reason: Option<String>,
    ) -> Result<Seq, ResolveError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Resolve(ResolveJob {
            batch,
            decision,
            reason,
            reply,
        });
        self.jobs.send(job).await.map_err(|_| STOPPING)?;
        answer.await.map_err(|_| STOPPING)?
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

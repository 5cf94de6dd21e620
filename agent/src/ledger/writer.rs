//! The agent's handle to its ledger: what requests, the sync driver and people ask of it.

use std::{sync::Arc, thread, time::Duration};

use tally_shared::wire::AddConsumption;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Ended, Keeping,
    answers::{Answer, RequestKey},
    desk::{Desk, LINGER},
    engine::{
        Engine, Job, Membership, MembershipError, Pulse, RecordError, RecordJob, Reply, Resolution,
        ResolveError, ResolveJob,
    },
    queue::Refusal,
};
use crate::core::{
    Core, Policy,
    book::{AppNo, LicenseNo, Seq},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    outcome::LicenseFound,
};

/// A handle to the ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    desk: Arc<Desk>,
    pulse: watch::Receiver<Pulse>,
    news: watch::Sender<u64>,
}

/// The ledger's thread, and the orders that it releases.
pub struct Writer {
    /// The orders, each released after the commit that gave it.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// The thread; it ends after [`Ledger::stop`], where the ledger may not be written any more, with the reason, and
    /// otherwise only by a defect.
    pub thread: thread::JoinHandle<Option<Ended>>,
}

/// Opens the ledger for work.
///
/// # Errors
///
/// Where the system has no thread to give.
pub fn start(engine: Engine) -> std::io::Result<(Ledger, Writer)> {
    start_lingering(engine, LINGER)
}

/// The same, where a flood waits for so long for an application that was just served.
///
/// # Errors
///
/// Where the system has no thread to give.
pub fn start_lingering(engine: Engine, linger: Duration) -> std::io::Result<(Ledger, Writer)> {
    let (commands_out, commands) = mpsc::unbounded_channel();
    let (pulse_out, pulse) = watch::channel(Pulse::default());
    let news = watch::Sender::new(0);
    let (desk, thread) = Desk::open(engine, linger, commands_out, pulse_out, news.clone())?;
    let ledger = Ledger { desk, pulse, news };
    Ok((ledger, Writer { commands, thread }))
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
        request: Arc<AddConsumption>,
        key: Option<RequestKey>,
    ) -> Result<Answer, RecordError> {
        self.put(|reply| {
            Job::Record(RecordJob {
                app,
                request,
                key,
                recipient: reply.into(),
            })
        })
        .await?
    }

    /// Tells the core a fact.
    pub async fn tell(&self, event: Event) {
        // Fails only after a stop; what was sent and not settled is unknown at the next start.
        if let Ok(brought) = self.desk.bring(Job::Event(event)) {
            brought.commit().await;
        }
    }

    /// Makes a licence known, by what the server said when it was asked at `asked_at` on the monotonic
    /// clock; `None` where that is about another licence than was asked for by its id.
    ///
    /// # Errors
    ///
    /// [`RecordError::Storage`] or [`RecordError::Unavailable`].
    pub async fn learn(
        &self,
        found: LicenseFound,
        asked_at: Duration,
        key: KeyEcho,
    ) -> Result<Option<LicenseNo>, RecordError> {
        self.put(|reply| Job::Learn(Box::new(found), asked_at, key, reply))
            .await?
    }

    /// The number of an application.
    ///
    /// # Errors
    ///
    /// [`RecordError::Storage`] or [`RecordError::Unavailable`].
    pub async fn app(&self, name: &str) -> Result<AppNo, RecordError> {
        self.put(|reply| Job::App(name.to_owned(), reply)).await?
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
        self.put(|reply| {
            Job::Ask(Box::new(move |core, now| {
                // The asker may have gone away.
                let _ = reply.send(question(core, now));
            }))
        })
        .await
    }

    /// Takes in a decision of somebody. Answers when that is on disk, with the place of its note.
    ///
    /// # Errors
    ///
    /// [`ResolveError`]; then nothing is changed.
    pub async fn resolve(
        &self,
        resolution: Resolution,
        reason: Option<String>,
    ) -> Result<Seq, ResolveError> {
        self.put(|reply| {
            Job::Resolve(ResolveJob {
                resolution,
                reason,
                reply,
            })
        })
        .await?
    }

    /// Forgets a licence. Answers when that is on disk, with the place of its note.
    ///
    /// # Errors
    ///
    /// [`MembershipError`]; then nothing is changed.
    pub async fn forget(
        &self,
        license: LicenseNo,
        reason: Option<String>,
    ) -> Result<Option<Seq>, MembershipError> {
        self.put(|reply| Job::Membership(Membership::Forget(license, reason), reply))
            .await?
    }

    /// Takes in a licence by an answer that the server signed. Answers when that is on disk, with the
    /// place of its note; `None` where it was known.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Record`].
    pub async fn take_in(&self, found: LicenseFound) -> Result<Option<Seq>, MembershipError> {
        self.put(|reply| Job::Membership(Membership::TakeIn(Box::new(found)), reply))
            .await?
    }

    /// Decides and keeps by other settings from here on, under these credentials.
    pub async fn set(&self, policy: Policy, keeping: Keeping, peer: String) {
        // Fails only after a stop.
        if let Ok(brought) = self.desk.bring(Job::Settings(policy, keeping, peer)) {
            brought.commit().await;
        }
    }

    /// What the core waits for.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.clone()
    }

    /// Changes whenever something did that people are shown.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Has what is in the queue committed, and the thread end.
    pub fn stop(&self) {
        // Fails only where it has stopped already.
        if let Ok(brought) = self.desk.bring(Job::Stop) {
            brought.leave();
        }
    }

    /// Brings a job, and waits for what it comes to.
    async fn put<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, RecordError> {
        let (reply, answer) = oneshot::channel();
        let brought = self
            .desk
            .bring(job(reply))
            .map_err(|refusal| match refusal {
                Refusal::Full => {
                    RecordError::Unavailable("too many requests wait already; try again")
                }
                Refusal::Closed => STOPPING,
            })?;
        brought.commit().await;
        answer.await.map_err(|_| STOPPING)
    }
}

const STOPPING: RecordError = RecordError::Unavailable("the agent is stopping");

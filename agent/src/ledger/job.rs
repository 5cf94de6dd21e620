//! The work that the [`Engine`](super::engine::Engine) takes, and what a turn of it gives.

use std::{sync::Arc, time::Duration};

use tally_shared::wire::AddConsumption;
use tokio::sync::oneshot;

use super::{
    Ended, Keeping,
    answers::{Answer, RequestKey},
    delivery::Recipient,
    storage::Storage,
};
use crate::core::{
    Core, Decision, DeviceIs, Policy, Unforgettable, Unresolvable,
    book::{AppNo, BatchNo, LicenseNo, Seq},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    outcome::LicenseFound,
};

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
    #[error("nothing is recorded: {}", .0.advice())]
    Storage(Storage),
    /// The agent is stopping, or too much waits already.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// Why something was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It cannot be.
    #[error(transparent)]
    Unresolvable(#[from] Unresolvable),
    /// The decision could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why it is not changed which licences are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The licence must stay.
    #[error(transparent)]
    Unforgettable(#[from] Unforgettable),
    /// The change could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
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
    /// Whether the ledger can be written.
    pub storage: Storage,
    /// How often the ledger was written back since the agent started: it had been deleted or moved away.
    pub written_back: u64,
}

/// What a request came to.
pub type Recording = Result<Answer, RecordError>;

/// The place of a decision's note, or why there is none.
pub type Resolving = Result<Seq, ResolveError>;

/// The number of a licence that was learnt of; `None` where the answer is about another than was asked for.
pub type Learning = Result<Option<LicenseNo>, RecordError>;

/// The place of the note about a change of what is known, or why there is none.
pub type Changing = Result<Option<Seq>, MembershipError>;

/// A question to the core.
pub type Question = Box<dyn FnOnce(&Core, Moment) + Send>;

/// Where an answer goes. The asker may have gone away; what is done stays done.
pub type Reply<T> = oneshot::Sender<T>;

/// Results, and where they go after the commit.
pub type Replies<T> = Vec<(Reply<T>, T)>;

/// A piece of work.
pub enum Job {
    /// Decide and record a consumption.
    Record(RecordJob),
    /// Take in a fact.
    Event(Event),
    /// Take in what the server said of a licence when it was asked at that time on the monotonic clock.
    Learn(Box<LicenseFound>, Duration, KeyEcho, Reply<Learning>),
    /// Take in a decision of somebody.
    Resolve(ResolveJob),
    /// Change which licences are known here.
    Membership(Membership, Reply<Changing>),
    /// Find the number of an application.
    App(String, Reply<Result<AppNo, RecordError>>),
    /// Decide and keep by other settings from here on, and go on under these credentials: see
    /// [`Core::set_peer`].
    Settings(Policy, Keeping, String),
    /// Answer a question, when what was decided before is on disk.
    Ask(Question),
    /// Commit and end.
    Stop,
}

/// A change of which licences are known here.
pub enum Membership {
    /// Forget one, for this reason.
    Forget(LicenseNo, Option<String>),
    /// Take one in by an answer that the server signed.
    TakeIn(Box<LicenseFound>),
}

impl Membership {
    /// Makes the change.
    pub(super) fn apply(self, core: &mut Core, now: Moment) -> Changing {
        match self {
            Self::Forget(license, reason) => {
                Ok(Some(core.forget(now, license, reason.as_deref())?))
            }
            Self::TakeIn(found) => Ok(core.take_in(now, &found)),
        }
    }
}

/// A consumption to decide and record.
pub struct RecordJob {
    /// The application.
    pub app: AppNo,
    /// What it asks for.
    pub request: Arc<AddConsumption>,
    /// The key under which its answer is remembered.
    pub key: Option<RequestKey>,
    /// Where the answer goes.
    pub recipient: Recipient,
}

/// What somebody decides.
#[derive(Clone, Copy, Debug)]
pub enum Resolution {
    /// What became of a held batch.
    Batch(BatchNo, Decision),
    /// That the server which is used now is the one that what is owed was recorded for.
    ServerMoved,
    /// What this device is: the ledger on it is a copy.
    Device(DeviceIs),
    /// That a finding was seen.
    Finding(Seq),
}

/// A decision of somebody.
pub struct ResolveJob {
    /// What is decided.
    pub resolution: Resolution,
    /// Why.
    pub reason: Option<String>,
    /// Where the place of the decision's note goes.
    pub reply: Reply<Resolving>,
}

impl ResolveJob {
    /// Decides it.
    pub(super) fn apply(&self, core: &mut Core, now: Moment) -> Resolving {
        let reason = self.reason.as_deref();
        Ok(match self.resolution {
            Resolution::Batch(batch, decision) => core.resolve(now, batch, decision, reason)?,
            Resolution::ServerMoved => core.server_moved(now, reason)?,
            Resolution::Device(what) => core.device_is(now, what, reason)?,
            Resolution::Finding(finding) => core.see_finding(now, finding, reason)?,
        })
    }
}

/// What a turn gave.
#[derive(Debug)]
pub struct Turn {
    /// The orders to carry out: what they rest on is on disk.
    pub commands: Vec<Command>,
    /// Whether it was the last.
    pub stop: bool,
    /// Why it was the last, where nobody asked for that: nothing may be written any more.
    pub ended: Option<Ended>,
    /// Whether it may have changed what people are shown.
    pub changed: bool,
    /// What there is to wait for.
    pub pulse: Pulse,
}

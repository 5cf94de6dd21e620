//! The agent's decisions, without I/O, clock or randomness of their own.
//!
//! # The model
//!
//! * A [`License`](book::License) is known with the devices that were added for it. It has one
//!   [`Account`](book::Account) for its own units and one for each consumption feature.
//! * Each granted consumption is one immutable [`Row`](book::Row) in a [`Lane`](book::Lane): the rows
//!   of one account that may share a request (one device, period, event kind and overage setting).
//! * A [`Batch`](book::Batch) is a range of a lane's rows. It is *open* while rows are added to it;
//!   sealing gives it an id, after which it never changes, and sends it as one request.
//!
//! # The life of a batch
//!
//! ```text
//! open ──> sent ──> settled                     the server counted it
//!   ▲       ├────> sealed ──> sent              the server certainly did not count it; try again
//!   rows    ├────> unknown ──> sent             no answer; the server keeps keys: the same bytes again
//!           │        ├───────> settled          the total moved by exactly its units
//!           │        ├───────> sealed           the total cannot hold its units
//!           │        └───────> held             the total cannot tell
//!           └────> held ──> superseded          refused; its rows go on in new batches when they can
//!                    ├────> sealed              it may have been counted all the same, and goes on under its own key
//!                    └────> settled, waived      a person decided (`tally resolve`)
//! ```
//!
//! # Invariants
//!
//! 1. Conservation: for each account, recorded = settled + pending + in flight + unknown + held
//!    + waived.
//! 2. At most one batch of an account is sent or unknown at any time.
//! 3. A batch is committed as *sent* before its request leaves: [`Command`]s are
//!    released by the writer only after the commit of the changes that gave them.
//! 4. What is unknown is never treated as applied or refused without evidence.
//!
//! [`Core`] takes requests and [`Event`]s, changes the [`Book`], and gives
//! commands. The ledger's writer persists the book's changes; the sync driver carries the commands out.

pub mod book;
pub mod chain;
pub mod clock;
pub mod command;
pub mod doubt;
pub mod event;
pub mod instance;
pub mod link;
mod machine;
pub mod outcome;
mod reconcile;
mod record;
pub mod refusal;
pub mod report;
pub mod trouble;

use std::{collections::BTreeSet, time::Duration};

use tally_shared::{time::Timestamp, wire::AddConsumption};
use uuid::Uuid;

use self::{
    book::{AppNo, BatchNo, Book, LicenseNo, Op},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    link::Link,
    machine::names::Asking,
    outcome::LicenseFound,
    refusal::{Refusal, Refusals},
};
pub use self::{
    machine::{
        copies::DeviceIs,
        membership::Unforgettable,
        resolve::{Decision, Unresolvable},
    },
    record::{Recorded, Rejected, Standings},
};

/// For how long a server is trusted to remember an idempotency key: an hour less than it does, since a request may be under
/// way for a while. After that, the total tells.
pub(crate) const KEY_AGE_MAX: Duration = Duration::from_hours(23);

/// What to do with a batch whose outcome cannot be found out.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum UndecidablePolicy {
    /// Hold it until a person decides.
    #[default]
    Hold,
    /// Send it again: it may be counted twice.
    Resend,
    /// Take it as counted: it may be lost.
    AssumeApplied,
}

/// What to do with units whose period ended before they were sent: the server counts them in a later
/// one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum LateUsage {
    /// Send them, and say so in the ledger and the status.
    #[default]
    Report,
    /// Hold them until a person decides.
    Hold,
}

/// The settings that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long rows may wait for company before they are sent.
    pub sync_interval: Duration,
    /// How long a request whose outcome is unknown could still arrive.
    pub settle_wait: Duration,
    /// How often a licence is read while nothing else happens.
    pub refresh_interval: Duration,
    /// What to do when the total cannot tell.
    pub undecidable: UndecidablePolicy,
    /// What to do with units of a period that is over.
    pub late_usage: LateUsage,
}

/// A source of random bits, passed in so that a simulation can repeat itself.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// The agent's decisions: what is granted, and what is sent when.
pub struct Core {
    book: Book,
    link: Link,
    policy: Policy,
    random: Random,
    refusals: Refusals,
    /// The server that the agent uses: whatever names it, equal where it is the same.
    server: String,
    /// The server together with the credentials: keys belong to it.
    peer: String,
    /// The clocks at the last fact: what they disagree by since then tells of a jump.
    clocks: Option<(Timestamp, Duration)>,
    /// Batches that rows could still be added to when the ledger was opened. In the original of a copy they may have grown
    /// further, so that their ids there may be others.
    open_at_start: BTreeSet<BatchNo>,
    asking: Asking,
}

impl Core {
    /// Takes up the work where the ledger left it. What was sent and not answered is unknown.
    ///
    /// `server` names the server that the agent uses from here on; the name of one on this device is the
    /// word `loopback`, a space, and its address. Where the ledger owes units that were
    /// recorded for one of another name, nothing is exchanged until somebody says that it is the same
    /// ([`Self::server_moved`]), or nothing is owed any more. `peer` stands for the server and the credentials
    /// together: an idempotency key is known only under the peer that it was sent under.
    pub fn new(
        book: Book,
        policy: Policy,
        random: Random,
        now: Moment,
        (server, peer): (String, String),
    ) -> Self {
        let mut core = Self {
            book,
            link: Link::new(now.mono),
            policy,
            random,
            refusals: Refusals::default(),
            server,
            peer,
            clocks: None,
            open_at_start: BTreeSet::new(),
            asking: Asking::default(),
        };
        if core.book.id().is_nil() {
            let id = core.random_id();
            core.book.set_id(id);
        }
        core.resume(now);
        core
    }

    /// Decides one consumption and records it.
    ///
    /// # Errors
    ///
    /// [`Rejected`]; then nothing is recorded.
    pub fn record(
        &mut self,
        now: Moment,
        app: AppNo,
        request: &AddConsumption,
    ) -> Result<Recorded, Rejected> {
        let offline = !self.link.is_up();
        let recorded = record::record(&mut self.book, now, app, request, offline);
        if let Err(Rejected::Refused(error)) = &recorded
            && self.may_be_another(&request.subject, error.code)
        {
            return Err(Rejected::Unknown);
        }
        if let Err(Rejected::Refused(error)) = &recorded {
            self.refusals.add(Refusal {
                no: 0,
                at: now.time,
                time_proven: now.proven,
                app,
                product: request.subject.product.clone(),
                holder: request.subject.holder.clone(),
                feature: request.feature.clone(),
                hardware_id: request.subject.hardware_id.clone(),
                units: request.units,
                code: error.code,
                message: error.message.clone(),
                judged: record::judged(&self.book, now, request),
            });
        }
        recorded
    }

    /// The refusals of late, oldest first.
    pub fn refusals(&self) -> impl DoubleEndedIterator<Item = &Refusal> {
        self.refusals.iter()
    }

    /// Goes on under other credentials. Keys that were sent under the former say nothing any more.
    pub fn set_peer(&mut self, peer: String) {
        self.peer = peer;
    }

    /// Whether this server, under these credentials, was last seen to keep idempotency keys.
    pub fn keeps_keys(&self) -> bool {
        self.book.keeper() == Some(self.peer.as_str())
    }

    /// An id of random bits.
    fn random_id(&mut self) -> Uuid {
        let bits = [(self.random)(), (self.random)()].map(u64::to_be_bytes);
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(bits.as_flattened()) {
            *to = *from;
        }
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Takes a fact and gives the orders that follow from it. They may be carried out only after the
    /// book's changes are committed.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Command> {
        self.notice_jump(now);
        self.apply(now, event);
        self.go_on_with_copies(now);
        self.advance(now)
    }

    /// Makes a licence known, or brings what is known of it up to date. For answers that were asked
    /// for outside of [`Command::LookUp`], at `asked_at` on the monotonic clock, such as when a licence
    /// is added. Returns `None` where the server told of another licence than was asked for by its id.
    pub fn learn(
        &mut self,
        now: Moment,
        found: &LicenseFound,
        asked_at: Duration,
        key: KeyEcho,
    ) -> Option<LicenseNo> {
        self.notice_jump(now);
        self.link.reached(now.mono);
        self.note_echo(key);
        let no = self.learn_license(now, found, asked_at);
        let id = found.subject.license_id;
        if id.is_some_and(|id| id != found.body.counter.id) {
            self.not_opened(now, found);
            return None;
        }
        no
    }

    /// Closes all open batches, for a process that ends: their rows are fixed from here on, and with them their ids, in this
    /// ledger as in each copy of it.
    pub fn close_batches(&mut self) {
        let open: Vec<BatchNo> = self
            .book
            .batches()
            .filter(|batch| batch.is_open())
            .map(|batch| batch.no)
            .collect();
        for no in open {
            if let Some(batch) = self.book.batch_mut(no) {
                batch.closed = true;
            }
        }
    }

    /// Decides by other settings from here on. What is scheduled already comes no later than it would have.
    pub fn set_policy(&mut self, now: Moment, policy: Policy) {
        let is_refreshed_sooner = policy.refresh_interval < self.policy.refresh_interval;
        self.policy = policy;
        if is_refreshed_sooner {
            let latest = now.mono.saturating_add(policy.refresh_interval);
            for license in self.book.licenses.values_mut() {
                license.refresh_at = license.refresh_at.min(latest);
            }
        }
    }

    /// How often a licence is read while nothing else happens.
    pub const fn refresh_interval(&self) -> Duration {
        self.policy.refresh_interval
    }

    /// When the next [`Event::Tick`] is due, on the monotonic clock; `None` while there is nothing to
    /// wait for.
    pub fn next_wakeup(&self, now: Moment) -> Option<Duration> {
        self.wakeup(now)
    }

    /// Puts everything back as it was at the last commit, and takes back the commands since.
    pub fn roll_back(&mut self, commands: &[Command]) {
        let ordered: Vec<(LicenseNo, Op)> = commands
            .iter()
            .filter_map(|command| self.ordered_by(command))
            .collect();
        self.book.roll_back();
        self.adopt_server();
        self.link.keep_away(self.owed_to().is_some());
        for (license, op) in ordered {
            self.withdraw(license, op);
        }
    }

    /// What the agent holds.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// What the agent holds, for committing or rolling back its changes.
    pub const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// Whether the server can be reached.
    pub const fn link(&self) -> &Link {
        &self.link
    }
}

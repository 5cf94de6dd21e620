//! What the books are made of.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::{OverageSetting, Standing},
    time::Timestamp,
    units::{Total, Units},
    wire::{ConsumptionEvent, ErrorCode, Holder, LicenseBody},
};
use uuid::Uuid;

use crate::core::{chain::Hash, clock::Moment};

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);
    )+};
}

numbers! {
    /// The number of a licence in the ledger.
    LicenseNo;
    /// The number of an account in the ledger.
    AccountNo;
    /// The number of a lane in the ledger.
    LaneNo;
    /// The number of a batch in the ledger.
    BatchNo;
    /// The number of an application in the ledger.
    AppNo;
    /// The place of a row in the ledger, from 1, without gaps.
    Seq;
}

/// A licence, as the server last described it.
#[derive(Clone, Debug)]
pub struct License {
    /// Its number in the ledger.
    pub no: LicenseNo,
    /// The product's short code.
    pub product: String,
    /// The key, or the user, that it was first known by.
    pub holder: Holder,
    /// The server's id of it when it was first known.
    pub id: i64,
    /// The server's last answer to `check_license`.
    pub body: LicenseBody,
    /// Why the server refuses the whole licence, if it does.
    pub blocked: Option<ErrorCode>,
    /// The devices that it is known with, and why the server refuses one, if it does.
    pub devices: BTreeMap<String, Option<ErrorCode>>,
    /// When the server last described it.
    pub refreshed_at: Timestamp,
    /// What is being asked of the server about it; not kept on disk.
    pub op: Op,
    /// When it may be tried again after a failure, and how many there were; not kept on disk.
    pub pause: Pause,
    /// When a refusal is asked about again; not kept on disk.
    pub probe: Pause,
    /// When it is read again at the latest, on the monotonic clock; not kept on disk.
    pub refresh_at: Duration,
}

/// What is being asked of the server about a licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Nothing.
    Idle,
    /// This batch was sent and not answered.
    Sending(BatchNo),
    /// The licence is being read, since this time on the monotonic clock.
    LookingUp(Duration),
}

/// A growing pause between failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    /// Until when, on the monotonic clock.
    pub until: Duration,
    /// How many failures there were without a success between.
    pub failures: u32,
}

/// The server that a ledger is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Its name, as [`Core::new`](crate::core::Core::new) was given it.
    pub server: String,
    /// The last row that was recorded for it, where the agent uses another since then.
    pub until: Option<Seq>,
}

/// A counter on the server: a licence's own, or a feature's.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number in the ledger.
    pub no: AccountNo,
    /// Whose it is.
    pub license: LicenseNo,
    /// The feature's code; `None` for the licence's own counter.
    pub feature: Option<String>,
    /// How it stands, by the server's last word.
    pub standing: Standing,
    /// When the server was last heard of it, on the monotonic clock; not kept on disk.
    pub heard_at: Duration,
    /// Whether the server has contradicted the total since, or nobody knows how old it is.
    pub stale: bool,
    /// Whether nobody knows which units the total holds: the period turned beside it, somebody decided about a batch, or it is from
    /// before a doubt. The next one is taken without being compared with it.
    pub unsure: bool,
    /// Whether its total ever moved by more than this agent's units.
    pub shared: bool,
    /// All units ever recorded here.
    pub recorded: Units,
    /// Those that the server has counted.
    pub settled: Units,
    /// Those that a person gave up: they are never sent.
    pub waived: Units,
    /// Those settled that were sent after their period was over, so that the server counted them in a
    /// later one.
    pub late: Units,
    /// How many rows were recorded here.
    pub rows: u64,
    /// Why the server refuses this counter while the licence itself goes on, if it does: a feature that was taken off, or
    /// that is no longer of type consumption.
    pub refused: Option<ErrorCode>,
    /// The newest rows that set the licence's overage. A setting that a later row replaced is not sent.
    pub settings: NewestSettings,
    /// The consumption pool that limits this counter too, as the server last described it.
    pub pool: Option<Pool>,
    /// What is noticed while the process runs.
    pub watch: AccountWatch,
}

/// The newest rows of an account that set something of its overage; place 0 where none did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewestSettings {
    /// The newest row that set `allow_overages`.
    pub allow_overages: Seq,
    /// The newest row that set `max_overages`.
    pub max_overages: Seq,
}

/// A consumption pool: several licences draw from it, and its own limit refuses too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The server's id of it when it was first known.
    pub id: i64,
    /// For people.
    pub name: String,
    /// How it stands, by the server's last word.
    pub standing: Standing,
}

/// What is noticed of an account while the process runs; not kept on disk.
#[derive(Clone, Debug, Default)]
pub struct AccountWatch {
    /// The earliest time of the next reading of a stale total, on the monotonic clock.
    pub read_at: Duration,
    /// When a total below the last one was first heard, on the monotonic clock.
    pub fell_at: Option<Duration>,
    /// Whether the last total came from a replayed answer, which says what once was.
    pub is_replayed: bool,

    /// The units of the last settled batches, newest first: the same amount again may be one of them, counted twice.
    pub settled: VecDeque<Units>,
    /// The last moves of the total that others made, newest first: the same amount again may be theirs.
    pub others: VecDeque<Units>,
    /// The pause after refusals for the limit that the total does not explain.
    pub contradicted: Pause,
    /// The room that is left by these refusals.
    pub believed_room: Option<i64>,
}

impl AccountWatch {
    /// Number of settled batches whose amounts are remembered.
    pub const SETTLED_MAX: usize = 8;

    /// Remembers the amount of a batch that was settled.
    pub(in crate::core) fn settle(&mut self, units: Units) {
        self.settled.truncate(Self::SETTLED_MAX - 1);
        self.settled.push_front(units);
    }

    /// Number of moves by others that are remembered.
    pub const OTHERS_MAX: usize = 16;

    /// Remembers by how much others moved the total.
    pub(in crate::core) fn moved_by_others(&mut self, units: Units) {
        self.others.truncate(Self::OTHERS_MAX - 1);
        self.others.push_front(units);
    }
}

/// The rows of an account that may share a request.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its number in the ledger.
    pub no: LaneNo,
    /// What distinguishes it.
    pub key: LaneKey,
    /// What a row's hash covers in place of the lane's number.
    pub digest: Hash,
}

/// What the rows of a lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    /// The account.
    pub account: AccountNo,
    /// The device.
    pub hardware_id: String,
    /// The event kind.
    pub event: ConsumptionEvent,
    /// The start of the period; `None` where totals never return to zero.
    pub period: Option<Timestamp>,
    /// The overage setting that goes with the request.
    pub setting: OverageSetting,
}

/// A range of a lane's rows: one request, in the end.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number in the ledger.
    pub no: BatchNo,
    /// The lane whose rows it covers.
    pub lane: LaneNo,
    /// The account of the lane.
    pub account: AccountNo,
    /// The first row that it covers.
    pub first: Seq,
    /// The last one; between them, rows of other lanes are not covered.
    pub last: Seq,
    /// How many rows that is.
    pub rows: u64,
    /// The sum of their units.
    pub units: Units,
    /// Where it is in its life.
    pub state: BatchState,
    /// The hash of the last row: a part of the batch's id.
    pub last_hash: Hash,
    /// How often the server certainly refused these rows: a part of the batch's id, so that the same rows have the same id
    /// until a refusal is certain.
    pub refusals: u32,
    /// What of its lane's overage setting is not sent, because a later setting replaced it.
    pub dropped: Dropped,
    /// When its first row was recorded, on the monotonic clock; zero after a restart.
    pub opened_at: Duration,
    /// What it became when it was sealed.
    pub sealed: Option<Sealed>,
    /// Whether no more rows are added, although it is open.
    pub closed: bool,
    /// Since when it is held.
    pub held_at: Option<Timestamp>,
    /// Whether it was sent after its period was over, or may be.
    pub late: bool,
    /// When it reached its end.
    pub ended_at: Option<Timestamp>,
}

/// What sealing adds to a batch.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its id, which is also its `Idempotency-Key`.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed that time.
    pub at_proven: bool,
    /// When, on the monotonic clock; `None` after a restart.
    pub since: Option<Duration>,
    /// How often it was sent.
    pub attempts: u32,
    /// How the account stood before it was last sent.
    pub before: Standing,
    /// When that was heard, on the monotonic clock; `None` after a restart, and before it is sent.
    pub heard_at: Option<Duration>,
    /// When it was last sent.
    pub sent_at: Timestamp,
    /// Whether the server may have counted an earlier attempt. Then only an answer that looked its key up can refuse it,
    /// and otherwise the total decides.
    pub doubtful: bool,
    /// The server and credentials under which each attempt that may have been counted was sent with its key; `None` where
    /// one was sent without, or nobody knows. Only under these the key says anything.
    pub peer: Option<String>,
    /// When the last attempt was refused by a server that keeps no keys, on the monotonic clock; zero after a restart. A gateway
    /// may have sent the request twice and handed on the second answer: the total is read before the refusal is believed.
    pub refused_at: Option<Duration>,
    /// What was read of the total since the outcome became unknown; not kept on disk.
    pub readings: Readings,
}

/// What was read of the total since a batch's outcome became unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each can be so by itself")]
pub struct Readings {
    /// When the outcome became unknown, on the monotonic clock. A total that was asked for before says nothing.
    pub since: Duration,
    /// When the request can no longer arrive, on the monotonic clock.
    pub arrives_until: Duration,
    /// Whether the first reading, which need not wait, was asked for.
    pub is_begun: bool,
    /// Whether the limits were read since then. A setting that may have been lost is not sent again before that: the vendor may
    /// have edited it.
    pub limits_are_read: bool,
    /// Whether the server says that it has the batch: a total without it then proves nothing.
    pub is_said_to_be_there: bool,
    /// When the total was first asked for after that and was found without these units, on the monotonic clock.
    pub without_at: Option<Duration>,
    /// The highest total that was read since then and certainly does not hold these units.
    pub reached: Option<Total>,
    /// Whether a reading had no answer since the last one that had, and was repeated at once.
    pub is_repeated: bool,
}

/// What of an overage setting is left out of a request, because a later setting replaced it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// `allow_overages`
    pub allow_overages: bool,
    /// `max_overages`
    pub max_overages: bool,
}

impl Dropped {
    /// What is left of a setting.
    pub fn leave(self, setting: OverageSetting) -> OverageSetting {
        OverageSetting {
            allow_overages: setting.allow_overages.filter(|_| !self.allow_overages),
            max_overages: setting.max_overages.filter(|_| !self.max_overages),
        }
    }

    /// As the ledger has it: 1 for `allow_overages`, 2 for `max_overages`.
    pub const fn bits(self) -> i64 {
        self.allow_overages as i64 | (self.max_overages as i64) << 1
    }

    /// From the ledger.
    pub const fn from_bits(bits: i64) -> Self {
        Self {
            allow_overages: bits & 1 != 0,
            max_overages: bits & 2 != 0,
        }
    }
}

/// Where a batch is in its life; the module's documentation draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// Rows are being added.
    Open,
    /// It has its final form, and the server has certainly not counted it.
    Sealed,
    /// Its request is under way.
    Sent,
    /// Its request had no valid answer. The total is read, at once and again when the request can no longer arrive.
    Unknown {
        /// When it is read next, on the monotonic clock.
        look_at: Duration,
    },
    /// It waits for something to change.
    Held(Hold),
    /// The server has counted it.
    Settled,
    /// Its rows went on in other batches.
    Superseded,
    /// A person gave it up: it is never sent.
    Waived,
}

/// Why a batch is held, and what moves it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The limit would be passed. Goes on when there is room, or the period turns.
    Limit {
        /// The room that was last found too small; not kept on disk.
        room_seen: Option<i64>,
    },
    /// The server refuses the licence or the device. Goes on when it no longer does.
    Refused(ErrorCode),
    /// The server refuses the request itself: a defect. A person decides.
    Defect(ErrorCode),
    /// It may have been counted or not, and the total cannot tell. A person decides.
    Undecidable,
    /// Its period is over, and such units are not to be sent unasked. A person decides.
    Late,
    /// It may have been counted or not, and the server tells no more: the licence, the device or the feature is gone. A person
    /// decides; goes on by itself where the server accepts it again.
    Gone(ErrorCode),
    /// This ledger is a copy, and the original may have sent it. A person decides.
    Copy,
}

/// Something that happened to the ledger beside consumptions, such as a person's decision. It takes a
/// place among the rows and in their chain, and is never changed.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its place.
    pub seq: Seq,
    /// What kind it is of.
    pub kind: NoteKind,
    /// What happened, as JSON.
    pub body: String,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed the clock since the device started.
    pub time_proven: bool,
    /// The chain up to and with this note.
    pub hash: Hash,
}

/// What a [`Note`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Something was decided: what became of a held batch, or which licences are known here.
    Decision,
    /// A damaged ledger was salvaged.
    Recovery,
    /// Something shows that the ledger was changed behind the agent's back.
    Evidence,
    /// The server's total does not fit what this ledger expects of it.
    Finding,
}

impl NoteKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Decision,
        Self::Recovery,
        Self::Evidence,
        Self::Finding,
    ];

    /// Its name in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Recovery => "recovery",
            Self::Evidence => "evidence",
            Self::Finding => "finding",
        }
    }
}

impl BatchState {
    /// Whether nothing more becomes of the batch.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Settled | Self::Superseded | Self::Waived)
    }
}

/// A granted consumption. Never changed.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place.
    pub seq: Seq,
    /// Its lane.
    pub lane: LaneNo,
    /// The application that consumed.
    pub app: AppNo,
    /// The units.
    pub units: Units,
    /// The total that it was granted with.
    pub total: Total,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed the clock since the device started.
    pub time_proven: bool,
    /// The chain up to and with this row.
    pub hash: Hash,
}

impl License {
    /// A device to read the licence for: one that the server does not refuse, if there is one.
    pub(in crate::core) fn any_device(&self) -> Option<String> {
        let accepted = self.devices.iter().find(|(_, refused)| refused.is_none());
        accepted
            .or_else(|| self.devices.iter().next())
            .map(|(device, _)| device.clone())
    }

    /// A device that the licence, and with it its totals, can be read by.
    pub(in crate::core) fn reader(&self) -> Option<&str> {
        let mut accepted = self.devices.iter().filter(|(_, refused)| refused.is_none());
        let (device, _) = accepted.next().filter(|_| self.blocked.is_none())?;
        Some(device)
    }

    /// Whether the server, by its last word, does not refuse this licence on this device.
    pub(in crate::core) fn accepts(&self, hardware_id: &str) -> bool {
        self.blocked.is_none() && self.devices.get(hardware_id).is_none_or(Option::is_none)
    }

    /// Tells whether the server counts more activated devices than this ledger knows.
    pub(in crate::core) fn is_activated_elsewhere(&self) -> bool {
        let known = u64::try_from(self.devices.len()).unwrap_or(u64::MAX);
        self.body.times_activated().is_some_and(|all| all > known)
    }

    /// The server's id of it. The number in [`Self::id`] is the one that the hashes of its rows cover; an older version kept
    /// one entry for a key whatever licence the key opened, so that the two can differ.
    pub const fn server_id(&self) -> i64 {
        self.body.counter.id
    }
}

impl Batch {
    /// Whether rows are added to it.
    pub fn is_open(&self) -> bool {
        self.state == BatchState::Open && !self.closed
    }

    /// Whether a row of its lane with these units goes into it. Of several, the first takes it.
    pub fn accepts(&self, units: Units) -> bool {
        self.is_open() && self.units.checked_add(units).is_some()
    }

    /// An open batch with its first row.
    pub(in crate::core) fn open(
        no: BatchNo,
        lane: LaneNo,
        account: AccountNo,
        seq: Seq,
        now: Duration,
    ) -> Self {
        Self {
            no,
            lane,
            account,
            first: seq,
            last: seq,
            rows: 0,
            units: Units::ZERO,
            last_hash: Hash::ORIGIN,
            refusals: 0,
            dropped: Dropped::default(),
            state: BatchState::Open,
            opened_at: now,
            sealed: None,
            closed: false,
            held_at: None,
            late: false,
            ended_at: None,
        }
    }

    /// Whether it was refused, and no total that was asked for since has said that it was not counted first.
    pub(in crate::core) fn is_unproven(&self) -> bool {
        let refused_at = self.sealed.as_ref().and_then(|sealed| sealed.refused_at);
        refused_at.is_some()
    }

    /// This batch's rows after a certain refusal: they go on under another id, which they get when they are sent.
    pub(in crate::core) fn renewed(&self) -> Self {
        Self {
            state: BatchState::Open,
            closed: true,
            refusals: self.refusals.saturating_add(1),
            sealed: None,
            held_at: None,
            // It has waited long enough.
            opened_at: Duration::ZERO,
            ..self.clone()
        }
    }
}

impl Sealed {
    pub(in crate::core) fn new(now: Moment, id: Uuid, before: Standing) -> Self {
        Self {
            id,
            at: now.time,
            at_proven: now.proven,
            since: Some(now.mono),
            attempts: 0,
            before,
            heard_at: None,
            sent_at: now.time,
            doubtful: false,
            peer: None,
            refused_at: None,
            readings: Readings::default(),
        }
    }
}

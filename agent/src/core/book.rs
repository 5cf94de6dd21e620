//! The books: everything that is owed, in memory, as the ledger has it on disk.
//!
//! The book is a unit of work. Each change first notes the entity as it was; [`Book::changes`] is what
//! a commit must write, and after it either [`Book::committed`] forgets the notes or
//! [`Book::roll_back`] restores them. So memory never shows what the disk does not hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::{OverageSetting, Standing},
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, Holder, LicenseBody, Subject},
};
use uuid::Uuid;

use super::chain::Hash;

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
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
    /// The key, or the user.
    pub holder: Holder,
    /// The server's id of it.
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
    /// The licence is being read.
    LookingUp,
}

/// A growing pause between failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    /// Until when, on the monotonic clock.
    pub until: Duration,
    /// How many failures there were without a success between.
    pub failures: u32,
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
    /// Whether the server has contradicted the total since; not kept on disk.
    pub stale: bool,
    /// Whether its total ever moved by more than this agent's units.
    pub shared: bool,
    /// All units ever recorded here.
    pub recorded: Units,
    /// Those that the server has counted.
    pub settled: Units,
    /// How many rows were recorded here.
    pub rows: u64,
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
    /// When its first row was recorded, on the monotonic clock; zero after a restart.
    pub opened_at: Duration,
    /// What it became when it was sealed.
    pub sealed: Option<Sealed>,
    /// Whether rows may still be added while it is open.
    pub closed: bool,
}

/// What sealing adds to a batch.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its id, which is also its `Idempotency-Key`.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// How often it was sent.
    pub attempts: u32,
    /// The account's total before it was last sent, and when that was right.
    pub before: (Total, Timestamp),
    /// When it was last sent.
    pub sent_at: Timestamp,
    /// Whether the server may have counted an earlier attempt. Then only a server that keeps
    /// idempotency keys can refuse it, and only the total can clear it.
    pub doubtful: bool,
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
    /// Its request had no valid answer. The total is read from this time on the monotonic clock.
    Unknown {
        /// When the request can no longer arrive.
        look_at: Duration,
    },
    /// It waits for something to change.
    Held(Hold),
    /// The server has counted it.
    Settled,
    /// Its rows went on in other batches.
    Superseded,
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

/// What a commit must write.
#[derive(Default)]
pub struct Changes {
    licenses: BTreeMap<LicenseNo, Option<License>>,
    accounts: BTreeMap<AccountNo, Option<Account>>,
    batches: BTreeMap<BatchNo, Option<Batch>>,
    lanes: BTreeSet<LaneNo>,
    rows: Vec<Row>,
    head: Option<(Seq, Hash)>,
    idempotent: Option<bool>,
    /// Batches that reached their end and leave memory at the commit.
    ended: BTreeSet<BatchNo>,
}

/// Everything that is owed.
pub struct Book {
    pub(super) licenses: BTreeMap<LicenseNo, License>,
    pub(super) accounts: BTreeMap<AccountNo, Account>,
    pub(super) lanes: BTreeMap<LaneNo, Lane>,
    lane_numbers: BTreeMap<LaneKey, LaneNo>,
    pub(super) batches: BTreeMap<BatchNo, Batch>,
    by_name: BTreeMap<(String, Holder), Vec<LicenseNo>>,
    by_license: BTreeMap<LicenseNo, BTreeMap<Option<String>, AccountNo>>,
    by_account: BTreeMap<AccountNo, BTreeSet<BatchNo>>,
    head: (Seq, Hash),
    next_lane: LaneNo,
    next_batch: BatchNo,
    idempotent: bool,
    changes: Changes,
}

/// What the ledger holds, to make a book of it.
pub struct Contents {
    /// All licences.
    pub licenses: Vec<License>,
    /// All accounts.
    pub accounts: Vec<Account>,
    /// All lanes.
    pub lanes: Vec<(LaneNo, LaneKey)>,
    /// The batches that are neither settled nor superseded.
    pub batches: Vec<Batch>,
    /// The newest row's place and hash; place 0 and the chain's origin where there is none.
    pub head: (Seq, Hash),
    /// The highest number that a batch ever had.
    pub last_batch: BatchNo,
    /// Whether the server was last seen to keep idempotency keys.
    pub idempotent: bool,
}

impl Book {
    /// Rebuilds the book from what the ledger holds.
    pub fn new(contents: Contents) -> Self {
        let mut book = Self {
            licenses: BTreeMap::new(),
            accounts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lane_numbers: BTreeMap::new(),
            batches: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_license: BTreeMap::new(),
            by_account: BTreeMap::new(),
            head: contents.head,
            next_lane: LaneNo(1),
            next_batch: BatchNo(contents.last_batch.0 + 1),
            idempotent: contents.idempotent,
            changes: Changes::default(),
        };
        for license in contents.licenses {
            book.index_license(&license);
            book.licenses.insert(license.no, license);
        }
        for account in contents.accounts {
            book.index_account(&account);
            book.accounts.insert(account.no, account);
        }
        for (no, key) in contents.lanes {
            book.insert_lane(no, key);
        }
        for batch in contents.batches {
            book.by_account
                .entry(batch.account)
                .or_default()
                .insert(batch.no);
            book.batches.insert(batch.no, batch);
        }
        book
    }

    /// All licences.
    pub fn licenses(&self) -> impl Iterator<Item = &License> {
        self.licenses.values()
    }

    /// A licence.
    pub fn license(&self, no: LicenseNo) -> Option<&License> {
        self.licenses.get(&no)
    }

    /// A lane.
    pub fn lane(&self, no: LaneNo) -> Option<&Lane> {
        self.lanes.get(&no)
    }

    /// A batch that is not at its end.
    pub fn batch(&self, no: BatchNo) -> Option<&Batch> {
        self.batches.get(&no)
    }

    /// The accounts of a licence, its own first.
    pub fn accounts_of(&self, license: LicenseNo) -> impl Iterator<Item = &Account> {
        self.by_license
            .get(&license)
            .into_iter()
            .flat_map(|accounts| accounts.values())
            .filter_map(|no| self.accounts.get(no))
    }

    /// The account of a licence's feature, or of the licence itself.
    pub fn account_of(&self, license: LicenseNo, feature: Option<&str>) -> Option<&Account> {
        let no = self
            .by_license
            .get(&license)?
            .get(&feature.map(str::to_owned))?;
        self.accounts.get(no)
    }

    /// The batches of an account that are not at their end, oldest row first.
    pub fn batches_of(&self, account: AccountNo) -> Vec<&Batch> {
        let mut batches: Vec<&Batch> = self
            .by_account
            .get(&account)
            .into_iter()
            .flatten()
            .filter_map(|no| self.batches.get(no))
            .collect();
        batches.sort_by_key(|batch| batch.first);
        batches
    }

    /// The licence that a request means.
    pub fn find(&self, subject: &Subject) -> Option<&License> {
        let candidates = self
            .by_name
            .get(&(subject.product.clone(), subject.holder.clone()))?;
        candidates
            .iter()
            .filter_map(|no| self.licenses.get(no))
            .find(|license| subject.license_id.is_none_or(|id| id == license.id))
    }

    /// Whether that changed since the last commit.
    pub fn idempotent_changed(&self) -> bool {
        self.changes
            .idempotent
            .is_some_and(|before| before != self.idempotent)
    }

    /// Whether the server was last seen to keep idempotency keys.
    pub const fn idempotent(&self) -> bool {
        self.idempotent
    }

    /// What is granted in the current period and not in the server's total.
    pub(super) fn pending(&self, account: &Account, now: Timestamp) -> Option<Units> {
        let current = account.standing.period_start(now);
        self.by_account
            .get(&account.no)
            .into_iter()
            .flatten()
            .filter_map(|no| self.batches.get(no))
            .filter(|batch| {
                let period = self.lanes.get(&batch.lane).and_then(|lane| lane.key.period);
                // Rows without a period were recorded when the licence had none: they always count.
                period.is_none() || period >= current
            })
            .try_fold(Units::ZERO, |sum, batch| sum.checked_add(batch.units))
    }

    /// The request that a batch is sent as.
    pub fn request_of(&self, batch: &Batch) -> Option<AddConsumption> {
        let lane = self.lanes.get(&batch.lane)?;
        let account = self.accounts.get(&batch.account)?;
        let license = self.licenses.get(&account.license)?;
        Some(AddConsumption {
            subject: license.subject(&lane.key.hardware_id),
            feature: account.feature.clone(),
            units: batch.units,
            setting: lane.key.setting,
            event: lane.key.event,
        })
    }

    // === changing ===

    pub(super) fn license_mut(&mut self, no: LicenseNo) -> Option<&mut License> {
        let license = self.licenses.get_mut(&no)?;
        self.changes
            .licenses
            .entry(no)
            .or_insert_with(|| Some(license.clone()));
        Some(license)
    }

    pub(super) fn account_mut(&mut self, no: AccountNo) -> Option<&mut Account> {
        let account = self.accounts.get_mut(&no)?;
        self.changes
            .accounts
            .entry(no)
            .or_insert_with(|| Some(account.clone()));
        Some(account)
    }

    pub(super) fn batch_mut(&mut self, no: BatchNo) -> Option<&mut Batch> {
        let batch = self.batches.get_mut(&no)?;
        self.changes
            .batches
            .entry(no)
            .or_insert_with(|| Some(batch.clone()));
        Some(batch)
    }

    /// Ends a batch: it leaves memory when the change is committed, and counts no more from here on.
    pub(super) fn end_batch(&mut self, no: BatchNo, state: BatchState) {
        let Some(batch) = self.batch_mut(no) else {
            return;
        };
        batch.state = state;
        let account = batch.account;
        if let Some(batches) = self.by_account.get_mut(&account) {
            batches.remove(&no);
        }
        self.changes.ended.insert(no);
    }

    pub(super) fn set_idempotent(&mut self, idempotent: bool) {
        if self.idempotent != idempotent {
            self.changes.idempotent.get_or_insert(self.idempotent);
            self.idempotent = idempotent;
        }
    }

    pub(super) fn add_license(&mut self, make: impl FnOnce(LicenseNo) -> License) -> LicenseNo {
        let no = LicenseNo(
            self.licenses
                .keys()
                .next_back()
                .map_or(1, |last| last.0 + 1),
        );
        let license = make(no);
        self.index_license(&license);
        self.licenses.insert(no, license);
        self.changes.licenses.insert(no, None);
        no
    }

    pub(super) fn add_account(
        &mut self,
        license: LicenseNo,
        feature: Option<String>,
        standing: Standing,
    ) -> AccountNo {
        let no = AccountNo(
            self.accounts
                .keys()
                .next_back()
                .map_or(1, |last| last.0 + 1),
        );
        let account = Account {
            no,
            license,
            feature,
            standing,
            stale: false,
            shared: false,
            recorded: Units::ZERO,
            settled: Units::ZERO,
            rows: 0,
        };
        self.index_account(&account);
        self.accounts.insert(no, account);
        self.changes.accounts.insert(no, None);
        no
    }

    /// The lane of that key, made if there is none.
    pub(super) fn lane_of(&mut self, key: LaneKey) -> LaneNo {
        if let Some(no) = self.lane_numbers.get(&key) {
            return *no;
        }
        let no = self.next_lane;
        self.insert_lane(no, key);
        self.changes.lanes.insert(no);
        no
    }

    pub(super) fn add_batch(&mut self, make: impl FnOnce(BatchNo) -> Batch) -> BatchNo {
        let no = self.next_batch;
        self.next_batch = BatchNo(no.0 + 1);
        let batch = make(no);
        self.by_account.entry(batch.account).or_default().insert(no);
        self.batches.insert(no, batch);
        self.changes.batches.insert(no, None);
        no
    }

    /// Appends a row; `make` gets its place and the hash of the row before it.
    pub(super) fn add_row(&mut self, make: impl FnOnce(Seq, &Hash) -> Row) -> Seq {
        self.changes.head.get_or_insert(self.head);
        let row = make(Seq(self.head.0.0 + 1), &self.head.1);
        self.head = (row.seq, row.hash);
        let seq = row.seq;
        self.changes.rows.push(row);
        seq
    }

    // === the unit of work ===

    /// Whether a commit has anything to write.
    pub fn has_changes(&self) -> bool {
        let changes = &self.changes;
        !(changes.licenses.is_empty()
            && changes.accounts.is_empty()
            && changes.batches.is_empty()
            && changes.lanes.is_empty()
            && changes.rows.is_empty()
            && changes.idempotent.is_none())
    }

    /// The rows to write.
    pub fn new_rows(&self) -> &[Row] {
        &self.changes.rows
    }

    /// The lanes to write.
    pub fn new_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.changes
            .lanes
            .iter()
            .filter_map(|no| self.lanes.get(no))
    }

    /// The licences to write.
    pub fn changed_licenses(&self) -> impl Iterator<Item = &License> {
        self.changes
            .licenses
            .keys()
            .filter_map(|no| self.licenses.get(no))
    }

    /// The accounts to write.
    pub fn changed_accounts(&self) -> impl Iterator<Item = &Account> {
        self.changes
            .accounts
            .keys()
            .filter_map(|no| self.accounts.get(no))
    }

    /// The batches to write.
    pub fn changed_batches(&self) -> impl Iterator<Item = &Batch> {
        self.changes
            .batches
            .keys()
            .filter_map(|no| self.batches.get(no))
    }

    /// Forgets how things were: the changes are on disk.
    pub fn committed(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        for no in changes.ended {
            self.batches.remove(&no);
        }
    }

    /// Puts everything back as it was at the last commit.
    pub fn roll_back(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        restore(&mut self.licenses, changes.licenses);
        restore(&mut self.accounts, changes.accounts);
        restore(&mut self.batches, changes.batches);
        for no in changes.lanes {
            if let Some(lane) = self.lanes.remove(&no) {
                self.lane_numbers.remove(&lane.key);
            }
        }
        if let Some(head) = changes.head {
            self.head = head;
        }
        if let Some(idempotent) = changes.idempotent {
            self.idempotent = idempotent;
        }
        self.rebuild_indices();
    }

    fn rebuild_indices(&mut self) {
        self.by_name.clear();
        self.by_license.clear();
        self.by_account.clear();
        for license in self.licenses.values() {
            let name = (license.product.clone(), license.holder.clone());
            self.by_name.entry(name).or_default().push(license.no);
        }
        for account in self.accounts.values() {
            let features = self.by_license.entry(account.license).or_default();
            features.insert(account.feature.clone(), account.no);
        }
        for batch in self.batches.values() {
            self.by_account
                .entry(batch.account)
                .or_default()
                .insert(batch.no);
        }
    }

    fn index_license(&mut self, license: &License) {
        let name = (license.product.clone(), license.holder.clone());
        self.by_name.entry(name).or_default().push(license.no);
    }

    fn index_account(&mut self, account: &Account) {
        let features = self.by_license.entry(account.license).or_default();
        features.insert(account.feature.clone(), account.no);
    }

    fn insert_lane(&mut self, no: LaneNo, key: LaneKey) {
        let digest = self.lane_digest(&key);
        self.lane_numbers.insert(key.clone(), no);
        self.lanes.insert(no, Lane { no, key, digest });
        self.next_lane = self.next_lane.max(LaneNo(no.0 + 1));
    }

    fn lane_digest(&self, key: &LaneKey) -> Hash {
        let account = self.accounts.get(&key.account);
        let license = account.and_then(|account| self.licenses.get(&account.license));
        super::chain::lane_digest(license, account, key)
    }
}

fn restore<K: Ord, V>(live: &mut BTreeMap<K, V>, before: BTreeMap<K, Option<V>>) {
    for (key, value) in before {
        match value {
            Some(value) => live.insert(key, value),
            None => live.remove(&key),
        };
    }
}

impl License {
    /// How a request to the server names this licence. A user can hold several for one product, so a
    /// user's is always named by its id as well.
    pub fn subject(&self, hardware_id: &str) -> Subject {
        let license_id = match self.holder {
            Holder::LicenseKey(_) => None,
            Holder::Username(_) => Some(self.id),
        };
        Subject {
            product: self.product.clone(),
            holder: self.holder.clone(),
            license_id,
            hardware_id: hardware_id.to_owned(),
        }
    }
}

impl Batch {
    /// An open batch with its first row.
    pub(super) fn open(
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
            state: BatchState::Open,
            opened_at: now,
            sealed: None,
            closed: false,
        }
    }
}

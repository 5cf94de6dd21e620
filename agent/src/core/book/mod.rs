//! The books: everything that is owed, in memory, as the ledger has it on disk.
//!
//! The book is a unit of work. Each change first notes the entity as it was. A commit writes what has
//! changed, and after it either [`Book::committed`] forgets the notes or [`Book::roll_back`] restores
//! them. So memory never shows what the disk does not hold.

mod changes;
mod copied;
mod entities;
mod finding;
mod names;
mod overage;
mod pools;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tally_shared::{limits::Standing, time::Timestamp, units::Units, wire::AddConsumption};

pub use self::entities::{
    Account, AccountNo, AccountWatch, AppNo, Batch, BatchNo, BatchState, Dropped, Hold, Home, Lane,
    LaneKey, LaneNo, License, LicenseNo, NewestSettings, Note, NoteKind, Op, Pause, Pool, Readings,
    Row, Sealed, Seq,
};
pub use self::{
    changes::Judgement,
    copied::{Copied, Copies, CopyKind},
    finding::{Finding, FindingKind},
    names::{Name, Opens},
};
use self::{
    changes::{Changes, Former},
    names::Names,
};
use uuid::Uuid;

use super::{
    chain::{self, Hash},
    clock::Moment,
};

/// Everything that is owed.
pub struct Book {
    pub(in crate::core) licenses: BTreeMap<LicenseNo, License>,
    pub(in crate::core) accounts: BTreeMap<AccountNo, Account>,
    pub(in crate::core) lanes: BTreeMap<LaneNo, Lane>,
    lane_numbers: BTreeMap<LaneKey, LaneNo>,
    pub(in crate::core) batches: BTreeMap<BatchNo, Batch>,
    names: Names,
    /// By the server's id, lowest number first.
    by_id: BTreeMap<i64, Vec<LicenseNo>>,
    by_license: BTreeMap<LicenseNo, BTreeMap<Option<String>, AccountNo>>,
    by_account: BTreeMap<AccountNo, BTreeSet<BatchNo>>,
    head: (Seq, Hash),
    chain: chain::Key,
    /// Notes of evidence that are committed.
    evidence: u64,
    next_lane: LaneNo,
    next_batch: BatchNo,
    keeper: Option<String>,
    home: Option<Home>,
    id: Uuid,
    findings: Vec<Finding>,
    copies: Copies,
    /// What the newest row of an account was judged by; unknown after a start.
    judged: BTreeMap<AccountNo, Standing>,
    changes: Changes,
}

/// What the ledger holds, to make a book of it.
pub struct Contents {
    /// All licences.
    pub licenses: Vec<License>,
    /// The licences that names open, and whether each is the name's default.
    pub names: Vec<(Name, LicenseNo, bool)>,
    /// All accounts.
    pub accounts: Vec<Account>,
    /// All lanes.
    pub lanes: Vec<(LaneNo, LaneKey)>,
    /// The batches that have not reached their end.
    pub batches: Vec<Batch>,
    /// The newest row's place and hash; place 0 and the chain's origin where there is none.
    pub head: (Seq, Hash),
    /// What the chain is keyed with.
    pub chain: chain::Key,
    /// The highest number that a batch ever had.
    pub last_batch: BatchNo,
    /// The server and credentials under which idempotency keys were last seen to be kept.
    pub keeper: Option<String>,
    /// The server that the ledger is kept for; `None` where it never had one.
    pub home: Option<Home>,
    /// How many notes of evidence there are.
    pub evidence: u64,
    /// The ledger's own id, made once; `None` where it has none yet.
    pub id: Option<Uuid>,
    /// The findings that nobody has acknowledged, oldest first.
    pub findings: Vec<Finding>,
    /// What notes say of copies.
    pub copies: Copies,
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
            names: Names::default(),
            by_id: BTreeMap::new(),
            by_license: BTreeMap::new(),
            by_account: BTreeMap::new(),
            head: contents.head,
            chain: contents.chain,
            next_lane: LaneNo(1),
            next_batch: BatchNo(contents.last_batch.0 + 1),
            keeper: contents.keeper,
            home: contents.home,
            id: contents.id.unwrap_or_default(),
            findings: contents.findings,
            copies: contents.copies,
            evidence: contents.evidence,
            judged: BTreeMap::new(),
            changes: Changes::default(),
        };
        for license in contents.licenses {
            book.index_id(&license);
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
        book.take_names(contents.names);
        book
    }

    /// The newest place, and its hash.
    pub const fn head(&self) -> (Seq, Hash) {
        self.head
    }

    /// What the chain is keyed with.
    pub const fn chain(&self) -> &chain::Key {
        &self.chain
    }

    /// How many notes say that the ledger was changed behind the agent's back, ever.
    pub fn evidence_ever(&self) -> u64 {
        self.evidence + self.changes.evidence()
    }

    /// The same without those that a person has answered.
    pub fn evidence(&self) -> u64 {
        let answered = self.copies().answered.len() as u64;
        self.evidence_ever().saturating_sub(answered)
    }

    /// What notes say of copies, those to write among them.
    pub fn copies(&self) -> Copies {
        let mut copies = self.copies.clone();
        for note in self.new_notes() {
            copies.take(note);
        }
        copies
    }

    /// The last place that is an original's as well, while nobody has said what became of that.
    pub fn copied_until(&self) -> Option<Seq> {
        if self.copies.open.is_empty() && self.new_notes().is_empty() {
            return None;
        }
        self.copies().until()
    }

    /// All licences.
    pub fn licenses(&self) -> impl Iterator<Item = &License> {
        self.licenses.values()
    }

    /// A licence.
    pub fn license(&self, no: LicenseNo) -> Option<&License> {
        self.licenses.get(&no)
    }

    /// Whether a licence is known no more: it has no device, and nothing of it is owed.
    pub fn is_forgotten(&self, license: &License) -> bool {
        let mut accounts = self.accounts_of(license.no);
        license.devices.is_empty()
            && accounts.all(|account| self.any_batches_of(account.no).next().is_none())
    }

    /// A lane.
    pub fn lane(&self, no: LaneNo) -> Option<&Lane> {
        self.lanes.get(&no)
    }

    /// The batches that are not at their end.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.values()
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

    /// The numbers of these accounts.
    pub(in crate::core) fn account_numbers_of(&self, license: LicenseNo) -> Vec<AccountNo> {
        let accounts = self.by_license.get(&license);
        accounts
            .map(|accounts| accounts.values().copied().collect())
            .unwrap_or_default()
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
        let mut batches: Vec<&Batch> = self.any_batches_of(account).collect();
        batches.sort_by_key(|batch| batch.first);
        batches
    }

    /// The batches of an account that are not at their end, in the order in which they were made.
    pub(in crate::core) fn any_batches_of(
        &self,
        account: AccountNo,
    ) -> impl Iterator<Item = &Batch> {
        let numbers = self.by_account.get(&account).into_iter().flatten();
        numbers.filter_map(|no| self.batches.get(no))
    }

    /// Whether that changed since the last commit.
    pub fn keeper_changed(&self) -> bool {
        let before = self.changes.keeper.as_ref();
        before.is_some_and(|before| before.0 != self.keeper)
    }

    /// The server and credentials under which idempotency keys were last seen to be kept.
    pub fn keeper(&self) -> Option<&str> {
        self.keeper.as_deref()
    }

    /// The ledger's own id: ids of batches are computed from it, so that a copy of the ledger has the same.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Whether that changed since the last commit.
    pub const fn id_changed(&self) -> bool {
        self.changes.id.is_some()
    }

    /// The findings that nobody has acknowledged, oldest first; those of the last commit and before.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Takes a finding out of those that are shown. Returns whether it was among them.
    pub(in crate::core) fn acknowledge(&mut self, no: Seq) -> bool {
        let is_open = self.findings.iter().any(|finding| finding.seq == no);
        if is_open {
            self.changes.acknowledged.insert(no);
        }
        is_open
    }

    /// The server that the ledger is kept for; `None` where it never had one.
    pub const fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// Whether that changed since the last commit.
    pub fn home_changed(&self) -> bool {
        self.changes
            .home
            .as_ref()
            .is_some_and(|before| before.0 != self.home)
    }

    /// The batches that are owed to the server that the ledger is kept for.
    pub fn owed_home(&self) -> impl Iterator<Item = &Batch> {
        let until = self.home().and_then(|home| home.until);
        let is_owed = move |batch: &&Batch| {
            !batch.state.is_end() && until.is_none_or(|until| batch.first <= until)
        };
        self.batches().filter(is_owed)
    }

    /// What is granted in the current period and not in the server's total.
    pub(in crate::core) fn pending(&self, account: &Account, now: Timestamp) -> Option<Units> {
        let current = account.standing.period_start(now);
        self.batches_of_counter(account)
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
            subject: self.subject_of(license, &lane.key.hardware_id),
            feature: account.feature.clone(),
            units: batch.units,
            setting: batch.dropped.leave(lane.key.setting),
            event: lane.key.event,
        })
    }

    pub(in crate::core) fn license_mut(&mut self, no: LicenseNo) -> Option<&mut License> {
        let license = self.licenses.get_mut(&no)?;
        self.changes
            .licenses
            .entry(no)
            .or_insert_with(|| Some(license.clone()));
        Some(license)
    }

    pub(in crate::core) fn account_mut(&mut self, no: AccountNo) -> Option<&mut Account> {
        let account = self.accounts.get_mut(&no)?;
        self.changes
            .accounts
            .entry(no)
            .or_insert_with(|| Some(account.clone()));
        Some(account)
    }

    pub(in crate::core) fn batch_mut(&mut self, no: BatchNo) -> Option<&mut Batch> {
        let batch = self.batches.get_mut(&no)?;
        self.changes
            .batches
            .entry(no)
            .or_insert_with(|| Some(batch.clone()));
        Some(batch)
    }

    /// Ends a batch: it leaves memory when the change is committed, and counts no more from here on.
    pub(in crate::core) fn end_batch(&mut self, now: Moment, no: BatchNo, state: BatchState) {
        let Some(batch) = self.batch_mut(no) else {
            return;
        };
        batch.state = state;
        batch.ended_at = Some(now.time);
        let account = batch.account;
        if let Some(batches) = self.by_account.get_mut(&account) {
            batches.remove(&no);
        }
        self.changes.ended.insert(no);
    }

    pub(in crate::core) fn set_keeper(&mut self, keeper: Option<String>) {
        if self.keeper != keeper {
            let before = std::mem::replace(&mut self.keeper, keeper);
            self.changes.keeper.get_or_insert(Former(before));
        }
    }

    pub(in crate::core) fn set_id(&mut self, id: Uuid) {
        let before = std::mem::replace(&mut self.id, id);
        self.changes.id.get_or_insert(before);
    }

    /// The id of a batch, computed from the ledger, the rows, and how often the server certainly refused them: the same rows
    /// have the same id in a copy of the ledger, and a new one only after a certain refusal.
    pub(in crate::core) fn id_of(&self, batch: &Batch) -> Option<Uuid> {
        let lane = self.lanes.get(&batch.lane)?;
        let name = [
            lane.digest.0.as_slice(),
            &batch.first.0.to_be_bytes(),
            &batch.last.0.to_be_bytes(),
            &batch.last_hash.0,
            &batch.refusals.to_be_bytes(),
        ];
        Some(Uuid::new_v5(&self.id, &name.concat()))
    }

    pub(in crate::core) fn set_home(&mut self, home: Home) {
        if self.home.as_ref() != Some(&home) {
            let before = self.home.replace(home);
            self.changes.home.get_or_insert(Former(before));
        }
    }

    pub(in crate::core) fn add_license(
        &mut self,
        make: impl FnOnce(LicenseNo) -> License,
    ) -> LicenseNo {
        let no = LicenseNo(
            self.licenses
                .keys()
                .next_back()
                .map_or(1, |last| last.0 + 1),
        );
        let license = make(no);
        self.index_id(&license);
        self.licenses.insert(no, license);
        self.changes.licenses.insert(no, None);
        no
    }

    pub(in crate::core) fn add_account(
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
            heard_at: Duration::ZERO,
            stale: false,
            unsure: false,
            shared: false,
            recorded: Units::ZERO,
            settled: Units::ZERO,
            waived: Units::ZERO,
            late: Units::ZERO,
            rows: 0,
            refused: None,
            settings: NewestSettings::default(),
            pool: None,
            watch: AccountWatch::default(),
        };
        self.index_account(&account);
        self.accounts.insert(no, account);
        self.changes.accounts.insert(no, None);
        no
    }

    /// The lane of that key, made if there is none.
    pub(in crate::core) fn lane_of(&mut self, key: LaneKey) -> LaneNo {
        if let Some(no) = self.lane_numbers.get(&key) {
            return *no;
        }
        let no = self.next_lane;
        self.insert_lane(no, key);
        self.changes.lanes.insert(no);
        no
    }

    pub(in crate::core) fn add_batch(&mut self, make: impl FnOnce(BatchNo) -> Batch) -> BatchNo {
        let no = self.next_batch;
        self.next_batch = BatchNo(no.0 + 1);
        let batch = make(no);
        self.by_account.entry(batch.account).or_default().insert(no);
        self.batches.insert(no, batch);
        self.changes.batches.insert(no, None);
        no
    }

    /// Leaves the places up to and with this one empty: they were given once.
    pub(in crate::core) fn skip_to(&mut self, seq: Seq) {
        self.changes.head.get_or_insert(self.head);
        self.head.0 = self.head.0.max(seq);
    }

    /// Appends a row; `make` gets its place, the hash of the row before it, and the key.
    pub(in crate::core) fn add_row(
        &mut self,
        make: impl FnOnce(Seq, &Hash, &chain::Key) -> Row,
    ) -> (Seq, Hash) {
        self.changes.head.get_or_insert(self.head);
        let row = make(Seq(self.head.0.0 + 1), &self.head.1, &self.chain);
        self.head = (row.seq, row.hash);
        self.changes.rows.push(row);
        self.head
    }

    /// Keeps what a row was judged by, where that is not what the row before it was.
    pub(in crate::core) fn judge(&mut self, account: AccountNo, seq: Seq, standing: Standing) {
        if self.judged.get(&account) == Some(&standing) {
            return;
        }
        let before = self.judged.insert(account, standing);
        self.changes.judgements.push(Judgement {
            account,
            seq,
            standing,
            before,
        });
    }

    /// Appends a note.
    pub(crate) fn add_note(&mut self, now: Moment, kind: NoteKind, body: String) -> Seq {
        self.changes.head.get_or_insert(self.head);
        let seq = Seq(self.head.0.0 + 1);
        let time = (now.time, now.proven);
        let hash = self.chain.next_note(&self.head.1, seq, kind, &body, time);
        self.head = (seq, hash);
        self.changes.notes.push(Note {
            seq,
            kind,
            body,
            at: now.time,
            time_proven: now.proven,
            hash,
        });
        seq
    }

    fn rebuild_indices(&mut self) {
        self.by_id.clear();
        self.by_license.clear();
        self.by_account.clear();
        for license in self.licenses.values() {
            let numbers = self.by_id.entry(license.server_id()).or_default();
            numbers.push(license.no);
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
        chain::lane_digest(license, account, key)
    }
}

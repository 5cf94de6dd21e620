//! The unit of work: what a commit must write, and how to take it back.

use std::collections::{BTreeMap, BTreeSet};

use tally_shared::{limits::Standing, units::Units};
use uuid::Uuid;

use super::{
    Account, AccountNo, Batch, BatchNo, BatchState, Book, Finding, Home, Lane, LaneNo, License,
    LicenseNo, Name, Note, NoteKind, Opens, Row, Seq,
};
use crate::core::chain::Hash;

/// What a commit must write.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) licenses: BTreeMap<LicenseNo, Option<License>>,
    pub(super) names: BTreeMap<Name, Option<Opens>>,
    pub(super) accounts: BTreeMap<AccountNo, Option<Account>>,
    pub(super) batches: BTreeMap<BatchNo, Option<Batch>>,
    pub(super) lanes: BTreeSet<LaneNo>,
    pub(super) rows: Vec<Row>,
    pub(super) judgements: Vec<Judgement>,
    /// What the rows added to.
    pub(super) growth: Vec<Growth>,
    pub(super) notes: Vec<Note>,
    pub(super) head: Option<(Seq, Hash)>,
    pub(super) keeper: Option<Former<String>>,
    pub(super) home: Option<Former<Home>>,
    pub(super) id: Option<Uuid>,
    /// Findings that a person has seen.
    pub(super) acknowledged: BTreeSet<Seq>,
    /// Batches that reached their end and leave memory at the commit.
    pub(super) ended: BTreeSet<BatchNo>,
}

/// A value before the change, if there was one.
#[derive(PartialEq, Eq)]
pub(super) struct Former<T>(pub(super) Option<T>);

/// What the rows of an account are judged by from one on.
#[derive(Clone, Copy, Debug)]
pub struct Judgement {
    /// The account.
    pub account: AccountNo,
    /// The first of the rows.
    pub seq: Seq,
    /// How the account stood by the server's last word.
    pub standing: Standing,
    /// What the rows before were judged by, where it is known.
    pub(super) before: Option<Standing>,
}

/// What a row added to sums that nothing else changed in this commit.
pub(super) struct Growth {
    pub(super) account: Option<AccountNo>,
    /// The batch, and the row that was its last before, with its hash.
    pub(super) batch: Option<(BatchNo, (Seq, Hash))>,
    pub(super) units: Units,
}

impl Changes {
    /// Whether there is more than rows.
    fn is_structural(&self) -> bool {
        !(self.licenses.is_empty()
            && self.names.is_empty()
            && self.accounts.is_empty()
            && self.batches.is_empty()
            && self.lanes.is_empty()
            && self.notes.is_empty()
            && self.keeper.is_none()
            && self.home.is_none()
            && self.id.is_none()
            && self.acknowledged.is_empty())
    }
}

impl Changes {
    /// How many of its notes are evidence.
    pub(super) fn evidence(&self) -> u64 {
        let is_evidence = |note: &&Note| note.kind == NoteKind::Evidence;
        self.notes.iter().filter(is_evidence).count() as u64
    }
}

impl Book {
    /// Counts a new row in its account and its batch.
    pub(in crate::core) fn grow(
        &mut self,
        account_no: AccountNo,
        batch_no: BatchNo,
        (seq, hash): (Seq, Hash),
        units: Units,
    ) {
        let mut growth = Growth {
            account: None,
            batch: None,
            units,
        };
        if let Some(account) = self.accounts.get_mut(&account_no) {
            // Both fit: the core checked them before it granted.
            account.recorded = account.recorded.checked_add(units).unwrap_or(units);
            account.rows += 1;
            if !self.changes.accounts.contains_key(&account_no) {
                growth.account = Some(account_no);
            }
        }
        if let Some(batch) = self.batches.get_mut(&batch_no) {
            if !self.changes.batches.contains_key(&batch_no) {
                growth.batch = Some((batch_no, (batch.last, batch.last_hash)));
            }
            (batch.last, batch.last_hash) = (seq, hash);
            batch.rows += 1;
            batch.units = batch.units.checked_add(units).unwrap_or(units);
        }
        self.changes.growth.push(growth);
    }

    /// Whether the next commit writes more than rows of batches that there are.
    pub fn has_structural_changes(&self) -> bool {
        self.changes.is_structural()
    }

    /// Whether a commit has anything to write.
    pub fn has_changes(&self) -> bool {
        self.changes.is_structural() || !self.changes.rows.is_empty()
    }

    /// The rows to write.
    pub fn new_rows(&self) -> &[Row] {
        &self.changes.rows
    }

    /// What the rows to write were judged by, where that is new.
    pub fn new_judgements(&self) -> &[Judgement] {
        &self.changes.judgements
    }

    /// The notes to write.
    pub fn new_notes(&self) -> &[Note] {
        &self.changes.notes
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

    /// The accounts of which nothing but the sums is to be written.
    pub fn grown_accounts(&self) -> impl Iterator<Item = &Account> {
        let grown = self.changes.growth.iter();
        let numbers: BTreeSet<AccountNo> = grown
            .filter_map(|growth| growth.account)
            .filter(|no| !self.changes.accounts.contains_key(no))
            .collect();
        numbers.into_iter().filter_map(|no| self.accounts.get(&no))
    }

    /// The batches to write.
    pub fn changed_batches(&self) -> impl Iterator<Item = &Batch> {
        self.changes
            .batches
            .keys()
            .filter_map(|no| self.batches.get(no))
    }

    /// The batches that are open on disk, and no more in memory.
    pub fn newly_sealed(&self) -> impl Iterator<Item = BatchNo> {
        let is_open = |batch: &Batch| batch.state == BatchState::Open;
        let changed = self.changes.batches.iter();
        let were_open = changed.filter(move |(_, before)| before.as_ref().is_some_and(is_open));
        were_open
            .filter(move |(no, _)| self.batches.get(no).is_some_and(|batch| !is_open(batch)))
            .map(|(no, _)| *no)
    }

    /// The batches of which nothing but the sums is to be written.
    pub fn grown_batches(&self) -> impl Iterator<Item = &Batch> {
        let grown = self.changes.growth.iter();
        let numbers: BTreeSet<BatchNo> = grown
            .filter_map(|growth| growth.batch.map(|(no, _)| no))
            .filter(|no| !self.changes.batches.contains_key(no))
            .collect();
        numbers.into_iter().filter_map(|no| self.batches.get(&no))
    }

    /// Forgets how things were: the changes are on disk.
    pub fn committed(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.evidence += changes.evidence();
        for note in &changes.notes {
            self.copies.take(note);
        }
        for no in changes.ended {
            self.batches.remove(&no);
        }
        self.findings
            .extend(changes.notes.iter().filter_map(Finding::of));
        self.findings
            .retain(|finding| !changes.acknowledged.contains(&finding.seq));
    }

    /// Puts everything back as it was at the last commit.
    pub fn roll_back(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        restore(&mut self.licenses, changes.licenses);
        self.restore_names(changes.names);
        restore(&mut self.accounts, changes.accounts);
        restore(&mut self.batches, changes.batches);
        for growth in changes.growth.iter().rev() {
            self.shrink(growth);
        }
        for judgement in changes.judgements.iter().rev() {
            match judgement.before {
                Some(before) => self.judged.insert(judgement.account, before),
                None => self.judged.remove(&judgement.account),
            };
        }
        for no in changes.lanes {
            if let Some(lane) = self.lanes.remove(&no) {
                self.lane_numbers.remove(&lane.key);
            }
        }
        if let Some(head) = changes.head {
            self.head = head;
        }
        if let Some(keeper) = changes.keeper {
            self.keeper = keeper.0;
        }
        if let Some(home) = changes.home {
            self.home = home.0;
        }
        if let Some(id) = changes.id {
            self.id = id;
        }
        self.rebuild_indices();
    }

    fn shrink(&mut self, growth: &Growth) {
        let account = growth.account.and_then(|no| self.accounts.get_mut(&no));
        if let Some(account) = account {
            account.recorded = account
                .recorded
                .checked_sub(growth.units)
                .unwrap_or_default();
            account.rows -= 1;
        }
        let Some((no, last)) = growth.batch else {
            return;
        };
        if let Some(batch) = self.batches.get_mut(&no) {
            (batch.last, batch.last_hash) = last;
            batch.rows -= 1;
            batch.units = batch.units.checked_sub(growth.units).unwrap_or_default();
        }
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

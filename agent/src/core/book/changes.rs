//! The unit of work: what a commit must write, and how to take it back.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Account, AccountNo, Batch, BatchNo, Book, Lane, LaneNo, License, LicenseNo, Note, Row, Seq,
};
use crate::core::chain::Hash;

/// What a commit must write.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) licenses: BTreeMap<LicenseNo, Option<License>>,
    pub(super) accounts: BTreeMap<AccountNo, Option<Account>>,
    pub(super) batches: BTreeMap<BatchNo, Option<Batch>>,
    pub(super) lanes: BTreeSet<LaneNo>,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<Note>,
    pub(super) head: Option<(Seq, Hash)>,
    pub(super) idempotent: Option<bool>,
    /// Batches that reached their end and leave memory at the commit.
    pub(super) ended: BTreeSet<BatchNo>,
}

impl Book {
    /// Whether a commit has anything to write.
    pub fn has_changes(&self) -> bool {
        let changes = &self.changes;
        !(changes.licenses.is_empty()
            && changes.accounts.is_empty()
            && changes.batches.is_empty()
            && changes.lanes.is_empty()
            && changes.rows.is_empty()
            && changes.notes.is_empty()
            && changes.idempotent.is_none())
    }

    /// The rows to write.
    pub fn new_rows(&self) -> &[Row] {
        &self.changes.rows
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
}

fn restore<K: Ord, V>(live: &mut BTreeMap<K, V>, before: BTreeMap<K, Option<V>>) {
    for (key, value) in before {
        match value {
            Some(value) => live.insert(key, value),
            None => live.remove(&key),
        };
    }
}

//! The ledger's file, as far as the core can tell: what a commit writes, and what a start reads back.
//!
//! What `ledger::store` does not keep (pauses, what is under way, when an answer was heard) is dropped
//! here in the same places, so that a restart in the model forgets what a real one forgets.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use tally_agent::core::{
    book::{
        Account, AccountNo, AccountWatch, Batch, BatchNo, BatchState, Book, Contents, Copies,
        Finding, Hold, Home, LaneKey, LaneNo, License, LicenseNo, Name, Op, Pause, Readings, Row,
        Seq,
    },
    chain::{self, Hash},
    event::Prefix,
};
use tally_shared::units::Units;
use uuid::Uuid;

/// What is on disk.
#[derive(Clone)]
pub(crate) struct Disk {
    licenses: BTreeMap<LicenseNo, License>,
    names: Vec<(Name, LicenseNo, bool)>,
    accounts: BTreeMap<AccountNo, Account>,
    lanes: BTreeMap<LaneNo, LaneKey>,
    /// All batches that ever were.
    pub(crate) batches: BTreeMap<BatchNo, Batch>,
    /// All rows; the one with place 1 comes first.
    pub(crate) rows: Vec<Row>,
    keeper: Option<String>,
    id: Option<Uuid>,
    head: (Seq, Hash),
    findings: Vec<Finding>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            licenses: BTreeMap::new(),
            names: Vec::new(),
            accounts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            batches: BTreeMap::new(),
            rows: Vec::new(),
            keeper: None,
            id: None,
            head: (Seq(0), Hash::ORIGIN),
            findings: Vec::new(),
        }
    }
}

impl Disk {
    /// A commit.
    pub(crate) fn write(&mut self, book: &Book) {
        for license in book.changed_licenses() {
            let kept = License {
                op: Op::Idle,
                pause: Pause::default(),
                probe: Pause::default(),
                refresh_at: Duration::ZERO,
                ..license.clone()
            };
            self.licenses.insert(license.no, kept);
        }
        for (name, opens) in book.changed_names() {
            self.names.retain(|(known, _, _)| known != name);
            let licenses = opens.iter().flat_map(|opens| &opens.licenses);
            self.names.extend(licenses.map(|no| {
                let is_default = opens.is_some_and(|opens| opens.default == Some(*no));
                (name.clone(), *no, is_default)
            }));
        }
        for account in book.changed_accounts() {
            let kept = Account {
                heard_at: Duration::ZERO,
                watch: AccountWatch {
                    settled: account.watch.settled.clone(),
                    ..AccountWatch::default()
                },
                ..account.clone()
            };
            self.accounts.insert(account.no, kept);
        }
        let lanes = book.new_lanes().map(|lane| (lane.no, lane.key.clone()));
        self.lanes.extend(lanes);
        for batch in book.changed_batches() {
            let mut kept = Batch {
                opened_at: Duration::ZERO,
                state: kept_state(batch.state),
                ..batch.clone()
            };
            if let Some(sealed) = &mut kept.sealed {
                sealed.doubtful = false;
                sealed.since = None;
                sealed.readings = Readings::default();
                sealed.refused_at = sealed.refused_at.map(|_| Duration::ZERO);
            }
            self.batches.insert(batch.no, kept);
        }
        for grown in book.grown_accounts() {
            if let Some(account) = self.accounts.get_mut(&grown.no) {
                (account.recorded, account.rows) = (grown.recorded, grown.rows);
            }
        }
        for grown in book.grown_batches() {
            if let Some(batch) = self.batches.get_mut(&grown.no) {
                (batch.last, batch.last_hash) = (grown.last, grown.last_hash);
                (batch.rows, batch.units) = (grown.rows, grown.units);
            }
        }
        self.rows.extend_from_slice(book.new_rows());
        self.keeper = book.keeper().map(str::to_owned);
        self.id = Some(book.id());
        self.head = book.head();
        let found = book.new_notes().iter();
        self.findings.extend(found.filter_map(Finding::of));
    }

    /// What a start reads.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            licenses: self.licenses.values().cloned().collect(),
            names: self.names.clone(),
            accounts: self.accounts.values().cloned().collect(),
            lanes: self
                .lanes
                .iter()
                .map(|(no, key)| (*no, key.clone()))
                .collect(),
            batches: self
                .batches
                .values()
                .filter(|batch| !batch.state.is_end())
                .cloned()
                .collect(),
            head: self.head,
            home: Some(Home {
                server: "server".to_owned(),
                until: None,
            }),
            chain: chain::Key::new(b"key"),
            evidence: 0,
            last_batch: self
                .batches
                .keys()
                .next_back()
                .copied()
                .unwrap_or(BatchNo(0)),
            keeper: self.keeper.clone(),
            id: self.id,
            findings: self.findings.clone(),
            copies: Copies::default(),
        }
    }

    /// All of it that decisions depend on, but for ids and hashes.
    pub(crate) fn facts(&self) -> impl Debug + '_ {
        let accounts = self.accounts.values();
        let batches = self.batches.values();
        (
            accounts
                .map(|account| (account.standing, account.recorded, account.settled))
                .collect::<Vec<_>>(),
            &self.lanes,
            batches
                .map(|batch| (batch.no, batch.first, batch.last, batch.state))
                .collect::<Vec<_>>(),
            &self.keeper,
        )
    }

    /// What the server's totals did not explain.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the lanes stand for.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&LaneNo, &LaneKey)> {
        self.lanes.iter()
    }

    /// The rows that a batch covers.
    pub(crate) fn rows_of(
        &self,
        lane: LaneNo,
        (first, last): (Seq, Seq),
    ) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(move |row| row.lane == lane && row.seq >= first && row.seq <= last)
    }

    /// The longest prefix of a batch's rows whose units fit.
    pub(crate) fn find_prefix(
        &self,
        lane: LaneNo,
        range: (Seq, Seq),
        room: Option<i64>,
    ) -> Option<Prefix> {
        let (mut rows, mut sum) = (0, 0);
        let mut found: Option<Prefix> = None;
        for row in self.rows_of(lane, range) {
            rows += 1;
            sum += row.units.get();
            if room.is_none_or(|room| sum <= room) {
                found = Some(Prefix {
                    last: row.seq,
                    rows,
                    units: Units::new(sum),
                    hash: row.hash,
                    next: None,
                });
            } else if let Some(found) = &mut found {
                found.next.get_or_insert(row.seq);
            }
        }
        found
    }

    /// For each row, the live and settled batches that cover it: one, where nothing is forgotten.
    pub(crate) fn is_each_row_in_one_batch(&self) -> bool {
        let mut covers = vec![0; self.rows.len()];
        for batch in self.batches.values() {
            if batch.state == BatchState::Superseded {
                continue;
            }
            let (mut rows, mut units) = (0, 0);
            for row in self.rows_of(batch.lane, (batch.first, batch.last)) {
                covers[self.index(row.seq)] += 1;
                rows += 1;
                units += row.units.get();
            }
            if rows != batch.rows || units != batch.units.get() {
                return false;
            }
        }
        covers.iter().all(|covers| *covers == 1)
    }

    /// The places of all rows in settled batches, from 0.
    pub(crate) fn settled_rows(&self) -> Vec<usize> {
        self.batches
            .values()
            .filter(|batch| batch.state == BatchState::Settled)
            .flat_map(|batch| self.rows_of(batch.lane, (batch.first, batch.last)))
            .map(|row| self.index(row.seq))
            .collect()
    }

    /// The position of a row among all rows, from 0: notes take places between them.
    pub(crate) fn index(&self, seq: Seq) -> usize {
        let found = self.rows.binary_search_by_key(&seq, |row| row.seq);
        found.expect("a batch covers rows that are there")
    }
}

fn kept_state(state: BatchState) -> BatchState {
    match state {
        BatchState::Unknown { .. } => BatchState::Unknown {
            look_at: Duration::ZERO,
        },
        BatchState::Held(Hold::Limit { .. }) => BatchState::Held(Hold::Limit { room_seen: None }),
        other => other,
    }
}

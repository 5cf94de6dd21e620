//! The licence server, which also keeps what no real one could tell: the truth.

use std::collections::BTreeMap;

use tally_agent::core::{book::BatchNo, event::KeyEcho};
use tally_shared::{period::Period, time::Timestamp};

use crate::setup::{ServerKind, Setup};

/// A batch on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its number, which stands for its id: with a constant source of random bits, ids of the same
    /// millisecond are equal.
    pub(crate) batch: BatchNo,
    /// The places of the rows that it covers, from 0.
    pub(crate) rows: Vec<usize>,
    /// Its units.
    pub(crate) units: i64,
}

/// The server's answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The total after it; `None` where the limit would be passed.
    pub(crate) total: Option<i64>,
    /// What it says of the batch's key.
    pub(crate) key: KeyEcho,
}

/// The server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    kind: ServerKind,
    max: i64,
    turns: bool,
    total: i64,
    total_at: Timestamp,
    /// How often each row was counted.
    pub(crate) counted: Vec<u8>,
    /// The first answer to each batch, as a server that keeps keys keeps it.
    answers: BTreeMap<BatchNo, Option<i64>>,
}

impl Server {
    pub(crate) fn new(setup: &Setup, now: Timestamp) -> Self {
        Self {
            kind: setup.server,
            max: setup.max,
            turns: setup.turns,
            total: 0,
            total_at: now,
            counted: vec![0; setup.rows.len()],
            answers: BTreeMap::new(),
        }
    }

    /// What it says of keys.
    pub(crate) const fn echo(&self) -> KeyEcho {
        match self.kind {
            ServerKind::WithoutKeys | ServerKind::Forgets => KeyEcho::Absent,
            ServerKind::WithKeys | ServerKind::PretendsToKeepKeys => KeyEcho::Echoed,
        }
    }

    /// Counts a batch, if it fits.
    pub(crate) fn add(&mut self, now: Timestamp, request: &Request) -> Reply {
        let key = self.echo();
        if let Some(total) = self.answers.get(&request.batch) {
            return Reply {
                total: *total,
                key: KeyEcho::Replayed,
            };
        }
        let total = self.total(now) + request.units;
        let total = (total <= self.max).then_some(total);
        if let Some(total) = total.filter(|_| self.kind != ServerKind::Forgets) {
            self.total = total;
            for row in &request.rows {
                self.counted[*row] += 1;
            }
        }
        if self.kind == ServerKind::WithKeys {
            self.answers.insert(request.batch, total);
        }
        Reply { total, key }
    }

    /// Counts what the other device adds, if it fits.
    pub(crate) fn add_for_other(&mut self, now: Timestamp, units: i64) {
        let total = self.total(now) + units;
        if total <= self.max {
            self.total = total;
        }
    }

    /// The total.
    pub(crate) fn total(&mut self, now: Timestamp) -> i64 {
        if self.turns && Period::Daily.start(now) > Period::Daily.start(self.total_at) {
            self.total = 0;
        }
        self.total_at = now;
        self.total
    }

    /// All that its answers depend on, and the truth.
    pub(crate) fn facts(&self) -> impl std::fmt::Debug + '_ {
        let total_at = self.turns.then_some(self.total_at);
        (self.total, total_at, &self.counted, &self.answers)
    }
}

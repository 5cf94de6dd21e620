//! The last changes, and how it was before each: so that reads can be answered from an older state, and the store can
//! go back. In memory only, and bounded: a stub that is started again knows no earlier state.

use std::{cell::RefCell, collections::VecDeque};

use rusqlite::{OptionalExtension as _, named_params};
use tally_shared::time::Timestamp;

use super::{Store, Tx, licenses::LicenseRow};
use crate::{engine::idempotency::ScopedKey, faults::spec::ROLL_BACK_MAX};

/// The number of changes that are kept: as many as the store can be told to go back by.
const CHANGES_MAX: usize = ROLL_BACK_MAX as usize;

/// The last changes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Change>);

/// The changes of a transaction.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The time, by the stub's clock; `None` where no licence was changed.
    at: Option<Timestamp>,
    /// Each licence that was changed, as it was before.
    before: Vec<Before>,
    /// The place of its row in the log of activity, where it is a request that changed something.
    activity: Option<i64>,
    /// The key under which its answer is kept.
    key: Option<ScopedKey>,
}

/// A licence as it was before a change; without a row, it was not there.
#[derive(Debug)]
struct Before {
    id: i64,
    row: Option<LicenseRow>,
}

impl History {
    fn add(&mut self, change: Change) {
        if self.0.len() == CHANGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(change);
    }

    /// The number of the newest changes that go, so that `requests` changing requests are among them; edits in between go too.
    fn reach(&self, requests: u32) -> usize {
        let mut left = requests;
        let newest = self.0.iter().rev();
        let going = newest.take_while(|change| {
            let goes = left > 0;
            left -= u32::from(goes && change.activity.is_some());
            goes
        });
        going.count()
    }
}

impl Change {
    const fn is_empty(&self) -> bool {
        self.before.is_empty() && self.key.is_none()
    }
}

impl Store {
    /// Puts the store back by so many changing requests, as where a server is restored from a backup: their units, rows of
    /// activity and kept answers are gone, and so is what was edited after the first of them. API keys, products and the
    /// clock stay. The answer says how many requests were undone.
    pub(crate) fn roll_back(&mut self, requests: u32) -> rusqlite::Result<u32> {
        let gone = self.history.reach(requests);
        let kept = self.history.0.len() - gone;
        let tx = self.begin()?;
        let mut undone = 0;
        for change in tx.history.0.iter().skip(kept).rev() {
            tx.restore(change)?;
            tx.forget(change)?;
            undone += u32::from(change.activity.is_some());
        }
        tx.commit()?;
        self.history.0.truncate(kept);
        Ok(undone)
    }

    /// Forgets how everything was before.
    pub(super) fn forget_history(&mut self) {
        self.history.0.clear();
    }
}

impl Tx<'_> {
    /// Puts every licence back to how it was at `then`, by the stub's clock; for a transaction that is not committed.
    pub(crate) fn rewind_to(&self, then: Timestamp) -> rusqlite::Result<()> {
        let newest = self.history.0.iter().rev();
        let after = newest.take_while(|change| change.at.is_none_or(|at| at > then));
        for change in after {
            self.restore(change)?;
        }
        Ok(())
    }

    /// Notes a licence as it is before it is changed.
    pub(super) fn note_license(&self, id: i64, at: Timestamp) -> rusqlite::Result<()> {
        let row = self
            .transaction
            .prepare_cached(
                "SELECT product, license_key, username, as_of_ms, document FROM licenses WHERE id = :id",
            )?
            .query_row(named_params! { ":id": id }, |row| {
                Ok(LicenseRow {
                    product: row.get("product")?,
                    license_key: row.get("license_key")?,
                    username: row.get("username")?,
                    as_of_ms: row.get("as_of_ms")?,
                    document: row.get("document")?,
                })
            })
            .optional()?;
        let mut change = self.change.borrow_mut();
        change.at = Some(at);
        change.before.push(Before { id, row });
        Ok(())
    }

    /// Notes that a row was added to the log of activity.
    pub(super) fn note_activity(&self, seq: i64) {
        self.change.borrow_mut().activity = Some(seq);
    }

    /// Notes that an answer was kept under a key.
    pub(super) fn note_answer(&self, key: &ScopedKey) {
        self.change.borrow_mut().key = Some(key.clone());
    }

    /// The licences of a change, as they were before; the last one first, where one was changed twice.
    fn restore(&self, change: &Change) -> rusqlite::Result<()> {
        for before in change.before.iter().rev() {
            let Some(row) = &before.row else {
                self.remove_row(before.id)?;
                continue;
            };
            self.write_row(before.id, row)?;
        }
        Ok(())
    }

    /// Removes what else a change left: its row of activity, and the answer under its key.
    fn forget(&self, change: &Change) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("DELETE FROM activity WHERE seq = :seq")?
            .execute(named_params! { ":seq": change.activity })?;
        let key = change.key.as_ref();
        self.transaction
            .prepare_cached(
                "DELETE FROM answers WHERE api_key = :api_key AND idempotency_key = :key",
            )?
            .execute(named_params! {
                ":api_key": key.map(|key| key.api_key.as_str()),
                ":key": key.map(|key| key.key.as_str()),
            })
            .map(drop)
    }
}

/// Ends a transaction's notes: a change of something is kept.
pub(super) fn keep(history: &mut History, change: RefCell<Change>) {
    let change = change.into_inner();
    if !change.is_empty() {
        history.add(change);
    }
}

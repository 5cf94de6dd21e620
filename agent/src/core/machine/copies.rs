//! A ledger that is a copy: the original may live on, and count the same rows.
//!
//! What the copy owes goes to the server only under the key that the original sends it under as well, to a server that
//! surely remembers it: then it is counted once, whoever comes first. All else waits for a person, who knows whether the
//! original is gone. A refusal, or a part of a batch, is no longer the same in both: such batches wait as well. Of those
//! that the original may have had since, the total tells: where it moved by anything but the batches that are held here, in their
//! order, the original may have counted some of their rows under other ids.

use std::collections::BTreeSet;

use serde_json::json;
use tally_shared::{limits::Standing, time::Timestamp, units::Units};

use super::resolve::{By, Decision, Unresolvable};
use crate::core::{
    Core,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, NoteKind, Sealed, Seq},
    clock::Moment,
};

/// What a person says of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceIs {
    /// The original lives on: what is owed here is the original's, and this device begins anew.
    New,
    /// The original is gone: this device goes on in its place.
    Moved,
}

impl Core {
    /// Holds all that is owed, under ids that the original has as well; what is recorded from here on gets others.
    /// `written` is when the ledger was last written, and whether that was proven: nothing that the original did since
    /// then is known.
    pub(super) fn hold_copies(&mut self, now: Moment, written: (Timestamp, bool)) {
        self.distrust_totals();
        let owed: Vec<BatchNo> = self.owed().into_iter().map(|(no, _)| no).collect();
        for no in owed {
            self.hold_copy(now, no, written);
        }
        let id = self.random_id();
        self.book.set_id(id);
    }

    fn hold_copy(&mut self, now: Moment, no: BatchNo, written: (Timestamp, bool)) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        // Rows may have been added in the original, and a refused batch may have gone on in parts.
        let is_same =
            !matches!(batch.state, BatchState::Held(_)) && !self.open_at_start.contains(&no);
        let peer = Some(self.peer.clone()).filter(|_| is_same);
        let standing: Option<Standing> = self.standing_of(batch);
        let (id, readings) = (self.book.id_of(batch), self.readings(now));
        let Some(batch) = self.book.batch_mut(no) else {
            return;
        };
        let was_sent = batch.sealed.as_ref().is_some_and(|sealed| sealed.doubtful);
        if let (None, Some(id), Some(standing)) = (&batch.sealed, id, standing) {
            batch.sealed = Some(Sealed::new(now, id, standing));
        }
        if let Some(sealed) = &mut batch.sealed {
            if was_sent {
                sealed.at = sealed.at.min(written.0);
                sealed.at_proven &= written.1;
                sealed.peer = sealed.peer.take().filter(|_| is_same);
            } else {
                // The original may have sent it at any time since.
                (sealed.at, sealed.at_proven) = written;
                sealed.peer = peer;
            }
            sealed.since = None;
            sealed.doubtful = true;
            sealed.readings = readings;
        }
        batch.closed = true;
        batch.held_at.get_or_insert(now.time);
        batch.state = BatchState::Held(Hold::Copy);
    }

    /// Lets what is held for a copy go on as far as it may, one batch of an account at a time.
    pub(in crate::core) fn go_on_with_copies(&mut self, now: Moment) {
        let until = self.book.copied_until();
        if let Some(until) = until {
            self.hold_what_differs(now, until);
        }
        let mut held: BTreeSet<AccountNo> = BTreeSet::new();
        for batch in self.book.batches() {
            if batch.state == BatchState::Held(Hold::Copy) {
                held.insert(batch.account);
            }
        }
        for account in held {
            self.go_on_in(now, account, until.is_some());
        }
    }

    fn go_on_in(&mut self, now: Moment, account: AccountNo, is_open: bool) {
        let batches = self.book.batches_of(account);
        let is_under_way =
            |batch: &&Batch| matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. });
        if batches.iter().copied().any(|batch| is_under_way(&batch)) {
            return;
        }
        let is_held = |batch: &&&Batch| batch.state == BatchState::Held(Hold::Copy);
        if is_open {
            let known = batches.iter().filter(is_held);
            let next = known.copied().find(|batch| self.trusts_key(now, batch));
            if let Some(no) = next.map(|batch| batch.no)
                && self.is_explained(now, account)
            {
                self.ask_again(now, no);
            }
            return;
        }
        // The first of them was compared with the total, which speaks for all: it did not move, or by just the first.
        let is_unclear = batches
            .iter()
            .any(|batch| batch.state == BatchState::Held(Hold::Undecidable));
        let held: Vec<BatchNo> = batches
            .iter()
            .filter(is_held)
            .map(|batch| batch.no)
            .collect();
        for no in held {
            if is_unclear {
                self.hold(now, no, Hold::Undecidable);
            } else {
                self.certainly_not_counted(no);
            }
        }
    }

    /// Whether the total, which was read since the copy was found, moved by nothing, or by the first of the batches that are
    /// held here: the original sent these, under the same ids. Anything else may be parts of them, under others.
    fn is_explained(&self, now: Moment, account: AccountNo) -> bool {
        let Some(known) = self.book.accounts.get(&account) else {
            return false;
        };
        let mut held = self.book.batches_of(account);
        held.retain(|batch| batch.state == BatchState::Held(Hold::Copy));
        let before = held.first().and_then(|batch| batch.sealed.as_ref());
        let Some(before) = before.map(|sealed| sealed.before) else {
            return false;
        };
        let standing = &known.standing;
        if known.unsure || before.period_start(before.as_of) != standing.period_start(now.time) {
            return false;
        }
        let Some(moved) = standing.total_at(now.time).since(before.total) else {
            return false;
        };
        let mut sum = Some(Units::ZERO);
        let mut sums = held.iter().map(|batch| {
            sum = sum.and_then(|sum| sum.checked_add(batch.units));
            sum
        });
        moved == Units::ZERO || sums.any(|sum| sum == Some(moved))
    }

    /// Units of this ledger that are counted say nothing of the batches that wait.
    pub(super) fn expect_of_copies(&mut self, account: AccountNo, units: Units) {
        let mut held = self.book.batches_of(account);
        held.retain(|batch| batch.state == BatchState::Held(Hold::Copy));
        let held: Vec<BatchNo> = held.iter().map(|batch| batch.no).collect();
        for no in held {
            if let Some(sealed) = self.sealed_mut(no) {
                let total = sealed.before.total;
                sealed.before.total = total.checked_add(units).unwrap_or(total);
            }
        }
    }

    /// Whether an original may have a batch as well.
    pub(super) fn is_of_original(&self, no: BatchNo) -> bool {
        let batch = self.book.batch(no);
        batch.is_some_and(|batch| self.was_copied(batch.last))
    }

    /// Whether this row may have been sent by an original, or by this ledger when it was newer, whatever a person has said since.
    pub(super) fn may_be_elsewhere(&self, row: Seq) -> bool {
        let copies = self.book.copies();
        let open = copies.open.iter().any(|copied| row <= copied.newest);
        open || copies.answered.last().is_some_and(|note| row < *note)
    }

    /// Whether an original may have this row as well.
    pub(super) fn was_copied(&self, row: Seq) -> bool {
        self.book.copied_until().is_some_and(|until| row <= until)
    }

    /// Holds what went another way than it may have in the original: it was refused here, or its key says nothing any
    /// more.
    fn hold_what_differs(&mut self, now: Moment, until: Seq) {
        let differs = |batch: &&Batch| match batch.state {
            BatchState::Held(Hold::Copy | Hold::Undecidable) => false,
            BatchState::Held(_) => true,
            BatchState::Unknown { .. } => !self.trusts_key(now, batch),
            _ => false,
        };
        let differing: Vec<(BatchNo, bool)> = self
            .book
            .batches()
            .filter(|batch| batch.last <= until)
            .filter(differs)
            .map(|batch| (batch.no, matches!(batch.state, BatchState::Held(_))))
            .collect();
        for (no, was_refused) in differing {
            self.hold(now, no, Hold::Copy);
            if let Some(batch) = self.book.batch_mut(no)
                && let Some(sealed) = &mut batch.sealed
                && was_refused
            {
                sealed.peer = None;
            }
        }
    }

    /// Nothing is known of what became of a batch: its key tells, or the total.
    fn ask_again(&mut self, now: Moment, no: BatchNo) {
        let readings = self.readings(now);
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = BatchState::Unknown { look_at: now.mono };
            batch.held_at = None;
            if let Some(sealed) = &mut batch.sealed {
                sealed.doubtful = true;
                sealed.readings = readings;
            }
        }
    }

    /// Takes in what a person says of a copy. Returns the place of the note that says so.
    ///
    /// # Errors
    ///
    /// [`Unresolvable::NoCopy`]; then nothing is changed.
    pub fn device_is(
        &mut self,
        now: Moment,
        what: DeviceIs,
        reason: Option<&str>,
    ) -> Result<Seq, Unresolvable> {
        let copies = self.book.copies();
        let answers = copies.to_answer();
        let until = copies.open.iter().map(|copied| copied.newest).max();
        let until = until.ok_or(Unresolvable::NoCopy)?;
        let decision = match what {
            DeviceIs::New => "device_new",
            DeviceIs::Moved => "device_moved",
        };
        let given_up = match what {
            DeviceIs::New => self.give_up_until(now, until),
            DeviceIs::Moved => {
                self.compare_copies(now);
                0
            }
        };
        let body = json!({
            "decision": decision,
            "by": By::Person,
            "reason": reason,
            "answers": answers,
            "units": given_up,
        });
        tracing::info!(decision, "a person said what this copy is");
        Ok(self
            .book
            .add_note(now, NoteKind::Decision, body.to_string()))
    }

    /// The first batch of each account is compared with the total, or goes under its key; the others wait for that.
    fn compare_copies(&mut self, now: Moment) {
        let mut asked: BTreeSet<AccountNo> = BTreeSet::new();
        let mut first: Vec<BatchNo> = Vec::new();
        for batch in self.book.batches() {
            if matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. }) {
                asked.insert(batch.account);
            }
        }
        for batch in self.book.batches() {
            if batch.state == BatchState::Held(Hold::Copy) && asked.insert(batch.account) {
                first.push(batch.no);
            }
        }
        for no in first {
            self.ask_again(now, no);
        }
    }

    /// Gives up what is owed of the rows up to a place: the original owes it. Returns how many units that is.
    fn give_up_until(&mut self, now: Moment, until: Seq) -> i64 {
        let owed: Vec<BatchNo> = self
            .book
            .batches()
            .filter(|batch| batch.last <= until && !batch.state.is_end())
            // Its answer is on its way.
            .filter(|batch| batch.state != BatchState::Sent)
            .map(|batch| batch.no)
            .collect();
        let mut units = 0_i64;
        for no in owed {
            units = units.saturating_add(self.book.batch(no).map_or(0, |batch| batch.units.get()));
            let reason = "the original of this copy owes it";
            self.note_decision(now, no, Decision::Waive, By::Person, Some(reason));
            self.waive(now, no);
        }
        units
    }
}

//! Deciding what became of a batch, where the agent cannot: by a person, or by the configured
//! policy. Each decision is a note in the ledger, and nobody can undo it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::core::{
    Core,
    book::{Batch, BatchNo, BatchState, Hold, NoteKind, Seq},
    clock::Moment,
};

/// What is decided about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Decision {
    /// The server has counted it: it is settled.
    Applied,
    /// The server has not counted it: it is sent.
    NotApplied,
    /// Send it, whatever the server did: it may be counted twice.
    Resend,
    /// Give it up: it is never sent.
    Waive,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// Somebody, by `tally resolve`.
    Person,
    /// The configured policy for what is undecidable.
    Policy,
}

/// Why a batch cannot be decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// There is none of that number that has not reached its end.
    #[error(
        "no batch {} waits for a decision: there is none, it is settled, or it went on in others",
        .0.0
    )]
    Unknown(BatchNo),
    /// Its request is under way.
    #[error("batch {} is being sent at this moment: wait for its answer", .0.0)]
    UnderWay(BatchNo),
    /// It was never sent.
    #[error(
        "batch {} was not sent yet, and goes by itself; it can only be given up (`--waive REASON`)",
        .0.0
    )]
    NotSent(BatchNo),
    /// Its request could still arrive.
    #[error(
        "batch {} was sent, and its request could still arrive: decide about it in {} s",
        .0.0, .1.as_secs().saturating_add(1)
    )]
    TooEarly(BatchNo, Duration),
    /// It waits for another server than the one that is used.
    #[error(
        "batch {} waits for the former licence server: set its address again, say that it moved \
         (`tally resolve --server-moved`), or give the batch up (`--waive REASON`)",
        .0.0
    )]
    OfAnother(BatchNo),
    /// There is no finding of that number that nobody has seen.
    #[error("there is no finding {}: `tally status` lists those that nobody has seen", .0.0)]
    NoFinding(Seq),
    /// Nothing says that this ledger is a copy.
    #[error("nothing says that this ledger is a copy: `tally status` would show it")]
    NoCopy,
    /// Nothing is owed to another server than the one that is used.
    #[error("nothing is owed to another server than the one that this agent uses")]
    SameServer,
}

impl Core {
    /// Decides what became of a batch. A person may always decide: about what is held, about what is unknown once its request
    /// can no longer arrive, and may give up what was never sent. Returns the place of the note that says so.
    ///
    /// # Errors
    ///
    /// [`Unresolvable`]; then nothing is changed.
    pub fn resolve(
        &mut self,
        now: Moment,
        no: BatchNo,
        decision: Decision,
        reason: Option<&str>,
    ) -> Result<Seq, Unresolvable> {
        let batch = self.book.batch(no).filter(|batch| !batch.state.is_end());
        let batch = batch.ok_or(Unresolvable::Unknown(no))?;
        let hold = self.decidable(now, batch, decision)?;
        // Held for that, a copy's would wait for a person again.
        let is_late = hold == Hold::Late || (hold == Hold::Copy && self.is_late(now, batch));
        let account = batch.account;
        let seq = self.note_decision(now, no, decision, By::Person, reason);
        match decision {
            Decision::Applied => {
                self.count_settled(now, no);
                // The server's total may hold these units already, or the vendor is about to add them.
                self.mark_account_unsure(account);
            }
            // Under its id the server would refuse it again.
            Decision::NotApplied | Decision::Resend
                if hold == Hold::Copy && !self.may_be_sent_under_its_id(no) =>
            {
                self.note_late(no, is_late);
                self.reseal(now, no);
            }
            Decision::NotApplied | Decision::Resend
                if matches!(hold, Hold::Undecidable | Hold::Gone(_) | Hold::Copy) =>
            {
                self.note_late(no, is_late);
                self.certainly_not_counted(no);
            }
            Decision::NotApplied | Decision::Resend => {
                self.note_late(no, is_late);
                self.reseal(now, no);
            }
            Decision::Waive => self.waive(now, no),
        }
        let refused = self.book.accounts.get(&account).and_then(|it| it.refused);
        if let Some(code) = refused {
            self.hold_refused(now, account, code);
        }
        Ok(seq)
    }

    /// Somebody wants a batch to be sent although its period is over.
    fn note_late(&mut self, no: BatchNo, is_late: bool) {
        if let Some(batch) = self.book.batch_mut(no) {
            batch.late |= is_late;
        }
    }

    /// Whether a batch of a copy has the id that the original would send it under, and was not refused under that.
    fn may_be_sent_under_its_id(&self, no: BatchNo) -> bool {
        let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
        sealed.is_some_and(|sealed| sealed.peer.is_some())
    }

    /// Why a batch waits, for a decision about it.
    fn decidable(
        &self,
        now: Moment,
        batch: &Batch,
        decision: Decision,
    ) -> Result<Hold, Unresolvable> {
        let no = batch.no;
        let mut owed_home = self.book.owed_home();
        let is_former = self.owed_to().is_some() && owed_home.any(|owed| owed.no == no);
        let is_sent = matches!(decision, Decision::NotApplied | Decision::Resend);
        if is_former && is_sent {
            // It may not go to the server that is used now.
            return Err(Unresolvable::OfAnother(no));
        }
        match batch.state {
            BatchState::Held(hold) => Ok(hold),
            // It goes nowhere by itself.
            BatchState::Sent | BatchState::Unknown { .. } if is_former => Ok(Hold::Undecidable),
            BatchState::Sent => Err(Unresolvable::UnderWay(no)),
            BatchState::Unknown { .. } => {
                let sealed = batch.sealed.as_ref();
                let until = sealed.map_or(Duration::ZERO, |it| it.readings.arrives_until);
                match until.checked_sub(now.mono).filter(|wait| !wait.is_zero()) {
                    Some(wait) => Err(Unresolvable::TooEarly(no, wait)),
                    None => Ok(Hold::Undecidable),
                }
            }
            _ if decision == Decision::Waive => Ok(Hold::Undecidable),
            _ if is_former => Err(Unresolvable::OfAnother(no)),
            _ => Err(Unresolvable::NotSent(no)),
        }
    }

    /// Gives a batch up.
    pub(super) fn waive(&mut self, now: Moment, no: BatchNo) {
        let Some((account, units)) = self
            .book
            .batch(no)
            .map(|batch| (batch.account, batch.units))
        else {
            return;
        };
        self.book.end_batch(now, no, BatchState::Waived);
        if let Some(account) = self.book.account_mut(account) {
            // In range: waived is a part of recorded.
            account.waived = account.waived.checked_add(units).unwrap_or(account.waived);
        }
    }

    /// Writes a decision into the ledger, with what it is about: the batch itself may be folded away
    /// one day.
    pub(super) fn note_decision(
        &mut self,
        now: Moment,
        no: BatchNo,
        decision: Decision,
        by: By,
        reason: Option<&str>,
    ) -> Seq {
        let batch = self.book.batch(no);
        let lane = batch.and_then(|batch| self.book.lane(batch.lane));
        let account = batch.and_then(|batch| self.book.accounts.get(&batch.account));
        let license = account.and_then(|account| self.book.license(account.license));
        let id = batch
            .and_then(|batch| batch.sealed.as_ref())
            .map(|sealed| sealed.id);
        let body = json!({
            "batch": no,
            "decision": decision,
            "by": by,
            "reason": reason,
            "units": batch.map(|batch| batch.units),
            "rows": batch.map(|batch| batch.rows),
            "id": id,
            "product": license.map(|license| &license.product),
            "holder": license.map(|license| license.holder.field()),
            "holder_value": license.map(|license| license.holder.value()),
            "feature": account.and_then(|account| account.feature.as_ref()),
            "hardware_id": lane.map(|lane| &lane.key.hardware_id),
        });
        tracing::info!(batch = no.0, ?decision, ?by, "decided about a batch");
        self.book
            .add_note(now, NoteKind::Decision, body.to_string())
    }
}

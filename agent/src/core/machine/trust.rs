//! Trust in idempotency keys: whether the server keeps them, and what its answers say under one.

use crate::core::{
    Core, KEY_AGE_MAX,
    book::{Batch, BatchNo, BatchState, Hold},
    clock::Moment,
    event::KeyEcho,
    outcome::SendOutcome,
};

impl Core {
    /// What the answer to a reading says of keys: the server sends back, and so keeps them, or not.
    pub(in crate::core) fn note_echo(&mut self, key: KeyEcho) {
        match key {
            KeyEcho::NoAnswer => {}
            KeyEcho::Absent => self.book.set_keeper(None),
            KeyEcho::Echoed | KeyEcho::New | KeyEcho::Replayed => {
                self.book.set_keeper(Some(self.peer.clone()));
            }
        }
    }

    /// A batch that was counted under its key, and whose answer does not name the key, shows that keys are kept no more. A
    /// refusal shows nothing: it may come before the key is looked up.
    pub(super) fn note_echo_of_batch(&mut self, no: BatchNo, outcome: &SendOutcome, key: KeyEcho) {
        let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
        let is_keyed = sealed.is_some_and(|sealed| sealed.peer.is_some());
        if is_keyed && key == KeyEcho::Absent && matches!(outcome, SendOutcome::Applied(_)) {
            self.book.set_keeper(None);
        }
    }

    /// A refusal concerns this attempt. Where an earlier one may have been counted, it says that none
    /// was only if the server looked the key up; a server that checks the licence first says nothing of it.
    pub(super) fn trusted(
        &mut self,
        no: BatchNo,
        outcome: SendOutcome,
        key: KeyEcho,
    ) -> SendOutcome {
        let batch = self.book.batch(no);
        let doubtful = batch
            .and_then(|batch| batch.sealed.as_ref())
            // One that was refused may have been counted all the same.
            .is_some_and(|sealed| sealed.doubtful || sealed.refused_at.is_some());
        if !doubtful || key.is_looked_up() {
            return outcome;
        }
        match outcome {
            SendOutcome::RefusedLimit
            | SendOutcome::RefusedLicense(_)
            | SendOutcome::RefusedRequest(..) => SendOutcome::Duplicate(
                "refused, but an earlier attempt may have been counted".into(),
            ),
            other => other,
        }
    }

    /// Whether a refusal is the stored answer to an earlier attempt, by this ledger or by its original: it says how the licence
    /// stood then, and not how it stands now.
    pub(super) fn is_of_before(&self, no: BatchNo, key: KeyEcho) -> bool {
        let batch = self.book.batch(no);
        let sealed = batch.and_then(|batch| batch.sealed.as_ref());
        let was_sent_before = sealed.is_some_and(|sealed| sealed.attempts > 1);
        key == KeyEcho::Replayed && (was_sent_before || self.is_of_original(no))
    }

    /// Whether the server recognises a batch that comes twice: its only attempt was sent under a key that it still remembers.
    /// Since an attempt of this process the monotonic clock tells the age, as long as the other agrees with it.
    pub(super) fn is_deduplicated(&self, now: Moment, batch: &Batch) -> bool {
        let Some(sealed) = batch.sealed.as_ref().filter(|it| !it.doubtful) else {
            return false;
        };
        let is_peer = sealed.peer.as_deref() == Some(self.peer.as_str());
        let age = sealed.since.map(|since| now.mono.saturating_sub(since));
        let is_young = age.is_some_and(|age| age < KEY_AGE_MAX);
        self.keeps_keys() && is_peer && (is_young || self.trusts_key(now, batch))
    }

    /// Whether a batch that was refused goes on under the key that it was refused under, and is recognised if it was counted.
    pub(super) fn goes_again_under_its_key(&self, now: Moment, batch: &Batch) -> bool {
        let is_whole = matches!(
            batch.state,
            BatchState::Sealed | BatchState::Held(Hold::Refused(_))
        );
        is_whole && self.is_deduplicated(now, batch)
    }

    /// Notices where the corrected clock and the monotonic one disagree by more than the settle wait: one of them stood still or
    /// was wrong, so that nobody knows how old a key is.
    pub(in crate::core) fn notice_jump(&mut self, now: Moment) {
        let former = self.clocks.replace((now.time, now.mono));
        let Some((time, mono)) = former else { return };
        let expected = time.plus(now.mono.saturating_sub(mono));
        if now.time.distance(expected) <= self.policy.settle_wait {
            return;
        }
        let keyed: Vec<BatchNo> = self
            .book
            .batches()
            .filter(|batch| {
                batch
                    .sealed
                    .as_ref()
                    .is_some_and(|sealed| sealed.peer.is_some())
            })
            .map(|batch| batch.no)
            .collect();
        for no in keyed {
            if let Some(sealed) = self.sealed_mut(no) {
                sealed.since = None;
                sealed.at_proven = false;
            }
        }
    }
}

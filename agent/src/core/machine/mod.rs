//! The sync state machine: what is sealed, sent, read, settled and held, and when.
//!
//! It has two halves. [`Core::apply`] takes a fact into the book, with [`learn`] for what the server
//! says of a licence, [`unknown`] for what became of a lost answer, and [`split`] for what a limit
//! leaves over. [`agenda`] looks at the book and starts what is due, at most one operation for a licence. All that the machine knows stands in the
//! book and in the link, so that a restart loses only its pauses.

mod agenda;
mod audit;
mod contradicted;
pub(super) mod copies;
mod distrust;
mod learn;
pub(super) mod membership;
pub(super) mod names;
#[cfg(test)]
mod names_tests;
mod pace;
pub(super) mod resolve;
mod server;
mod split;
#[cfg(test)]
mod tests;
mod trust;
mod turn;
mod unknown;
mod vendor;
#[cfg(test)]
mod vendor_tests;

use std::time::Duration;

use tally_shared::{limits::Standing, units::Units, wire::ErrorCode};

use super::{
    Core,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, LicenseNo, Op, Readings, Sealed},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    outcome::{Counted, LookUpOutcome, SendOutcome},
};

/// A refused licence is read again after this many sync intervals, then less and less often.
const PROBE_INTERVALS: u32 = 12;

/// After a start, licences are read one after the other with this much time between, far from the
/// server's rate limits.
const REFRESH_SPACING: Duration = Duration::from_millis(100);

impl Core {
    /// What an order has under way, and for which licence.
    pub(in crate::core) fn ordered_by(&self, command: &Command) -> Option<(LicenseNo, Op)> {
        match command {
            Command::Send { license, .. } | Command::LookUp { license, .. } => {
                Some((*license, self.book.license(*license)?.op))
            }
            Command::FindPrefix { .. } => None,
        }
    }

    /// An order that was not released: its commit failed. What was under way before is so again.
    pub(in crate::core) fn withdraw(&mut self, no: LicenseNo, ordered: Op) {
        let op = self.book.license(no).map(|license| license.op);
        if op == Some(ordered) {
            self.set_op(no, Op::Idle);
        }
    }

    /// What was under way when the process ended is unknown. On disk it stands as sent, which says the
    /// same to the next start: nothing need be written.
    pub(in crate::core) fn resume(&mut self, now: Moment) {
        self.meet_server(now);
        self.part_from_former_server();
        let readings = self.readings(now);
        for batch in self.book.batches.values_mut() {
            if let BatchState::Sent | BatchState::Unknown { .. } = batch.state {
                batch.state = BatchState::Unknown { look_at: now.mono };
                if let Some(sealed) = &mut batch.sealed {
                    sealed.doubtful = true;
                    sealed.readings = readings;
                }
            }
            if batch.is_open() {
                self.open_at_start.insert(batch.no);
            }
        }
        // What a copy of this ledger would send is the same from here on.
        self.close_batches();
        let mut at = now.mono;
        for license in self.book.licenses.values_mut() {
            license.refresh_at = at;
            at = at.saturating_add(REFRESH_SPACING);
        }
    }

    pub(in crate::core) fn apply(&mut self, now: Moment, event: Event) {
        match event {
            Event::Tick => {}
            Event::Nudge => self.nudge(),
            Event::SetNetwork(mode) => {
                self.link.set_mode(now.mono, mode);
                self.nudge();
            }
            Event::Answered {
                batch,
                outcome,
                key,
            } => {
                self.note_echo_of_batch(batch, &outcome, key);
                let is_said_to_be_there = matches!(outcome, SendOutcome::Duplicate(_));
                let outcome = self.trusted(batch, outcome, key);
                self.answered(now, batch, outcome, key);
                if let (true, Some(sealed)) = (is_said_to_be_there, self.sealed_mut(batch)) {
                    sealed.readings.is_said_to_be_there = true;
                }
            }
            Event::LookedUp {
                license,
                hardware_id,
                outcome,
                key,
            } => {
                self.note_echo(key);
                self.looked_up(now, license, &hardware_id, outcome);
            }
            Event::Refused {
                license,
                hardware_id,
                code,
            } => {
                self.link.reached(now.mono);
                // When it was asked, nobody knows.
                self.refused(now, license, &hardware_id, (code, Duration::ZERO));
            }
            Event::PrefixFound {
                batch,
                room,
                prefix,
            } => self.split(now, batch, room, prefix),
            Event::Doubted(doubt) => self.doubt_ledger(now, &doubt),
        }
    }

    fn answered(&mut self, now: Moment, no: BatchNo, outcome: SendOutcome, key: KeyEcho) {
        let account = self.book.batch(no).map(|batch| batch.account);
        let license = account.and_then(|no| Some(self.book.accounts.get(&no)?.license));
        let Some(license) = license else { return };
        // Already so where this is told again, after its first commit failed.
        self.set_op(license, Op::Idle);
        match outcome {
            SendOutcome::Applied(Counted { standing, pool }) => {
                self.link.reached(now.mono);
                self.resume_license(license);
                let standing = Standing {
                    as_of: now.time,
                    ..standing
                };
                let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
                let asked = sealed.map_or(now.time, |sealed| sealed.sent_at);
                self.settle(now, no, standing, Some(key));
                if key == KeyEcho::Replayed {
                    self.count_in_pool(now, no);
                } else {
                    self.learn_pool(now, account, pool.as_ref(), asked);
                }
                if let Some(account) = account {
                    self.tell_twins(account);
                }
            }
            SendOutcome::RefusedLimit => {
                self.link.reached(now.mono);
                self.hold(now, no, Hold::Limit { room_seen: None });
                self.note_refused(now, no, key);
                self.mark_stale(no);
            }
            SendOutcome::RefusedLicense(code) if self.is_of_before(no, key) => {
                self.link.reached(now.mono);
                if self.is_of_original(no) {
                    self.hold(now, no, Hold::Refused(code));
                } else {
                    self.reseal(now, no);
                }
            }
            SendOutcome::RefusedLicense(code) => {
                self.link.reached(now.mono);
                self.hold(now, no, Hold::Refused(code));
                self.note_refused(now, no, key);
                if let (true, Some(account)) = (vendor::is_of_counter(code), account) {
                    self.refuse_account(now, account, code);
                    return;
                }
                let hardware_id = self.hardware_id_of(no);
                self.block(now, license, &hardware_id, code);
            }
            SendOutcome::RefusedRequest(code, message) => {
                self.link.reached(now.mono);
                tracing::error!(
                    batch = no.0,
                    server_says = ?message,
                    "the server refuses a request as wrong"
                );
                self.hold(now, no, Hold::Defect(code));
                self.note_refused(now, no, key);
            }
            SendOutcome::RefusedCredentials(code) => {
                self.not_counted(now, no);
                // A request that comes twice has one date: neither copy of it was accepted.
                if code != ErrorCode::DateHeaderDiff {
                    self.note_refused(now, no, key);
                }
                self.link.refused(now.mono, code);
            }
            SendOutcome::Duplicate(why) => {
                tracing::warn!(
                    batch = no.0,
                    why,
                    "the server may have the batch already: the total decides"
                );
                self.link.reached(now.mono);
                if let Some(sealed) = self.sealed_mut(no) {
                    sealed.peer = None;
                }
                self.doubt(now, no);
            }
            SendOutcome::Unreached(why) => {
                tracing::debug!(batch = no.0, why, "the server was not reached");
                self.not_counted(now, no);
                self.link
                    .unreached(now.mono, &self.policy, &mut self.random);
            }
            SendOutcome::Throttled(wait) => {
                self.not_counted(now, no);
                self.note_refused(now, no, key);
                self.link
                    .throttled(now.mono, wait, &self.policy, &mut self.random);
            }
            SendOutcome::Unknown(why, wait) => {
                tracing::warn!(batch = no.0, why, "no valid answer: the outcome is unknown");
                self.link.doubted(now.mono);
                self.doubt(now, no);
                self.pause(now, license, wait);
                if let (Some(_), Some(sealed)) = (wait, self.sealed_mut(no)) {
                    // The server wants to be left alone: no reading comes before that.
                    sealed.readings.is_begun = true;
                }
            }
        }
    }

    fn looked_up(
        &mut self,
        now: Moment,
        license: LicenseNo,
        hardware_id: &str,
        outcome: LookUpOutcome,
    ) {
        let asked_at = match self.book.license(license).map(|license| license.op) {
            Some(Op::LookingUp(since)) => since,
            _ => Duration::ZERO,
        };
        if matches!(
            outcome,
            LookUpOutcome::Found(_) | LookUpOutcome::Refused(..)
        ) {
            // Where the commit fails, the licence is still being read, and this is told again: since when tells how old it is.
            self.book.license_mut(license);
        }
        self.set_op(license, Op::Idle);
        match outcome {
            LookUpOutcome::Found(_) if self.is_forgotten(license) => self.link.reached(now.mono),
            LookUpOutcome::Found(found) => {
                self.link.reached(now.mono);
                self.found(now, license, &found, asked_at);
                self.wait_for_next_reading(now, license);
            }
            LookUpOutcome::Refused(code, message) => {
                self.link.reached(now.mono);
                tracing::warn!(
                    license = license.0,
                    server_says = ?message,
                    "the server refuses a licence"
                );
                self.look_up_refused(now, license, hardware_id, (code, asked_at));
            }
            LookUpOutcome::RefusedCredentials(code) => self.link.refused(now.mono, code),
            LookUpOutcome::Unreached(why) => {
                tracing::debug!(license = license.0, why, "the server was not reached");
                if self.reads_again_at_once(now, license) {
                    self.link.doubted(now.mono);
                    return;
                }
                self.link
                    .unreached(now.mono, &self.policy, &mut self.random);
            }
            LookUpOutcome::Throttled(wait) => {
                self.link
                    .throttled(now.mono, wait, &self.policy, &mut self.random);
            }
            LookUpOutcome::Invalid(why, wait) => {
                tracing::warn!(license = license.0, why, "not a valid answer");
                self.link.doubted(now.mono);
                self.pause(now, license, wait);
            }
        }
    }

    /// The server refuses a licence that was read. One that was forgotten meanwhile stays so.
    /// The trouble of one device does not postpone the reading by another.
    fn refused(
        &mut self,
        now: Moment,
        no: LicenseNo,
        hardware_id: &str,
        (code, asked_at): (ErrorCode, Duration),
    ) {
        if self.is_forgotten(no) {
            return;
        }
        self.block(now, no, hardware_id, code);
        let license = self.book.license(no);
        if license.is_none_or(|license| license.reader().is_none()) {
            self.schedule_refresh(now, no);
        }
        self.give_up_license(now, no, code, asked_at);
    }

    fn is_forgotten(&self, license: LicenseNo) -> bool {
        let license = self.book.license(license);
        license.is_some_and(|license| self.book.is_forgotten(license))
    }

    /// The server counted a batch: `key` is what its answer said of the key; `None` where a total tells it.
    fn settle(&mut self, now: Moment, no: BatchNo, standing: Standing, key: Option<KeyEcho>) {
        let Some(batch) = self.book.batch(no).cloned() else {
            return;
        };
        let sealed = batch.sealed.as_ref();
        let (sealed_at, sent_at) =
            sealed.map_or((now.time, now.time), |sealed| (sealed.at, sealed.sent_at));
        let is_beside = turn::is_beside(&standing, sent_at, now.time);
        self.count_settled(now, no);
        self.expect_of_refused(batch.account, batch.units);
        self.expect_of_copies(batch.account, batch.units);
        if key == Some(KeyEcho::Replayed) {
            // Its total is that of back then, which others may have moved since, and whose period may be over.
            let is_of_now = !turn::is_beside(&standing, sealed_at, now.time);
            self.replayed(now, &batch, is_of_now.then_some(standing));
            return;
        }
        if let (Some(key), false) = (key, is_beside) {
            let is_keyed = sealed.is_some_and(|sealed| sealed.peer.is_some());
            let is_first = sealed.is_some_and(|sealed| !sealed.doubtful);
            let is_deduplicated = is_keyed && is_first && key != KeyEcho::Absent;
            self.audit_answer(now, (batch.account, &batch), standing, is_deduplicated);
        }
        let Some(account) = self.book.account_mut(batch.account) else {
            return;
        };
        let was_refused = account.refused.take().is_some();
        let license = account.license;
        account.standing = standing;
        account.heard_at = now.mono;
        account.stale = is_beside;
        account.watch.fell_at = None;
        account.watch.is_replayed = false;
        account.watch.settle(batch.units);
        account.unsure = is_beside;
        if is_beside {
            // Before it turned or after? It is read again when that is over.
            account.standing.as_of = sent_at.min(now.time);
        }
        self.forget_contradiction(batch.account);
        if was_refused {
            self.release_refused(now, license);
        }
    }

    /// The server had counted a batch before: its total stands for no less than that answer said, and for no less than the last
    /// one with the batch's units, where it is of this period. What an original sent, a total that was read since may hold.
    fn replayed(&mut self, now: Moment, batch: &Batch, standing: Option<Standing>) {
        let is_of_original = self.may_be_elsewhere(batch.last);
        let Some(account) = self.book.account_mut(batch.account) else {
            return;
        };
        account.stale = true;
        account.heard_at = now.mono;
        account.unsure |= standing.is_none() || is_of_original;
        if let Some(standing) = standing {
            let known = account.standing.total_at(now.time);
            let added = known.checked_add(batch.units).unwrap_or(known);
            let with_batch = if is_of_original { known } else { added };
            let is_whole = standing.total >= with_batch;
            account.watch.is_replayed |= is_whole && !is_of_original;
            account.standing = Standing {
                total: with_batch.max(standing.total),
                as_of: now.time,
                ..account.standing
            };
        }
    }

    /// Ends a batch as settled, and moves its units to what is settled.
    fn count_settled(&mut self, now: Moment, no: BatchNo) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let (account, units, late) = (batch.account, batch.units, batch.late);
        self.book.note_setting_of(no);
        self.book.end_batch(now, no, BatchState::Settled);
        let Some(account) = self.book.account_mut(account) else {
            return;
        };
        // In range: both are parts of recorded, which was checked when its rows were granted.
        account.settled = account
            .settled
            .checked_add(units)
            .unwrap_or(account.recorded);
        if late {
            account.late = account.late.checked_add(units).unwrap_or(account.late);
        }
    }

    /// No attempt was counted, or none shall be taken to have been: it can be sent as if for the first
    /// time, under the same id.
    fn certainly_not_counted(&mut self, no: BatchNo) {
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = BatchState::Sealed;
            batch.held_at = None;
            if let Some(sealed) = &mut batch.sealed {
                sealed.doubtful = false;
                sealed.peer = None;
                sealed.refused_at = None;
            }
        }
    }

    /// The server refused this attempt. Where it keeps no keys, a gateway may have sent the request twice and handed on the
    /// second answer, so that the total is read before the batch goes on.
    fn note_refused(&mut self, now: Moment, no: BatchNo, key: KeyEcho) {
        let Some(batch) = self.book.batch(no).cloned() else {
            return;
        };
        let is_unknown = matches!(batch.state, BatchState::Unknown { .. });
        // A second attempt under a key may meet another node of the server than the first.
        let is_keyed = batch
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.peer.is_some() && !sealed.doubtful);
        // One that looked the key up knows of no other copy, whatever becomes of keys and credentials later.
        if is_unknown || key.is_looked_up() || batch.units == Units::ZERO {
            return;
        }
        // A reading that was asked for before says nothing of what was counted with the refusal.
        if let Some(account) = self.book.accounts.get_mut(&batch.account) {
            account.heard_at = now.mono;
        }
        if let Some(sealed) = self.sealed_mut(no) {
            sealed.refused_at = Some(now.mono);
        }
        if !is_keyed {
            self.mark_stale(no);
        }
    }

    /// What a reading did not decide is read again, and not at once.
    fn wait_for_next_reading(&mut self, now: Moment, license: LicenseNo) {
        let look_at = now.mono.saturating_add(self.policy.sync_interval);
        for account in self.book.account_numbers_of(license) {
            let batches = self.book.batches_of(account);
            let is_due = |batch: &&Batch| match batch.state {
                BatchState::Unknown { look_at } => look_at <= now.mono,
                _ => false,
            };
            let due: Vec<BatchNo> = batches.into_iter().filter(is_due).map(|it| it.no).collect();
            for no in due {
                // Not kept on disk.
                if let Some(batch) = self.book.batches.get_mut(&no) {
                    batch.state = BatchState::Unknown { look_at };
                    if let Some(sealed) = &mut batch.sealed {
                        sealed.readings.limits_are_read = true;
                    }
                }
            }
        }
    }

    fn sealed_mut(&mut self, no: BatchNo) -> Option<&mut Sealed> {
        self.book.batch_mut(no)?.sealed.as_mut()
    }

    /// What is to be read of the total of a batch whose outcome becomes unknown now.
    fn readings(&self, now: Moment) -> Readings {
        Readings {
            since: now.mono,
            arrives_until: now.mono.saturating_add(self.policy.settle_wait),
            is_begun: false,
            limits_are_read: false,
            is_said_to_be_there: false,
            without_at: None,
            reached: None,
            is_repeated: false,
        }
    }

    /// This attempt was certainly not counted; an earlier one may have been.
    fn not_counted(&mut self, now: Moment, no: BatchNo) {
        let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
        if sealed.is_some_and(|sealed| sealed.doubtful) {
            self.doubt(now, no);
        } else {
            self.set_state(no, BatchState::Sealed);
        }
    }

    /// The server may have counted this attempt.
    fn doubt(&mut self, now: Moment, no: BatchNo) {
        let readings = self.readings(now);
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = BatchState::Unknown { look_at: now.mono };
            if let Some(sealed) = &mut batch.sealed {
                sealed.doubtful = true;
                sealed.readings = readings;
            }
        }
    }

    fn hold(&mut self, now: Moment, no: BatchNo, why: Hold) {
        if matches!(why, Hold::Undecidable | Hold::Gone(_) | Hold::Copy) {
            // It may have been counted, with its setting.
            self.book.note_setting_of(no);
        }
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = BatchState::Held(why);
            batch.closed = true;
            batch.held_at.get_or_insert(now.time);
        }
    }

    fn standing_of(&self, batch: &Batch) -> Option<Standing> {
        let account = self.book.accounts.get(&batch.account)?;
        Some(account.standing)
    }

    fn set_state(&mut self, no: BatchNo, state: BatchState) {
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = state;
        }
    }

    fn set_op(&mut self, license: LicenseNo, op: Op) {
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.op = op;
        }
    }

    /// The server's refusal contradicts the total: it is read again before it is relied on.
    fn mark_stale(&mut self, batch: BatchNo) {
        if let Some(account) = self.book.batch(batch).map(|batch| batch.account) {
            self.mark_account_stale(account);
        }
    }

    /// All totals are read again before they are relied on.
    fn distrust_totals(&mut self) {
        let accounts: Vec<AccountNo> = self.book.accounts.keys().copied().collect();
        for account in accounts {
            self.mark_account_unsure(account);
        }
    }

    /// Nobody knows which units the total holds: it is read again, and taken as it is then.
    fn mark_account_unsure(&mut self, account: AccountNo) {
        self.mark_account_stale(account);
        if let Some(account) = self.book.account_mut(account) {
            account.unsure = true;
        }
    }

    fn mark_account_stale(&mut self, account: AccountNo) {
        let same = self.book.accounts.get(&account).into_iter();
        let same = same.flat_map(|account| self.book.twins_of(account));
        let same: Vec<AccountNo> = same.map(|twin| twin.no).chain([account]).collect();
        for account in same {
            // A restart must not forget it: until then, the total decides nothing.
            if let Some(account) = self.book.account_mut(account) {
                account.stale = true;
            }
        }
    }

    fn hardware_id_of(&self, batch: BatchNo) -> String {
        let lane = self
            .book
            .batch(batch)
            .and_then(|batch| self.book.lane(batch.lane));
        lane.map(|lane| lane.key.hardware_id.clone())
            .unwrap_or_default()
    }
}

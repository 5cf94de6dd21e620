//! The sync state machine: what is sealed, sent, read, settled and held, and when.
//!
//! It has two halves. [`Core::apply`] takes a fact into the book, with [`learn`] for what the server
//! says of a licence and [`split`] for what a limit leaves over. [`agenda`] looks at the book and
//! starts what is due, at most one operation for a licence. All that the machine knows stands in the
//! book and in the link, so that a restart loses only its pauses.

mod agenda;
mod distrust;
mod learn;
pub(super) mod membership;
pub(super) mod resolve;
mod server;
mod split;
#[cfg(test)]
mod tests;
mod turn;

use std::time::Duration;

use tally_shared::{limits::Standing, wire::ErrorCode};

use super::{
    Core,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, LicenseNo, Op, Pause},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    outcome::{LookUpOutcome, SendOutcome},
};

/// A refused licence is read again after this many sync intervals, then less and less often.
const PROBE_INTERVALS: u32 = 12;

/// After a start, licences are read one after the other with this much time between, far from the
/// server's rate limits.
const REFRESH_SPACING: Duration = Duration::from_millis(100);

impl Core {
    /// An order that was not released: its commit failed.
    pub(in crate::core) fn withdraw(&mut self, command: &Command) {
        match command {
            Command::Send { license, .. } | Command::LookUp { license, .. } => {
                self.set_op(*license, Op::Idle);
            }
            Command::FindPrefix { .. } => {}
        }
    }

    /// What was under way when the process ended is unknown. On disk it stands as sent, which says the
    /// same to the next start: nothing need be written.
    pub(in crate::core) fn resume(&mut self, now: Moment) {
        self.meet_server(now);
        self.part_from_former_server();
        let look_at = now.mono.saturating_add(self.policy.settle_wait);
        for batch in self.book.batches.values_mut() {
            if let BatchState::Sent | BatchState::Unknown { .. } = batch.state {
                batch.state = BatchState::Unknown { look_at };
                if let Some(sealed) = &mut batch.sealed {
                    sealed.doubtful = true;
                }
            }
        }
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
                self.note_echo(key);
                let outcome = self.trusted(batch, outcome, key);
                self.answered(now, batch, outcome, key == KeyEcho::Replayed);
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
                self.refused(now, license, &hardware_id, code);
            }
            Event::PrefixFound {
                batch,
                room,
                prefix,
            } => self.split(now, batch, room, prefix),
            Event::Doubted(doubt) => self.doubt_ledger(now, &doubt),
        }
    }

    /// Pauses are forgotten, and what is held is asked about.
    fn nudge(&mut self) {
        self.link.nudge();
        for license in self.book.licenses.values_mut() {
            license.pause = Pause::default();
            license.probe = Pause::default();
        }
        for batch in self.book.batches.values_mut() {
            batch.opened_at = Duration::ZERO;
            let account = self.book.accounts.get(&batch.account);
            let license = account.and_then(|found| self.book.licenses.get_mut(&found.license));
            if let (Some(license), BatchState::Held(_)) = (license, batch.state) {
                license.refresh_at = Duration::ZERO;
            }
        }
    }

    pub(in crate::core) fn note_echo(&mut self, key: KeyEcho) {
        match key {
            KeyEcho::NoAnswer => {}
            KeyEcho::Absent => self.book.set_idempotent(false),
            KeyEcho::Echoed | KeyEcho::Replayed => self.book.set_idempotent(true),
        }
    }

    /// A refusal concerns this attempt. Where an earlier one may have been counted, it says that none
    /// was only if the server recognised the key.
    fn trusted(&self, no: BatchNo, outcome: SendOutcome, key: KeyEcho) -> SendOutcome {
        let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
        let doubtful = sealed.is_some_and(|sealed| sealed.doubtful);
        if !doubtful || matches!(key, KeyEcho::Echoed | KeyEcho::Replayed) {
            return outcome;
        }
        match outcome {
            SendOutcome::RefusedLimit
            | SendOutcome::RefusedLicense(_)
            | SendOutcome::RefusedRequest(..) => SendOutcome::Unknown(
                "refused, but an earlier attempt may have been counted".into(),
                None,
            ),
            other => other,
        }
    }

    fn answered(&mut self, now: Moment, no: BatchNo, outcome: SendOutcome, replayed: bool) {
        let account = self.book.batch(no).map(|batch| batch.account);
        let license = account.and_then(|no| Some(self.book.accounts.get(&no)?.license));
        let Some(license) = license else { return };
        // Already so where this is told again, after its first commit failed.
        self.set_op(license, Op::Idle);
        match outcome {
            SendOutcome::Applied(standing) => {
                self.link.reached(now.mono);
                self.resume_license(license);
                self.settle(
                    now,
                    no,
                    Standing {
                        as_of: now.time,
                        ..standing
                    },
                    replayed,
                );
            }
            SendOutcome::RefusedLimit => {
                self.link.reached(now.mono);
                self.hold(now, no, Hold::Limit { room_seen: None });
                self.mark_stale(no);
            }
            SendOutcome::RefusedLicense(code) => {
                self.link.reached(now.mono);
                self.hold(now, no, Hold::Refused(code));
                let hardware_id = self.hardware_id_of(no);
                self.block(now, license, &hardware_id, code);
            }
            SendOutcome::RefusedRequest(code, message) => {
                self.link.reached(now.mono);
                tracing::error!(batch = no.0, %message, "the server refuses a request as wrong");
                self.hold(now, no, Hold::Defect(code));
            }
            SendOutcome::RefusedCredentials(code) => {
                self.not_counted(now, no);
                self.link.refused(now.mono, code);
            }
            SendOutcome::Unreached(why) => {
                tracing::debug!(batch = no.0, why, "the server was not reached");
                self.not_counted(now, no);
                self.link
                    .unreached(now.mono, &self.policy, &mut self.random);
            }
            SendOutcome::Throttled(wait) => {
                self.not_counted(now, no);
                self.link
                    .throttled(now.mono, wait, &self.policy, &mut self.random);
            }
            SendOutcome::Unknown(why, wait) => {
                tracing::warn!(batch = no.0, why, "no valid answer: the outcome is unknown");
                self.link.doubted(now.mono);
                self.doubt(now, no);
                self.pause(now, license, wait);
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
        self.set_op(license, Op::Idle);
        match outcome {
            LookUpOutcome::Found(_) if self.is_forgotten(license) => self.link.reached(now.mono),
            LookUpOutcome::Found(found) => {
                self.link.reached(now.mono);
                self.learn_license(now, &found, asked_at);
            }
            LookUpOutcome::Refused(code, message) => {
                self.link.reached(now.mono);
                tracing::warn!(license = license.0, message, "the server refuses a licence");
                self.refused(now, license, hardware_id, code);
            }
            LookUpOutcome::RefusedCredentials(code) => self.link.refused(now.mono, code),
            LookUpOutcome::Unreached(why) => {
                tracing::debug!(license = license.0, why, "the server was not reached");
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
    fn refused(&mut self, now: Moment, license: LicenseNo, hardware_id: &str, code: ErrorCode) {
        if !self.is_forgotten(license) {
            self.schedule_refresh(now, license);
            self.block(now, license, hardware_id, code);
        }
    }

    fn is_forgotten(&self, license: LicenseNo) -> bool {
        let license = self.book.license(license);
        license.is_some_and(|license| self.book.is_forgotten(license))
    }

    /// The server counted a batch. A replayed answer tells the total of back then, which others may
    /// have moved since.
    fn settle(&mut self, now: Moment, no: BatchNo, standing: Standing, replayed: bool) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let (account, units) = (batch.account, batch.units);
        let before = batch.sealed.as_ref().map(|sealed| sealed.before);
        let sent_at = batch
            .sealed
            .as_ref()
            .map_or(now.time, |sealed| sealed.sent_at);
        self.count_settled(now, no);
        let Some(account) = self.book.account_mut(account) else {
            return;
        };
        if let Some(before) = before {
            let expected = Standing {
                total: before.total,
                as_of: before.as_of,
                ..standing
            }
            .total_at(now.time);
            account.shared |= expected.checked_add(units) != Some(standing.total);
        }
        account.standing = standing;
        account.heard_at = now.mono;
        account.stale = replayed;
        if turn::is_beside(&standing, sent_at, now.time) {
            // Before it turned or after? It is read again when that is over.
            account.standing.as_of = sent_at.min(now.time);
            account.stale = true;
        }
    }

    /// Ends a batch as settled, and moves its units to what is settled.
    fn count_settled(&mut self, now: Moment, no: BatchNo) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let (account, units, late) = (batch.account, batch.units, batch.late);
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
            }
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
        let look_at = now.mono.saturating_add(self.policy.settle_wait);
        if let Some(batch) = self.book.batch_mut(no) {
            batch.state = BatchState::Unknown { look_at };
            if let Some(sealed) = &mut batch.sealed {
                sealed.doubtful = true;
            }
        }
    }

    fn hold(&mut self, now: Moment, no: BatchNo, why: Hold) {
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

    fn resume_license(&mut self, license: LicenseNo) {
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.pause = Pause::default();
        }
    }

    fn pause(&mut self, now: Moment, license: LicenseNo, wait: Option<Duration>) {
        let (base, max) = (self.policy.sync_interval, self.policy.refresh_interval);
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.pause.grow(now.mono, base, max, &mut self.random);
            if let Some(wait) = wait {
                let until = now.mono.saturating_add(wait.min(max));
                license.pause.until = license.pause.until.max(until);
            }
        }
    }

    /// The server refuses a licence, or one device of it. It is asked again slowly, and on demand.
    fn block(&mut self, now: Moment, no: LicenseNo, hardware_id: &str, code: ErrorCode) {
        let Some(license) = self.book.license_mut(no) else {
            return;
        };
        if matches!(code, ErrorCode::DeviceNotFound | ErrorCode::Blacklisted) {
            license.devices.insert(hardware_id.to_owned(), Some(code));
        } else {
            license.blocked = Some(code);
        }
        let base = self.policy.sync_interval.saturating_mul(PROBE_INTERVALS);
        let max = self.policy.refresh_interval.max(base);
        license.probe.grow(now.mono, base, max, &mut self.random);
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
            self.mark_account_stale(account);
        }
    }

    fn mark_account_stale(&mut self, account: AccountNo) {
        // A restart must not forget it: until then, the total decides nothing.
        if let Some(account) = self.book.account_mut(account) {
            account.stale = true;
        }
    }

    fn schedule_refresh(&mut self, now: Moment, license: LicenseNo) {
        let interval_ms =
            u64::try_from(self.policy.refresh_interval.as_millis()).unwrap_or(u64::MAX);
        // Within a fifth of the interval, so that devices that started together do not stay together.
        let jitter = Duration::from_millis((self.random)() % (interval_ms / 5).max(1));
        let at = now
            .mono
            .saturating_add(self.policy.refresh_interval)
            .saturating_sub(jitter);
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.refresh_at = at;
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

//! What became of a batch whose answer was lost, by the totals that are read while nobody knows.
//!
//! On a licence that others use too, a single comparison of two totals decides little: by the time that the request can no
//! longer arrive, others have moved the total by more than the batch. Therefore the total is followed: it is read every
//! two seconds, and where no two neighbours of all totals that were read are as far apart as the batch, none of the steps
//! between them was it ([`verdict`]). That is no guess about others: it holds whatever they add.
//!
//! That a step was the batch cannot be known, only that it has the batch's size. It is taken for the batch where the total was
//! read right before the request and right after, so that hardly anybody else can have added as much in between, and where others
//! were not seen to add as much lately. A step of that size that comes later is somebody else's more often than a request that arrives late: it decides nothing,
//! unless the licence was never seen to be shared. Then it is taken for the batch when the total still stands there four settle
//! waits later, or two minutes: others who consumed just then mostly go on to consume.

use std::time::Duration;

use tally_shared::{limits::Standing, units::Units};

use super::{
    audit::Misfit,
    learn::Told,
    resolve::{By, Decision},
    turn,
};
use crate::core::{
    Core, UndecidablePolicy,
    book::{
        Account, AccountNo, Batch, BatchNo, BatchState, FindingKind, Hold, License, LicenseNo,
        Sealed,
    },
    clock::Moment,
    reconcile::{Verdict, verdict},
};

/// The time between two readings of the total while others may move it and nobody knows what became of a batch.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// So many times it is read within a settle wait at most: a long wait has longer intervals.
const FOLLOWS_PER_WAIT: u32 = 15;

/// So many attempts of a batch, those that were refused among them, are followed: where each answer is lost, something in between loses them all, and readings
/// without end would not help.
const FOLLOWED_ATTEMPTS: u32 = 3;

/// On a licence that others use, a step of a batch's size is taken for the batch where no more time than this is between the
/// totals before and after.
const EXACT_WITHIN: Duration = Duration::from_secs(2);

/// On a licence that was never seen to be shared, a step of a batch's size that was seen later than that is taken for the batch
/// after so many settle waits, if nothing moved the total any further,
const ALONE_WAITS: u32 = 4;

/// or after so long.
const ALONE_MAX: Duration = Duration::from_mins(2);

impl Core {
    /// Takes in a total that was read while a batch's outcome is unknown. One that moved by exactly its units shows that it was
    /// counted. One without its units shows that it was not only where the request can no longer arrive, and where a second
    /// reading, at least the settle wait later, agrees: the first may come from a replica that is behind.
    pub(super) fn read_of_unknown(&mut self, now: Moment, no: BatchNo, told: Told) {
        let Told { standing, asked_at } = told;
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let Some(sealed) = &batch.sealed else { return };
        let (account, readings) = (batch.account, sealed.readings);
        let verdict = self.judge(now, (batch, sealed), &standing);
        let is_late_enough = asked_at >= readings.arrives_until;
        tracing::info!(
            batch = no.0,
            ?verdict,
            is_late_enough,
            "compared the total before and after"
        );
        let follow_at = self.follow_at(now, no);
        let believed_at = self.believed_at(now, (batch, sealed));
        if let Some(sealed) = self.sealed_mut(no) {
            sealed.readings.is_repeated = false;
        }
        match verdict {
            Verdict::Applied if asked_at < believed_at => self.read_again(now, no, believed_at),
            Verdict::Applied => {
                self.settle(now, no, standing, None);
                self.hear(now, account, told, None);
            }
            Verdict::Undecidable if is_late_enough => self.undecidable(now, no, account, told),
            Verdict::Undecidable => self.read_again(now, no, readings.arrives_until),
            Verdict::Without | Verdict::Behind => {
                if verdict == Verdict::Without {
                    self.note_reached(now, no, told);
                }
                if !is_late_enough {
                    let at = follow_at
                        .map_or(readings.arrives_until, |at| at.min(readings.arrives_until));
                    self.read_again(now, no, at);
                    return;
                }
                self.read_without(now, no, account, (told, verdict, follow_at));
            }
        }
    }

    /// A total without the batch, asked for when the request could no longer arrive.
    fn read_without(
        &mut self,
        now: Moment,
        no: BatchNo,
        account: AccountNo,
        (told, verdict, follow_at): (Told, Verdict, Option<Duration>),
    ) {
        let Told { standing, asked_at } = told;
        let Some(sealed) = self.sealed_mut(no) else {
            return;
        };
        let readings = sealed.readings;
        let first = readings.without_at.unwrap_or(asked_at);
        sealed.readings.without_at = Some(first);
        let again_at = first.saturating_add(self.policy.settle_wait);
        if asked_at < again_at || readings.without_at.is_none() {
            let at = follow_at.map_or(again_at, |at| at.min(again_at));
            self.read_again(now, no, at);
        } else if readings.is_said_to_be_there {
            self.note_missing(now, no, &standing);
            self.undecidable(now, no, account, told);
        } else if verdict == Verdict::Behind {
            // No replica is that far behind: the total fell.
            self.undecidable(now, no, account, told);
        } else {
            self.certainly_not_counted(no);
            self.hear(now, account, told, None);
        }
    }

    /// What a total says of a batch, with what was read before.
    fn judge(&self, now: Moment, (batch, sealed): (&Batch, &Sealed), found: &Standing) -> Verdict {
        let Some(lane) = self.book.lane(batch.lane) else {
            return Verdict::Undecidable;
        };
        let setting = batch.dropped.leave(lane.key.setting);
        let before = &sealed.before;
        let reached = sealed.readings.reached.unwrap_or(before.total);
        let verdict = verdict(batch.units, (before, reached), setting, found);
        let account = self.book.accounts.get(&batch.account);
        let is_shared = account.is_none_or(|account| self.is_shared(account));
        let is_usual = account.is_some_and(|account| account.watch.others.contains(&batch.units));
        let is_theirs =
            (is_shared || reached > before.total) && (!is_close(now, sealed) || is_usual);
        if verdict == Verdict::Applied && is_theirs {
            return Verdict::Undecidable;
        }
        // Of a ledger that is a copy, or older than it was, the batch may have been counted in parts. On a licence that nobody else
        // was seen to use, it is the vendor who moved the total, maybe down from where the batch had brought it.
        let is_still = found.total == before.total_at(now.time);
        let is_alone = account.is_some_and(|account| !account.shared);
        let is_open = !sealed.readings.is_said_to_be_there && batch.units != Units::ZERO;
        let may_hide = is_alone || sealed.attempts == 0 || self.may_be_elsewhere(batch.last);
        if verdict == Verdict::Without && !is_still && may_hide && is_open {
            return Verdict::Undecidable;
        }
        verdict
    }

    /// Tells whether others use the counter, or may: they moved its total, or the server counts more activated devices of the
    /// licence than this ledger knows.
    fn is_shared(&self, account: &Account) -> bool {
        let license = self.book.license(account.license);
        account.shared || license.is_some_and(License::is_activated_elsewhere)
    }

    /// When a total that moved by exactly a batch is taken to hold it, on the monotonic clock.
    fn believed_at(&self, now: Moment, (batch, sealed): (&Batch, &Sealed)) -> Duration {
        let wait = self.policy.settle_wait.saturating_mul(ALONE_WAITS);
        let wait = wait.min(ALONE_MAX);
        let is_clear = is_close(now, sealed) || sealed.readings.is_said_to_be_there;
        // An agent that is started anew each time need not wait again.
        let was_long_ago = now.time.saturating_since(sealed.sent_at) >= wait;
        if is_clear || was_long_ago || batch.units == Units::ZERO {
            return Duration::ZERO;
        }
        sealed.readings.since.saturating_add(wait)
    }

    /// When the total is read again to follow it; `None` where that would tell nothing more.
    fn follow_at(&self, now: Moment, no: BatchNo) -> Option<Duration> {
        let batch = self.book.batch(no)?;
        let account = self.book.accounts.get(&batch.account)?;
        let may_fall = account.standing.limits.allow_negative_consumptions;
        let attempts = batch.sealed.as_ref().map_or(0, |sealed| sealed.attempts);
        let attempts = attempts.saturating_add(batch.refusals);
        // Of a single unit every move may be the batch, and few readings say that as well as many.
        let is_worth_it = batch.units > Units::new(1) && attempts <= FOLLOWED_ATTEMPTS;
        let is_followed = self.is_shared(account) && !may_fall && is_worth_it;
        let interval = FOLLOW_INTERVAL.max(self.policy.settle_wait / FOLLOWS_PER_WAIT);
        is_followed.then(|| now.mono.saturating_add(interval))
    }

    /// Repeats a reading of a shared licence that had no answer, once: each second in which the total is not followed makes the
    /// next step larger. Returns whether there is a batch to read it for.
    pub(super) fn reads_again_at_once(&mut self, now: Moment, license: LicenseNo) -> bool {
        if self.link.is_trying() {
            return false;
        }
        let accounts = self.book.accounts_of(license);
        let unknown = accounts
            .filter(|account| self.is_shared(account))
            .flat_map(|account| self.book.batches_of(account.no))
            .find(|batch| matches!(batch.state, BatchState::Unknown { .. }));
        let Some(no) = unknown.map(|batch| batch.no) else {
            return false;
        };
        // Not kept on disk.
        let Some(batch) = self.book.batches.get_mut(&no) else {
            return false;
        };
        let Some(sealed) = batch.sealed.as_mut().filter(|it| !it.readings.is_repeated) else {
            return false;
        };
        sealed.readings.is_repeated = true;
        sealed.readings.is_begun = false;
        batch.state = BatchState::Unknown { look_at: now.mono };
        true
    }

    /// Notes a total that certainly does not hold a batch: the next step is looked at from there.
    fn note_reached(&mut self, now: Moment, no: BatchNo, Told { standing, asked_at }: Told) {
        let took = i64::try_from(now.mono.saturating_sub(asked_at).as_millis()).unwrap_or(i64::MAX);
        let asked = now.time.plus_millis(took.saturating_neg());
        let may_fall = standing.limits.allow_negative_consumptions;
        if may_fall || turn::is_beside(&standing, asked, now.time) {
            return;
        }
        // Not kept on disk: a start reads anew, from the total before.
        let Some(batch) = self.book.batches.get_mut(&no) else {
            return;
        };
        let account = batch.account;
        if let Some(sealed) = batch.sealed.as_mut() {
            let reached = sealed.readings.reached.unwrap_or(sealed.before.total);
            sealed.readings.reached = Some(reached.max(standing.total));
            let step = standing
                .total
                .since(reached)
                .filter(|step| *step > Units::ZERO);
            if let Some(step) = step
                && let Some(account) = self.book.accounts.get_mut(&account)
            {
                account.watch.moved_by_others(step);
            }
        }
    }

    /// The server says that it has a batch, and its total does not hold it.
    fn note_missing(&mut self, now: Moment, no: BatchNo, standing: &Standing) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let Some(before) = batch.sealed.as_ref().map(|sealed| sealed.before) else {
            return;
        };
        let misfit = Misfit {
            kind: FindingKind::ReplayDidNotCount,
            batch: Some(no),
            units: batch.units,
            expected: before
                .total
                .checked_add(batch.units)
                .unwrap_or(before.total),
            since: before.as_of,
            found: standing.total,
        };
        self.note_finding(now, batch.account, misfit);
    }

    pub(super) fn read_again(&mut self, now: Moment, no: BatchNo, at: Duration) {
        self.set_state(
            no,
            BatchState::Unknown {
                look_at: at.max(now.mono),
            },
        );
    }

    fn undecidable(&mut self, now: Moment, no: BatchNo, account: AccountNo, told: Told) {
        let units = self.book.batch(no).map(|batch| batch.units);
        match self.policy.undecidable {
            UndecidablePolicy::AssumeApplied => {
                self.note_decision(now, no, Decision::Applied, By::Policy, None);
                self.count_settled(now, no);
            }
            UndecidablePolicy::Resend => {
                self.note_decision(now, no, Decision::Resend, By::Policy, None);
                self.certainly_not_counted(no);
            }
            UndecidablePolicy::Hold => {
                tracing::warn!(
                    batch = no.0,
                    "the total cannot tell whether a batch was counted"
                );
                self.hold(now, no, Hold::Undecidable);
            }
        }
        self.hear(now, account, told, units.map(|units| (no, units)));
    }
}

/// Whether the total was read so short a time before and after a batch was sent that hardly anybody else moved it in between.
fn is_close(now: Moment, sealed: &Sealed) -> bool {
    let is_first = sealed.readings.reached.is_none();
    // Each clock can stand still while the other goes on.
    let by_mono = sealed.heard_at.map(|at| now.mono.saturating_sub(at));
    let age = now.time.saturating_since(sealed.before.as_of);
    is_first && by_mono.is_some_and(|by_mono| by_mono.max(age) <= EXACT_WITHIN)
}

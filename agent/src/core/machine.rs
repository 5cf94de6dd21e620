//! The sync state machine: what is sealed, sent, read, settled and held, and when.
//!
//! It has two halves. [`Core::apply`] takes a fact into the book; [`Core::advance`] looks at the book
//! and starts what is due, at most one operation for a licence. All it knows stands in the book and
//! in the link, so that a restart loses only its pauses.

use std::time::Duration;

use tally_shared::{
    limits::Standing,
    units::Units,
    wire::{ErrorCode, Holder, Subject},
};
use uuid::Uuid;

use super::{
    Core, UndecidablePolicy,
    book::{Account, Batch, BatchNo, BatchState, Hold, License, LicenseNo, Op, Pause, Sealed},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho, Prefix},
    outcome::{LicenseFound, LookUpOutcome, SendOutcome},
    reconcile::{Verdict, verdict},
};

/// A refused licence is read again after this many sync intervals, then less and less often.
const PROBE_INTERVALS: u32 = 12;

/// A total that is older than this is read again before a batch is sent to a server that keeps no
/// idempotency keys: should the answer be lost, only a fresh total can tell what became of it.
const TOTAL_AGE_MAX: Duration = Duration::from_secs(60);

/// For how long a server is trusted to remember an idempotency key. After that, the total tells.
const KEY_AGE_MAX: Duration = Duration::from_hours(24);

/// After a start, licences are read one after the other with this much time between, far from the
/// server's rate limits.
const REFRESH_SPACING: Duration = Duration::from_millis(100);

/// What a licence needs next.
enum Step {
    /// Seal this batch, if it is not, and send it.
    Send(BatchNo),
    /// Read the licence for this device.
    LookUp(String),
}

// === taking facts ===

impl Core {
    /// An order that was not released: its commit failed.
    pub(super) fn withdraw(&mut self, command: &Command) {
        match command {
            Command::Send { license, .. } | Command::LookUp { license, .. } => {
                self.set_op(*license, Op::Idle);
            }
            Command::FindPrefix { .. } => {}
        }
    }

    /// What was under way when the process ended is unknown.
    pub(super) fn resume(&mut self, now: Moment) {
        let doubtful: Vec<BatchNo> = self
            .book
            .batches
            .values()
            .filter(|batch| matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. }))
            .map(|batch| batch.no)
            .collect();
        for no in doubtful {
            self.doubt(now, no);
        }
        let mut at = now.mono;
        for license in self.book.licenses.values_mut() {
            license.refresh_at = at;
            at = at.saturating_add(REFRESH_SPACING);
        }
    }

    pub(super) fn apply(&mut self, now: Moment, event: Event) {
        match event {
            Event::Tick => {}
            Event::Nudge => self.nudge(),
            Event::SetNetwork(mode) => {
                self.link.set_mode(mode);
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
            Event::PrefixFound {
                batch,
                room,
                prefix,
            } => self.split(now, batch, room, prefix),
        }
    }

    fn nudge(&mut self) {
        self.link.nudge();
        for license in self.book.licenses.values_mut() {
            license.pause = Pause::default();
            license.probe = Pause::default();
        }
        for batch in self.book.batches.values_mut() {
            batch.opened_at = Duration::ZERO;
        }
    }

    fn note_echo(&mut self, key: KeyEcho) {
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
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let Some(license) = self
            .book
            .accounts
            .get(&batch.account)
            .map(|found| found.license)
        else {
            return;
        };
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
                self.hold(no, Hold::Limit { room_seen: None });
                self.mark_stale(no);
            }
            SendOutcome::RefusedLicense(code) => {
                self.link.reached(now.mono);
                self.hold(no, Hold::Refused(code));
                let hardware_id = self.hardware_id_of(no);
                self.block(now, license, &hardware_id, code);
            }
            SendOutcome::RefusedRequest(code, message) => {
                self.link.reached(now.mono);
                tracing::error!(batch = no.0, %message, "the server refuses a request as wrong");
                self.hold(no, Hold::Defect(code));
            }
            SendOutcome::RefusedCredentials(code) => {
                self.not_counted(now, no);
                self.link.refused(now.mono, code);
            }
            SendOutcome::Unreached(why) => {
                tracing::debug!(batch = no.0, why, "the server was not reached");
                self.set_state(no, BatchState::Sealed);
                self.link
                    .unreached(now.mono, &self.policy, &mut self.random);
            }
            SendOutcome::Throttled(wait) => {
                self.set_state(no, BatchState::Sealed);
                self.link
                    .throttled(now.mono, wait, &self.policy, &mut self.random);
            }
            SendOutcome::Unknown(why, wait) => {
                tracing::warn!(batch = no.0, why, "no valid answer: the outcome is unknown");
                self.link.doubted();
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
        self.set_op(license, Op::Idle);
        match outcome {
            LookUpOutcome::Found(found) => {
                self.link.reached(now.mono);
                self.learn_license(now, &found);
            }
            LookUpOutcome::Refused(code, message) => {
                self.link.reached(now.mono);
                tracing::warn!(license = license.0, message, "the server refuses a licence");
                self.schedule_refresh(now, license);
                self.block(now, license, hardware_id, code);
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
            LookUpOutcome::Invalid(why) => {
                tracing::warn!(license = license.0, why, "not a valid answer");
                self.link.doubted();
                self.pause(now, license, None);
            }
        }
    }

    /// The server counted a batch. A replayed answer tells the total of back then, which others may
    /// have moved since.
    fn settle(&mut self, now: Moment, no: BatchNo, standing: Standing, replayed: bool) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let (account, units) = (batch.account, batch.units);
        let before = batch.sealed.as_ref().map(|sealed| sealed.before);
        self.book.end_batch(no, BatchState::Settled);
        let Some(account) = self.book.account_mut(account) else {
            return;
        };
        // In range: settled is a part of recorded, which was checked when its rows were granted.
        account.settled = account
            .settled
            .checked_add(units)
            .unwrap_or(account.recorded);
        if let Some((total, as_of)) = before {
            let expected = Standing {
                total,
                as_of,
                ..standing
            }
            .total_at(now.time);
            account.shared |= expected.checked_add(units) != Some(standing.total);
        }
        account.standing = standing;
        account.stale = replayed;
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

    fn hold(&mut self, no: BatchNo, why: Hold) {
        self.set_state(no, BatchState::Held(why));
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
        let account = self.book.batch(batch).map(|batch| batch.account);
        if let Some(account) = account.and_then(|no| self.book.accounts.get_mut(&no)) {
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

// === learning what the server says of a licence ===

impl Core {
    pub(super) fn learn_license(&mut self, now: Moment, found: &LicenseFound) -> LicenseNo {
        let LicenseFound { subject, body } = found;
        let known = self.book.find(subject).filter(|known| match known.holder {
            Holder::LicenseKey(_) => true,
            // A user can hold several licences of one product.
            Holder::Username(_) => known.id == body.counter.id,
        });
        let no = match known.map(|known| known.no) {
            Some(no) => no,
            None => self.book.add_license(|no| License {
                no,
                product: subject.product.clone(),
                holder: subject.holder.clone(),
                body: body.clone(),
                blocked: None,
                devices: std::collections::BTreeMap::new(),
                refreshed_at: now.time,
                id: body.counter.id,
                op: Op::Idle,
                pause: Pause::default(),
                probe: Pause::default(),
                refresh_at: Duration::ZERO,
            }),
        };
        if let Some(license) = self.book.license_mut(no) {
            license.body = body.clone();
            license.blocked = None;
            license.devices.insert(subject.hardware_id.clone(), None);
            license.refreshed_at = now.time;
            license.pause = Pause::default();
            license.probe = Pause::default();
        }
        self.schedule_refresh(now, no);
        self.learn_account(now, no, None, body.counter.standing(now.time));
        for feature in &body.product_features {
            if feature.feature_type == tally_shared::wire::add_consumption::FEATURE_TYPE_CONSUMPTION
            {
                self.learn_account(now, no, Some(&feature.code), feature.standing(now.time));
            }
        }
        self.release_refused(now, no);
        no
    }

    fn learn_account(
        &mut self,
        now: Moment,
        license: LicenseNo,
        feature: Option<&str>,
        standing: Standing,
    ) {
        let Some(account) = self.book.account_of(license, feature) else {
            self.book
                .add_account(license, feature.map(str::to_owned), standing);
            return;
        };
        let no = account.no;
        let doubtful = self
            .book
            .batches_of(no)
            .into_iter()
            .find_map(|batch| match batch.state {
                BatchState::Unknown { look_at } => Some((batch.no, look_at)),
                BatchState::Sent => Some((batch.no, Duration::MAX)),
                _ => None,
            });
        match doubtful {
            // The total may or may not hold the batch already: only the limits are news.
            Some((_, look_at)) if now.mono < look_at => {
                if let Some(account) = self.book.account_mut(no) {
                    account.standing.limits = standing.limits;
                }
            }
            Some((batch, _)) => self.reconcile(now, batch, standing),
            None => {
                if let Some(account) = self.book.account_mut(no) {
                    account.shared |= account.standing.total_at(now.time) != standing.total;
                    account.standing = standing;
                    account.stale = false;
                }
            }
        }
    }

    /// The request can no longer arrive: the total tells what became of it.
    fn reconcile(&mut self, now: Moment, no: BatchNo, standing: Standing) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let Some(sealed) = &batch.sealed else { return };
        let account = batch.account;
        let verdict = verdict(batch, sealed, &standing);
        tracing::info!(
            batch = no.0,
            ?verdict,
            "compared the total before and after"
        );
        match (verdict, self.policy.undecidable) {
            (Verdict::Applied, _) | (Verdict::Undecidable, UndecidablePolicy::AssumeApplied) => {
                self.settle(now, no, standing, false);
            }
            (Verdict::NotApplied, _) | (Verdict::Undecidable, UndecidablePolicy::Resend) => {
                self.set_state(no, BatchState::Sealed);
                let sealed = self
                    .book
                    .batch_mut(no)
                    .and_then(|batch| batch.sealed.as_mut());
                if let Some(sealed) = sealed {
                    sealed.doubtful = false;
                }
            }
            (Verdict::Undecidable, UndecidablePolicy::Hold) => {
                tracing::warn!(
                    batch = no.0,
                    "the total cannot tell whether a batch was counted"
                );
                self.hold(no, Hold::Undecidable);
            }
        }
        if let Some(account) = self.book.account_mut(account) {
            account.standing = standing;
            account.stale = false;
        }
    }

    /// The server no longer refuses the licence: what was held for that goes on.
    fn release_refused(&mut self, now: Moment, license: LicenseNo) {
        let Some(license) = self.book.license(license) else {
            return;
        };
        let released: Vec<BatchNo> = self
            .book
            .accounts_of(license.no)
            .flat_map(|account| self.book.batches_of(account.no))
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Refused(_))))
            .filter(|batch| {
                let lane = self.book.lane(batch.lane);
                lane.is_some_and(|lane| license.accepts(&lane.key.hardware_id))
            })
            .map(|batch| batch.no)
            .collect();
        for no in released {
            self.reseal(now, no);
        }
    }

    /// A refused batch goes on as a new one, under a new id: the old id has its answer.
    fn reseal(&mut self, now: Moment, no: BatchNo) {
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        self.book.end_batch(no, BatchState::Superseded);
        let id = self.new_id(now);
        self.book.add_batch(|no| Batch {
            no,
            ..old.renewed(now, id)
        });
    }
}

// === splitting at the limit ===

impl Core {
    fn split(&mut self, now: Moment, no: BatchNo, room: Option<i64>, prefix: Option<Prefix>) {
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        if !matches!(old.state, BatchState::Held(Hold::Limit { .. })) {
            return;
        }
        let Some(prefix) = prefix else {
            self.hold(no, Hold::Limit { room_seen: room });
            return;
        };
        if prefix.rows == old.rows {
            self.reseal(now, no);
            return;
        }
        self.book.end_batch(no, BatchState::Superseded);
        let id = self.new_id(now);
        let first = Batch {
            last: prefix.last,
            rows: prefix.rows,
            units: prefix.units,
            ..old.renewed(now, id)
        };
        self.book.add_batch(|no| Batch { no, ..first });
        let rest = Batch {
            first: super::book::Seq(prefix.last.0 + 1),
            rows: old.rows - prefix.rows,
            // In range: both are sums of the same rows.
            units: old.units.checked_sub(prefix.units).unwrap_or(Units::ZERO),
            state: BatchState::Held(Hold::Limit { room_seen: None }),
            sealed: None,
            ..old
        };
        self.book.add_batch(|no| Batch { no, ..rest });
    }

    /// Asks how much of each batch that is held for the limit fits, where that may have changed.
    fn find_prefixes(&self, now: Moment) -> Vec<Command> {
        let held = self
            .book
            .batches
            .values()
            .filter_map(|batch| match batch.state {
                BatchState::Held(Hold::Limit { room_seen }) => Some((batch, room_seen)),
                _ => None,
            });
        held.filter_map(|(batch, room_seen)| {
            let account = self.book.accounts.get(&batch.account)?;
            if !self.is_calm(now, account) {
                return None;
            }
            let setting = self.book.lane(batch.lane)?.key.setting;
            let standing = Standing {
                limits: account.standing.limits.with(setting),
                ..account.standing
            };
            let room = standing.room(Units::ZERO, now.time);
            let news = room.is_none_or(|room| room > 0 && room_seen.is_none_or(|seen| room > seen));
            news.then_some(Command::FindPrefix {
                batch: batch.no,
                lane: batch.lane,
                first: batch.first,
                last: batch.last,
                room,
            })
        })
        .collect()
    }

    /// Whether nothing of an account is under way or about to be, and its total is the server's.
    fn is_calm(&self, now: Moment, account: &Account) -> bool {
        !self.total_is_stale(now, account)
            && self
                .book
                .batches_of(account.no)
                .iter()
                .all(|batch| matches!(batch.state, BatchState::Held(_) | BatchState::Open))
    }
}

// === starting what is due ===

impl Core {
    pub(super) fn advance(&mut self, now: Moment) -> Vec<Command> {
        let mut commands = self.find_prefixes(now);
        let licenses: Vec<LicenseNo> = self.book.licenses.keys().copied().collect();
        let mut busy = self.busy();
        for no in licenses {
            if !self.link.may_start(now.mono, busy) {
                break;
            }
            let Some((_, step)) = self.agenda(now, no).filter(|(due, _)| *due <= now.mono) else {
                continue;
            };
            let command = match step {
                Step::Send(batch) => self.send(now, no, batch),
                Step::LookUp(hardware_id) => self.look_up(no, &hardware_id),
            };
            busy += usize::from(command.is_some());
            commands.extend(command);
        }
        commands
    }

    /// When something becomes due that is not due now.
    pub(super) fn wakeup(&self, now: Moment) -> Option<Duration> {
        let from = self.link.next_start(self.busy())?;
        let licenses = self.book.licenses.keys();
        let earliest = licenses
            .filter_map(|no| self.agenda(now, *no))
            .map(|(due, _)| due)
            .min();
        earliest.map(|due| due.max(from))
    }

    pub(super) fn busy(&self) -> usize {
        self.book
            .licenses
            .values()
            .filter(|license| license.op != Op::Idle)
            .count()
    }

    /// What a licence needs next, and when.
    fn agenda(&self, now: Moment, no: LicenseNo) -> Option<(Duration, Step)> {
        let license = self.book.license(no)?;
        if license.op != Op::Idle {
            return None;
        }
        let steps = self
            .book
            .accounts_of(no)
            .filter_map(|account| self.agenda_of(now, license, account));
        let (due, step) = steps
            .chain(self.probe(license))
            .chain(self.refresh(license))
            .min_by_key(|(due, _)| *due)?;
        Some((due.max(license.pause.until), step))
    }

    fn agenda_of(
        &self,
        now: Moment,
        license: &License,
        account: &Account,
    ) -> Option<(Duration, Step)> {
        let batches = self.book.batches_of(account.no);
        let look_up = |due: Duration| Some((due, Step::LookUp(license.any_device()?)));
        for batch in &batches {
            match batch.state {
                BatchState::Sent => return None,
                BatchState::Unknown { look_at } => return self.resolve(now, batch, look_at),
                BatchState::Held(Hold::Limit { .. }) if self.total_is_stale(now, account) => {
                    return look_up(Duration::ZERO);
                }
                _ => {}
            }
        }
        let waiting: Vec<&Batch> = batches
            .iter()
            .copied()
            .filter(|batch| matches!(batch.state, BatchState::Open | BatchState::Sealed))
            .filter(|batch| license.accepts(&self.hardware_id_of(batch.no)))
            .collect();
        let Some(first) = waiting.first() else {
            let turn = self
                .next_turn(now, account)
                .filter(|_| is_held_for_limit(&batches))?;
            return look_up(turn);
        };
        let due = self.due_at(first);
        let together = waiting
            .iter()
            .filter(|batch| self.due_at(batch) <= now.mono)
            .count();
        if due <= now.mono && self.needs_fresh_total(now, account, together) {
            return Some((due, Step::LookUp(self.hardware_id_of(first.no))));
        }
        Some((due, Step::Send(first.no)))
    }

    /// A batch without a valid answer: the same bytes again where the server keeps keys, else the
    /// total, once the request can no longer arrive.
    fn resolve(&self, now: Moment, batch: &Batch, look_at: Duration) -> Option<(Duration, Step)> {
        let sealed = batch.sealed.as_ref()?;
        if self.book.idempotent() && now.time.saturating_since(sealed.at) < KEY_AGE_MAX {
            return Some((Duration::ZERO, Step::Send(batch.no)));
        }
        Some((look_at, Step::LookUp(self.hardware_id_of(batch.no))))
    }

    /// An open batch waits for company while the server can be reached. What waited through an outage
    /// has waited long enough.
    fn due_at(&self, batch: &Batch) -> Duration {
        let at_once = batch.state == BatchState::Sealed
            || batch.opened_at == Duration::ZERO
            || self.link.is_trying();
        if at_once {
            return Duration::ZERO;
        }
        batch.opened_at.saturating_add(self.policy.sync_interval)
    }

    /// Whether the total must be read before sending. It costs a request, which only a server without
    /// idempotency keys needs, and only where somebody else may have moved the total meanwhile. For a
    /// licence that was never seen to be shared, it is skipped where two requests are due anyway.
    fn needs_fresh_total(&self, now: Moment, account: &Account, together: usize) -> bool {
        let age = now.time.saturating_since(account.standing.as_of);
        !self.book.idempotent() && age > TOTAL_AGE_MAX && (account.shared || together < 2)
    }

    /// Whether the server has said something that contradicts the total, or the total is of an
    /// earlier period.
    fn total_is_stale(&self, now: Moment, account: &Account) -> bool {
        let standing = &account.standing;
        account.stale || standing.period_start(now.time) > standing.period_start(standing.as_of)
    }

    /// When the account's period turns, on the monotonic clock.
    fn next_turn(&self, now: Moment, account: &Account) -> Option<Duration> {
        let turn = account.standing.reset?.next(now.time);
        Some(now.mono.saturating_add(turn.saturating_since(now.time)))
    }

    /// Asking again for a licence, or a device of it, that the server refuses.
    fn probe(&self, license: &License) -> Option<(Duration, Step)> {
        let refused = license
            .devices
            .iter()
            .find(|(_, refused)| refused.is_some());
        let device = match (license.blocked, refused) {
            (Some(_), _) => license.any_device()?,
            (None, Some((device, _))) => device.clone(),
            (None, None) => return None,
        };
        Some((license.probe.until, Step::LookUp(device)))
    }

    /// Reading a licence when its time has come, or as the try of a server that is down.
    fn refresh(&self, license: &License) -> Option<(Duration, Step)> {
        if license.blocked.is_some() {
            return None;
        }
        let due = if self.link.is_trying() {
            Duration::ZERO
        } else {
            license.refresh_at
        };
        Some((due, Step::LookUp(license.any_device()?)))
    }

    /// Sends a batch, sealing it first where it is open: both are in one commit.
    fn send(&mut self, now: Moment, license: LicenseNo, no: BatchNo) -> Option<Command> {
        if self.book.batch(no)?.state == BatchState::Open {
            let id = self.new_id(now);
            self.book.batch_mut(no)?.sealed = Some(Sealed::new(now, id));
        }
        let batch = self.book.batch(no)?;
        let standing = self.book.accounts.get(&batch.account)?.standing;
        let request = Box::new(self.book.request_of(batch)?);
        let was_unknown = matches!(batch.state, BatchState::Unknown { .. });
        let batch = self.book.batch_mut(no)?;
        let sealed = batch.sealed.as_mut()?;
        sealed.attempts = sealed.attempts.saturating_add(1);
        sealed.sent_at = now.time;
        if !was_unknown {
            sealed.before = (standing.total, standing.as_of);
        }
        let key = sealed.id;
        batch.state = BatchState::Sent;
        self.set_op(license, Op::Sending(no));
        Some(Command::Send {
            license,
            batch: no,
            key,
            request,
        })
    }

    fn look_up(&mut self, no: LicenseNo, hardware_id: &str) -> Option<Command> {
        let license = self.book.licenses.get_mut(&no)?;
        license.op = Op::LookingUp;
        let subject: Subject = license.subject(hardware_id);
        Some(Command::LookUp {
            license: no,
            subject,
        })
    }

    fn new_id(&mut self, now: Moment) -> Uuid {
        let mut random = [0; 10];
        let bits = [(self.random)().to_be_bytes(), (self.random)().to_be_bytes()].concat();
        for (to, from) in random.iter_mut().zip(bits) {
            *to = from;
        }
        let millis = now.time.as_millis().unsigned_abs();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

fn is_held_for_limit(batches: &[&Batch]) -> bool {
    batches
        .iter()
        .any(|batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. })))
}

impl License {
    /// A device to read the licence for: one that the server does not refuse, if there is one.
    fn any_device(&self) -> Option<String> {
        let accepted = self.devices.iter().find(|(_, refused)| refused.is_none());
        accepted
            .or_else(|| self.devices.iter().next())
            .map(|(device, _)| device.clone())
    }

    /// Whether the server, by its last word, does not refuse this licence on this device.
    fn accepts(&self, hardware_id: &str) -> bool {
        self.blocked.is_none() && self.devices.get(hardware_id).is_none_or(Option::is_none)
    }
}

impl Batch {
    /// This batch's rows, sealed anew.
    fn renewed(&self, now: Moment, id: Uuid) -> Self {
        Self {
            state: BatchState::Sealed,
            sealed: Some(Sealed::new(now, id)),
            ..self.clone()
        }
    }
}

impl Sealed {
    fn new(now: Moment, id: Uuid) -> Self {
        Self {
            id,
            at: now.time,
            attempts: 0,
            before: (tally_shared::units::Total::ZERO, now.time),
            sent_at: now.time,
            doubtful: false,
        }
    }
}

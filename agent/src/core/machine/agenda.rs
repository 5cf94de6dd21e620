//! The agenda: what each licence needs next, and when.

use std::time::Duration;

use super::turn;
use crate::core::{
    Core, KEY_AGE_MAX, LateUsage,
    book::{Account, Batch, BatchNo, BatchState, Hold, License, LicenseNo, Op, Sealed},
    clock::Moment,
    command::{Command, Key},
};

/// A total that is older than this is read again before a batch is sent to a server that keeps no
/// idempotency keys: should the answer be lost, only a fresh total can tell what became of it.
const TOTAL_AGE_MAX: Duration = Duration::from_mins(1);

/// The same for a licence that others use too: what they add between the reading and the batch makes a lost answer undecidable.
const SHARED_AGE_MAX: Duration = Duration::from_secs(1);

/// What a licence needs next.
enum Step {
    /// Seal this batch, if it is not, and send it.
    Send(BatchNo),
    /// Read the licence for this device.
    LookUp(String),
    /// Read the licence under the next of its names.
    Refresh,
    /// The first reading after this batch's answer was lost. No pause delays it: the sooner the total is read, the less others
    /// can have moved it.
    FirstReading(BatchNo),
}

impl Core {
    pub(in crate::core) fn advance(&mut self, now: Moment) -> Vec<Command> {
        self.meet_server(now);
        self.hold_late(now);
        self.drop_replaced_settings(now);
        self.notice_contradictions(now);
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
                Step::LookUp(hardware_id) => self.look_up(now, no, Some(&hardware_id), false),
                Step::Refresh => self.look_up(now, no, None, false),
                Step::FirstReading(batch) => {
                    self.begin_readings(batch);
                    let hardware_id = self.device_to_read_by(no, batch);
                    self.look_up(now, no, Some(&hardware_id), true)
                }
            };
            busy += usize::from(command.is_some());
            commands.extend(command);
        }
        commands
    }

    /// When something becomes due that is not due now.
    pub(in crate::core) fn wakeup(&self, now: Moment) -> Option<Duration> {
        let from = self.link.next_start(self.busy())?;
        let licenses = self.book.licenses.keys();
        let earliest = licenses
            .filter_map(|no| self.agenda(now, *no))
            .map(|(due, _)| due)
            .min();
        earliest.map(|due| due.max(from))
    }

    pub(in crate::core) fn busy(&self) -> usize {
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
        // Of several of one id, the first is read for all, and knows what the server refuses.
        let first = self.book.first_of(license);
        let steps = self
            .book
            .accounts_of(no)
            .filter_map(|account| self.agenda_of(now, first, account))
            .map(|(due, step)| match &step {
                Step::LookUp(device) if !first.accepts(device) => Self::slowly(first, due, step),
                _ => (due, step),
            });
        let (due, step) = steps
            // Of those that are due, the first counts: a device that is accepted tells more than one that is not.
            .chain(self.refresh(license).filter(|_| no == first.no))
            .chain(Self::probe(license).filter(|_| no == first.no))
            .min_by_key(|(due, _)| *due)?;
        if let Step::FirstReading(_) = step {
            return Some((due, step));
        }
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
                BatchState::Unknown { look_at } => {
                    let look_at = look_at.max(turn::over_at(now, &account.standing));
                    return Some(self.clear_up(now, license, batch, look_at));
                }
                _ => {}
            }
        }
        if account.refused.is_some() {
            // Asking for its total would tell nothing; whether it is still refused is asked slowly.
            return look_up(account.watch.contradicted.until).filter(|_| !batches.is_empty());
        }
        // One at a time for all accounts of a counter: its total is one.
        let twins = self.book.twins_of(account);
        if twins.iter().any(|twin| self.is_doubtful(twin.no)) {
            return None;
        }
        let is_held = is_held_for_limit(&batches);
        if account.stale
            || account.watch.fell_at.is_some()
            || (is_held && Self::total_is_stale(now, account))
        {
            let due = turn::over_at(now, &account.standing);
            return look_up(due.max(account.watch.read_at));
        }
        let waiting: Vec<&Batch> = batches
            .iter()
            .copied()
            .filter(|batch| matches!(batch.state, BatchState::Open | BatchState::Sealed))
            .filter(|batch| license.accepts(&self.hardware_id_of(batch.no)))
            .collect();
        let Some(first) = waiting.first() else {
            let turn = Self::next_turn(now, account).filter(|_| is_held);
            let retry = account.watch.contradicted.until;
            let retry = self.is_contradicted(account).then_some(retry);
            return look_up(turn.into_iter().chain(retry).min()?);
        };
        let due = self.due_at(first).max(self.may_send_at(now, account));
        let together = waiting
            .iter()
            .filter(|batch| self.due_at(batch) <= now.mono)
            .count();
        let is_refused = first
            .sealed
            .as_ref()
            .is_some_and(|it| it.refused_at.is_some());
        let is_unproven = is_refused && !self.is_deduplicated(now, first);
        if due <= now.mono && (is_unproven || self.needs_fresh_total(now, account, together)) {
            return Some((due, Step::LookUp(self.hardware_id_of(first.no))));
        }
        Some((due, Step::Send(first.no)))
    }

    /// A batch without a valid answer: the same bytes again where the server keeps keys, else the
    /// total, once the request can no longer arrive.
    fn clear_up(
        &self,
        now: Moment,
        license: &License,
        batch: &Batch,
        look_at: Duration,
    ) -> (Duration, Step) {
        let sealed = batch.sealed.as_ref();
        // Where the licence cannot be read, the server would refuse what it does not know.
        let may_be_edited = !self.book.setting_of(batch).is_empty()
            && license.reader().is_some()
            && sealed.is_some_and(|sealed| !sealed.readings.limits_are_read);
        if self.trusts_key(now, batch) && !may_be_edited {
            return (Duration::ZERO, Step::Send(batch.no));
        }
        let hardware_id = self.device_to_read_by(license.no, batch.no);
        if sealed.is_some_and(|sealed| !sealed.readings.is_begun) {
            return (look_at, Step::FirstReading(batch.no));
        }
        (look_at, Step::LookUp(hardware_id))
    }

    /// The device of a batch; another where the server refuses that one, and the licence can be read by another.
    fn device_to_read_by(&self, license: LicenseNo, batch: BatchNo) -> String {
        let hardware_id = self.hardware_id_of(batch);
        let license = self.book.license(license);
        let is_refused = license.is_some_and(|license| !license.accepts(&hardware_id));
        let reader = license.and_then(License::reader).filter(|_| is_refused);
        reader.map(str::to_owned).unwrap_or(hardware_id)
    }

    fn begin_readings(&mut self, no: BatchNo) {
        // Not kept on disk: a start reads anew.
        let batch = self.book.batches.get_mut(&no);
        if let Some(sealed) = batch.and_then(|batch| batch.sealed.as_mut()) {
            sealed.readings.is_begun = true;
        }
    }

    /// Whether the server surely remembers a batch's key, if it ever had it: each attempt that may have been counted was sent
    /// under it, to this server and with these credentials, which keep keys now as they did then, and no longer ago than
    /// keys are kept. The larger of two ages counts, since either clock may have stood still; where one of them was not
    /// confirmed, nobody knows the age.
    pub(super) fn trusts_key(&self, now: Moment, batch: &Batch) -> bool {
        let Some(sealed) = &batch.sealed else {
            return false;
        };
        let is_peer = sealed.peer.as_deref() == Some(self.peer.as_str());
        let is_known = sealed.at_proven && now.proven && sealed.at <= now.time;
        let by_mono = sealed.since.map(|since| now.mono.saturating_sub(since));
        let age = now
            .time
            .saturating_since(sealed.at)
            .max(by_mono.unwrap_or_default());
        self.keeps_keys() && is_peer && is_known && age < KEY_AGE_MAX
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
        // The corrected clock stands still where it was ahead.
        let by_mono = now.mono.saturating_sub(account.heard_at);
        let age = now.time.saturating_since(account.standing.as_of);
        let age = age.max(by_mono);
        let is_old = if account.shared {
            age > SHARED_AGE_MAX
        } else {
            age > TOTAL_AGE_MAX && together < 2
        };
        !self.keeps_keys() && (is_old || Self::total_is_stale(now, account))
    }

    /// Nothing is sent to a server without keys while a period turns: no total could tell what became of
    /// it.
    fn may_send_at(&self, now: Moment, account: &Account) -> Duration {
        if self.keeps_keys() {
            Duration::ZERO
        } else {
            turn::over_at(now, &account.standing)
        }
    }

    /// Whether the server has said something that contradicts the total, or the total is of an
    /// earlier period, or may be.
    pub(super) fn total_is_stale(now: Moment, account: &Account) -> bool {
        let standing = &account.standing;
        account.stale
            || account.watch.fell_at.is_some()
            || standing.period_start(now.time) > standing.period_start(standing.as_of)
            || turn::is_beside(standing, standing.as_of, standing.as_of)
    }

    /// Whether a batch's period is over: sent now, the server counts its units in a later one.
    pub(super) fn is_late(&self, now: Moment, batch: &Batch) -> bool {
        let recorded_in = self.book.lane(batch.lane).and_then(|lane| lane.key.period);
        let current = self
            .standing_of(batch)
            .and_then(|standing| standing.period_start(now.time));
        matches!((recorded_in, current), (Some(then), Some(current)) if then < current)
    }

    /// Holds what is late and waits to be sent, where the policy says so.
    fn hold_late(&mut self, now: Moment) {
        if self.policy.late_usage == LateUsage::Report {
            return;
        }
        let waits = |batch: &&Batch| matches!(batch.state, BatchState::Open | BatchState::Sealed);
        let late: Vec<BatchNo> = self
            .book
            .batches
            .values()
            .filter(waits)
            .filter(|batch| !batch.late && self.is_late(now, batch))
            .map(|batch| batch.no)
            .collect();
        for no in late {
            let sealed = self.book.batch(no).and_then(|batch| batch.sealed.as_ref());
            // Refused, and its period ended before the total could be read: it may have been counted first.
            let is_refused = sealed.is_some_and(|sealed| sealed.refused_at.is_some());
            let why = if is_refused {
                Hold::Undecidable
            } else {
                Hold::Late
            };
            self.hold(now, no, why);
        }
    }

    /// When the account's period turns, on the monotonic clock.
    fn next_turn(now: Moment, account: &Account) -> Option<Duration> {
        let turn = account.standing.reset?.next(now.time).plus(turn::MARGIN);
        Some(now.mono.saturating_add(turn.saturating_since(now.time)))
    }

    /// What the server refuses to tell is asked for slowly, on each refused device in its turn.
    fn slowly(license: &License, due: Duration, step: Step) -> (Duration, Step) {
        Self::probe(license).map_or((due, step), |(until, probe)| (due.max(until), probe))
    }

    /// Asking again for a licence, or a device of it, that the server refuses.
    fn probe(license: &License) -> Option<(Duration, Step)> {
        let refused = || {
            license
                .devices
                .iter()
                .filter(|(_, refused)| refused.is_some())
        };
        if license.blocked.is_some() && refused().count() < license.devices.len() {
            return Some((license.probe.until, Step::LookUp(license.any_device()?)));
        }
        // One after the other: one that stays refused keeps no other from being asked about.
        let turn = usize::try_from(license.probe.failures).unwrap_or(0);
        let (device, _) = refused().nth(turn.checked_rem(refused().count())?)?;
        Some((license.probe.until, Step::LookUp(device.clone())))
    }

    /// Reading a licence when its time has come, or as the try of a server that is down.
    fn refresh(&self, license: &License) -> Option<(Duration, Step)> {
        if license.blocked.is_some() || license.devices.values().all(Option::is_some) {
            return None;
        }
        let due = if self.link.is_trying() {
            Duration::ZERO
        } else {
            license.refresh_at
        };
        Some((due, Step::Refresh))
    }

    /// Sends a batch, sealing it first where it is open: both are in one commit.
    fn send(&mut self, now: Moment, license: LicenseNo, no: BatchNo) -> Option<Command> {
        if self.book.batch(no)?.state == BatchState::Open {
            let batch = self.book.batch(no)?;
            let (id, standing) = (self.book.id_of(batch)?, self.standing_of(batch)?);
            let dropped = self.book.dropped_of(batch);
            let batch = self.book.batch_mut(no)?;
            batch.sealed = Some(Sealed::new(now, id, standing));
            batch.dropped = dropped;
        }
        let peer = self.keeps_keys().then(|| self.peer.clone());
        let batch = self.book.batch(no)?;
        let standing = self.standing_of(batch)?;
        let heard_at = self.book.accounts.get(&batch.account)?.heard_at;
        let is_late = self.is_late(now, batch);
        let request = Box::new(self.book.request_of(batch)?);
        let was_unknown = matches!(batch.state, BatchState::Unknown { .. });
        let batch = self.book.batch_mut(no)?;
        let sealed = batch.sealed.as_mut()?;
        sealed.attempts = sealed.attempts.saturating_add(1);
        sealed.sent_at = now.time;
        // An attempt that was refused may have been counted all the same: until that is known, it is the first that counts.
        let is_clear = sealed.refused_at.is_none();
        if !was_unknown && is_clear {
            sealed.before = standing;
            sealed.heard_at = Some(heard_at);
        }
        if !sealed.doubtful && is_clear {
            // No attempt was counted: the age of the key begins with this one.
            sealed.peer = peer;
            sealed.at = now.time;
            sealed.at_proven = now.proven;
            sealed.since = Some(now.mono);
        }
        let id = sealed.id;
        let key = sealed.peer.clone().map(|peer| Key { id, peer });
        batch.late |= is_late;
        batch.state = BatchState::Sent;
        self.set_op(license, Op::Sending(no));
        Some(Command::Send {
            license,
            batch: no,
            key,
            request,
        })
    }

    fn look_up(
        &mut self,
        now: Moment,
        no: LicenseNo,
        hardware_id: Option<&str>,
        is_by_id: bool,
    ) -> Option<Command> {
        let subject = self.question(no, hardware_id, is_by_id)?;
        self.set_op(no, Op::LookingUp(now.mono));
        Some(Command::LookUp {
            license: no,
            subject,
        })
    }
}

fn is_held_for_limit(batches: &[&Batch]) -> bool {
    batches
        .iter()
        .any(|batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. })))
}

//! The audit of the total: every total that is heard is compared with what this ledger expects of it.
//!
//! On a licence that others use, moves that this ledger did not make are theirs, and nothing can be said of them. On one
//! that was never seen to be shared, three things are findings:
//!
//! * The total moved by a batch once more, twice more, or three times more than it was sent, or by exactly the amount of a
//!   batch that was settled lately: something between agent and server sent a request again. Where the server keeps keys
//!   and the batch was sent once, a second copy was not counted, so that the surplus is somebody else's.
//! * A batch was refused by a server that keeps no keys, and the total moved by exactly its units: a gateway may have sent the
//!   request twice and handed on the second answer.
//! * The total fell, although nothing may lower it. One reading may come from a replica that is behind: only a second one, two
//!   settle waits after the first, is believed.
//!
//! A move by any other amount shows that the licence is shared. Findings of the hour before are then explained as well.

use std::time::Duration;

use serde_json::json;
use tally_shared::{
    limits::Standing,
    time::Timestamp,
    units::{Total, Units},
};

use crate::core::{
    Core,
    book::{
        Account, AccountNo, Batch, BatchNo, BatchState, Finding, FindingKind, Hold, NoteKind, Seq,
    },
    clock::Moment,
};

use super::resolve::Unresolvable;

/// A move of the total by up to so many times a batch is taken for the batch, sent again.
const REPEATS_MAX: i64 = 3;

/// A replica may be behind by fewer settle waits than these.
const FALL_WAITS: u32 = 2;

/// How long a finding may be explained by a later move that shows the licence to be shared.
const EXPLAINED_WITHIN: Duration = Duration::from_hours(1);

/// Two totals of an account that do not fit each other.
#[derive(Clone, Copy)]
pub(super) struct Misfit {
    /// The kind.
    pub(super) kind: FindingKind,
    /// The batch, where it concerns one.
    pub(super) batch: Option<BatchNo>,
    /// The units in question.
    pub(super) units: Units,
    /// The total that this ledger expected.
    pub(super) expected: Total,
    /// When the total before was right.
    pub(super) since: Timestamp,
    /// The total that was told.
    pub(super) found: Total,
}

impl Core {
    /// Compares the total of an answer that counted a batch with the total before and the batch's units.
    ///
    /// `is_deduplicated` says that the server recognises a request that comes twice, and that it was sent once.
    pub(super) fn audit_answer(
        &mut self,
        now: Moment,
        (account_no, batch): (AccountNo, &Batch),
        found: Standing,
        is_deduplicated: bool,
    ) {
        let Some(sealed) = &batch.sealed else { return };
        let before = Standing {
            limits: found.limits,
            reset: found.reset,
            ..sealed.before
        };
        let since = before.as_of;
        let Some(expected) = before.total_at(now.time).checked_add(batch.units) else {
            return;
        };
        let misfit = |kind, surplus: i64| Misfit {
            kind,
            batch: Some(batch.no),
            units: Units::new(surplus),
            expected,
            since,
            found: found.total,
        };
        let Some(account) = self.book.accounts.get(&account_no) else {
            return;
        };
        match found.total.since(expected).map(Units::get) {
            Some(0) => {}
            Some(surplus) if surplus > 0 => {
                let is_repeat = !is_deduplicated && repeats(account, Some(batch.units), surplus);
                let misfit = misfit(FindingKind::CountedMoreThanOnce, surplus);
                self.surplus(now, account_no, surplus, is_repeat.then_some(misfit));
            }
            Some(missing) if !may_fall(&found) => {
                let units = missing.saturating_neg();
                self.note_finding(now, account_no, misfit(FindingKind::TotalFell, units));
            }
            Some(_) | None => self.note_shared(now, account_no),
        }
    }

    /// Compares a total that was read with the one before, while nothing of this ledger's was under way, but for a batch in
    /// doubt that the total cannot decide about. Returns whether it is believed: a total that fell is not, until it was read
    /// again when no replica can be that far behind.
    pub(super) fn audit_reading(
        &mut self,
        now: Moment,
        no: AccountNo,
        found: &Standing,
        asked_at: Duration,
        doubtful: Option<(BatchNo, Units)>,
    ) -> bool {
        let believed_after = self.policy.settle_wait.saturating_mul(FALL_WAITS);
        let Some(account) = self.book.accounts.get_mut(&no) else {
            return false;
        };
        if account.unsure {
            account.watch.fell_at = None;
            account.watch.is_replayed = false;
            return true;
        }
        let expected = account.standing.total_at(now.time);
        let since = account.standing.as_of;
        let is_replayed = account.watch.is_replayed;
        let surplus = found.total.since(expected).map(Units::get);
        if surplus.is_none_or(|surplus| surplus >= 0) || may_fall(found) {
            account.watch.fell_at = None;
            account.watch.is_replayed = false;
            if surplus != Some(0) {
                let surplus = surplus.unwrap_or(i64::MAX);
                // A batch in doubt may be a part of the surplus, once.
                let own = doubtful.map_or(0, |(_, units)| units.get().max(0));
                let own = if own <= surplus { own } else { 0 };
                let rest = surplus - own;
                let is_repeat =
                    rest > 0 && repeats(account, doubtful.map(|(_, units)| units), rest);
                let misfit = Misfit {
                    kind: FindingKind::CountedMoreThanOnce,
                    batch: doubtful.map(|(batch, _)| batch),
                    units: Units::new(rest),
                    expected: expected.checked_add(Units::new(own)).unwrap_or(expected),
                    since,
                    found: found.total,
                };
                if rest != 0 {
                    self.surplus(now, no, rest, is_repeat.then_some(misfit));
                }
            }
            return true;
        }
        let first = *account.watch.fell_at.get_or_insert(asked_at);
        if asked_at < first.saturating_add(believed_after) {
            account.watch.read_at = first.saturating_add(believed_after).max(now.mono);
            return false;
        }
        account.watch.fell_at = None;
        account.watch.is_replayed = false;
        let misfit = Misfit {
            kind: if is_replayed {
                FindingKind::ReplayDidNotCount
            } else {
                FindingKind::TotalFell
            },
            batch: None,
            units: Units::new(surplus.unwrap_or(0).saturating_neg()),
            expected,
            since,
            found: found.total,
        };
        self.note_finding(now, no, misfit);
        true
    }

    /// Looks at the batches that a server without keys refused, once the total was read after that. Where it moved by exactly
    /// the units of one, that one may have been counted first.
    pub(super) fn audit_refusals(
        &mut self,
        now: Moment,
        (no, was_shared): (AccountNo, bool),
        found: &Standing,
        asked_at: Duration,
    ) {
        for batch in self.refused_before(no, asked_at) {
            // What goes again under its key is recognised as long as the server remembers that.
            if self.goes_again_under_its_key(now, &batch) {
                continue;
            }
            let Some(before) = batch.sealed.as_ref().map(|sealed| sealed.before) else {
                continue;
            };
            let is_same_period =
                found.period_start(before.as_of) == found.period_start(found.as_of);
            let moved = found.total.since(before.total).map_or(0, Units::get);
            let units = batch.units.get();
            let is_counted = units != 0
                && moved % units == 0
                && (1..=1 + REPEATS_MAX).contains(&(moved / units));
            // Others' units hide the batch's own, on a licence that was never seen to be shared as well: nobody can tell. Where
            // units may be returned, any move may.
            let is_without = if may_fall(&before) || may_fall(found) {
                moved == 0
            } else {
                (0..units).contains(&moved)
            };
            // Nor is it known where a server with keys did not look this one up.
            let is_hidden =
                (!was_shared || self.is_deduplicated(now, &batch)) && units != 0 && !is_without;
            // Where the period turned before the total was read, the same.
            if !is_same_period || (is_hidden && !is_counted) {
                self.hold(now, batch.no, Hold::Undecidable);
            }
            if is_same_period && is_counted {
                let misfit = Misfit {
                    kind: FindingKind::RefusedButCounted,
                    batch: Some(batch.no),
                    units: batch.units,
                    expected: before.total,
                    since: before.as_of,
                    found: found.total,
                };
                self.note_finding(now, no, misfit);
                self.hold(now, batch.no, Hold::Undecidable);
            }
            if let Some(sealed) = self.sealed_mut(batch.no) {
                sealed.refused_at = None;
            }
        }
    }

    /// The batches of an account that a server without keys refused before the total was asked for.
    fn refused_before(&self, no: AccountNo, asked_at: Duration) -> Vec<Batch> {
        let is_refused = |batch: &&Batch| {
            let refused_at = batch.sealed.as_ref().and_then(|sealed| sealed.refused_at);
            let waits = matches!(
                batch.state,
                BatchState::Sealed
                    | BatchState::Held(Hold::Limit { .. } | Hold::Refused(_) | Hold::Defect(_))
            );
            waits && refused_at.is_some_and(|refused_at| refused_at <= asked_at)
        };
        let Some(account) = self.book.accounts.get(&no) else {
            return Vec::new();
        };
        let batches = self.book.batches_of_counter(account);
        let mut refused: Vec<Batch> = batches.filter(is_refused).cloned().collect();
        refused.sort_by_key(|batch| batch.first);
        refused
    }

    /// Units of this ledger that are counted after a refusal say nothing of the batch that was refused.
    pub(super) fn expect_of_refused(&mut self, no: AccountNo, units: Units) {
        for batch in self.refused_before(no, Duration::MAX) {
            if let Some(sealed) = self.sealed_mut(batch.no) {
                let total = sealed.before.total;
                sealed.before.total = total.checked_add(units).unwrap_or(total);
            }
        }
    }

    /// The batch that a total may hold although the server refused it, where there is one: first, one that explains by how much it
    /// moved.
    pub(super) fn doubtful_refusal(
        &self,
        now: Moment,
        no: AccountNo,
        found: &Standing,
        asked_at: Duration,
    ) -> Option<(BatchNo, Units)> {
        let expected = self.book.accounts.get(&no)?.standing.total_at(now.time);
        let moved = found.total.since(expected);
        let refused = self.refused_before(no, asked_at);
        let explains = |batch: &&Batch| Some(batch.units) == moved;
        let is_open = |batch: &&Batch| !self.goes_again_under_its_key(now, batch);
        let doubtful = refused.iter().find(explains);
        let doubtful = doubtful.or_else(|| refused.iter().find(is_open))?;
        Some((doubtful.no, doubtful.units))
    }

    /// A total that is higher than this ledger's units explain: a finding, or somebody else's units.
    fn surplus(&mut self, now: Moment, no: AccountNo, units: i64, misfit: Option<Misfit>) {
        let is_shared = self.book.accounts.get(&no).is_none_or(|found| found.shared);
        match misfit {
            Some(misfit) if !is_shared => self.note_finding(now, no, misfit),
            _ => {
                self.note_shared(now, no);
                if let Some(account) = self.book.accounts.get_mut(&no) {
                    account.watch.moved_by_others(Units::new(units));
                }
            }
        }
    }

    /// Others use the counter: its moves are theirs from here on, and those of the hour before may have been.
    fn note_shared(&mut self, now: Moment, no: AccountNo) {
        let Some(account) = self.book.accounts.get(&no).filter(|found| !found.shared) else {
            return;
        };
        let license = self.book.license(account.license);
        let (id, feature) = (license.map(|license| license.id), account.feature.clone());
        let explained: Vec<Seq> = self
            .book
            .findings()
            .iter()
            .filter(|finding| {
                finding.kind == FindingKind::CountedMoreThanOnce
                    && Some(finding.license_id) == id
                    && finding.feature == feature
                    && now.time.saturating_since(finding.until) <= EXPLAINED_WITHIN
            })
            .map(|finding| finding.seq)
            .collect();
        tracing::info!(
            account = no.0,
            license_id = id,
            "the total moved by other units than this agent's: others use the licence too"
        );
        if let Some(account) = self.book.account_mut(no) {
            account.shared = true;
        }
        for finding in explained {
            self.acknowledge(now, finding, "agent", Some("others use the licence too"));
        }
    }

    /// Writes a finding into the ledger.
    pub(super) fn note_finding(&mut self, now: Moment, no: AccountNo, misfit: Misfit) {
        let Some(account) = self.book.accounts.get(&no) else {
            return;
        };
        let Some(license) = self.book.license(account.license) else {
            return;
        };
        let finding = Finding {
            seq: Seq(0),
            kind: misfit.kind,
            product: license.product.clone(),
            holder: license.holder.field().to_owned(),
            holder_value: license.holder.value().to_owned(),
            license_id: license.id,
            feature: account.feature.clone(),
            batch: misfit.batch.map(|batch| batch.0),
            units: misfit.units,
            expected: misfit.expected.get(),
            found: misfit.found.get(),
            since: misfit.since,
            until: now.time,
        };
        tracing::warn!(
            finding = finding.kind.as_str(),
            license_id = finding.license_id,
            feature = finding.feature,
            batch = finding.batch,
            units = finding.units.get(),
            expected = finding.expected,
            found = finding.found,
            "the server's total does not fit what this agent sent"
        );
        self.book
            .add_note(now, NoteKind::Finding, finding.to_body());
    }

    /// Somebody has seen a finding: it is shown no more. Returns the place of the note that says so.
    ///
    /// # Errors
    ///
    /// [`Unresolvable::NoFinding`] where none of that number is open.
    pub fn see_finding(
        &mut self,
        now: Moment,
        finding: Seq,
        reason: Option<&str>,
    ) -> Result<Seq, Unresolvable> {
        self.acknowledge(now, finding, "person", reason)
            .ok_or(Unresolvable::NoFinding(finding))
    }

    fn acknowledge(
        &mut self,
        now: Moment,
        finding: Seq,
        by: &str,
        reason: Option<&str>,
    ) -> Option<Seq> {
        if !self.book.acknowledge(finding) {
            return None;
        }
        let body = json!({
            "decision": "seen",
            "by": by,
            "reason": reason,
            "finding": finding,
        });
        Some(
            self.book
                .add_note(now, NoteKind::Decision, body.to_string()),
        )
    }
}

/// Whether a surplus is made of batches once more: of this one up to three times, of one that was settled lately up to three
/// times, or of both.
fn repeats(account: &Account, units: Option<Units>, surplus: i64) -> bool {
    let is_some_of = |part: i64, units: i64| {
        units > 0 && part > 0 && part % units == 0 && part / units <= REPEATS_MAX
    };
    let units = units.map_or(0, Units::get).max(0);
    (0..=REPEATS_MAX).any(|times| {
        let rest = surplus.saturating_sub(units.saturating_mul(times));
        let is_this_one = rest == 0 && times > 0 && units > 0;
        let mut settled = account.watch.settled.iter();
        is_this_one || settled.any(|settled| is_some_of(rest, settled.get()))
    })
}

/// Whether a total may be lower than before: others return units.
const fn may_fall(standing: &Standing) -> bool {
    standing.limits.allow_negative_consumptions
}

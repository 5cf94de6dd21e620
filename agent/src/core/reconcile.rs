//! Was a batch applied? The total tells, where nothing else moved it.

use tally_shared::{
    limits::{OverageSetting, Standing},
    units::Total,
};

use super::book::{Batch, Sealed};

/// What the total says of a batch whose request had no valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The total moved by exactly its units.
    Applied,
    /// The total did not move.
    NotApplied,
    /// Another device consumed too, the period turned, or the licence was edited.
    Undecidable,
}

/// Compares how the account stood before a batch was sent with how it stands now. `setting` is the
/// batch's own: it may have changed the limits.
///
/// A batch of zero units leaves no trace in the total, and sending it twice does no harm: it counts as
/// not applied.
pub(super) fn verdict(
    batch: &Batch,
    sealed: &Sealed,
    setting: OverageSetting,
    after: &Standing,
) -> Verdict {
    let before = &sealed.before;
    if batch.units.get() == 0 {
        return Verdict::NotApplied;
    }
    let is_turned = after.period_start(before.as_of) != after.period_start(after.as_of);
    if is_turned || is_edited(before, setting, after) {
        return Verdict::Undecidable;
    }
    match moved(before.total, after.total) {
        Some(0) => Verdict::NotApplied,
        Some(units) if units == batch.units.get() => Verdict::Applied,
        Some(_) | None => Verdict::Undecidable,
    }
}

/// Whether somebody edited the licence: who changes its limits may have changed its total as well.
fn is_edited(before: &Standing, setting: OverageSetting, after: &Standing) -> bool {
    let limits = [before.limits, before.limits.with(setting)];
    before.reset != after.reset || !limits.contains(&after.limits)
}

fn moved(before: Total, after: Total) -> Option<i64> {
    after.since(before).map(tally_shared::units::Units::get)
}

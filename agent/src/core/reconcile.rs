//! Was a batch applied? The total tells, where nothing else moved it.

use tally_shared::{limits::Standing, units::Total};

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

/// Compares the total before a batch was sent with the total now.
///
/// A batch of zero units leaves no trace in the total, and sending it twice does no harm: it counts as
/// not applied.
pub(super) fn verdict(batch: &Batch, sealed: &Sealed, after: &Standing) -> Verdict {
    let (before, as_of) = sealed.before;
    if batch.units.get() == 0 {
        return Verdict::NotApplied;
    }
    if after.period_start(as_of) != after.period_start(after.as_of) {
        return Verdict::Undecidable;
    }
    match moved(before, after.total) {
        Some(0) => Verdict::NotApplied,
        Some(units) if units == batch.units.get() => Verdict::Applied,
        Some(_) | None => Verdict::Undecidable,
    }
}

fn moved(before: Total, after: Total) -> Option<i64> {
    after.since(before).map(tally_shared::units::Units::get)
}

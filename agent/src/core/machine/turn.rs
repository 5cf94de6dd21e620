//! The turn of a period, where the server's clock and ours need not agree.
//!
//! A total belongs to the period in which the server answered. Where an answer was under way while the
//! period turned, or so close to it that the clocks' difference matters (a `Date` has whole seconds),
//! nobody can say which one that was: such a total decides nothing, and is read again.

use std::time::Duration;

use tally_shared::{limits::Standing, time::Timestamp};

use crate::core::clock::Moment;

/// How far the server's clock may be from ours after a correction, and some more.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// Whether the period turned in that time, or so close to it that it may have.
pub(super) fn is_beside(standing: &Standing, from: Timestamp, until: Timestamp) -> bool {
    let margin = i64::try_from(MARGIN.as_millis()).unwrap_or(i64::MAX);
    standing.period_start(from.plus_millis(-margin)) != standing.period_start(until.plus(MARGIN))
}

/// From when on a total can be read that surely is of one period, on the monotonic clock.
pub(super) fn over_at(now: Moment, standing: &Standing) -> Duration {
    // The turn that is near, whether just ahead or just past.
    let Some(turn) = standing.period_start(now.time.plus(MARGIN)) else {
        return Duration::ZERO;
    };
    let over = turn.plus(MARGIN).plus_millis(1);
    if now.time >= over {
        return Duration::ZERO;
    }
    now.mono.saturating_add(over.saturating_since(now.time))
}

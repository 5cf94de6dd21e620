//! The corrected clock: time is trusted only as far as it can be.
//!
//! A device's wall clock may be years off, may be set back to stretch a period, and may jump. So:
//!
//! * The server's `Date` corrects it, at every contact. Between contacts the monotonic clock carries
//!   on, and the wall clock is not looked at again.
//! * After a restart within one boot, the monotonic clock still carries on from the last contact.
//!   After a reboot, the wall clock with the last known correction is all there is; the time is then
//!   *unproven* until the next contact, and rows say so.
//! * A high-water mark, persisted with the rows, never goes back: a wall clock that is set back
//!   re-opens no period. Only the first contact after a reboot or a wrong start lowers it: what was unproven
//!   above it, and a proven time that the server contradicts by more than its 15 minutes.
//!
//! Nothing here reads a clock: readings are passed in.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tally_shared::{auth::DATE_WINDOW, time::Timestamp};

/// What the device's clocks show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since the device started, sleep included.
    pub mono: Duration,
    /// Which start of the device that was.
    pub boot: Arc<str>,
}

/// A point in time as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The corrected time, never behind the high-water mark.
    pub time: Timestamp,
    /// Whether the server has confirmed the clock since the device started.
    pub proven: bool,
    /// The monotonic clock, for pauses and waits.
    pub mono: Duration,
}

/// The corrected clock.
#[derive(Clone, Debug)]
pub struct Clock {
    boot: Arc<str>,
    /// The time that was right at `anchor_mono`.
    anchor_time: Timestamp,
    anchor_mono: Duration,
    proven: bool,
    high_water: Timestamp,
    /// The newest time in the ledger, where it was proven: that dates have whole seconds does not take the
    /// high-water mark back behind it.
    proven_mark: Timestamp,
    /// The first of the dates that lay before the question, and when it came: a cache repeats it, a server's clock goes on.
    behind: Option<(Timestamp, Duration)>,
}

/// What an answer says of the time it was made at.
#[derive(Clone, Copy, Debug)]
pub struct Dated {
    /// Its `Date`.
    pub date: Option<Timestamp>,
    /// Its `Age`, in seconds, as caches write it; 0 where there is none.
    pub age: u64,
    /// Whether it answers a reading, which a cache may answer too.
    pub is_reading: bool,
    /// Whether the server took our own date, so that it was within 15 minutes of the server's clock.
    pub is_accepted: bool,
}

/// What a date did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether the clock moved by more than the date's own precision.
    pub is_moved: bool,
    /// Whether the answer was made after the question.
    pub is_fresh: bool,
}

/// The clock as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedClock {
    boot: String,
    mono_ms: u64,
    time: Timestamp,
    wall: Timestamp,
    proven: bool,
}

/// How far an answer's `Date` (which has whole seconds) may lie from the corrected time and change
/// nothing.
const TOLERANCE_MS: i64 = 1_000;

/// The shortest time between two dates that show whether a clock goes on: a cache's does not.
const GOES_ON: Duration = Duration::from_secs(3);

impl Clock {
    /// Starts from the device's clocks, the clock as it was saved, and the time of the newest row with
    /// whether that was proven.
    pub fn start(
        reading: &Reading,
        saved: Option<&SavedClock>,
        (newest, newest_proven): (Timestamp, bool),
    ) -> Self {
        let (time, proven) = match saved {
            Some(saved) if *saved.boot == *reading.boot => {
                let since = reading
                    .mono
                    .saturating_sub(Duration::from_millis(saved.mono_ms));
                (saved.time.plus(since), saved.proven)
            }
            Some(saved) => {
                let offset = saved.time.as_millis() - saved.wall.as_millis();
                (reading.wall.plus_millis(offset), false)
            }
            None => (reading.wall, false),
        };
        // A time that was never proven binds only until the server has said better.
        let high_water = if proven && !newest_proven {
            time
        } else {
            newest
        };
        Self {
            boot: Arc::clone(&reading.boot),
            anchor_time: time,
            anchor_mono: reading.mono,
            proven,
            high_water,
            proven_mark: if newest_proven {
                newest
            } else {
                Timestamp::default()
            },
            behind: None,
        }
    }

    /// The time to decide by. Raises the high-water mark.
    pub fn now(&mut self, mono: Duration) -> Moment {
        self.high_water = self.high_water.max(self.corrected(mono));
        Moment {
            time: self.high_water,
            proven: self.proven,
            mono,
        }
    }

    /// The time to sign requests and date answers with: the best estimate, even behind the high-water
    /// mark, since the server refuses a date that is far off.
    pub fn corrected(&self, mono: Duration) -> Timestamp {
        self.anchor_time.plus(mono.saturating_sub(self.anchor_mono))
    }

    /// Takes what a valid answer says of its time; it took `round_trip` and ended at `mono`.
    ///
    /// An answer to a reading that has an `Age`, or whose `Date` is before the question, may be a cache's: it is not fresh and
    /// corrects nothing. Where such dates go on as the monotonic clock does, they are the server's, and the device's clock
    /// was ahead.
    pub fn hear(&mut self, told: Dated, round_trip: Duration, mono: Duration) -> Told {
        let stale = Told {
            is_moved: false,
            is_fresh: false,
        };
        if told.is_reading && told.age > 0 {
            return stale;
        }
        let Some(date) = told.date else {
            return Told {
                is_moved: false,
                is_fresh: true,
            };
        };
        if told.is_reading && self.is_behind(date, round_trip, mono) && !self.goes_on(date, mono) {
            return stale;
        }
        self.behind = None;
        Told {
            is_moved: self.correct(date, round_trip, mono, told.is_accepted),
            is_fresh: true,
        }
    }

    /// Whether a date lies before the question, by a clock that the server has confirmed.
    fn is_behind(&self, date: Timestamp, round_trip: Duration, mono: Duration) -> bool {
        let asked = self.corrected(mono.saturating_sub(round_trip));
        self.proven && date < asked.plus_millis(-2 * TOLERANCE_MS)
    }

    /// Whether dates before the question go on as time does. Remembers the first of them.
    fn goes_on(&mut self, date: Timestamp, mono: Duration) -> bool {
        let Some((first, at)) = self.behind else {
            self.behind = Some((date, mono));
            return false;
        };
        let passed = mono.saturating_sub(at);
        let expected = first.plus(passed);
        let agrees =
            date.distance(expected) <= Duration::from_millis(2 * TOLERANCE_MS.unsigned_abs());
        if !agrees && date != first {
            // Another answer of a cache.
            self.behind = Some((date, mono));
        }
        agrees && passed >= GOES_ON
    }

    /// Takes the `Date` of a valid answer, which took `round_trip` and ended at `mono`.
    ///
    /// `accepted` says that the server took our own date, so it was within 15 minutes of the server's
    /// clock; a `Date` that says otherwise is wrong and is ignored. Returns whether the clock moved by
    /// more than the date's own precision.
    pub fn correct(
        &mut self,
        date: Timestamp,
        round_trip: Duration,
        mono: Duration,
        accepted: bool,
    ) -> bool {
        let ours = self.corrected(mono);
        if accepted && date.distance(ours) > DATE_WINDOW + round_trip {
            return false;
        }
        let was_proven = self.proven;
        self.proven = true;
        let round_trip_ms = i64::try_from(round_trip.as_millis()).unwrap_or(i64::MAX);
        let earliest = date.plus_millis(-TOLERANCE_MS);
        let latest = date
            .plus_millis(round_trip_ms)
            .plus_millis(2 * TOLERANCE_MS);
        let moved = ours < earliest || ours > latest;
        if moved {
            self.anchor_time = date.plus_millis(TOLERANCE_MS / 2);
            self.anchor_mono = mono;
        }
        if !was_proven {
            let corrected = self.corrected(mono);
            // A time further ahead of the server's than it lets anybody be was no time of its own.
            let is_near = self.proven_mark.distance(corrected) <= DATE_WINDOW;
            self.high_water = if is_near {
                corrected.max(self.proven_mark)
            } else {
                corrected
            };
        }
        moved
    }

    /// The clock to keep over a restart.
    pub fn save(&self, reading: &Reading) -> SavedClock {
        SavedClock {
            boot: self.boot.to_string(),
            mono_ms: u64::try_from(reading.mono.as_millis()).unwrap_or(u64::MAX),
            time: self.corrected(reading.mono),
            wall: reading.wall,
            proven: self.proven,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn reading(wall: &str, mono: Duration, boot: &str) -> Reading {
        Reading {
            wall: at(wall),
            mono,
            boot: boot.into(),
        }
    }

    fn clock(wall: &str) -> Clock {
        Clock::start(
            &reading(wall, Duration::ZERO, "a"),
            None,
            (Timestamp::default(), false),
        )
    }

    #[test]
    fn a_contact_proves_the_time_and_the_monotonic_clock_carries_it_on() {
        let mut clock = clock("2020-01-01");
        assert!(!clock.now(Duration::ZERO).proven);
        assert!(clock.correct(at("2026-11-23"), Duration::ZERO, Duration::ZERO, false));
        let later = clock.now(DAY);
        assert!(later.proven);
        assert!(later.time.distance(at("2026-11-24")) <= Duration::from_secs(1));
    }

    #[test]
    fn a_date_that_contradicts_the_servers_own_judgement_is_ignored() {
        let mut clock = clock("2026-11-23");
        assert!(!clock.correct(at("2026-11-22"), Duration::ZERO, Duration::ZERO, true));
        assert!(!clock.now(Duration::ZERO).proven);
        assert_eq!(clock.corrected(Duration::ZERO), at("2026-11-23"));
    }

    #[test]
    fn within_a_boot_a_changed_wall_clock_changes_nothing() {
        let mut first = clock("2026-11-23");
        first.correct(at("2026-11-23"), Duration::ZERO, Duration::ZERO, true);
        let saved = first.save(&reading("2026-11-23", Duration::ZERO, "a"));
        let restarted = reading("2010-01-01", DAY, "a");
        let mut clock = Clock::start(&restarted, Some(&saved), (Timestamp::default(), false));
        assert!(clock.now(DAY).proven);
        assert_eq!(clock.now(DAY).time, at("2026-11-24"));
    }

    #[test]
    fn a_clock_set_back_over_a_reboot_does_not_go_behind_the_newest_row() {
        let newest = at("2026-12-01");
        let set_back = reading("2026-11-01", Duration::ZERO, "b");
        let mut clock = Clock::start(&set_back, None, (newest, true));
        assert_eq!(clock.now(Duration::ZERO).time, newest);
        assert_eq!(clock.corrected(Duration::ZERO), at("2026-11-01"));
    }

    #[test]
    fn a_contact_after_a_reboot_takes_back_no_proven_time() {
        let (newest, date) = (at("2026-12-01T10:00:00.900Z"), at("2026-12-01T10:00:01Z"));
        let rebooted = reading("2026-12-01T10:00:00.200Z", Duration::ZERO, "b");
        let mut clock = Clock::start(&rebooted, None, (newest, true));
        clock.correct(date, Duration::ZERO, Duration::ZERO, true);
        assert_eq!(clock.now(Duration::ZERO).time, newest);
    }

    #[test]
    fn a_contact_after_a_reboot_takes_back_a_proven_time_that_cannot_be_the_servers() {
        let (newest, date) = (at("2036-12-01"), at("2026-12-01T10:00:00Z"));
        let rebooted = reading("2026-12-01T10:00:00Z", Duration::ZERO, "b");
        let mut clock = Clock::start(&rebooted, None, (newest, true));
        assert_eq!(clock.now(Duration::ZERO).time, newest);
        clock.correct(date, Duration::ZERO, Duration::ZERO, true);
        assert_eq!(clock.now(Duration::ZERO).time, date);
    }

    #[test]
    fn a_contact_takes_back_an_unproven_leap_into_the_future() {
        let mut clock = clock("2036-01-01");
        assert_eq!(clock.now(Duration::ZERO).time, at("2036-01-01"));
        clock.correct(at("2026-11-23"), Duration::ZERO, Duration::ZERO, false);
        assert!(clock.now(Duration::ZERO).time < at("2026-11-24"));
    }

    #[test]
    fn over_a_reboot_the_last_correction_still_counts() {
        let mut first = clock("2020-01-01");
        first.correct(at("2026-01-01"), Duration::ZERO, Duration::ZERO, false);
        let saved = first.save(&reading("2020-01-01", Duration::ZERO, "a"));
        let rebooted = reading("2020-01-02", Duration::ZERO, "b");
        let mut clock = Clock::start(&rebooted, Some(&saved), (Timestamp::default(), false));
        assert!(
            clock.now(Duration::ZERO).time.distance(at("2026-01-02")) <= Duration::from_secs(1)
        );
        assert!(!clock.now(Duration::ZERO).proven);
    }
}

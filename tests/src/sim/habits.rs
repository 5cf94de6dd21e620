//! How a device that shares a licence with others consumes: in bursts, as a job, now and then, or without a pause.

use rand::{RngExt as _, rngs::StdRng};

use super::server::Instant;

/// How devices consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Each device in a way of its own, with bursts and quiet.
    Drawn,
    /// Each device all of the time.
    Busy,
}

/// How one device consumes.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    /// The least and the most units of a row.
    units: (i64, i64),
    /// The shortest and the longest time between two rows of a burst.
    pause: (Instant, Instant),
    /// The shortest and the longest burst.
    burst: (Instant, Instant),
    /// The shortest and the longest time between two bursts.
    quiet: (Instant, Instant),
    ends_at: Instant,
    /// When it consumes next.
    pub(super) next_at: Instant,
}

const SECOND: Instant = 1_000;
const MINUTE: Instant = 60 * SECOND;

impl Consumer {
    /// Draws one that begins about then.
    pub(super) fn draw(habit: Habit, now: Instant, random: &mut StdRng) -> Self {
        let drawn = match habit {
            Habit::Busy => 3,
            Habit::Drawn => random.random_range(0..3),
        };
        let units = [(1, 3), (1, 20), (1, 200), (5, 5)];
        let units = match habit {
            Habit::Busy => units[0],
            Habit::Drawn => units[random.random_range(0..units.len())],
        };
        let (pause, burst, quiet) = match drawn {
            // People at work.
            0 => (
                (200, 2 * SECOND),
                (10 * SECOND, 2 * MINUTE),
                (30 * SECOND, 10 * MINUTE),
            ),
            // Jobs.
            1 => (
                (50, SECOND),
                (MINUTE, 5 * MINUTE),
                (5 * MINUTE, 15 * MINUTE),
            ),
            // Now and then.
            2 => ((0, 1), (0, 1), (20 * SECOND, 3 * MINUTE)),
            _ => (
                (300, 2_700),
                (Instant::MAX / 4, Instant::MAX / 2),
                (SECOND, 2 * SECOND),
            ),
        };
        let next_at = now + random.random_range(quiet.0..quiet.1) / 2;
        Self {
            units,
            pause,
            burst,
            quiet,
            ends_at: next_at + random.random_range(burst.0..burst.1),
            next_at,
        }
    }

    /// Consumes now: returns the units, and decides when it does so again.
    pub(super) fn consume(&mut self, random: &mut StdRng) -> i64 {
        let units = random.random_range(self.units.0..=self.units.1);
        self.next_at += random.random_range(self.pause.0..self.pause.1).max(1);
        if self.next_at > self.ends_at {
            self.next_at += random.random_range(self.quiet.0..self.quiet.1);
            self.ends_at = self.next_at + random.random_range(self.burst.0..self.burst.1);
        }
        units
    }
}

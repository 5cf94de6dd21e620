//! How often an application may ask: never more than so many times within any minute.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A minute, in seconds, and one more: the oldest second is only partly within the minute.
const SECONDS: usize = 61;

/// A sliding minute, counted by the second.
#[derive(Debug)]
pub(super) struct Pace {
    max: u32,
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    counts: [u32; SECONDS],
    sum: u32,
    /// The newest second, on the monotonic clock.
    second: u64,
}

impl Pace {
    /// So many a minute.
    pub(super) const fn new(max: NonZeroU32) -> Self {
        Self {
            max: max.get(),
            minute: Mutex::new(Minute {
                counts: [0; SECONDS],
                sum: 0,
                second: 0,
            }),
        }
    }

    /// Counts one more at this time on the monotonic clock.
    ///
    /// # Errors
    ///
    /// How long to wait, where it would be too many; then it is not counted.
    pub(super) fn take(&self, now: Duration) -> Result<(), Duration> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        minute.turn(now.as_secs());
        if minute.sum >= self.max {
            return Err(minute.until_room(now));
        }
        let slot = slot(minute.second);
        if let Some(count) = minute.counts.get_mut(slot) {
            *count += 1;
        }
        minute.sum += 1;
        Ok(())
    }
}

impl Minute {
    /// Forgets what is over.
    fn turn(&mut self, second: u64) {
        let steps = second.saturating_sub(self.second).min(SECONDS as u64);
        for step in 0..steps {
            if let Some(count) = self.counts.get_mut(slot(second - step)) {
                self.sum -= std::mem::take(count);
            }
        }
        self.second = self.second.max(second);
    }

    /// Until the oldest second that counts is over.
    fn until_room(&self, now: Duration) -> Duration {
        let ages = (0..SECONDS as u64).rev();
        let oldest = ages
            .filter(|age| *age <= self.second)
            .find(|age| {
                self.counts
                    .get(slot(self.second - age))
                    .is_some_and(|n| *n > 0)
            })
            .unwrap_or(0);
        let free_at = Duration::from_secs(self.second - oldest.min(self.second) + SECONDS as u64);
        free_at.saturating_sub(now)
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    fn pace(max: u32) -> Pace {
        Pace::new(NonZeroU32::new(max).unwrap())
    }

    #[test]
    fn no_minute_has_more_wherever_it_begins() {
        let pace = pace(10);
        let mut granted = Vec::new();
        for step in 0..2000 {
            let now = at(step * 137);
            if pace.take(now).is_ok() {
                granted.push(now);
            }
        }
        assert!(granted.len() >= 40, "{}", granted.len());
        for (place, start) in granted.iter().enumerate() {
            let end = *start + Duration::from_mins(1);
            let within = granted[place..].iter().take_while(|time| **time < end);
            assert!(within.count() <= 10, "from {start:?}");
        }
    }

    #[test]
    fn whoever_waits_as_told_gets_in() {
        let pace = pace(3);
        for _ in 0..3 {
            assert_eq!(pace.take(at(900)), Ok(()));
        }
        let wait = pace.take(at(30_000)).unwrap_err();
        let early = wait.saturating_sub(Duration::from_millis(1));
        assert!(pace.take(at(30_000) + early).is_err());
        assert_eq!(pace.take(at(30_000) + wait), Ok(()));
    }

    #[test]
    fn a_long_rest_forgets_all() {
        let pace = pace(1);
        assert_eq!(pace.take(at(0)), Ok(()));
        assert_eq!(pace.take(at(10_000_000)), Ok(()));
    }
}

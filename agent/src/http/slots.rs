//! How many requests may be under way. What does not fit is refused at once, so that nothing waits in
//! a queue that grows. No application can take all of them, where there are at least four: the last quarter is
//! for those that have less than a quarter.

use std::sync::atomic::{AtomicUsize, Ordering};

use tally_shared::wire::{ApiError, ErrorCode};

/// A number of slots.
#[derive(Debug)]
pub(super) struct Slots {
    used: AtomicUsize,
    max: AtomicUsize,
}

/// A slot in use; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    used: &'a AtomicUsize,
    own: Option<&'a AtomicUsize>,
}

impl Slots {
    /// So many, all free.
    pub(super) const fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// So many from here on; those in use stay in use.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// `unavailable` where none is free.
    pub(super) fn take(&self) -> Result<Slot<'_>, ApiError> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let slot = Slot {
            used: &self.used,
            own: None,
        };
        if used >= self.max.load(Ordering::Relaxed) {
            return Err(unavailable("too many requests are under way"));
        }
        Ok(slot)
    }

    /// Takes one for an application, and counts it among its own.
    ///
    /// # Errors
    ///
    /// `unavailable` where none is free that it may have.
    pub(super) fn take_for<'a>(&'a self, own: &'a AtomicUsize) -> Result<Slot<'a>, ApiError> {
        let mut slot = self.take()?;
        let has = own.fetch_add(1, Ordering::Relaxed);
        slot.own = Some(own);
        let max = self.max.load(Ordering::Relaxed);
        let quarter = max / 4;
        if has >= quarter.max(1) && self.used.load(Ordering::Relaxed) > max - quarter {
            return Err(unavailable(
                "too many requests of this application are under way",
            ));
        }
        Ok(slot)
    }
}

fn unavailable(why: &str) -> ApiError {
    let message = format!("{why}; nothing was recorded: try again");
    ApiError::new(ErrorCode::Unavailable, message)
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(own) = self.own {
            own.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_a_slot_is_given_back() {
        let slots = Slots::new(2);
        let one = slots.take().unwrap();
        let _other = slots.take().unwrap();
        for _ in 0..10 {
            assert_eq!(slots.take().unwrap_err().code, ErrorCode::Unavailable);
        }
        drop(one);
        assert!(slots.take().is_ok());
    }

    #[test]
    fn there_can_be_more_or_fewer_than_at_first() {
        let slots = Slots::new(1);
        let one = slots.take().unwrap();
        slots.set_max(2);
        let other = slots.take().unwrap();
        slots.set_max(1);
        drop(other);
        assert!(slots.take().is_err());
        drop(one);
        assert!(slots.take().is_ok());
    }

    #[test]
    fn an_application_that_floods_leaves_room_for_others() {
        let slots = Slots::new(16);
        let (flood, other, third) = Default::default();
        let flooded: Vec<_> = (0..20).map(|_| slots.take_for(&flood)).collect();
        let taken = flooded.iter().filter(|slot| slot.is_ok()).count();
        assert_eq!(taken, 12);
        let others = [(); 5].map(|()| slots.take_for(&other));
        assert_eq!(others.iter().filter(|slot| slot.is_ok()).count(), 4);
        assert!(slots.take_for(&third).is_err());
        drop(flooded);
        assert_eq!(flood.load(Ordering::Relaxed), 0);
        assert!(slots.take_for(&third).is_ok());
    }

    #[test]
    fn where_there_are_few_an_application_may_have_them_all() {
        let slots = Slots::new(2);
        let own = AtomicUsize::new(0);
        let _one = slots.take_for(&own).unwrap();
        let _two = slots.take_for(&own).unwrap();
        assert!(slots.take_for(&own).is_err());
        assert_eq!(own.load(Ordering::Relaxed), 2);
    }
}

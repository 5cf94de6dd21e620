//! How many requests may be under way. What does not fit is refused at once, so that nothing waits in
//! a queue that grows.

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
pub(super) struct Slot<'a>(&'a AtomicUsize);

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
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "too many requests are under way; nothing was recorded: try again",
            ));
        }
        Ok(Slot(&self.used))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
}

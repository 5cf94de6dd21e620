//! The stub's own clock: the system's, moved by an offset that a test sets.
//!
//! Everything that depends on time (expiry, periods, the `Date` window, the `Date` of answers) reads
//! this clock and no other.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::SystemTime,
};

use serde::Serialize;
use tally_shared::time::Timestamp;

/// The clock. Shared by reference.
#[derive(Debug)]
pub struct Clock {
    offset_ms: AtomicI64,
}

/// What the clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The stub's time.
    pub now: Timestamp,
    /// How far it is ahead of the system's clock.
    pub offset_ms: i64,
}

impl Clock {
    /// A clock that is ahead of the system's by `offset_ms`.
    pub const fn new(offset_ms: i64) -> Self {
        Self {
            offset_ms: AtomicI64::new(offset_ms),
        }
    }

    /// The stub's time.
    pub fn now(&self) -> Timestamp {
        self.read().now
    }

    /// The stub's time, and how far it is from the system's.
    pub fn read(&self) -> Reading {
        let offset_ms = self.offset_ms.load(Ordering::Relaxed);
        Reading {
            now: system_now().plus_millis(offset_ms),
            offset_ms,
        }
    }

    /// The offset with which the clock would show `now`.
    pub(crate) fn offset_to_show(now: Timestamp) -> i64 {
        now.as_millis() - system_now().as_millis()
    }

    /// Moves the clock.
    pub(crate) fn set_offset(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}

fn system_now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

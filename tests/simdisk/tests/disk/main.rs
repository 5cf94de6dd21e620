//! The simulated disk under SQLite itself: what survives, what is lost, and what fails.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod basics;
mod cost;
mod faults;
mod power;
mod workload;

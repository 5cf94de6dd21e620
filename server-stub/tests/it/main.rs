//! The stub through real HTTP over loopback.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test that cannot go on end it"
)]

mod authorization;
mod consumption;
mod control;
mod faults;
mod idempotency;
mod license_checks;
mod persistence;
mod process;
mod world;

//! The stub through real HTTP over loopback.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test that cannot go on end it"
)]

mod authorization;
mod consumption;
mod control;
mod counting_faults;
mod faults;
mod idempotency;
mod lab;
mod license_checks;
mod network;
mod persistence;
mod process;
mod scenario;
mod vendor;
mod world;

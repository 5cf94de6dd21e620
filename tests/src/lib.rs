//! The harness: real processes and real sockets, found by their readiness line and stopped by id.
//!
//! * [`process`] starts a program and reads its `ready` line; [`stub`] and [`agent`] are the two
//!   programs, with what a test wants of them; [`client`] is an application that signs its requests.
//! * [`wait`] waits for a condition on a value, and says the last value when it gives up.
//! * [`seed`] makes seed files.
//! * [`load`] is many applications at once, for measuring.
//! * [`programs`] says what is measured, and where.
//! * [`recorder`] has the engine alone fill a ledger, for measuring as well.
//! * [`watched`] says what a process uses.
//! * [`layout`] makes the linker's list of functions that stand together.
//! * [`chart`] draws what was measured.
//! * [`marks`] keeps the marks of simulated ledgers.
//!
//! And [`sim`], the simulation, which needs no process, with [`mutants`], ways to break the source that it finds.

pub mod agent;
pub mod chart;
pub mod client;
pub mod layout;
pub mod load;
pub mod marks;
pub mod mutants;
pub mod process;
pub mod programs;
pub mod recorder;
pub mod seed;
pub mod sim;
pub mod stub;
pub mod wait;
pub mod watched;

/// A test's result.
pub type Result<T = ()> = anyhow::Result<T>;

//! The rules of the stub: licences, what a request does to them, and what is remembered of it.
//!
//! Nothing here knows sockets or SQL. Time is an argument; only [`clock`] reads it.

pub mod activity;
pub(crate) mod answer;
pub(crate) mod apply;
pub mod clock;
pub(crate) mod idempotency;
pub mod pool;
pub mod state;

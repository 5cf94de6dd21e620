//! What an application, the agent and the licence server must agree on.
//!
//! This crate holds the rules of the licence server's License API v4 as pure code: no I/O, no clock,
//! no randomness that a caller could observe, no async. Both sides call the same functions, so that
//! the agent decides offline exactly as the server would.
//!
//! Where a rule comes from is said as "contract", with the section of `docs/CONTRACT.md`.
//!
//! * [`limits`] decides one consumption; [`period`] says when totals return to zero.
//! * [`wire`] is the shape of requests and answers, and the error codes.
//! * [`auth`] signs and checks the `Authorization` header; [`signature`] signs and verifies answers.
//! * [`time`] and [`units`] are the quantities that all of them speak of.

#![warn(missing_docs)]

pub mod auth;
pub mod limits;
pub mod period;
pub mod signature;
pub mod time;
pub mod units;
pub mod wire;

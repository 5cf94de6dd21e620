//! The licence server for testers: the License API v4 by the contract, with faults on demand.
//!
//! * [`seed`] is what it starts with; [`engine`] decides and stores, one transaction a request.
//! * [`api`] speaks HTTP; [`faults`] breaks it on purpose; [`server`] owns the connections.
//!
//! It uses the same rules as the agent, from `tally-shared`, and keeps nothing from whoever controls
//! it: `/stub/v1/` has no authentication. It belongs on loopback.

pub mod api;
pub mod cli;
pub mod engine;
pub mod faults;
pub mod seed;
pub mod server;

pub use server::{RunningStub, StartError, Stub, StubConfig};

//! Faults on demand: what goes wrong with an answer, and when.
//!
//! [`spec`] is the JSON that orders them, [`plan`] decides which one strikes a request (pure and
//! seeded: the same requests in the same order meet the same faults), and `inject` makes it happen
//! on the connection.

pub(crate) mod inject;
pub mod plan;
pub mod spec;

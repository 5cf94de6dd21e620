//! The licence server's License API v4 (the contract: `docs/CONTRACT.md`), to develop and test clients against.
//!
//! It behaves as the production service does, and adds what a test needs: a clock that can be moved,
//! faults and networks on demand, and a view of every request (the lab, at `/`). It is not a licence server for production: the
//! control surface under `/stub/v1/` asks nobody who they are; it refuses other sites only.
//!
//! * [`seed`] is the file that says which keys, products and licences there are.
//! * [`engine`] is the rules: what a licence is, what a request changes. It knows no HTTP.
//! * `store` keeps it all in SQLite, in a file or in memory. One request is one transaction.
//! * `api` is the HTTP side: the order of checks, the License API and the control surface.
//! * [`faults`] decides which request goes wrong, and makes it go wrong.
//! * [`network`] is the state of the network between clients and the License API.
//! * [`control`] is what testers order, and [`scenario`] a whole story of it, as a file.
//! * [`server`] ties them together: [`Stub::start`] runs one inside any Tokio runtime.

mod api;
pub mod cli;
pub mod control;
mod doors;
pub mod engine;
pub mod faults;
mod keys;
mod live;
pub mod network;
mod private_file;
pub mod scenario;
pub mod seed;
pub mod server;
mod store;

pub use seed::Seed;
pub use server::{RunningStub, StartError, Stub, StubConfig};

//! Tally's agent: it decides, records and replays the consumptions of the applications on a device.
//!
//! * [`core`] decides, without I/O; [`ledger`] makes it durable; [`sync`] talks to the licence server.
//! * [`http`] is what applications and people talk to; [`cli`] is the command line.
//! * [`app`] puts them together from [`config`], and [`reload`] takes up a changed one; [`deps`] is the
//!   outside world. [`service`] has the system start it.

pub mod admin_token;
pub mod app;
pub mod apps;
pub mod cli;
pub mod config;
pub mod core;
pub mod deps;
pub mod file_system;
pub mod foreign;
pub mod http;
pub mod instance;
pub mod keyring;
pub mod ledger;
pub mod owner;
pub mod private_file;
pub mod reload;
pub mod secret;
pub mod service;
pub mod sync;
pub mod telemetry;
pub mod waiting;
mod workers;

mod fail_point;

pub(crate) use fail_point::fail_point;

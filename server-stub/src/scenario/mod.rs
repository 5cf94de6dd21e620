//! Scenarios: a story of the field as a file, with a timeline of what goes wrong and what must come out.
//!
//! * [`mod@file`] is the format, read strictly, and [`step`] what can happen in it; `check` finds what contradicts
//!   itself, with its line.
//! * [`options`] is how they are run: the commands of agents, and where files go.
//! * [`run`] carries one out over a stub of its own and real agents, `timeline` step by step. `agent` is one of them,
//!   `agent_error` what can go wrong with it, `folder` its files, `placeholder` its command line, `program` what else is
//!   run; `expect` is what must hold in the end, and [`report`] what is told of it all.
//! * `playback` plays the server's side of one on a stub that somebody works with.
//! * [`shipped`] are those that come with the program.

mod agent;
mod agent_error;
mod check;
pub mod cli;
mod expect;
pub mod file;
mod folder;
pub mod options;
mod placeholder;
pub(crate) mod playback;
mod program;
pub mod report;
pub mod run;
pub mod shipped;
pub mod step;
mod timeline;

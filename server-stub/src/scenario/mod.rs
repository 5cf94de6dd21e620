//! Scenarios: a story of the field as a file, with a timeline of what goes wrong and what must come out.
//!
//! * [`mod@file`] is the format, read strictly; `check` finds what contradicts itself, with its line.
//! * [`options`] is how they are run: the commands of agents, and where files go.
//! * [`run`] carries one out over a stub of its own and real agents; `agent` is one of them, `placeholder`
//!   its command line, `expect` what must hold in the end, and [`report`] what is told of it all.
//! * `playback` plays the server's side of one on a stub that somebody works with.
//! * [`shipped`] are the ten that come with the program.

mod agent;
mod check;
pub mod cli;
mod expect;
pub mod file;
pub mod options;
mod placeholder;
pub(crate) mod playback;
pub mod report;
pub mod run;
pub mod shipped;

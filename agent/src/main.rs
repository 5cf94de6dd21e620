//! `tally`: the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_agent::cli::main()
}

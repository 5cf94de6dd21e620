//! The agent, as the tests run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_agent::cli::main()
}

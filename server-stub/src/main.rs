//! `tally-stub`: the licence server for testers.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_server_stub::cli::main()
}

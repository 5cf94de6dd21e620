//! `tally-stub`: a licence server to test against.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_server_stub::cli::main()
}

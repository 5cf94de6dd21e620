//! The stub, as the tests run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tally_server_stub::cli::main()
}

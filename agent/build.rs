//! Lays out the program as it is shipped for Linux, so that little of it is resident.
//!
//! A start and idling run through less than half of the program's functions, but through some of nearly every 64 KiB, and so
//! much Linux maps around each page that is touched. The linker is told to put these functions together.

use std::env::{self, VarError};

/// Whoever links with a linker that knows no scripts (mold, for one) sets this to anything; only memory is lost.
const WITHOUT: &str = "TALLY_WITHOUT_LAYOUT";

fn main() -> Result<(), VarError> {
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rerun-if-env-changed={WITHOUT}");
    let is_wanted = env::var_os(WITHOUT).is_none();
    if is_wanted && env::var("CARGO_CFG_TARGET_OS")? == "linux" && env::var("PROFILE")? == "release"
    {
        let script = env::var("CARGO_MANIFEST_DIR")? + "/layout.ld";
        for argument in ["-T", &script] {
            println!("cargo::rustc-link-arg-bin=tally={argument}");
        }
    }
    Ok(())
}

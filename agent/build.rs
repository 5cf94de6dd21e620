//! Lays out the program for Linux in the release profile, and in what inherits it, so that little of it is resident.
//!
//! A start and idling run through less than half of the program's functions, but through some of nearly every 64 KiB, and so
//! much Linux maps around each page that is touched. The linker is told to put these functions together.

use std::env;

/// Whoever links with a linker that does not know `INSERT` in a script sets this to anything; only memory is lost.
const WITHOUT: &str = "TALLY_WITHOUT_LAYOUT";

/// Such linkers.
const UNABLE: [&str; 3] = ["mold", "gold", "wild"];

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rerun-if-env-changed={WITHOUT}");
    let variable = |name| env::var(name).unwrap_or_default();
    let linker = variable("RUSTC_LINKER") + &variable("CARGO_ENCODED_RUSTFLAGS");
    let is_able =
        env::var_os(WITHOUT).is_none() && !UNABLE.iter().any(|name| linker.contains(name));
    if is_able && variable("CARGO_CFG_TARGET_OS") == "linux" && variable("PROFILE") == "release" {
        let script = variable("CARGO_MANIFEST_DIR") + "/layout.ld";
        for argument in ["-T", &script] {
            println!("cargo::rustc-link-arg-bin=tally={argument}");
        }
    }
}

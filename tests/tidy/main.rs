//! Rules of the architecture, as tests: what the compiler cannot check.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources has failed"
)]

use std::{fs, path::Path};

/// The files below a folder that end in `.rs`, with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

#[track_caller]
fn check_absent(folder: &str, words: &[&str]) {
    for (path, text) in sources(folder) {
        for word in words {
            assert!(!text.contains(word), "{path} must not speak of {word:?}");
        }
    }
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    check_absent(
        "agent/src/core",
        &[
            "tokio",
            "rusqlite",
            "reqwest",
            "axum",
            "std::fs",
            "std::net",
            "fs_err",
            "::now()",
            "rand::",
            "HashMap",
            "async fn",
            "crate::ledger",
            "crate::http",
            "crate::sync",
        ],
    );
}

#[test]
fn the_shared_rules_do_no_io_and_read_no_clock() {
    let words = [
        "tokio", "std::fs", "std::net", "::now()", "HashMap", "async fn",
    ];
    check_absent("shared/src", &words);
}

#[test]
fn only_the_ledger_speaks_sql() {
    for folder in [
        "agent/src/core",
        "agent/src/http",
        "agent/src/sync",
        "agent/src/cli",
    ] {
        check_absent(folder, &["rusqlite"]);
    }
    check_absent("agent/src/ledger", &["axum", "reqwest"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in [
        "shared/src",
        "agent/src",
        "server-stub/src",
        "tests/src",
        "tests/e2e",
        "tests/simdisk",
    ] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//! "), "{path} begins without `//!`");
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    const LINES_MAX: usize = 600;
    for folder in [
        "shared/src",
        "agent/src",
        "server-stub/src",
        "tests/src",
        "tests/simdisk",
    ] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{path} has {lines} lines; split it");
        }
    }
}

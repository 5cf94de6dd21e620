//! Rules of the architecture, as tests: what the compiler cannot check.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources has failed"
)]

use std::{fs, path::Path};

use clap::ValueEnum as _;
use tally_tests::{
    mutants::{self, FoundBy},
    sim::Kind,
};

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
        "tests/attack",
        "tests/e2e",
        "tests/interfaces",
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

/// A release is built by what it was checked with: actions named by commit, tools that are pinned, and no right to write
/// for a job that runs code of this repository or of a tool.
#[test]
fn a_release_runs_pinned_actions_and_no_code_where_something_may_be_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut actions, mut writers) = (0, 0);
    for entry in fs::read_dir(root.join(".github/workflows")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for action in text.lines().filter_map(|line| line.split_once("uses: ")) {
            actions += 1;
            let commit = action.1.split(['@', ' ']).nth(1).unwrap_or_default();
            let is_commit = commit.len() == 40 && commit.bytes().all(|c| c.is_ascii_hexdigit());
            assert!(is_commit, "an action that can move: {}", action.1);
        }
        let (before, jobs) = text.split_once("\njobs:\n").unwrap();
        assert!(
            before.contains("permissions:\n  contents: read"),
            "{before}"
        );
        for job in jobs.split("\n\n  ") {
            assert!(!job.contains("cargo install"), "in a job: {job}");
            if job.contains(": write") {
                writers += 1;
                for code in ["checkout@", "cargo", "rustup", ".ci/", "packaging/"] {
                    assert!(!job.contains(code), "{code} in a job that may write: {job}");
                }
            } else if job.contains("checkout@") {
                assert!(job.contains("persist-credentials: false"), "{job}");
            }
            let builds = job.contains("cargo build");
            assert!(
                !builds || !job.contains("packaging/") && !job.contains(".ci/"),
                "tools are installed where it is built: {job}"
            );
        }
        assert!(text.contains("ADVISORIES: required"));
    }
    assert!(
        actions >= 8 && writers == 1,
        "{actions} actions, {writers} jobs that write"
    );
    for script in [".ci/deny", ".ci/sbom", "packaging/debian/build"] {
        let text = fs::read_to_string(root.join(script)).unwrap();
        for line in text.lines().filter(|line| line.contains("cargo install")) {
            let is_pinned = line.contains("--locked") && line.contains("--version");
            assert!(is_pinned, "{script}: {line}");
        }
    }
}

/// The guarantees name their tests, and each of these exists.
#[test]
fn every_test_that_a_guarantee_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guarantees = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let folders = ["agent", "shared", "tests"];
    let tests: Vec<(String, String)> = folders.into_iter().flat_map(sources).collect();
    let rows = guarantees.lines().filter(|line| line.starts_with("| "));
    let promises = rows.filter(|row| {
        let number = row.split('|').nth(1).unwrap().trim();
        number.parse::<u32>().is_ok()
    });
    let mut count = 0;
    for row in promises {
        count += 1;
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names = shown_by.split('`').skip(1).step_by(2);
        for name in names.filter(|name| !name.starts_with("cargo ")) {
            let function = format!("fn {name}()");
            assert!(
                tests.iter().any(|(_, text)| text.contains(&function)),
                "no test is called {name}: {row}"
            );
        }
    }
    assert!(count >= 25, "only {count} promises");
}

/// The simulation has the kinds of trouble that documents name, and the scenarios that they name are there.
#[test]
fn every_kind_and_scenario_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let kinds: Vec<String> = Kind::all()
        .iter()
        .filter_map(Kind::to_possible_value)
        .map(|kind| kind.get_name().to_owned())
        .collect();
    let mut count = 0;
    for file in ["docs/guarantees.md", "docs/track-record.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for code in text.split('`').skip(1).step_by(2) {
            for named in code.split("--only ").skip(1) {
                let kind = named.split_whitespace().next().unwrap_or_default();
                count += 1;
                assert!(
                    kind == "KIND" || kinds.iter().any(|known| known == kind),
                    "the simulation has no kind {kind:?}: {file}"
                );
            }
            if let Some(name) = code
                .strip_suffix(".toml")
                .filter(|name| *name != "scenarios/NAME")
            {
                count += 1;
                let name = name.strip_prefix("scenarios/").unwrap_or(name);
                let path = root.join("scenarios").join(format!("{name}.toml"));
                assert!(path.exists(), "there is no scenario {name}: {file}");
            }
        }
    }
    assert!(count >= 50, "only {count} names");
}

/// Each mutant can be put in, each kind of trouble has one, and the tests that find the others exist.
#[test]
fn every_kind_of_trouble_has_a_mutant_that_can_be_put_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    mutants::check(|file| Ok(fs::read_to_string(root.join(file))?)).unwrap();
    let mutants: Vec<FoundBy> = mutants::all().map(|mutant| mutant.found_by).collect();
    for kind in Kind::all() {
        let has_one = mutants.iter().any(|by| by.kind() == Some(*kind));
        assert!(has_one, "no mutant shows that {kind:?} finds anything");
    }
    let mut tests = sources("agent");
    tests.extend(sources("tests"));
    for name in mutants.into_iter().filter_map(FoundBy::test) {
        let function = format!("fn {name}()");
        let is_there = tests.iter().any(|(_, text)| text.contains(&function));
        assert!(is_there, "no test is called {name}");
    }
}

/// So do the claims about security; there, the names stand in the text.
#[test]
fn every_test_that_a_claim_about_security_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["agent", "shared", "tests"];
    let tests: Vec<(String, String)> = folders.into_iter().flat_map(sources).collect();
    let mut count = 0;
    for file in ["SECURITY.md", "docs/evidence.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let code = text.split('`').skip(1).step_by(2);
        let is_test = |name: &&str| {
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            is_name && name.matches('_').count() >= 3
        };
        for name in code.filter(is_test) {
            count += 1;
            let function = format!("fn {name}(");
            assert!(
                tests.iter().any(|(_, text)| text.contains(&function)),
                "no test is called {name}: {file}"
            );
        }
    }
    assert!(count >= 25, "only {count} claims");
}

//! The program: its ready line, its end, and what it says when it cannot start.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::seed;

fn stub() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally-stub"));
    command.env_remove("TALLY_LOG").stdin(Stdio::null());
    command
}

fn seed_file(folder: &TempDir, seed: &Value) -> PathBuf {
    let path = folder.path().join("seed.json");
    std::fs::write(&path, seed.to_string()).unwrap();
    path
}

fn run(listen: &str, seed: &Path) -> Output {
    let mut command = stub();
    command
        .args(["run", "--listen", listen, "--seed"])
        .arg(seed);
    command.output().unwrap()
}

/// Starting must fail with exit code 1 and one line on stderr that has this in it.
#[track_caller]
fn refuses(output: &Output, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(output.stdout, b"");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn it_says_when_it_is_ready_and_ends_well_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = stub();
    command.args(["run", "--listen", "127.0.0.1:0", "--seed"]);
    command.arg(seed_file(&folder, &seed()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    assert!(ready.starts_with("ready http://127.0.0.1:"), "{ready}");
    let kill = Command::new("kill").arg(child.id().to_string()).status();
    assert!(kill.unwrap().success());
    assert!(lines.next().is_none(), "one line and no more");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_seed_that_cannot_be_used_is_refused_with_the_place_of_the_mistake() {
    let folder = tempfile::tempdir().unwrap();
    // On an occupied port, so that a seed which is accepted by mistake does not serve for ever.
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut seed = seed();
        change(&mut seed);
        run(&address, &seed_file(&folder, &seed))
    };
    refuses(&run(&address, Path::new("/no/seed.json")), "/no/seed.json");
    refuses(&with(&|seed| *seed = json!([])), "line 1 column");
    refuses(
        &with(&|seed| seed["licence"] = json!([])),
        "unknown field `licence`",
    );
    refuses(
        &with(&|seed| seed["licenses"][1]["id"] = json!(1)),
        "licenses: `id` \"1\" appears twice",
    );
    refuses(
        &with(&|seed| seed["licenses"][2]["product"] = json!("nope")),
        "licenses[2] (id 3): `product` \"nope\" is not among `products`",
    );
    refuses(
        &with(&|seed| seed["licenses"][0]["username"] = json!("bob")),
        "licenses[0] (id 1): exactly one of `license_key` and `username`",
    );
    refuses(
        &with(&|seed| seed["licenses"][0]["features"][1]["code"] = json!("export")),
        "licenses[0] (id 1).features: `code` \"export\" appears twice",
    );
    refuses(
        &with(&|seed| seed["api_keys"][0]["shared_key"] = json!("")),
        "api_keys[0]: `shared_key` is empty",
    );
}

#[test]
fn an_occupied_port_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let output = run(&address, &seed_file(&folder, &seed()));
    refuses(&output, "give `--listen` another address");
}

#[test]
fn a_data_folder_that_cannot_be_made_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let seed = seed_file(&folder, &seed());
    let mut command = stub();
    command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]);
    let output = command
        .arg(seed.join("data"))
        .arg("--seed")
        .arg(&seed)
        .output();
    refuses(
        &output.unwrap(),
        "give `--data-dir` a folder that can be written",
    );
}

#[test]
fn wrong_usage_exits_with_2_and_help_shows_an_example() {
    assert_eq!(stub().arg("run").output().unwrap().status.code(), Some(2));
    let help = stub().args(["run", "--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("tally-stub run --seed seed.json"), "{text}");
}

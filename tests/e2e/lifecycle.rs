//! Starting, stopping, being killed, and being started wrongly.

use std::process::Output;

use serde_json::json;
use tally_tests::{Result, seed, stub::Keys, wait};

use crate::{agent, agent_with, stub};

/// A batch is in a state when the agent is killed; after the restart each unit is counted once.
#[track_caller]
fn check_restart(faults: &serde_json::Value, keys: Keys) -> Result {
    let stub = stub(&[seed::license(100, json!({}))], keys)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    stub.faults(faults)?;
    assert_eq!(app.add(5)?.status, 200);
    let reached = |fired: &Vec<u64>| fired.is_empty() || *fired >= vec![1];
    wait::until("the state", || stub.fired(), reached)?;
    agent.kill()?;
    stub.faults(&json!([]))?;
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5, "{faults} with keys {keys:?}");
    Ok(())
}

#[test]
fn killed_with_an_open_batch() -> Result {
    check_restart(&json!([]), Keys::Kept)?;
    check_restart(&json!([]), Keys::NotKept)
}

#[test]
fn killed_with_a_sealed_batch_that_the_server_had_no_time_for() -> Result {
    let busy = json!([{"path": "/api/v4/add_consumption", "action": {"status": 429}}]);
    check_restart(&busy, Keys::Kept)?;
    check_restart(&busy, Keys::NotKept)
}

#[test]
fn killed_while_a_batch_is_sent() -> Result {
    let late = json!([{"path": "/api/v4/add_consumption", "action": {"delay_ms": 1000}}]);
    check_restart(&late, Keys::Kept)?;
    check_restart(&late, Keys::NotKept)
}

#[test]
fn killed_while_a_batch_is_unknown() -> Result {
    let lost = json!([
        {"path": "/api/v4/add_consumption", "action": {"drop": "after"}},
        {"path": "/api/v4/check_license", "action": {"drop": "before"}},
    ]);
    check_restart(&lost, Keys::Kept)?;
    check_restart(&lost, Keys::NotKept)
}

#[test]
fn killed_while_a_batch_is_held() -> Result {
    let stub = stub(&[seed::license(10, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(8)?.status, 200);
    stub.edit(1, json!({"total_consumptions": 5}))?;
    agent.network("online")?;
    wait::until(
        "the batch to be held",
        || agent.sums(0),
        |sums| sums.held == 8,
    )?;
    agent.kill()?;
    stub.edit(1, json!({"max_consumptions": 100}))?;
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 13);
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_a_kill() -> Result {
    let mut agent = {
        let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
        let agent = agent(&stub)?;
        agent.add_license()?;
        agent
    };
    let app = agent.app("inspector")?;
    for _ in 0..10 {
        assert_eq!(app.add(2)?.status, 200);
    }
    agent.kill()?;
    agent.restart()?;
    assert_eq!(agent.sums(0)?.recorded, 20);
    assert_eq!(
        app.at(agent.url()?).add(81)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    Ok(())
}

#[test]
fn a_stop_on_request_is_clean() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    assert_eq!(app.add(1)?.status, 200);
    assert!(agent.terminate()?.success());
    assert!(app.add(1).is_err());
    assert!(!agent.data_dir().join("tally.sock").exists());
    Ok(())
}

/// A command that must fail with one line that says what to do.
#[track_caller]
fn check_fails(output: &Output, code: i32, wanted: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(wanted), "{said}");
    assert!(output.stdout.is_empty(), "nothing is ready");
}

#[test]
fn a_second_agent_on_the_same_data_directory_refuses_to_start() -> Result {
    let agent = agent_with("http://127.0.0.1:9", &[])?;
    check_fails(&agent.run_command().output()?, 1, "another tally runs on");
    assert_eq!(agent.json(&["status"])?["licenses"], json!([]));
    Ok(())
}

#[test]
fn what_cannot_be_used_is_said_on_one_line() -> Result {
    let mut agent = agent_with("http://127.0.0.1:9", &[])?;
    let taken = agent.url()?.trim_start_matches("http://").to_owned();
    let other = tempfile::tempdir()?;
    let data = other.path().join("data").display().to_string();
    let run = |args: &[&str]| {
        let base = ["run", "--server-url", "http://127.0.0.1:9"];
        let mut command = agent.command(&[base.as_slice(), args].concat());
        command.env("TALLY_DATA_DIR", &data);
        command.output()
    };
    check_fails(&run(&["--sync-interval", "soon"])?, 2, "--sync-interval");
    check_fails(
        &run(&["--listen", "0.0.0.0:0"])?,
        1,
        "not a loopback address",
    );
    check_fails(
        &run(&["--server-public-key", "/no/such/file"])?,
        1,
        "/no/such/file",
    );
    check_fails(
        &run(&["--config", "/no/such/file"])?,
        1,
        "config file /no/such/file",
    );
    agent.terminate()?;
    // The port is still taken, by somebody else.
    let _somebody = std::net::TcpListener::bind(&taken)?;
    let mut command = agent.command(&["run", "--server-url", "http://127.0.0.1:9"]);
    command.args(["--listen", &taken]);
    check_fails(&command.output()?, 1, "cannot listen on");
    let mut command = agent.command(&["run", "--server-url", "http://127.0.0.1:9"]);
    command.env_remove("TALLY_SERVER_API_KEY");
    check_fails(&command.output()?, 1, "TALLY_SERVER_API_KEY");
    Ok(())
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() -> Result {
    let mut agent = agent_with("http://127.0.0.1:9", &[])?;
    agent.terminate()?;
    let path = agent.data_dir().join("ledger.db");
    rusqlite::Connection::open(&path)?.pragma_update(None, "user_version", 99)?;
    let before = std::fs::read(&path)?;
    check_fails(&agent.run_command().output()?, 1, "version 99");
    assert_eq!(std::fs::read(&path)?, before);
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_made_is_said() -> Result {
    let agent = agent_with("http://127.0.0.1:9", &[])?;
    let file = tempfile::NamedTempFile::new()?;
    let inside = file.path().join("data").display().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tally-under-test"));
    command.args([
        "run",
        "--server-url",
        "http://127.0.0.1:9",
        "--data-dir",
        &inside,
    ]);
    command
        .env("TALLY_SERVER_API_KEY", "k")
        .env("TALLY_SERVER_SHARED_KEY", "s");
    command.env("HOME", agent.data_dir());
    check_fails(&command.output()?, 1, "cannot use the data directory");
    Ok(())
}

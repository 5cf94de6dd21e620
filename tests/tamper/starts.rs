//! A start on a ledger that somebody changed.

use std::fs;

use serde_json::{Value, json};
use tally_tests::{Result, agent::Agent, stub::Keys, wait};

use crate::{agent, copy_to, edit, stub, verify};

/// The agent goes on recording, says what it found in status, log and metrics, and so does `verify`.
#[track_caller]
fn says(agent: &Agent, what: &str) -> Result {
    let status = agent.json(&["status"])?;
    assert_eq!(status["evidence"], json!(1), "{status:#}");
    let log = agent.json(&["log"])?;
    let mut rows = log.as_array().into_iter().flatten();
    let is_it = |row: &Value| row["kind"] == "evidence" && row["state"] == what;
    assert!(rows.any(is_it), "{log:#}");
    let (code, findings) = verify(&agent.data_dir())?;
    assert_eq!(code, Some(1), "{findings:#}");
    let doctor = agent.tally(&["doctor"])?;
    assert_eq!(doctor.status.code(), Some(1));
    let metrics = agent.metrics()?;
    assert!(metrics.contains("\ntally_evidence_total 1\n"), "{metrics}");
    Ok(())
}

fn conservation(agent: &Agent) -> Result<Value> {
    Ok(agent.json(&["status"])?["licenses"][0]["conservation"].take())
}

/// The server has counted what the copy owes: once is enough, whatever the copy says.
fn an_older_copy_is_not_sent_again(keys: Keys) -> Result {
    let stub = stub(keys)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let copy = copy_to(&agent.data_dir(), &agent.data_dir().join("copy.db"))?;
    agent.network("online")?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    agent.terminate()?;
    fs::rename(copy, agent.data_dir().join("ledger.db"))?;
    agent.restart()?;
    says(&agent, "older_copy")?;
    let app = agent.app("planner")?;
    assert_eq!(app.add(3)?.status, 200);
    let sums = agent.wait_settled(0)?;
    assert_eq!((sums.recorded, stub.total(1)?), (8, 8));
    // Found once, and not found again at the next start.
    agent.terminate()?;
    agent.restart()?;
    says(&agent, "older_copy")
}

#[test]
fn an_older_copy_is_not_sent_again_to_a_server_with_keys() -> Result {
    an_older_copy_is_not_sent_again(Keys::Kept)
}

#[test]
fn an_older_copy_is_not_sent_again_to_a_server_without_keys() -> Result {
    an_older_copy_is_not_sent_again(Keys::NotKept)
}

#[test]
fn what_an_older_copy_cannot_tell_waits_for_a_person() -> Result {
    let stub = stub(Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let copy = copy_to(&agent.data_dir(), &agent.data_dir().join("copy.db"))?;
    assert_eq!(app.add(7)?.status, 200);
    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.terminate()?;
    fs::rename(copy, agent.data_dir().join("ledger.db"))?;
    agent.restart()?;
    wait::until(
        "the batch to be held",
        || conservation(&agent),
        |sums| sums["held"] == json!(5),
    )?;
    assert_eq!(stub.total(1)?, 12);
    let app = agent.app("planner")?;
    assert_eq!(app.add(1)?.status, 200);
    wait::until("the new units", || stub.total(1), |total| *total == 13)?;
    says(&agent, "older_copy")
}

#[test]
fn a_batch_with_a_changed_row_waits_for_a_person() -> Result {
    let stub = stub(Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    assert_eq!(app.add(7)?.status, 200);
    agent.terminate()?;
    let ledger = edit(&agent.data_dir())?;
    ledger.execute_batch(
        "UPDATE consumptions SET units = 1 WHERE units = 7;
         UPDATE batches SET units = 6 WHERE units = 12;
         UPDATE accounts SET recorded = 6 WHERE recorded = 12;",
    )?;
    drop(ledger);
    agent.restart()?;
    says(&agent, "changed")?;
    wait::until(
        "the server to be heard of",
        || agent.json(&["status"]),
        |status| status["connection"]["last_answer_ms"].is_number(),
    )?;
    assert_eq!(conservation(&agent)?["held"], json!(6));
    assert_eq!(stub.total(1)?, 0);
    Ok(())
}

#[test]
fn another_key_is_said_and_new_rows_are_proved_by_it() -> Result {
    let stub = stub(Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(5)?.status, 200);
    agent.wait_settled(0)?;
    agent.terminate()?;
    fs::remove_file(agent.data_dir().join("chain_key"))?;
    agent.restart()?;
    says(&agent, "key_replaced")?;
    let app = agent.app("planner")?;
    assert_eq!(app.add(3)?.status, 200);
    agent.wait_settled(0)?;
    agent.terminate()?;
    let (_, findings) = verify(&agent.data_dir())?;
    assert_eq!(findings["unproven"], json!(1), "{findings:#}");
    assert_eq!(findings["faults"].as_array().map(Vec::len), Some(1));
    edit(&agent.data_dir())?.execute("UPDATE consumptions SET at = at + 1 WHERE units = 3", [])?;
    let (_, findings) = verify(&agent.data_dir())?;
    assert_eq!(findings["faults"].as_array().map(Vec::len), Some(2));
    Ok(())
}

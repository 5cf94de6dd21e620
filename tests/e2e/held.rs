//! What is held, why, and how a person decides about it.

use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    client::Client,
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, agent_with, stub};

/// An agent of a server without keys whose next request is lost after (or before) it was counted, while
/// somebody else changes the licence as told. Its 5 units are held.
fn undecided(drop: &str, edit: Value) -> Result<(Stub, Agent, Client)> {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let agent = agent_with(
        stub.url(),
        &["--settle-wait", "300ms", "--sync-interval", "50ms"],
    )?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    stub.faults(&json!([
        {"path": "/api/v4/add_consumption", "action": {"drop": drop}, "times": 1},
        // The agent reads no total before the change.
        {"path": "/api/v4/check_license", "action": {"drop": "before"}},
    ]))?;
    assert_eq!(app.add(5)?.status, 200);
    wait::until("the loss", || stub.fired(), |fired| fired[0] == 1)?;
    stub.edit(1, edit)?;
    stub.faults(&json!([]))?;
    wait::until(
        "the batch to be held",
        || agent.sums(0),
        |sums| sums.held == 5,
    )?;
    Ok((stub, agent, app))
}

fn held(agent: &Agent) -> Result<Value> {
    Ok(agent.json(&["status"])?["licenses"][0]["held"][0].clone())
}

#[test]
fn a_held_batch_says_what_why_since_when_and_what_comes_next() -> Result {
    let (_stub, agent, _) = undecided("after", json!({"total_consumptions": 40}))?;
    let held = held(&agent)?;
    assert_eq!((&held["units"], &held["rows"]), (&json!(5), &json!(1)));
    assert_eq!(held["reason"], "undecidable");
    assert!(
        held["since"]
            .as_str()
            .is_some_and(|since| since.starts_with("20")),
        "{held}"
    );
    assert!(
        held["next_step"]
            .as_str()
            .is_some_and(|step| step.contains("a person")),
        "{held}"
    );
    let page = agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.contains("tally resolve") && page.contains("is held for "),
        "{page}"
    );
    Ok(())
}

#[test]
fn an_edit_of_the_licence_makes_a_lost_answer_undecidable() -> Result {
    let (stub, agent, _) = undecided("after", json!({"max_consumptions": 200}))?;
    assert_eq!(held(&agent)?["reason"], "undecidable");
    assert_eq!(stub.total(1)?, 5);
    Ok(())
}

#[test]
fn what_a_person_knows_to_be_applied_is_settled_and_never_sent_again() -> Result {
    let (stub, agent, _) = undecided("after", json!({"total_consumptions": 40}))?;
    let batch = held(&agent)?["batch"].to_string();
    agent.json(&[
        "resolve",
        &batch,
        "--applied",
        "--reason",
        "the activity log shows it",
    ])?;
    let sums = agent.wait_settled(0)?;
    assert_eq!((sums.settled, sums.held), (5, 0));
    assert_eq!(stub.total(1)?, 40, "sent again");
    let log = agent.json(&["log"])?;
    let row = log
        .as_array()
        .and_then(|rows| rows.last())
        .cloned()
        .unwrap_or_default();
    assert_eq!(row["kind"], "decision", "{log}");
    assert_eq!(row["note"]["decision"], "applied");
    assert_eq!(row["note"]["reason"], "the activity log shows it");
    assert_eq!(row["note"]["by"], "person");
    Ok(())
}

#[test]
fn what_a_person_knows_not_to_be_applied_is_sent() -> Result {
    let (stub, agent, _) = undecided("before", json!({"total_consumptions": 40}))?;
    let batch = held(&agent)?["batch"].to_string();
    agent.json(&["resolve", &batch, "--not-applied"])?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 45);
    Ok(())
}

#[test]
fn what_is_waived_is_never_sent_and_takes_no_room() -> Result {
    let (stub, agent, app) = undecided("before", json!({"total_consumptions": 98}))?;
    assert_eq!(
        app.add(1)?.status,
        400,
        "the held units count until they are given up"
    );
    let batch = held(&agent)?["batch"].to_string();
    agent.json(&["resolve", &batch, "--waive", "a demo device"])?;
    let status = agent.json(&["status"])?;
    assert_eq!(status["licenses"][0]["conservation"]["waived"], 5);
    assert_eq!(app.add(1)?.status, 200);
    wait::until("the other unit", || stub.total(1), |total| *total == 99)?;
    Ok(())
}

#[test]
fn a_decision_is_undone_by_nobody() -> Result {
    let (_stub, mut agent, _) = undecided("after", json!({"total_consumptions": 40}))?;
    let batch = held(&agent)?["batch"].to_string();
    agent.json(&["resolve", &batch, "--applied"])?;
    for decision in ["--not-applied", "--resend", "--applied"] {
        let output = agent.tally(&["resolve", &batch, decision])?;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    agent.kill()?;
    agent.restart()?;
    let again = agent.tally(&["resolve", &batch, "--resend"])?;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let verified = agent.tally(&["verify"])?;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    Ok(())
}

#[test]
fn of_what_was_never_sent_nobody_can_say_what_became_of_it() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    for (batch, why) in [("1", "not sent yet"), ("77", "no batch 77")] {
        let output = agent.tally(&["resolve", batch, "--applied"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let empty = agent.tally(&["resolve", "1", "--waive", " "])?;
    assert_eq!(
        empty.status.code(),
        Some(1),
        "a reason is needed: {empty:?}"
    );
    let neither = agent.tally(&["resolve", "1"])?;
    assert_eq!(neither.status.code(), Some(2), "{neither:?}");
    Ok(())
}

/// 4 units of a day that ended offline, and 1 of the next.
fn late(policy: &str) -> Result<(Stub, Agent)> {
    let daily = json!({"reset_consumption": true, "consumption_period": "daily"});
    let stub = stub(&[seed::license(1000, daily)], Keys::Kept)?;
    let agent = agent_with(
        stub.url(),
        &["--sync-interval", "50ms", "--late-usage", policy],
    )?;
    let app = agent.app("inspector")?;
    stub.set_clock("2031-03-31T23:59:50Z")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(4)?.status, 200);
    let is_next_day = |total: &Value| total["total_consumptions"] == 1;
    wait::until("midnight", || app.add(1)?.json(), is_next_day)?;
    // The server's midnight may come a moment later.
    stub.advance(10)?;
    agent.network("online")?;
    Ok((stub, agent))
}

/// All units that the server ever counted, in whichever period.
fn counted(stub: &Stub) -> Result<i64> {
    Ok(stub.activity(1)?.iter().map(|(_, units)| units).sum())
}

#[test]
fn late_units_are_reported_and_marked() -> Result {
    let (stub, agent) = late("report")?;
    let sums = agent.wait_settled(0)?;
    assert_eq!(counted(&stub)?, sums.recorded);
    let status = agent.json(&["status"])?;
    let late = status["licenses"][0]["late"].as_i64().unwrap_or_default();
    assert!(late >= 4, "{status}");
    let log = agent.json(&["log", "--after", "0"])?;
    assert_eq!(
        (&log[0]["units"], &log[0]["late"]),
        (&json!(4), &json!(true))
    );
    Ok(())
}

#[test]
fn late_units_are_held_where_the_policy_says_so() -> Result {
    let (stub, agent) = late("hold")?;
    let is_held = |sums: &tally_tests::agent::Sums| {
        sums.held >= 4 && sums.pending == 0 && sums.in_flight == 0
    };
    let sums = wait::until("the late units to be held", || agent.sums(0), is_held)?;
    let held = held(&agent)?;
    assert_eq!(held["reason"], "late");
    assert_eq!(counted(&stub)?, sums.settled);
    agent.json(&["resolve", &held["batch"].to_string(), "--resend"])?;
    agent.wait_settled(0)?;
    assert_eq!(counted(&stub)?, sums.recorded);
    Ok(())
}

//! What the server's total says that the agent does not expect: shown everywhere, with its amount, until somebody has seen it.

use serde_json::{Value, json};
use tally_tests::{Result, agent::Agent, client::Client, seed, stub::Keys, stub::Stub, wait};

use crate::{agent_with, stub};

/// An agent of a server without keys that reads often, and has settled 3 units.
fn settled() -> Result<(Stub, Agent, Client)> {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let flags = ["--settle-wait", "300ms", "--refresh-interval", "200ms"];
    let agent = agent_with(stub.url(), &flags)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    assert_eq!(app.add(3)?.status, 200);
    agent.wait_settled(0)?;
    Ok((stub, agent, app))
}

fn findings(agent: &Agent) -> Result<Value> {
    Ok(agent.json(&["status"])?["findings"].take())
}

/// What a command prints, its lines joined.
fn said(agent: &Agent, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = agent.tally(args)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok((output.status.code(), words.join(" ")))
}

/// The finding of that kind is told in each place until it was looked into; then in none but the ledger.
#[track_caller]
fn is_told_until_it_is_seen(
    agent: &mut Agent,
    (kind, units): (&str, i64),
    (expected, found): (i64, i64),
    words: &str,
) -> Result {
    let told = wait::until(
        "the finding",
        || findings(agent),
        |found| found.as_array().is_some_and(|found| found.len() == 1),
    )?;
    let told = &told[0];
    assert_eq!(told["finding"], json!(kind), "{told:#}");
    assert_eq!(
        [&told["units"], &told["expected"], &told["found"]],
        [&json!(units), &json!(expected), &json!(found)],
        "{told:#}"
    );
    let no = told["no"].to_string();
    let next = format!("tally resolve --finding {no}");
    for (command, code) in [("status", 0), ("verify", 1)] {
        let (ended, page) = said(agent, &[command])?;
        assert_eq!(ended, Some(code), "{command}: {page}");
        assert!(page.contains(words) && page.contains(&next), "{page}");
    }
    let metrics = agent.metrics()?;
    for line in [
        "tally_findings 1".to_owned(),
        format!("tally_findings_units {units}"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }

    let reason = "the vendor took it off";
    let seen = agent.json(&["resolve", "--finding", &no, "--reason", reason])?;
    assert!(seen["seq"].is_i64(), "{seen}");
    let log = agent.json(&["log"])?;
    let of_kind = |kind: &str| {
        let rows = log.as_array().into_iter().flatten();
        rows.filter(|row| row["kind"] == kind).count()
    };
    assert_eq!((of_kind("finding"), of_kind("decision")), (1, 1), "{log:#}");
    is_over(agent)?;
    let metrics = agent.metrics()?;
    assert!(metrics.lines().any(|line| line == "tally_findings 0"));
    let again = agent.tally(&["resolve", "--finding", &no])?;
    assert!(!again.status.success());
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        text.contains(&format!("there is no finding {no}")),
        "{text}"
    );
    agent.terminate()?;
    agent.restart()?;
    is_over(agent)
}

#[track_caller]
fn is_over(agent: &Agent) -> Result {
    assert_eq!(findings(agent)?, json!([]));
    let (ended, page) = said(agent, &["verify"])?;
    assert_eq!(ended, Some(0), "{page}");
    let (_, page) = said(agent, &["status"])?;
    assert!(!page.contains("--finding"), "{page}");
    Ok(())
}

#[test]
fn a_request_that_was_counted_twice_is_told_until_somebody_has_seen_it() -> Result {
    let (stub, mut agent, app) = settled()?;
    stub.faults(&json!([
        {"path": "/api/v4/add_consumption", "action": {"duplicate": true}, "times": 1},
    ]))?;
    assert_eq!(app.add(10)?.status, 200);
    is_told_until_it_is_seen(
        &mut agent,
        ("counted_more_than_once", 10),
        (13, 23),
        "23, and 13 was expected: 10 units more than this device sent",
    )?;
    assert_eq!((agent.sums(0)?.settled, stub.total(1)?), (13, 23));
    Ok(())
}

#[test]
fn a_total_that_fell_is_told_until_somebody_has_seen_it() -> Result {
    let (stub, mut agent, app) = settled()?;
    assert_eq!(app.add(10)?.status, 200);
    agent.wait_settled(0)?;
    stub.faults(&json!([
        {"path": "/api/v4/check_license", "action": {"roll_back": 1}, "times": 1},
    ]))?;
    is_told_until_it_is_seen(
        &mut agent,
        ("total_fell", 10),
        (13, 3),
        "fell from 13 to 3: it counts 10 units fewer than before",
    )?;
    assert_eq!((agent.sums(0)?.settled, stub.total(1)?), (13, 3));
    Ok(())
}

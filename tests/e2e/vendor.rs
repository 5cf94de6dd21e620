//! What a vendor does to a licence while units of it are owed.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    client::{Client, by_key},
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent_with, stub};

/// An agent that syncs fast, and refreshes as it comes.
const FAST: [&str; 4] = ["--settle-wait", "300ms", "--sync-interval", "50ms"];

/// In this time, an agent that asks without a pause asks some hundred times.
const WATCHED: Duration = Duration::from_secs(2);

fn of_feature(units: i64) -> Value {
    seed::merged(by_key(units), json!({"feature": "scan"}))
}

/// A licence with a feature, an agent that knows it, and its application.
fn world(keys: Keys) -> Result<(Stub, Agent, Client)> {
    let features = json!({"features": [{"id": 7, "code": "scan", "max_consumption": 50}]});
    let stub = stub(&[seed::license(100, features)], keys)?;
    let agent = agent_with(stub.url(), &FAST)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    Ok((stub, agent, app))
}

fn add_feature(app: &Client, units: i64) -> Result<Option<String>> {
    let reply = app.post("/api/v4/add_feature_consumption", &of_feature(units))?;
    // A granted answer may name the feature's code.
    Ok(reply.code().filter(|_| reply.status != 200))
}

/// The requests of a while in which nothing new happens.
fn requests(stub: &Stub) -> Result<usize> {
    stub.forget_requests()?;
    thread::sleep(WATCHED);
    Ok(stub.requests()?.len())
}

fn feature_total(stub: &Stub) -> Result<i64> {
    let license = stub.license(1)?;
    let total = license.pointer("/features/0/total_consumptions");
    Ok(total.and_then(Value::as_i64).unwrap_or_default())
}

fn taken_off(keys: Keys, changed: &Value) -> Result {
    let (stub, agent, app) = world(keys)?;
    agent.network("offline")?;
    assert_eq!(add_feature(&app, 5)?, None);
    assert_eq!(app.add(3)?.status, 200);
    let features = stub.license(1)?["features"].clone();
    stub.edit(1, json!({"features": changed}))?;
    agent.network("online")?;
    wait::until("the own units", || stub.total(1), |total| *total == 3)?;
    wait::until("the hold", || agent.sums(1), |sums| sums.held == 5)?;
    let refused = Some("unsupported_product_feature".to_owned());
    assert_eq!(add_feature(&app, 1)?, refused);
    assert_eq!(app.add(2)?.status, 200);
    wait::until("the own units", || stub.total(1), |total| *total == 5)?;
    let asked = requests(&stub)?;
    assert!(asked <= 20, "{asked} requests");
    stub.edit(1, json!({"features": features}))?;
    agent.tally(&["sync"])?;
    agent.wait_settled(1)?;
    assert_eq!(feature_total(&stub)?, 5);
    assert_eq!(add_feature(&app, 1)?, None);
    Ok(())
}

#[test]
fn a_feature_that_the_vendor_takes_off_is_held_and_refused_alone() -> Result {
    taken_off(Keys::Kept, &json!([]))?;
    taken_off(Keys::NotKept, &json!([]))
}

#[test]
fn so_is_one_that_changes_its_type() -> Result {
    let activation = json!([{"id": 7, "code": "scan", "feature_type": "activation"}]);
    taken_off(Keys::Kept, &activation)?;
    taken_off(Keys::NotKept, &activation)
}

#[test]
fn a_licence_that_changes_its_type_goes_on_with_its_features() -> Result {
    for keys in [Keys::Kept, Keys::NotKept] {
        let (stub, agent, app) = world(keys)?;
        agent.network("offline")?;
        assert_eq!(app.add(5)?.status, 200);
        assert_eq!(add_feature(&app, 2)?, None);
        stub.edit(1, json!({"license_type": "perpetual"}))?;
        agent.network("online")?;
        wait::until(
            "the feature's",
            || feature_total(&stub),
            |total| *total == 2,
        )?;
        wait::until("the hold", || agent.sums(0), |sums| sums.held == 5)?;
        assert_eq!(
            app.add(1)?.code().as_deref(),
            Some("license_not_consumption")
        );
        assert_eq!(add_feature(&app, 3)?, None);
        wait::until(
            "the feature's",
            || feature_total(&stub),
            |total| *total == 5,
        )?;
        let asked = requests(&stub)?;
        assert!(asked <= 20, "{asked} requests");
        stub.edit(1, json!({"license_type": "consumption"}))?;
        agent.tally(&["sync"])?;
        agent.wait_settled(0)?;
        assert_eq!(stub.total(1)?, 5);
    }
    Ok(())
}

#[test]
fn what_nobody_can_tell_of_a_device_that_is_gone_a_person_decides() -> Result {
    for decision in ["--applied", "--not-applied"] {
        let (stub, agent, app) = world(Keys::NotKept)?;
        stub.faults(&json!([
            {"path": "/api/v4/add_consumption", "action": {"drop": "after"}, "times": 1},
            // The total is not read before the device is gone.
            {"path": "/api/v4/check_license", "action": {"drop": "before"}},
        ]))?;
        assert_eq!(app.add(5)?.status, 200);
        wait::until("the loss", || stub.fired(), |fired| fired[0] == 1)?;
        stub.edit(1, json!({"devices": []}))?;
        stub.faults(&json!([]))?;
        let held = wait::until(
            "the hold",
            || Ok(agent.json(&["status"])?["licenses"][0]["held"][0].clone()),
            |held| held["reason"] == "gone",
        )?;
        let batch = held["batch"].to_string();
        agent.json(&["resolve", &batch, decision])?;
        let sums = agent.sums(0)?;
        match decision {
            "--applied" => assert_eq!((sums.settled, sums.held), (5, 0)),
            _ => assert_eq!((sums.pending, sums.held), (5, 0)),
        }
        assert_eq!(stub.total(1)?, 5);
    }
    Ok(())
}

#[test]
fn what_was_never_sent_can_be_given_up() -> Result {
    let (stub, agent, app) = world(Keys::Kept)?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let refused = agent.tally(&["resolve", "1", "--applied"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--waive"), "{said}");
    agent.json(&["resolve", "1", "--waive", "a demo"])?;
    agent.network("online")?;
    agent.tally(&["sync"])?;
    let sums = agent.json(&["status"])?["licenses"][0]["conservation"].clone();
    assert_eq!((&sums["waived"], &sums["recorded"]), (&json!(5), &json!(5)));
    assert_eq!(stub.total(1)?, 0);
    Ok(())
}

/// A pool that has this left for the licence.
fn pool(left: i64) -> Value {
    json!({"pool": {"id": 3, "name": "Fleet", "max_consumptions": left}})
}

#[test]
fn a_pool_limits_too_and_its_counters_are_handed_on() -> Result {
    for keys in [Keys::Kept, Keys::NotKept] {
        let (stub, agent, app) = world(keys)?;
        stub.edit(1, pool(10))?;
        agent.add_license()?;
        let told = app.add(6)?.json()?;
        assert_eq!(told["pool"]["total_consumptions"], 6, "{told}");
        let beyond = app.add(5)?.code();
        assert_eq!(beyond.as_deref(), Some("license_not_enough_consumptions"));
        agent.wait_settled(0)?;
        agent.network("offline")?;
        for _ in 0..4 {
            assert_eq!(app.add(1)?.status, 200);
        }
        // Another licence of the pool has taken a part.
        stub.edit(1, json!({"pool": {"id": 3, "name": "Fleet", "max_consumptions": 10, "total_consumptions": 8}}))?;
        agent.network("online")?;
        wait::until("what fits", || stub.total(1), |total| *total == 8)?;
        wait::until("the hold", || agent.sums(0), |sums| sums.held == 2)?;
        let asked = requests(&stub)?;
        assert!(asked <= 20, "{asked} requests");
        let page = agent.tally(&["status"])?;
        let page = String::from_utf8_lossy(&page.stdout).into_owned();
        assert!(page.contains("pool Fleet"), "{page}");
    }
    Ok(())
}

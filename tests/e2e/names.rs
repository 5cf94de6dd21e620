//! Licences are the server's ids; keys and users are names that open them, and that may come to open others.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tally_shared::time::Timestamp;
use tally_tests::{
    Result,
    agent::Agent,
    client::{Client, Reply, by_key, by_user},
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

const DEVICE_2: &str = "hw-9";

/// A user's licence of that id, with these devices.
fn of_user(id: i64, devices: &[&str]) -> Value {
    let devices: Vec<Value> = devices
        .iter()
        .map(|device| json!({"hardware_id": device}))
        .collect();
    seed::user_license(100, json!({"id": id, "devices": devices}))
}

/// Asks for units as the user, with further fields.
fn add(app: &Client, units: i64, with: Value) -> Result<Reply> {
    let body = by_user(units);
    app.post("/api/v4/add_consumption", &seed::merged(body, with))
}

fn totals(stub: &Stub, ids: &[i64]) -> Result<Vec<i64>> {
    ids.iter().map(|id| stub.total(*id)).collect()
}

/// How many requests the server got since they were last forgotten.
fn requests(stub: &Stub) -> Result<u64> {
    let requests = stub.requests()?;
    let seq = requests.last().and_then(|last| last.get("seq")?.as_u64());
    Ok(seq.unwrap_or_default())
}

/// The ids of the licences that an agent shows.
fn ids(agent: &Agent) -> Result<Vec<i64>> {
    let licenses = agent.json(&["license", "list"])?;
    let licenses = licenses.as_array().cloned().unwrap_or_default();
    let ids = licenses.iter().filter_map(|license| license["id"].as_i64());
    Ok(ids.collect())
}

/// Asks the agent some things, which takes longer than a storm of requests to its server would, and counts the requests that
/// the server got meanwhile.
fn idle_requests(agent: &Agent, stub: &Stub) -> Result<u64> {
    stub.forget_requests()?;
    for _ in 0..5 {
        agent.json(&["status"])?;
    }
    requests(stub)
}

fn settled(agent: &Agent) -> Result {
    let all = || agent.sums_of_all();
    wait::until("everything to be settled", all, |sums| {
        sums.recorded == sums.settled
    })?;
    Ok(())
}

#[test]
fn of_a_users_licences_the_one_is_charged_that_the_server_would_take() -> Result {
    let both = [seed::DEVICE, DEVICE_2];
    let licenses = [of_user(1, &both), of_user(2, &[seed::DEVICE])];
    let stub = stub(&licenses, Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(add(&app, 1, json!({"license_id": 2}))?.status, 200);
    assert_eq!(add(&app, 10, json!({}))?.status, 200);
    for _ in 0..3 {
        let reply = add(&app, 1, json!({"hardware_id": DEVICE_2}))?;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    settled(&agent)?;
    assert_eq!(totals(&stub, &[1, 2])?, [13, 1]);
    let mut known = ids(&agent)?;
    known.sort_unstable();
    assert_eq!(known, [1, 2], "one entry a licence");
    let unnamed = |entry: &Value| {
        let is_batch = entry["path"] == "/api/v4/add_consumption";
        is_batch && entry["body"].get("license_id").is_none()
    };
    assert!(
        !stub.requests()?.iter().any(unnamed),
        "a batch without its id"
    );
    agent.terminate()?;
    agent.restart()?;
    let asked = idle_requests(&agent, &stub)?;
    assert!(asked <= 4, "{asked} requests of an idle agent");
    Ok(())
}

#[test]
fn what_a_user_is_given_in_place_of_a_removed_licence_is_consumed_of() -> Result {
    let stub = stub(&[of_user(7, &[seed::DEVICE])], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(add(&app, 1, json!({}))?.status, 200);
    agent.wait_settled(0)?;
    agent.json(&["license", "remove", seed::USER])?;
    stub.edit(7, json!({"username": "somebody@example.com"}))?;
    stub.give(3, &of_user(3, &[seed::DEVICE]))?;
    for _ in 0..3 {
        assert_eq!(add(&app, 1, json!({}))?.status, 200);
    }
    assert_eq!(ids(&agent)?, [3]);
    settled(&agent)?;
    assert_eq!(totals(&stub, &[7, 3])?, [1, 3]);
    agent.terminate()?;
    agent.restart()?;
    let asked = idle_requests(&agent, &stub)?;
    assert!(asked <= 2, "{asked} requests of an idle agent");
    Ok(())
}

#[test]
fn a_key_that_opens_another_licence_now_is_one_of_two_names_of_it() -> Result {
    let other = seed::license(10, json!({"id": 5, "license_key": "OTHER-KEY"}));
    let stub = stub(&[seed::license(10, json!({})), other], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(1)?.status, 200);
    agent.wait_settled(0)?;
    stub.edit(1, json!({"license_key": "NEXT-KEY"}))?;
    let moved = json!({"license_key": seed::KEY, "total_consumptions": 3});
    stub.edit(5, moved)?;
    // One application names the licence by its id, the other by the key alone.
    let by_id = seed::merged(by_key(1), json!({"license_id": 5}));
    let with_id = || app.post("/api/v4/add_consumption", &by_id);
    assert_eq!(with_id()?.status, 200);
    let by_name = || Ok(app.add(0)?.json()?["id"].clone());
    wait::until("the key to be looked at", by_name, |id| *id == 5)?;
    agent.network("offline")?;
    let mut granted = 1;
    for _ in 0..8 {
        granted += u32::from(app.add(1)?.status == 200);
        granted += u32::from(with_id()?.status == 200);
    }
    assert_eq!(granted, 7, "one limit for both names");
    let shown = agent.json(&["license", "show", "1"])?;
    assert_eq!(shown["names"], json!([]), "{shown}");
    agent.network("online")?;
    settled(&agent)?;
    assert_eq!(totals(&stub, &[1, 5])?, [1, 10]);
    agent.terminate()?;
    agent.restart()?;
    let asked = idle_requests(&agent, &stub)?;
    assert!(asked <= 6, "{asked} requests of an idle agent");
    Ok(())
}

#[test]
fn a_user_whose_licence_is_taken_away_is_asked_for_again_and_not_at_each_request() -> Result {
    let stub = stub(&[of_user(4, &[seed::DEVICE])], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(add(&app, 1, json!({}))?.status, 200);
    agent.wait_settled(0)?;
    stub.edit(4, json!({"username": "somebody@example.com"}))?;
    let refreshed = agent.tally(&["license", "refresh", seed::USER])?;
    assert_eq!(refreshed.status.code(), Some(1));
    stub.forget_requests()?;
    for _ in 0..20 {
        let reply = add(&app, 1, json!({}))?;
        assert_eq!(reply.code().as_deref(), Some("license_not_found"));
    }
    let asked = requests(&stub)?;
    assert!((1..=6).contains(&asked), "{asked} requests");
    stub.give(3, &of_user(3, &[seed::DEVICE]))?;
    let granted = || Ok(add(&app, 1, json!({}))?.status);
    wait::until("the new licence", granted, |status| *status == 200)?;
    settled(&agent)?;
    assert_eq!(totals(&stub, &[4, 3])?, [1, 1]);
    Ok(())
}

#[test]
fn a_licence_that_was_removed_while_it_was_over_is_asked_for_again() -> Result {
    let soon = Timestamp::from_system_time(SystemTime::now()).plus(Duration::from_secs(3));
    let over = json!({"validity_period": soon.to_string()});
    let stub = stub(&[seed::license(10, over)], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(1)?.status, 200);
    agent.wait_settled(0)?;
    agent.network("offline")?;
    let code = || Ok(app.add(0)?.code());
    wait::until("the end of its period", code, |code| {
        code.as_deref() == Some("license_expired")
    })?;
    agent.json(&["license", "remove", seed::KEY])?;
    stub.edit(1, json!({"validity_period": null}))?;
    agent.network("online")?;
    assert_eq!(app.add(1)?.status, 200);
    Ok(())
}

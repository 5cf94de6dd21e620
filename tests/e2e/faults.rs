//! Each fault of the stub, in both modes: whatever the network does, each unit is counted once.

use std::collections::HashSet;

use serde_json::{Value, json};
use tally_tests::{Result, seed, stub::Keys, wait};

use crate::{agent, agent_with, stub};

/// Consumes 5 units while a fault is in force for sending, and waits until they are settled.
#[track_caller]
fn check_survives(action: &Value, keys: Keys) -> Result {
    let stub = stub(&[seed::license(100, json!({}))], keys)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let fault = json!([{"path": "/api/v4/add_consumption", "action": action, "times": 2}]);
    stub.faults(&fault)?;
    assert_eq!(app.add(5)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5, "{action} with keys {keys:?}");
    assert!(stub.fired()? >= vec![1], "{action} did not fire");
    Ok(())
}

#[test]
fn a_connection_that_breaks_before_the_request_is_applied() -> Result {
    check_survives(&json!({"drop": "before"}), Keys::Kept)?;
    check_survives(&json!({"drop": "before"}), Keys::NotKept)
}

#[test]
fn a_lost_acknowledgement() -> Result {
    check_survives(&json!({"drop": "after"}), Keys::Kept)?;
    check_survives(&json!({"drop": "after"}), Keys::NotKept)
}

#[test]
fn a_late_answer() -> Result {
    check_survives(&json!({"delay_ms": 300}), Keys::Kept)?;
    check_survives(&json!({"delay_ms": 300}), Keys::NotKept)
}

#[test]
fn a_server_in_maintenance() -> Result {
    check_survives(&json!({"status": 503, "retry_after": 1}), Keys::Kept)?;
    check_survives(&json!({"status": 503}), Keys::NotKept)
}

#[test]
fn a_server_that_limits_the_rate() -> Result {
    check_survives(&json!({"status": 429, "retry_after": 1}), Keys::NotKept)
}

#[test]
fn half_an_answer() -> Result {
    check_survives(&json!({"truncate": 20}), Keys::Kept)?;
    check_survives(&json!({"truncate": 150}), Keys::NotKept)
}

#[test]
fn no_reading_has_the_address_of_another_so_that_no_cache_has_its_answer() -> Result {
    const READINGS: usize = 5;
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    stub.forget_requests()?;
    for _ in 0..READINGS {
        agent.tally(&["license", "refresh", seed::KEY])?;
    }
    let requests = stub.requests()?;
    let readings = requests
        .iter()
        .filter(|it| it["path"] == "/api/v4/check_license");
    let addresses: Vec<_> = readings.map(|it| it["query"].as_str()).collect();
    let different: HashSet<_> = addresses.iter().collect();
    assert!(addresses.len() >= READINGS, "{requests:?}");
    assert_eq!(different.len(), addresses.len(), "{addresses:?}");
    Ok(())
}

#[test]
fn a_captive_portal() -> Result {
    check_survives(&json!({"garbage": true}), Keys::Kept)?;
    check_survives(&json!({"garbage": true}), Keys::NotKept)
}

#[test]
fn a_wrong_date_of_an_answer() -> Result {
    check_survives(&json!({"skew_date": -3600}), Keys::Kept)?;
    check_survives(&json!({"skew_date": 86400}), Keys::NotKept)
}

#[test]
fn a_forged_answer_is_never_success() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("server.pem");
    std::fs::write(&key, stub.public_key()?)?;
    let key = key.display().to_string();
    let agent = agent_with(stub.url(), &["--server-public-key", &key])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    stub.faults(&json!([{"path": "/api/v4/add_consumption", "action": {"bad_signature": true}, "times": 1}]))?;
    assert_eq!(app.add(5)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!((stub.total(1)?, stub.fired()?), (5, vec![1]));
    assert!(agent.said()?.contains("signature"), "{}", agent.said()?);
    Ok(())
}

#[test]
fn a_licence_in_trouble_delays_no_other() -> Result {
    let troubled = json!({"devices": [{"hardware_id": "device-2"}]});
    let stub = stub(
        &[
            seed::license(100, json!({})),
            seed::user_license(100, troubled),
        ],
        Keys::Kept,
    )?;
    let agent = agent_with(stub.url(), &["--settle-wait", "1h"])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let subject = [
        "--product",
        seed::PRODUCT,
        "--username",
        seed::USER,
        "--hardware-id",
        "device-2",
    ];
    agent.json(&[&["license", "add"], subject.as_slice()].concat())?;
    stub.faults(&json!([{"hardware_id": "device-2", "action": {"drop": "after"}}]))?;
    agent.json(&[&["record"], subject.as_slice()].concat())?;
    wait::until(
        "the trouble to begin",
        || stub.fired(),
        |fired| *fired >= vec![2],
    )?;
    assert_eq!(app.add(5)?.status, 200);
    let settled = |sums: &tally_tests::agent::Sums| sums.settled == 5;
    wait::until("the other licence to be settled", || agent.sums(0), settled)?;
    Ok(())
}

#[test]
fn a_refused_licence_is_held_and_goes_on_when_it_is_enabled_again() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    stub.edit(1, json!({"license_enabled": false}))?;
    agent.network("online")?;
    wait::until("the refusal", || agent.sums(0), |sums| sums.held == 5)?;
    assert_eq!(app.add(1)?.code().as_deref(), Some("license_not_enabled"));
    stub.edit(1, json!({"license_enabled": true}))?;
    agent.tally(&["sync"])?;
    agent.wait_settled(0)?;
    assert_eq!(app.add(1)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 6);
    Ok(())
}

#[test]
fn refused_credentials_stop_syncing_and_not_recording() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.terminate()?;
    agent.set_server_keys(seed::API_KEY, "another");
    agent.restart()?;
    let app = app.at(agent.url()?);
    assert_eq!(app.add(5)?.status, 200);
    let state = || Ok(agent.json(&["status"])?["connection"].clone());
    let connection = wait::until("the refusal", state, |found| found["state"] == "refused")?;
    assert_eq!(connection["refused"], "signature_mismatch");
    assert_eq!(agent.sums(0)?.pending, 5);
    agent.terminate()?;
    agent.set_server_keys(seed::API_KEY, seed::SHARED_KEY);
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    Ok(())
}

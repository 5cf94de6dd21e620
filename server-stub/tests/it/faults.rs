//! Each fault, as a client sees it and as the licence feels it.

use serde_json::{Value, json};
use tally_shared::time::Timestamp;

use crate::world::{ADD, CHECK, Reply, World, body};

/// A world in which one fault strikes once.
async fn struck_by(action: Value) -> World {
    let world = World::start().await;
    world
        .order_faults(json!([{"action": action, "times": 1}]))
        .await;
    world
}

async fn last_request(world: &World) -> Value {
    let requests = world.get("/stub/v1/requests").await;
    requests.as_array().unwrap().last().unwrap().clone()
}

async fn cannot_be_ordered(world: &World, faults: Value, named: &str) {
    let reply = world.put("/stub/v1/faults", &faults).await;
    assert_eq!(reply.code(), "validation_error", "{faults}");
    assert!(reply.body.contains(named), "{}", reply.body);
}

#[tokio::test]
async fn dropped_before_nothing_is_applied_and_nothing_answered() {
    let world = struck_by(json!({"drop": "before"})).await;
    assert_eq!(world.add_raw().await, "");
    assert_eq!(world.total(1).await, 0);
    let seen = last_request(&world).await;
    assert_eq!(seen["fault"], json!({"drop": "before"}));
    assert_eq!(
        (&seen["status"], &seen["applied"]),
        (&json!(null), &json!(false))
    );
    assert_eq!(world.add(json!({})).await.total(), 1, "only once");
}

#[tokio::test]
async fn dropped_after_it_is_applied_and_nothing_answered() {
    let world = struck_by(json!({"drop": "after"})).await;
    assert_eq!(world.add_raw().await, "");
    assert_eq!(world.total(1).await, 1);
    assert_eq!(last_request(&world).await["applied"], true);
}

#[tokio::test]
async fn a_lost_answer_is_replayed_to_who_asks_again() {
    let world = struck_by(json!({"drop": "after"})).await;
    let request = world.signed(reqwest::Method::POST, ADD).await;
    let plain = body(json!({})).to_string();
    let lost = request
        .header("Idempotency-Key", "k1")
        .body(plain)
        .send()
        .await;
    assert!(lost.is_err());
    let again = world.add_keyed("k1", json!({})).await;
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!((again.total(), world.total(1).await), (1, 1));
}

#[tokio::test]
async fn a_truncated_answer_ends_after_its_first_bytes() {
    let world = struck_by(json!({"truncate": 20})).await;
    assert_eq!(world.add_raw().await, "HTTP/1.1 200 OK\r\ncon");
    assert_eq!(world.total(1).await, 1);
}

#[tokio::test]
async fn an_answer_can_be_cut_within_its_body() {
    let world = struck_by(json!({"truncate": 700})).await;
    let answer = world.add_raw().await;
    assert_eq!(answer.len(), 700);
    assert!(answer.contains("\r\n\r\n{\"id\":1"), "{answer}");
    let world = struck_by(json!({"truncate": 100_000})).await;
    let answer = world.add_raw().await;
    assert!(answer.ends_with("\"consumption_period\":null}"), "{answer}");
}

#[tokio::test]
async fn a_delayed_answer_is_applied_at_once() {
    let world = struck_by(json!({"delay_ms": 30})).await;
    let started = std::time::Instant::now();
    assert_eq!(world.add(json!({})).await.total(), 1);
    assert!(started.elapsed().as_millis() >= 30);
}

#[tokio::test]
async fn an_ordered_status_applies_nothing_and_says_when_to_come_back() {
    let world = struck_by(json!({"status": 503, "retry_after": 5})).await;
    let reply = world.add(json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "unavailable"));
    assert_eq!(reply.header("Retry-After"), Some("5"));
    assert_eq!(world.total(1).await, 0);
    let world = struck_by(json!({"status": 429})).await;
    let reply = world.add(json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limited"));
    assert_eq!(reply.header("Retry-After"), None);
}

#[tokio::test]
async fn garbage_is_a_200_that_is_not_the_contracts() {
    let world = struck_by(json!({"garbage": true})).await;
    let reply = world.add_keyed("k1", json!({})).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with("<!doctype html>"));
    assert_eq!(reply.header("LicenseSignature"), None);
    assert_eq!(reply.header("Idempotency-Key"), None);
    assert_eq!(world.total(1).await, 1);
}

#[tokio::test]
async fn a_bad_signature_does_not_verify() {
    let world = struck_by(json!({"bad_signature": true})).await;
    let bad = world.add(json!({})).await;
    let good = world.add(json!({})).await;
    let verifies = |reply: &Reply| {
        let signature = reply.header("LicenseSignature").unwrap();
        world.verifier().verify(reply.body.as_bytes(), signature)
    };
    assert_eq!((verifies(&bad), verifies(&good)), (false, true));
    assert_eq!(world.total(1).await, 2);
}

#[tokio::test]
async fn a_skewed_date_is_off_by_what_was_ordered() {
    let world = struck_by(json!({"skew_date": -3600})).await;
    let time = |reply: Reply| Timestamp::from_http_date(reply.header("Date").unwrap()).unwrap();
    let skewed = time(world.add(json!({})).await);
    let right = time(world.add(json!({})).await);
    let behind = right.saturating_since(skewed).as_secs();
    assert!((3600..3630).contains(&behind), "{behind} s behind");
}

#[tokio::test]
async fn a_fault_meets_its_path_and_device_only_and_counts() {
    let world = World::start().await;
    let fault = json!([
        {"path": CHECK, "action": {"status": 500}},
        {"path": ADD, "hardware_id": "hw-9", "action": {"status": 503}},
    ]);
    world.order_faults(fault).await;
    assert_eq!(world.add(json!({})).await.total(), 1);
    assert_eq!(world.check("MAIN").await.status, 500);
    assert_eq!(world.check("MAIN").await.status, 500);
    assert_eq!(world.add(json!({"hardware_id": "hw-9"})).await.status, 503);
    let report = world.get("/stub/v1/faults").await;
    assert_eq!(
        (&report[0]["fired"], &report[1]["fired"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(report[1]["action"], json!({"status": 503}));
    world.order_faults(json!([])).await;
    assert_eq!(world.check("MAIN").await.total(), 1);
}

#[tokio::test]
async fn faults_that_cannot_be_are_refused_and_those_before_stay() {
    let world = struck_by(json!({"status": 503})).await;
    cannot_be_ordered(&world, json!({}), "invalid type").await;
    cannot_be_ordered(&world, json!([{}]), "missing field `action`").await;
    cannot_be_ordered(&world, json!([{"action": {"drop": "during"}}]), "during").await;
    let two = json!([{"action": {"garbage": true, "truncate": 1}}]);
    cannot_be_ordered(&world, two, "exactly one").await;
    let likely = json!([{"action": {"garbage": true}, "probability": 2}]);
    cannot_be_ordered(&world, likely, "probability").await;
    cannot_be_ordered(
        &world,
        json!([{"action": {"garbage": true}, "often": 1}]),
        "often",
    )
    .await;
    cannot_be_ordered(
        &world,
        json!([{"action": {"garbage": true}, "path": "/x"}]),
        "path",
    )
    .await;
    cannot_be_ordered(
        &world,
        json!([{"action": {"garbage": true}, "times": -1}]),
        "-1",
    )
    .await;
    assert_eq!(world.add(json!({})).await.status, 503);
}

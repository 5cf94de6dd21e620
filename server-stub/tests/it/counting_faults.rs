//! Faults that change what is counted: a request twice, late, or refused although it was applied; a store that forgets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ADD, CHECK, World, body, config, within};

async fn struck_by(action: Value) -> World {
    let world = World::start().await;
    order_once(&world, action).await;
    world
}

async fn order_once(world: &World, action: Value) {
    world
        .order_faults(json!([{"action": action, "times": 1}]))
        .await;
}

async fn keyless() -> World {
    let mut config = config(None);
    config.idempotency = false;
    World::with(config).await
}

async fn requests(world: &World) -> Vec<Value> {
    let requests = world.get("/stub/v1/requests").await;
    requests.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_duplicate_without_a_key_is_counted_twice_and_answered_once() {
    let world = struck_by(json!({"duplicate": true})).await;
    assert_eq!(world.add(json!({"consumptions": 3})).await.total(), 6);
    assert_eq!(world.total(1).await, 6);
    let seen = requests(&world).await;
    assert_eq!(seen.len(), 2, "both reached the server");
    assert!(seen.iter().all(|entry| entry["applied"] == true));
    assert!(
        seen.iter()
            .all(|entry| entry["fault"] == json!({"duplicate": true}))
    );
    assert_eq!(world.get("/stub/v1/faults").await[0]["fired"], 1);
}

#[tokio::test]
async fn a_duplicate_under_a_key_is_counted_once_by_a_server_that_keeps_keys() {
    let world = struck_by(json!({"duplicate": true})).await;
    let reply = world.add_keyed("k1", json!({"consumptions": 3})).await;
    assert_eq!(reply.header("Idempotency-Replayed"), Some("true"));
    assert_eq!((reply.total(), world.total(1).await), (3, 3));
    let world = keyless().await;
    order_once(&world, json!({"duplicate": true})).await;
    let reply = world.add_keyed("k1", json!({"consumptions": 3})).await;
    assert_eq!(reply.header("Idempotency-Key"), None);
    assert_eq!(reply.total(), 6);
}

#[tokio::test]
async fn the_second_answer_of_a_duplicate_can_be_a_refusal() {
    let world = struck_by(json!({"duplicate": true})).await;
    let reply = world.add(json!({"consumptions": 10})).await;
    assert_eq!(reply.code(), "license_not_enough_consumptions");
    assert_eq!(world.total(1).await, 10);
}

#[tokio::test]
async fn a_late_request_is_cut_off_and_applied_afterwards() {
    let world = struck_by(json!({"late_ms": 50})).await;
    assert_eq!(world.add_raw().await, "");
    world.reaches(1, 1).await;
    let landed = within(async {
        loop {
            let seen = requests(&world).await;
            if seen[0]["applied"] == true {
                return seen;
            }
        }
    });
    let landed = landed.await;
    assert_eq!((landed.len(), &landed[0]["status"]), (1, &json!(200)));
}

#[tokio::test]
async fn a_late_request_is_judged_when_it_arrives() {
    let world = struck_by(json!({"late_ms": 600_000})).await;
    assert_eq!(world.add_raw().await, "");
    assert_eq!(world.total(1).await, 0);
    assert_eq!(requests(&world).await[0]["applied"], false);

    order_once(&world, json!({"late_ms": 100})).await;
    assert_eq!(world.add_raw().await, "");
    world
        .put("/stub/v1/clock", &json!({"advance_seconds": 3600}))
        .await;
    let refused = within(async {
        loop {
            let seen = requests(&world).await;
            if seen[1]["code"] != json!(null) {
                return seen[1]["code"].clone();
            }
        }
    });
    assert_eq!(refused.await, "date_header_diff");
    assert_eq!(world.total(1).await, 0);
}

#[tokio::test]
async fn a_request_that_arrives_late_after_its_repetition_is_counted_once_under_its_key() {
    let world = struck_by(json!({"late_ms": 100})).await;
    world.add_keyed_unanswered("k1").await;
    assert_eq!(world.add_keyed("k1", json!({})).await.total(), 1);
    within(async { while requests(&world).await[0]["replayed"] != true {} }).await;
    assert_eq!(world.total(1).await, 1);
}

#[tokio::test]
async fn reads_are_answered_from_an_older_state_with_a_fresh_date() {
    let world = World::start().await;
    world.add(json!({"consumptions": 2})).await;
    world
        .put("/stub/v1/clock", &json!({"advance_seconds": 120}))
        .await;
    world.add(json!({"consumptions": 3})).await;
    let stale = json!([{"action": {"stale_ms": 60_000}, "times": 1}]);
    world.order_faults(stale).await;
    assert_eq!(
        world.add(json!({})).await.total(),
        6,
        "it strikes reads only"
    );
    let old = world.check("MAIN").await;
    assert_eq!(old.total(), 2);
    let fresh = world.check("MAIN").await;
    assert_eq!(fresh.total(), 6);
    let minute = |reply: &crate::world::Reply| reply.header("Date").unwrap()[..22].to_owned();
    assert_eq!(minute(&old)[..16], minute(&fresh)[..16]);
    assert_eq!(world.total(1).await, 6, "the state itself is as it was");
}

#[tokio::test]
async fn an_older_state_than_any_change_is_how_everything_began() {
    let world = World::start().await;
    world.add(json!({"consumptions": 2})).await;
    world
        .change_license(1, json!({"license_key": "MOVED"}))
        .await;
    order_once(&world, json!({"stale_ms": 3_600_000})).await;
    assert_eq!(world.check("MAIN").await.total(), 0);
    assert_eq!(world.check("MAIN").await.code(), "license_not_found");
}

#[tokio::test]
async fn a_request_can_be_applied_and_refused_all_the_same() {
    let world = struck_by(json!({"refuse_after": 429, "retry_after": 7})).await;
    let reply = world.add_keyed("k1", json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limited"));
    assert_eq!(reply.header("Retry-After"), Some("7"));
    assert_eq!(reply.header("Idempotency-Key"), None);
    assert_eq!(world.total(1).await, 1);
    assert_eq!(requests(&world).await[0]["applied"], true);

    let code = "license_not_enough_consumptions";
    order_once(&world, json!({"refuse_after": code})).await;
    let reply = world.add(json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, code));
    assert_eq!(reply.header("LicenseSignature"), None);
    assert_eq!(world.total(1).await, 2);
}

#[tokio::test]
async fn forgotten_keys_are_new_again() {
    let world = World::start().await;
    world.add_keyed("k1", json!({})).await;
    order_once(&world, json!({"forget_keys": true})).await;
    let again = world.add_keyed("k1", json!({})).await;
    assert_eq!(again.header("Idempotency-Replayed"), Some("false"));
    assert_eq!(again.total(), 2);
    let kept = world.add_keyed("k1", json!({})).await;
    assert_eq!(kept.header("Idempotency-Replayed"), Some("true"));
}

#[tokio::test]
async fn a_store_that_goes_back_has_neither_the_units_nor_the_keys_of_what_is_gone() {
    let world = World::start().await;
    world.add_keyed("k1", json!({"consumptions": 1})).await;
    world.add_keyed("k2", json!({"consumptions": 2})).await;
    world
        .change_license(1, json!({"max_consumptions": 99}))
        .await;
    world.add_keyed("k3", json!({"consumptions": 3})).await;
    order_once(&world, json!({"roll_back": 2})).await;
    assert_eq!(world.check("MAIN").await.total(), 1);
    let license = world.get("/stub/v1/licenses/1").await;
    assert_eq!(
        license["max_consumptions"], 10,
        "the edit in between is gone too"
    );
    let activity = world.get("/stub/v1/activity").await;
    assert_eq!(activity.as_array().unwrap().len(), 1);
    let first = world.add_keyed("k1", json!({"consumptions": 1})).await;
    assert_eq!(first.header("Idempotency-Replayed"), Some("true"));
    let second = world.add_keyed("k2", json!({"consumptions": 2})).await;
    assert_eq!(second.header("Idempotency-Replayed"), Some("false"));
    assert_eq!(second.total(), 3);
}

#[tokio::test]
async fn a_store_goes_back_no_further_than_its_beginning() {
    let world = World::start().await;
    world.add(json!({"consumptions": 4})).await;
    order_once(&world, json!({"roll_back": 10_000})).await;
    assert_eq!(world.add(json!({})).await.total(), 1);
}

#[tokio::test]
async fn a_black_hole_says_nothing_for_as_long_as_the_client_waits() {
    let world = struck_by(json!({"black_hole": true})).await;
    let request = world.signed(Method::POST, ADD).await;
    let request = request.body(body(json!({})).to_string());
    let sent = tokio::spawn(request.send());
    world.seen(1).await;
    assert!(!sent.is_finished());
    let entry = &requests(&world).await[0];
    assert_eq!(
        (&entry["status"], &entry["applied"]),
        (&json!(null), &json!(false))
    );
    assert_eq!(world.add(json!({})).await.total(), 1, "others are served");
    world.stub.shutdown().await;
    assert!(sent.await.unwrap().is_err(), "no answer came");
}

#[tokio::test]
async fn a_fault_meets_the_requests_of_its_application_only() {
    let world = World::start().await;
    let fault = json!([{"api_key": "other", "path": ADD, "action": {"status": 503}}]);
    world.order_faults(fault).await;
    assert_eq!(world.add(json!({})).await.total(), 1);
    let world = world.calling_as("other");
    assert_eq!(world.add(json!({})).await.status, 503);
    assert_eq!(world.get("/stub/v1/faults").await[0]["api_key"], "other");
    assert_eq!(requests(&world).await[1]["api_key"], "other");
}

#[tokio::test]
async fn a_fault_cannot_be_ordered_where_it_has_nothing_to_strike_or_its_number_is_out_of_bounds() {
    let world = World::start().await;
    let refused = async |fault: Value, named: &str| {
        let reply = world.put("/stub/v1/faults", &json!([fault])).await;
        assert_eq!(reply.code(), "validation_error", "{fault}");
        assert!(reply.body.contains(named), "{}", reply.body);
    };
    let nothing = "not what this action strikes";
    refused(
        json!({"path": CHECK, "action": {"duplicate": true}}),
        nothing,
    )
    .await;
    refused(json!({"path": ADD, "action": {"stale_ms": 5}}), nothing).await;
    refused(json!({"action": {"late_ms": 600_001}}), "late_ms").await;
    refused(json!({"action": {"stale_ms": 3_600_001}}), "stale_ms").await;
    refused(json!({"action": {"roll_back": 10_001}}), "roll_back").await;
    refused(json!({"action": {"refuse_after": "sorry"}}), "sorry").await;
    refused(json!({"action": {"refuse_after": 302}}), "refuse_after").await;
}

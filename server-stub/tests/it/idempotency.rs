//! `Idempotency-Key`: the first answer is replayed, and nothing is counted twice.

use reqwest::Method;
use serde_json::json;

use crate::world::{ADD, ADD_FEATURE, CHECK, World, body, config, send};

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_with_the_same_bytes_and_counted_once() {
    let world = World::start().await;
    let first = world.add_keyed("k1", json!({"consumptions": 3})).await;
    assert_eq!(first.header("Idempotency-Key"), Some("k1"));
    assert_eq!(first.header("Idempotency-Replayed"), Some("false"));
    world.add(json!({})).await;
    let again = world.add_keyed("k1", json!({"consumptions": 3})).await;
    assert_eq!(again.header("Idempotency-Key"), Some("k1"));
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    assert_eq!(
        again.header("LicenseSignature"),
        first.header("LicenseSignature")
    );
    assert_eq!(world.total(1).await, 4);
    assert_eq!(
        world
            .get("/stub/v1/activity")
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let world = World::start().await;
    world.add_keyed("k1", json!({})).await;
    let other_body = world.add_keyed("k1", json!({"consumptions": 2})).await;
    assert_eq!(other_body.status, 422);
    assert_eq!(other_body.code(), "idempotency_key_reused");
    assert_eq!(other_body.header("Idempotency-Key"), Some("k1"));
    assert_eq!(other_body.header("Idempotency-Replayed"), Some("false"));
    let other_path = world.signed(Method::POST, ADD_FEATURE).await;
    let other_path = other_path
        .header("Idempotency-Key", "k1")
        .body(body(json!({"feature": "export"})).to_string());
    assert_eq!(send(other_path).await.code(), "idempotency_key_reused");
    assert_eq!(world.total(1).await, 1);
}

#[tokio::test]
async fn the_keys_of_two_callers_have_nothing_to_do_with_each_other() {
    let world = World::start().await;
    world.add_keyed("k1", json!({})).await;
    let world = world.calling_as("other");
    assert_eq!(
        world
            .add_keyed("k1", json!({"consumptions": 2}))
            .await
            .total(),
        3
    );
}

#[tokio::test]
async fn a_refusal_of_the_contract_is_replayed_too() {
    let world = World::start().await;
    let first = world.add_keyed("k1", json!({"consumptions": 11})).await;
    assert_eq!(first.code(), "license_not_enough_consumptions");
    world
        .change_license(1, json!({"max_consumptions": 100}))
        .await;
    let again = world.add_keyed("k1", json!({"consumptions": 11})).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.status, 400);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
}

#[tokio::test]
async fn what_was_refused_for_its_headers_or_failed_can_be_sent_again() {
    let world = World::start().await.calling_as("nobody");
    assert_eq!(
        world.add_keyed("k1", json!({})).await.code(),
        "invalid_api_key"
    );
    let world = world.calling_as("key");
    world
        .order_faults(json!([{"action": {"status": 500}, "times": 1}]))
        .await;
    let failed = world.add_keyed("k1", json!({})).await;
    assert_eq!(failed.code(), "internal_error");
    assert_eq!(failed.header("Idempotency-Key"), None);
    let reply = world.add_keyed("k1", json!({})).await;
    assert_eq!(reply.header("Idempotency-Replayed"), Some("false"));
    assert_eq!(reply.total(), 1);
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_look_up_echoes_nothing_and_is_not_kept() {
    let world = World::start().await;
    let shape = world.add_keyed("k1", json!({"surprise": 1})).await;
    assert_eq!(shape.code(), "validation_error");
    let json = world.signed(Method::POST, ADD).await;
    let json = send(json.header("Idempotency-Key", "k1").body("{")).await;
    assert_eq!(json.code(), "invalid_json");
    let rights = World::start().await.calling_as("reader");
    let rights = rights.add_keyed("k1", json!({})).await;
    assert_eq!(rights.code(), "read_only_api_key");
    for reply in [shape, json, rights] {
        assert_eq!(reply.header("Idempotency-Key"), None, "{}", reply.body);
        assert_eq!(reply.header("Idempotency-Replayed"), None);
    }
    assert_eq!(world.add_keyed("k1", json!({})).await.total(), 1);
}

#[tokio::test]
async fn a_refusal_that_comes_after_the_look_up_says_that_the_key_is_new() {
    let world = World::start().await;
    let reply = world.add_keyed("k1", json!({"consumptions": 11})).await;
    assert_eq!(reply.code(), "license_not_enough_consumptions");
    assert_eq!(reply.header("Idempotency-Key"), Some("k1"));
    assert_eq!(reply.header("Idempotency-Replayed"), Some("false"));
}

#[tokio::test]
async fn keys_are_switched_off_and_on_while_the_stub_runs() {
    let world = World::start().await;
    assert_eq!(world.add_keyed("k1", json!({})).await.total(), 1);
    let off = world
        .put("/stub/v1/idempotency", &json!({"enabled": false}))
        .await;
    assert_eq!(off.json(), json!({"enabled": false}));
    assert_eq!(world.get("/stub/v1/about").await["idempotency"], false);
    let unkeyed = world.add_keyed("k1", json!({})).await;
    assert_eq!(
        (unkeyed.header("Idempotency-Key"), unkeyed.total()),
        (None, 2)
    );
    let on = json!({"enabled": true});
    world.put("/stub/v1/idempotency", &on).await;
    assert_eq!(world.get("/stub/v1/idempotency").await, on);
    let known = world.add_keyed("k1", json!({})).await;
    assert_eq!(known.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(known.total(), 1, "what was kept stays kept");
    let wrong = world.put("/stub/v1/idempotency", &json!({})).await;
    assert_eq!(wrong.code(), "validation_error");
}

#[tokio::test]
async fn a_request_that_is_still_running_is_in_the_way_of_its_repetition() {
    let world = World::start().await;
    world
        .order_faults(json!([{"action": {"delay_ms": 600_000}, "times": 1}]))
        .await;
    let held = world.signed(Method::POST, crate::world::ADD).await;
    let held = held
        .header("Idempotency-Key", "k1")
        .body(body(json!({})).to_string());
    let held = tokio::spawn(send(held));
    world.seen(1).await;

    let again = world.add_keyed("k1", json!({})).await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (409, "idempotency_key_in_use")
    );
    assert_eq!(again.header("Idempotency-Key"), Some("k1"));
    assert_eq!(again.header("Idempotency-Replayed"), Some("false"));
    let other = world.add_keyed("k1", json!({"consumptions": 2})).await;
    assert_eq!(other.status, 422);
    assert_eq!(
        world.total(1).await,
        1,
        "it is applied, and its answer is late"
    );

    world.stub.shutdown().await;
    assert_eq!(
        held.await.unwrap().total(),
        1,
        "a stub that stops answers what it holds"
    );
}

#[tokio::test]
async fn reading_echoes_the_key_and_keeps_nothing() {
    let world = World::start().await;
    let query = format!("{CHECK}?license_key=MAIN&product=demo&hardware_id=hw-1");
    let read = async || {
        let request = world.signed(Method::GET, &query).await;
        send(request.header("Idempotency-Key", "k1")).await
    };
    assert_eq!(read().await.total(), 0);
    world.add(json!({})).await;
    let reply = read().await;
    assert_eq!(reply.total(), 1);
    assert_eq!(reply.header("Idempotency-Key"), Some("k1"));
    assert_eq!(reply.header("Idempotency-Replayed"), None);
}

#[tokio::test]
async fn a_key_that_is_empty_or_too_long_is_refused() {
    let world = World::start().await;
    assert_eq!(
        world.add_keyed("", json!({})).await.code(),
        "validation_error"
    );
    let long = world.add_keyed(&"k".repeat(256), json!({})).await;
    assert_eq!(long.code(), "validation_error");
    assert_eq!(
        world.add_keyed(&"k".repeat(255), json!({})).await.total(),
        1
    );
}

#[tokio::test]
async fn a_server_without_idempotency_counts_again_and_echoes_nothing() {
    let mut config = config(None);
    config.idempotency = false;
    let world = World::with(config).await;
    assert_eq!(world.add_keyed("k1", json!({})).await.total(), 1);
    let again = world.add_keyed("k1", json!({})).await;
    assert_eq!(again.total(), 2);
    assert_eq!(again.header("Idempotency-Key"), None);
    assert_eq!(again.header("Idempotency-Replayed"), None);
}

//! What a granted request does: totals, limits, periods, answers and their signatures.

use serde_json::{Value, json};
use tally_shared::wire::Subject;

use crate::world::{Reply, World, seed};

#[track_caller]
fn is_signed(world: &World, reply: &Reply) {
    let signature = reply.header("LicenseSignature").unwrap();
    assert!(world.verifier().verify(reply.body.as_bytes(), signature));
}

#[tokio::test]
async fn the_answer_is_compact_json_in_the_contracts_order() {
    let world = World::start().await;
    let reply = world.add(json!({"consumptions": 3})).await;
    assert_eq!(
        reply.body,
        r#"{"id":1,"max_consumptions":10,"total_consumptions":3,"allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,"reset_consumption":false,"consumption_period":null}"#
    );
    let reply = world.add_feature(json!({"feature": "export"})).await;
    assert_eq!(
        reply.body,
        r#"{"id":1,"code":"export","name":"Export","feature_type":"consumption","max_consumption":5,"total_consumptions":1,"allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,"reset_consumption":false,"consumption_period":null}"#
    );
}

#[tokio::test]
async fn every_200_is_signed_over_its_exact_bytes() {
    let world = World::start().await;
    is_signed(&world, &world.add(json!({})).await);
    is_signed(
        &world,
        &world.add_feature(json!({"feature": "export"})).await,
    );
    is_signed(&world, &world.check("MAIN").await);
    let refused = world.add(json!({"consumptions": 99})).await;
    assert_eq!(refused.header("LicenseSignature"), None);
}

#[tokio::test]
async fn check_license_answers_the_whole_licence_and_changes_nothing() {
    let world = World::start().await;
    world.add(json!({"consumptions": 4})).await;
    let body = world.check("MAIN").await.json();
    assert_eq!(body["total_consumptions"], 4);
    assert_eq!(body["license_active"], true);
    assert_eq!(body["product_features"][0]["code"], "export");
    assert_eq!(body["product_features"][1]["feature_type"], "activation");
    assert_eq!(world.total(1).await, 4);
}

#[tokio::test]
async fn the_older_signature_covers_device_holder_and_validity() {
    let world = World::start().await;
    let body = world.check("GRACE").await.json();
    assert_eq!(body["validity_period"], "2030-01-01T00:00:00.000Z");
    let subject = Subject::by_key("demo", "GRACE", "hw-1");
    let validity = serde_json::from_value(body["validity_period"].clone()).unwrap();
    let signature = body["license_signature"].as_str().unwrap();
    assert!(
        world
            .verifier()
            .verify_license(&subject, Some(validity), signature)
    );
}

#[tokio::test]
async fn a_refused_request_changes_nothing() {
    let world = World::start().await;
    world.add(json!({"consumptions": 8})).await;
    let before = world.get("/stub/v1/licenses").await;
    let much = json!({"consumptions": 5, "allow_overages": true, "max_overages": 1});
    assert_eq!(
        world.add(much).await.code(),
        "license_not_enough_consumptions"
    );
    assert_eq!(world.get("/stub/v1/licenses").await, before);
    assert_eq!(
        world
            .get("/stub/v1/activity")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_overage_setting_counts_at_once_and_stays() {
    let world = World::start().await;
    let set = json!({"consumptions": 12, "allow_overages": "true", "max_overages": "3"});
    assert_eq!(world.add(set).await.json()["max_overages"], 3);
    assert_eq!(world.add(json!({})).await.total(), 13);
    assert_eq!(
        world.add(json!({})).await.code(),
        "license_not_enough_consumptions"
    );
    let back = world
        .add(json!({"consumptions": 0, "allow_overages": 0}))
        .await;
    assert_eq!(back.json()["allow_overages"], false);
    assert_eq!(back.total(), 13);
}

#[tokio::test]
async fn negative_units_lower_the_total_below_zero_where_they_are_allowed() {
    let world = World::start().await;
    world
        .change_license(1, json!({"allow_negative_consumptions": true}))
        .await;
    assert_eq!(world.add(json!({"consumptions": -4})).await.total(), -4);
    assert_eq!(world.add(json!({"consumptions": 14})).await.total(), 10);
}

#[tokio::test]
async fn a_total_that_does_not_fit_in_64_bits_is_refused() {
    let world = World::start().await;
    let full = json!({"allow_unlimited_consumptions": true, "total_consumptions": i64::MAX});
    world.change_license(1, full).await;
    assert_eq!(world.add(json!({})).await.code(), "validation_error");
    assert_eq!(world.total(1).await, i64::MAX);
}

#[tokio::test]
async fn totals_return_to_zero_when_their_period_turns() {
    let world = World::start().await;
    world.set_clock("2031-01-30T23:50:00Z").await;
    let licence = json!({"license_key": "DAILY", "consumptions": 10});
    let feature = json!({"license_key": "DAILY", "feature": "export", "consumptions": 5});
    assert_eq!(world.add(licence.clone()).await.total(), 10);
    assert_eq!(world.add_feature(feature).await.total(), 5);
    let one = json!({"license_key": "DAILY"});
    assert_eq!(
        world.add(one.clone()).await.code(),
        "license_not_enough_consumptions"
    );

    world.set_clock("2031-01-31T00:00:00Z").await;
    assert_eq!(world.check("DAILY").await.total(), 0, "a new day");
    assert_eq!(world.total(2).await, 0);
    assert_eq!(world.add(one).await.total(), 1);
    let more = json!({"license_key": "DAILY", "feature": "export"});
    let reply = world.add_feature(more.clone()).await;
    assert_eq!(
        reply.code(),
        "feature_not_enough_consumptions",
        "the same month"
    );

    world.set_clock("2031-02-01T00:00:00Z").await;
    assert_eq!(world.add_feature(more).await.total(), 1, "a new month");
}

#[tokio::test]
async fn the_activity_log_records_each_granted_request_as_its_event() {
    let world = World::start().await;
    world.add(json!({"consumptions": 2})).await;
    world
        .add(json!({"event": ["offline_floating_consumptions_sync"]}))
        .await;
    world.add_feature(json!({"feature": "export"})).await;
    world.add(json!({"license_key": "DAILY"})).await;
    world.add(json!({"consumptions": 99})).await;

    let of_main = world.get("/stub/v1/activity?license_id=1").await;
    let shown = |row: &Value| {
        assert_eq!(row["hardware_id"], "hw-1");
        (
            row["event"].clone(),
            row["feature"].clone(),
            row["units"].clone(),
            row["total"].clone(),
        )
    };
    let rows: Vec<_> = of_main.as_array().unwrap().iter().map(shown).collect();
    let sync = "offline_floating_consumptions_sync";
    let expected = [
        (json!("consumption_add"), json!(null), json!(2), json!(2)),
        (json!(sync), json!(null), json!(1), json!(3)),
        (
            json!("consumption_add"),
            json!("export"),
            json!(1),
            json!(1),
        ),
    ];
    assert_eq!(rows, expected);
    assert_eq!(
        world
            .get("/stub/v1/activity")
            .await
            .as_array()
            .unwrap()
            .len(),
        4
    );
}

#[tokio::test]
async fn concurrent_requests_are_each_counted_once() {
    let world = World::start().await;
    let add = async || world.add(json!({})).await.status;
    let statuses = tokio::join!(add(), add(), add(), add(), add(), add(), add(), add());
    assert_eq!(statuses, (200, 200, 200, 200, 200, 200, 200, 200));
    assert_eq!(world.total(1).await, 8);
}

/// Every vector of the limit rule, as a licence and a request of its own.
#[tokio::test]
async fn the_limit_vectors_hold_over_http() {
    let vectors = include_str!("../../../shared/tests/vectors/limits.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let world = World::start().await;
    for vector in vectors {
        check(&world, &vector).await;
    }
}

async fn check(world: &World, vector: &Value) {
    let mut license = seed()["licenses"][0].clone();
    license["total_consumptions"] = vector["total"].clone();
    for (name, value) in vector["policy"].as_object().unwrap() {
        license[name] = value.clone();
    }
    let stored = world.put("/stub/v1/licenses/1", &license).await;
    assert_eq!(stored.status, 200, "{}", stored.body);
    let reply = world.add(vector["request"].clone()).await;
    let expected = &vector["expect"];
    if expected["granted"] == true {
        let body = reply.json();
        assert_eq!(body["total_consumptions"], expected["total"], "{vector}");
        assert_eq!(
            body["allow_overages"], expected["allow_overages"],
            "{vector}"
        );
        assert_eq!(body["max_overages"], expected["max_overages"], "{vector}");
    } else {
        assert_eq!(reply.code(), expected["error"], "{vector}");
    }
}

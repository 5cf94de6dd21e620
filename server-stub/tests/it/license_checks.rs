//! Body, product, licence, device: each refusal of the contract, and their order.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ADD, CHECK, World, body, send};

async fn raw(world: &World, body: impl Into<String>) -> String {
    let request = world.signed(Method::POST, ADD).await;
    send(request.body(body.into())).await.code()
}

async fn does_not_conform(world: &World, fields: Value, named: &str) {
    let reply = world.add(fields).await;
    assert_eq!(reply.code(), "validation_error");
    assert!(reply.body.contains(named), "{}", reply.body);
}

#[tokio::test]
async fn what_is_not_json_is_told_from_what_is_not_the_contracts_json() {
    let world = World::start().await;
    assert_eq!(raw(&world, "{").await, "invalid_json");
    assert_eq!(raw(&world, "").await, "invalid_json");
    assert_eq!(raw(&world, "[]").await, "validation_error");
    assert_eq!(raw(&world, "{}").await, "missing_parameters");
}

#[tokio::test]
async fn all_missing_fields_are_listed() {
    let world = World::start().await;
    let reply = world
        .add(json!({"license_key": null, "hardware_id": null}))
        .await;
    assert_eq!(reply.code(), "missing_parameters");
    let message = "missing: license_key or username, hardware_id";
    assert!(reply.body.contains(message), "{}", reply.body);
}

#[tokio::test]
async fn fields_that_do_not_conform_are_named() {
    let world = World::start().await;
    does_not_conform(&world, json!({"consumptions": 1.5}), "consumptions").await;
    does_not_conform(&world, json!({"consumptions": "1"}), "consumptions").await;
    does_not_conform(&world, json!({"surprise": 1}), "surprise").await;
    does_not_conform(&world, json!({"event": ["other"]}), "event").await;
    does_not_conform(&world, json!({"event": []}), "event").await;
    does_not_conform(&world, json!({"username": "ann"}), "exclude each other").await;
    does_not_conform(&world, json!({"max_overages": -1}), "max_overages").await;
    does_not_conform(&world, json!({"allow_overages": 2}), "allow_overages").await;
    does_not_conform(&world, json!({"license_id": "x"}), "license_id").await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_as_not_conforming() {
    let world = World::start().await;
    let padded = |length: usize| {
        let body = body(json!({"app_ver": "x"})).to_string();
        format!("{}{body}", " ".repeat(length - body.len()))
    };
    assert_eq!(raw(&world, padded(64 * 1024 + 1)).await, "validation_error");
    assert_eq!(raw(&world, padded(1024 * 1024)).await, "validation_error");
    let request = world
        .signed(Method::POST, ADD)
        .await
        .body(padded(64 * 1024));
    assert_eq!(send(request).await.total(), 1);
}

#[tokio::test]
async fn product_and_licence_must_exist() {
    let world = World::start().await;
    let code = async |fields: Value| world.add(fields).await.code();
    assert_eq!(code(json!({"product": "nope"})).await, "unknown_product");
    assert_eq!(code(json!({"product": "empty"})).await, "license_not_found");
    assert_eq!(
        code(json!({"license_key": "NOPE"})).await,
        "license_not_found"
    );
    assert_eq!(code(json!({"license_id": 2})).await, "license_not_found");
    let nobody = json!({"license_key": null, "username": "bob"});
    assert_eq!(code(nobody).await, "license_not_found");
}

#[tokio::test]
async fn of_a_users_licences_the_first_is_meant_unless_one_is_named() {
    let world = World::start().await;
    let ann = json!({"license_key": null, "username": "ann"});
    assert_eq!(world.add(ann).await.json()["id"], 4);
    let second = json!({"license_key": null, "username": "ann", "license_id": "5"});
    assert_eq!(world.add(second).await.json()["id"], 5);
    let other = json!({"license_key": null, "username": "ann", "license_id": 1});
    assert_eq!(world.add(other).await.code(), "license_not_found");
}

#[tokio::test]
async fn everything_wrong_at_once_is_refused_in_the_contracts_order() {
    let world = World::start().await;
    let everything_wrong = json!({
        "license_enabled": false, "license_active": false, "license_type": "perpetual",
        "validity_period": "2020-01-01T00:00:00Z", "max_consumptions": 0,
    });
    world.change_license(1, everything_wrong).await;
    let request = async |fields: Value| world.add(fields).await.code();
    let bad = async || request(json!({"hardware_id": "hw-bad", "consumptions": -1})).await;

    let unknown = json!({"product": "x", "license_key": "x", "consumptions": "x"});
    assert_eq!(request(unknown).await, "validation_error");
    let unknown = json!({"product": "x", "license_key": "x"});
    assert_eq!(request(unknown).await, "unknown_product");
    assert_eq!(
        request(json!({"license_key": "x"})).await,
        "license_not_found"
    );
    assert_eq!(bad().await, "license_not_enabled");
    world
        .change_license(1, json!({"license_enabled": true}))
        .await;
    assert_eq!(bad().await, "license_not_active");
    world
        .change_license(1, json!({"license_active": true}))
        .await;
    assert_eq!(bad().await, "license_expired");
    world
        .change_license(1, json!({"validity_period": null}))
        .await;
    assert_eq!(bad().await, "license_not_consumption");
    world
        .change_license(1, json!({"license_type": "consumption"}))
        .await;
    assert_eq!(bad().await, "blacklisted");
    assert_eq!(
        request(json!({"hardware_id": "hw-off"})).await,
        "device_not_found"
    );
    assert_eq!(
        request(json!({"hardware_id": "hw-9"})).await,
        "device_not_found"
    );
    assert_eq!(
        request(json!({"consumptions": -1})).await,
        "negative_consumptions_not_allowed"
    );
    assert_eq!(request(json!({})).await, "license_not_enough_consumptions");
    world
        .change_license(1, json!({"max_consumptions": 1}))
        .await;
    assert_eq!(world.add(json!({})).await.total(), 1);
}

#[tokio::test]
async fn a_licence_without_an_active_device_is_not_active() {
    let world = World::start().await;
    let devices = json!({"devices": [{"hardware_id": "hw-bad", "state": "blacklisted"}]});
    world.change_license(1, devices).await;
    let reply = world.add(json!({"hardware_id": "hw-bad"})).await;
    assert_eq!(reply.code(), "license_not_active");
}

#[tokio::test]
async fn a_licence_in_its_grace_period_is_expired_and_goes_on() {
    let world = World::start().await;
    world.set_clock("2029-12-31T23:00:00Z").await;
    assert_eq!(world.check("GRACE").await.json()["is_expired"], false);
    world.set_clock("2030-01-01T12:00:00Z").await;
    assert_eq!(world.check("GRACE").await.json()["is_expired"], true);
    assert_eq!(world.add(json!({"license_key": "GRACE"})).await.total(), 1);
    world.set_clock("2030-01-02T00:00:00Z").await;
    assert_eq!(world.check("GRACE").await.code(), "license_expired");
    let reply = world.add(json!({"license_key": "GRACE"})).await;
    assert_eq!(reply.code(), "license_expired");
}

#[tokio::test]
async fn a_feature_must_be_one_that_is_consumed() {
    let world = World::start().await;
    let code = async |fields: Value| world.add_feature(fields).await.code();
    assert_eq!(code(json!({})).await, "missing_parameters");
    assert_eq!(
        code(json!({"feature": "nope"})).await,
        "unsupported_product_feature"
    );
    assert_eq!(
        code(json!({"feature": "dark-mode"})).await,
        "unsupported_product_feature"
    );
    let setting = json!({"feature": "export", "allow_overages": true});
    assert_eq!(code(setting).await, "validation_error");
    let both = json!({"feature": "nope", "hardware_id": "hw-bad"});
    assert_eq!(code(both).await, "blacklisted", "the device comes first");
    let much = json!({"feature": "export", "consumptions": 6});
    assert_eq!(code(much).await, "feature_not_enough_consumptions");
    let negative = json!({"feature": "export", "consumptions": -1});
    assert_eq!(code(negative).await, "negative_consumptions_not_allowed");
}

#[tokio::test]
async fn a_licence_of_any_type_is_read_and_its_features_consumed() {
    let world = World::start().await;
    assert_eq!(
        world.check("PERPETUAL").await.json()["license_type"],
        "perpetual"
    );
    let feature = json!({"license_key": "PERPETUAL", "feature": "export"});
    assert_eq!(world.add_feature(feature).await.total(), 1);
    let reply = world.add(json!({"license_key": "PERPETUAL"})).await;
    assert_eq!(reply.code(), "license_not_consumption");
}

#[tokio::test]
async fn check_license_refuses_what_the_others_refuse() {
    let world = World::start().await;
    let code = async |query: &str| {
        let request = world.signed(Method::GET, &format!("{CHECK}?{query}")).await;
        send(request).await.code()
    };
    assert_eq!(code("product=demo").await, "missing_parameters");
    let rest = "product=demo&hardware_id=hw-1";
    assert_eq!(
        code(&format!("license_key=MAIN&x=1&{rest}")).await,
        "validation_error"
    );
    assert_eq!(
        code(&format!("license_key=NOPE&{rest}")).await,
        "license_not_found"
    );
    let device = "license_key=MAIN&product=demo&hardware_id=hw-bad";
    assert_eq!(code(device).await, "blacklisted");
}

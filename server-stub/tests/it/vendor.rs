//! Edits of licences and callers by a vendor, while clients run.

use reqwest::Method;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_user_of_several_licences_is_taken_to_the_first_on_which_the_device_is_active() {
    let world = World::start().await;
    let by_name = json!({"license_key": null, "username": "ann"});
    assert_eq!(world.add(by_name.clone()).await.json()["id"], 4);
    let other = json!([{"hardware_id": "hw-9"}]);
    world.change_license(4, json!({"devices": other})).await;
    assert_eq!(world.add(by_name).await.json()["id"], 5);
    let of = |id| json!({"license_key": null, "username": "ann", "license_id": id});
    assert_eq!(world.add(of(4)).await.code(), "device_not_found");
    assert_eq!(world.add(of(5)).await.json()["id"], 5);
    assert_eq!(world.add(of(1)).await.code(), "license_not_found");
    let nowhere = json!({"license_key": null, "username": "ann", "hardware_id": "hw-x"});
    assert_eq!(world.add(nowhere).await.code(), "device_not_found");
    let read = world.check_with("username=ann&hardware_id=hw-1").await;
    assert_eq!(read.json()["id"], 5);
}

#[tokio::test]
async fn a_key_is_moved_to_another_licence() {
    let world = World::start().await;
    let license = world.order(Method::DELETE, "/stub/v1/licenses/1").await;
    assert_eq!(license.json()["license_key"], "MAIN");
    assert_eq!(world.add(json!({})).await.code(), "license_not_found");
    let moved = json!({"product": "demo", "license_key": "MAIN", "max_consumptions": 10,
        "devices": [{"hardware_id": "hw-1"}]});
    world.put("/stub/v1/licenses/70", &moved).await;
    assert_eq!(world.add(json!({})).await.json()["id"], 70);
    let gone = world.order(Method::DELETE, "/stub/v1/licenses/1").await;
    assert_eq!(gone.code(), "not_found");
}

#[tokio::test]
async fn a_feature_is_taken_off_and_types_change() {
    let world = World::start().await;
    let feature = json!({"feature": "export"});
    assert_eq!(world.add_feature(feature.clone()).await.status, 200);
    let activation = json!([{"code": "export", "feature_type": "activation"}]);
    world
        .change_license(1, json!({"features": activation}))
        .await;
    let refused = world.add_feature(feature.clone()).await;
    assert_eq!(refused.code(), "unsupported_product_feature");
    world.change_license(1, json!({"features": []})).await;
    let refused = world.add_feature(feature).await;
    assert_eq!(refused.code(), "unsupported_product_feature");
    world
        .change_license(1, json!({"license_type": "perpetual"}))
        .await;
    assert_eq!(world.add(json!({})).await.code(), "license_not_consumption");
}

#[tokio::test]
async fn a_pool_limits_all_its_licences_and_stands_in_their_answers() {
    let world = World::start().await;
    let pool = json!({"id": 3, "name": "Fleet", "max_consumptions": 6});
    world.change_license(1, json!({"pool": pool})).await;
    world.change_license(2, json!({"pool": pool})).await;
    let first = world.add(json!({"consumptions": 4})).await.json();
    assert_eq!(first["pool"]["total_consumptions"], 4);
    assert_eq!(
        (&first["id"], &first["pool"]["name"]),
        (&json!(1), &json!("Fleet"))
    );
    let of_other = |units| json!({"license_key": "DAILY", "consumptions": units});
    let refused = world.add(of_other(3)).await;
    assert_eq!(refused.code(), "license_not_enough_consumptions");
    assert_eq!(world.total(2).await, 0, "a refusal changes nothing");
    let fits = world.add(of_other(2)).await.json();
    assert_eq!(
        (
            &fits["total_consumptions"],
            &fits["pool"]["total_consumptions"]
        ),
        (&json!(2), &json!(6))
    );
    assert_eq!(
        world.check("MAIN").await.json()["pool"]["total_consumptions"],
        6
    );
    assert_eq!(world.add(json!({"consumptions": 0})).await.status, 200);
    let wider = json!({"id": 3, "name": "Fleet", "max_consumptions": 7, "total_consumptions": 6});
    world.change_license(1, json!({"pool": wider})).await;
    assert_eq!(
        world.add(of_other(1)).await.status,
        200,
        "an edit is of all its licences"
    );
    let none = world.add(json!({"license_key": "GRACE"})).await;
    assert!(none.json().get("pool").is_none());
}

#[tokio::test]
async fn a_key_pair_is_added_changed_revoked_and_removed() {
    let world = World::start().await.calling_as("second");
    assert_eq!(world.add(json!({})).await.code(), "invalid_api_key");
    let path = "/stub/v1/api_keys/second";
    let secretless = world.put(path, &json!({})).await;
    assert_eq!(secretless.code(), "validation_error");
    world.put(path, &json!({"shared_key": "secret"})).await;
    assert_eq!(world.add(json!({})).await.total(), 1);
    world.put(path, &json!({"state": "revoked"})).await;
    assert_eq!(world.add(json!({})).await.code(), "revoked_api_key");
    world.put(path, &json!({"state": "active"})).await;
    assert_eq!(world.add(json!({})).await.total(), 2, "the secret stays");
    world.put(path, &json!({"shared_key": "another"})).await;
    assert_eq!(world.add(json!({})).await.code(), "signature_mismatch");
    assert_eq!(world.get(path).await["shared_key"], "another");
    let left = world.order(Method::DELETE, path).await.json();
    assert_eq!(left, world.get("/stub/v1/api_keys").await);
    assert_eq!(world.add(json!({})).await.code(), "invalid_api_key");
    assert_eq!(world.order(Method::DELETE, path).await.code(), "not_found");
}

#[tokio::test]
async fn the_keys_of_a_revoked_pair_are_not_those_of_the_next() {
    let world = World::start().await;
    world.add_keyed("k1", json!({})).await;
    world
        .put("/stub/v1/api_keys/next", &json!({"shared_key": "secret"}))
        .await;
    world
        .put("/stub/v1/api_keys/key", &json!({"state": "revoked"}))
        .await;
    let world = world.calling_as("next");
    let again = world.add_keyed("k1", json!({})).await;
    assert_eq!(again.header("Idempotency-Replayed"), Some("false"));
    assert_eq!(again.total(), 2);
}

//! The control surface: clock, licences, requests.

use reqwest::Method;
use serde_json::json;

use crate::world::{World, send};

#[tokio::test]
async fn the_clock_is_read_set_and_advanced() {
    let world = World::start().await;
    assert_eq!(world.get("/stub/v1/clock").await["offset_ms"], 0);
    world.set_clock("2031-05-05T12:00:00Z").await;
    let year = async || {
        let clock = world.get("/stub/v1/clock").await;
        clock["now"].as_str().unwrap()[..10].to_owned()
    };
    assert_eq!(year().await, "2031-05-05");
    let advance = world.unsigned(Method::POST, "/stub/v1/clock/advance");
    send(advance.body(r#"{"seconds": 86400}"#)).await;
    assert_eq!(year().await, "2031-05-06");
    world
        .put("/stub/v1/clock", &json!({"advance_seconds": 86400}))
        .await;
    assert_eq!(year().await, "2031-05-07");
    world
        .put("/stub/v1/clock", &json!({"advance_ms": -86_400_000}))
        .await;
    assert_eq!(year().await, "2031-05-06");
}

#[tokio::test]
async fn a_clock_change_must_be_one_thing() {
    let world = World::start().await;
    let code = async |body| world.put("/stub/v1/clock", &body).await.code();
    assert_eq!(code(json!({})).await, "validation_error");
    let both = json!({"now": "2031-01-01", "advance_ms": 1});
    assert_eq!(code(both).await, "validation_error");
    assert_eq!(code(json!({"now": "soon"})).await, "validation_error");
    assert_eq!(code(json!({"later": 1})).await, "validation_error");
}

#[tokio::test]
async fn every_answer_carries_the_stubs_date() {
    let world = World::start().await;
    world.set_clock("2031-05-05T12:00:00Z").await;
    let date = |reply: crate::world::Reply| reply.header("Date").unwrap()[..16].to_owned();
    let day = "Mon, 05 May 2031";
    assert_eq!(date(world.add(json!({})).await), day);
    assert_eq!(date(world.add(json!({"consumptions": 99})).await), day);
    assert_eq!(
        date(send(world.unsigned(Method::GET, "/nowhere")).await),
        day
    );
    assert_eq!(
        date(send(world.unsigned(Method::GET, "/healthz")).await),
        day
    );
}

#[tokio::test]
async fn a_licence_is_shown_as_the_seed_has_it_with_its_current_total() {
    let world = World::start().await;
    world.add(json!({"consumptions": 4})).await;
    let license = world.get("/stub/v1/licenses/1").await;
    assert_eq!(license["license_key"], "MAIN");
    assert_eq!(license["total_consumptions"], 4);
    assert_eq!(license["devices"][2]["state"], "blacklisted");
    assert_eq!(license.get("username"), None);
    assert_eq!(world.get("/stub/v1/licenses").await[0], license);
    let reply = world.put("/stub/v1/licenses/1", &license).await;
    assert_eq!(reply.json(), license, "what is shown can be put back");
}

#[tokio::test]
async fn a_licence_that_does_not_fit_in_is_refused() {
    let world = World::start().await;
    let license = world.get("/stub/v1/licenses/1").await;
    let put = async |field: &str, value| {
        let mut changed = license.clone();
        changed[field] = value;
        world.put("/stub/v1/licenses/1", &changed).await.code()
    };
    assert_eq!(put("id", json!(2)).await, "validation_error");
    assert_eq!(put("product", json!("nope")).await, "validation_error");
    assert_eq!(put("username", json!("ann")).await, "validation_error");
    assert_eq!(put("license_key", json!("DAILY")).await, "validation_error");
    assert_eq!(put("max_overages", json!(-1)).await, "validation_error");
    assert_eq!(put("surprise", json!(1)).await, "validation_error");
    assert_eq!(world.get("/stub/v1/licenses/1").await, license);
    let missing = send(world.unsigned(Method::GET, "/stub/v1/licenses/99")).await;
    assert_eq!(missing.code(), "not_found");
}

#[tokio::test]
async fn a_licence_can_be_added_and_its_features_get_ids() {
    let world = World::start().await;
    let license = json!({"product": "demo", "license_key": "NEW", "max_consumptions": 1,
        "devices": [{"hardware_id": "hw-1"}], "features": [{"code": "export"}]});
    let stored = world.put("/stub/v1/licenses/9", &license).await.json();
    assert_eq!(
        (&stored["id"], &stored["features"][0]["id"]),
        (&json!(9), &json!(5))
    );
    assert_eq!(world.add(json!({"license_key": "NEW"})).await.total(), 1);
}

#[tokio::test]
async fn the_requests_are_shown_with_what_was_answered() {
    let world = World::start().await;
    world.add_keyed("k1", json!({})).await;
    world.add_keyed("k1", json!({})).await;
    world.add(json!({"hardware_id": "hw-9"})).await;
    world.check("MAIN").await;
    let requests = world.get("/stub/v1/requests").await;
    let of = |field: &str| -> Vec<_> {
        let entries = requests.as_array().unwrap().iter();
        entries.map(|entry| entry[field].clone()).collect()
    };
    assert_eq!(of("seq"), [1, 2, 3, 4]);
    assert_eq!(of("status"), [200, 200, 400, 200]);
    assert_eq!(of("applied"), [true, false, false, false]);
    assert_eq!(of("replayed"), [false, true, false, false]);
    assert_eq!(
        of("idempotency_key"),
        [json!("k1"), json!("k1"), json!(null), json!(null)]
    );
    assert_eq!(of("hardware_id"), ["hw-1", "hw-1", "hw-9", "hw-1"]);
    assert_eq!(requests[2]["code"], "device_not_found");
    assert_eq!(requests[2]["body"]["product"], "demo");
    assert_eq!(requests[3]["answer"]["license_type"], "consumption");
    send(world.unsigned(Method::DELETE, "/stub/v1/requests")).await;
    assert_eq!(world.get("/stub/v1/requests").await, json!([]));
}

#[tokio::test]
async fn the_public_key_is_served_as_pem() {
    let world = World::start().await;
    let reply = send(world.unsigned(Method::GET, "/stub/v1/public_key")).await;
    assert_eq!(reply.body, world.stub.public_key());
    assert!(reply.body.starts_with("-----BEGIN PUBLIC KEY-----"));
}

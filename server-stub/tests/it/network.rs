//! The states of the network: what clients see, and that testers always get through.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tally_server_stub::StubConfig;

use crate::world::{World, config, send, within};

async fn set(world: &World, state: Value) -> Value {
    let reply = world.put("/stub/v1/network", &state).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

/// A stub whose control surface has an address of its own.
async fn with_two_doors() -> World {
    let plain = config(None);
    let world = World::with(StubConfig {
        control: Some(plain.listen),
        ..plain
    });
    world.await
}

#[tokio::test]
async fn what_is_gone_loses_requests_and_testers_get_through() {
    let world = World::start().await;
    let report = set(&world, json!({"state": "gone"})).await;
    assert_eq!(
        report,
        json!({"state": "gone", "reachable": false, "affected": 0})
    );
    assert_eq!(world.try_add().await, None);
    assert_eq!(world.total(1).await, 0);
    let seen = world.get("/stub/v1/requests").await;
    assert_eq!(
        (&seen[0]["network"], &seen[0]["status"]),
        (&json!("gone"), &json!(null))
    );
    assert_eq!(world.get("/stub/v1/network").await["affected"], 1);
    set(&world, json!({"state": "up"})).await;
    assert_eq!(world.try_add().await, Some(200));
}

#[tokio::test]
async fn with_a_control_address_what_is_gone_refuses_connections() {
    let world = with_two_doors().await;
    assert_eq!(world.try_add().await, Some(200));
    set(&world, json!({"state": "gone"})).await;
    within(async {
        // The connection of before is reset, and may take a request with it.
        while tokio::net::TcpStream::connect(world.stub.addr())
            .await
            .is_ok()
        {}
    })
    .await;
    assert_eq!(world.try_add().await, None);
    set(&world, json!({"state": "up"})).await;
    within(async { while world.try_add().await != Some(200) {} }).await;
    assert_eq!(world.total(1).await, 2);
}

#[tokio::test]
async fn a_request_that_is_under_way_when_the_network_goes_may_be_applied_and_is_not_answered() {
    let world = with_two_doors().await;
    world
        .order_faults(json!([{"action": {"delay_ms": 60_000}}]))
        .await;
    let (answer, ()) = tokio::join!(world.try_add(), async {
        world.seen(1).await;
        set(&world, json!({"state": "gone"})).await;
    });
    assert_eq!((answer, world.total(1).await), (None, 1));
}

#[tokio::test]
async fn the_control_address_does_not_serve_the_license_api() {
    let world = with_two_doors().await;
    let url = format!("{}/api/v4/check_license", world.stub.control_url());
    let reply = reqwest::get(url).await.unwrap();
    assert_eq!(reply.status().as_u16(), 404);
    let page = reqwest::get(world.stub.control_url()).await.unwrap();
    assert_eq!(page.status().as_u16(), 200);
}

#[tokio::test]
async fn a_slow_network_takes_its_time_and_loses_nothing() {
    let world = World::start().await;
    let slow = json!({"state": "slow", "delay_ms": 80, "jitter_ms": 20, "seed": 7});
    let report = set(&world, slow).await;
    assert_eq!(
        (&report["delay_ms"], &report["seed"]),
        (&json!(80), &json!(7))
    );
    let began = Instant::now();
    assert_eq!(world.add(json!({})).await.total(), 1);
    assert!(began.elapsed() >= Duration::from_millis(80));
    assert_eq!(world.get("/stub/v1/requests").await[0]["network"], "slow");
}

#[tokio::test]
async fn a_flapping_network_goes_and_comes_by_itself() {
    let world = World::start().await;
    let flapping = json!({"state": "flapping", "up_ms": 30, "down_ms": 30});
    assert_eq!(set(&world, flapping).await["reachable"], true);
    let turn_to = async |reachable: bool| {
        while world.get("/stub/v1/network").await["reachable"] != reachable {}
    };
    within(async {
        turn_to(false).await;
        turn_to(true).await;
        turn_to(false).await;
    })
    .await;
    within(async { while world.try_add().await.is_some() {} }).await;
    set(&world, json!({"state": "up"})).await;
    assert_eq!(world.try_add().await, Some(200));
}

#[tokio::test]
async fn a_captive_portal_answers_a_page_with_200_and_nothing_is_applied() {
    let world = World::start().await;
    set(&world, json!({"state": "captive_portal"})).await;
    let reply = world.add(json!({})).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/html"))
    );
    assert!(reply.body.starts_with("<!doctype html>"), "{}", reply.body);
    assert_eq!(reply.header("licensesignature"), None);
    assert_eq!(
        world.check("MAIN").await.header("content-type"),
        Some("text/html")
    );
    assert_eq!(world.total(1).await, 0);
}

#[tokio::test]
async fn a_limit_of_the_rate_lets_some_pass_and_says_when_to_come_back() {
    let world = World::start().await;
    set(
        &world,
        json!({"state": "rate_limited", "requests": 2, "window_ms": 600_000, "retry_after": 9}),
    )
    .await;
    assert_eq!(world.add(json!({})).await.total(), 1);
    assert_eq!(world.add(json!({})).await.total(), 2);
    let refused = world.add(json!({})).await;
    assert_eq!(
        (refused.code().as_str(), refused.status),
        ("rate_limited", 429)
    );
    assert_eq!(refused.header("retry-after"), Some("9"));
    assert_eq!(world.total(1).await, 2);
    set(
        &world,
        json!({"state": "rate_limited", "requests": 0, "status": 503}),
    )
    .await;
    assert_eq!(world.add(json!({})).await.status, 503);
}

#[tokio::test]
async fn a_state_that_cannot_be_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let code = async |state| world.put("/stub/v1/network", &state).await.code();
    assert_eq!(code(json!({"state": "foggy"})).await, "validation_error");
    assert_eq!(code(json!({"state": "slow"})).await, "validation_error");
    let endless = json!({"state": "slow", "delay_ms": 600_001});
    assert_eq!(code(endless).await, "validation_error");
    assert_eq!(world.get("/stub/v1/network").await["state"], "up");
}

#[tokio::test]
async fn faults_strike_on_a_slow_network_too() {
    let world = World::start().await;
    set(&world, json!({"state": "slow", "delay_ms": 10})).await;
    world
        .order_faults(json!([{"action": {"drop": "after"}, "times": 1}]))
        .await;
    assert_eq!(world.try_add().await, None);
    assert_eq!(world.total(1).await, 1);
    send(world.unsigned(Method::GET, "/healthz")).await;
}

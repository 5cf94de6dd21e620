//! Consume offline, replay exactly.

use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Sums,
    client::{by_key, by_user},
    seed,
    stub::Keys,
    wait,
};

use crate::{agent, agent_with, stub};

const ADD: &str = "consumption_add";
const OFFLINE: &str = "offline_floating_consumptions_sync";

#[test]
fn what_is_consumed_offline_is_counted_once_and_marked_so() -> Result {
    let stub = stub(
        &[
            seed::license(100, json!({})),
            seed::user_license(50, json!({})),
        ],
        Keys::Kept,
    )?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.add_user_license()?;

    assert_eq!(app.add(5)?.status, 200);
    agent.wait_settled(0)?;
    agent.network("offline")?;
    assert_eq!(app.add(7)?.json()?["total_consumptions"], 12);
    assert_eq!(
        app.post("/api/v4/add_consumption", &by_user(3))?.json()?["total_consumptions"],
        3
    );
    assert_eq!((stub.total(1)?, stub.total(2)?), (5, 0));

    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.wait_settled(1)?;
    assert_eq!((stub.total(1)?, stub.total(2)?), (12, 3));
    assert_eq!(
        stub.activity(1)?,
        [(ADD.to_owned(), 5), (OFFLINE.to_owned(), 7)]
    );
    assert_eq!(stub.activity(2)?, [(OFFLINE.to_owned(), 3)]);
    Ok(())
}

#[test]
fn the_limit_holds_offline_with_the_servers_code() -> Result {
    let stub = stub(
        &[seed::license(10, json!({"total_consumptions": 4}))],
        Keys::Kept,
    )?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(6)?.status, 200);
    let refused = app.add(1)?;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    assert_eq!(
        agent.sums(0)?,
        Sums {
            recorded: 6,
            pending: 6,
            ..Sums::default()
        }
    );
    Ok(())
}

#[test]
fn a_licence_that_was_never_seen_is_asked_for_online_and_refused_offline() -> Result {
    let stub = stub(&[seed::license(10, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    let refused = app.add(1)?;
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (503, Some("limits_unknown"))
    );
    assert_eq!(agent.json(&["log"])?, json!([]));
    agent.network("online")?;
    assert_eq!(app.add(1)?.json()?["total_consumptions"], 1);
    Ok(())
}

#[test]
fn features_have_totals_of_their_own() -> Result {
    let features = json!({"features": [{"id": 7, "code": "scan", "max_consumption": 3}]});
    let stub = stub(&[seed::license(10, features)], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let scan = |units: i64| {
        app.post(
            "/api/v4/add_feature_consumption",
            &seed::merged(by_key(units), json!({"feature": "scan"})),
        )
    };
    agent.network("offline")?;
    assert_eq!(scan(2)?.json()?["total_consumptions"], 2);
    assert_eq!(
        scan(2)?.code().as_deref(),
        Some("feature_not_enough_consumptions")
    );
    assert_eq!(app.add(10)?.status, 200);
    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.wait_settled(1)?;
    let license = stub.requests()?;
    let sent = license
        .iter()
        .filter(|request| request["method"] == "POST")
        .count();
    assert_eq!((stub.total(1)?, sent), (10, 2));
    Ok(())
}

#[test]
fn overage_settings_reach_the_server_in_the_order_in_which_they_were_granted() -> Result {
    let stub = stub(&[seed::license(10, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    let with = |units: i64, with: Value| {
        app.post(
            "/api/v4/add_consumption",
            &seed::merged(by_key(units), with),
        )
    };
    assert_eq!(app.add(8)?.status, 200);
    let allowed = with(7, json!({"allow_overages": true, "max_overages": 5}))?;
    assert_eq!(allowed.json()?["max_overages"], 5);
    assert_eq!(
        app.add(1)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    // A setting that is in force is not sent again, and splits no request.
    assert_eq!(with(0, json!({"allow_overages": true}))?.status, 200);
    assert_eq!(with(0, json!({"allow_overages": false}))?.status, 200);
    assert_eq!(with(0, json!({"allow_overages": true}))?.status, 200);

    agent.network("online")?;
    agent.wait_settled(0)?;
    // The last two add nothing: that nothing is owed does not say that they were sent.
    let activity = wait::until(
        "all settings to be sent",
        || stub.activity(1),
        |activity| activity.len() == 4,
    )?;
    assert_eq!(stub.total(1)?, 15);
    let units: Vec<i64> = activity.into_iter().map(|(_, units)| units).collect();
    assert_eq!(units, [8, 7, 0, 0]);
    Ok(())
}

#[test]
fn two_agents_on_one_licence_learn_of_each_other() -> Result {
    let stub = stub(
        &[seed::license(
            10,
            json!({"devices": [{"hardware_id": seed::DEVICE}]}),
        )],
        Keys::Kept,
    )?;
    let (one, other) = (
        agent(&stub)?,
        agent_with(stub.url(), &["--refresh-interval", "200ms"])?,
    );
    let (app, other_app) = (one.app("inspector")?, other.app("inspector")?);
    one.add_license()?;
    other.add_license()?;
    assert_eq!(app.add(6)?.status, 200);
    one.wait_settled(0)?;
    let total = || Ok(other.json(&["status"])?["licenses"][0]["total"].clone());
    wait::until("the other agent to hear of it", total, |total| total == 6)?;
    assert_eq!(
        other_app.add(5)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    assert_eq!(other_app.add(4)?.status, 200);
    other.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 10);
    Ok(())
}

#[test]
fn what_two_agents_granted_beyond_the_limit_is_settled_as_far_as_it_fits_and_the_rest_held()
-> Result {
    let stub = stub(&[seed::license(10, json!({}))], Keys::Kept)?;
    let (one, other) = (agent(&stub)?, agent(&stub)?);
    let (app, other_app) = (one.app("inspector")?, other.app("inspector")?);
    one.add_license()?;
    other.add_license()?;
    other.network("offline")?;
    for _ in 0..3 {
        assert_eq!(other_app.add(3)?.status, 200);
    }
    assert_eq!(app.add(5)?.status, 200);
    one.wait_settled(0)?;

    other.network("online")?;
    let held = Sums {
        recorded: 9,
        settled: 3,
        held: 6,
        ..Sums::default()
    };
    wait::until(
        "the rest to be held",
        || other.sums(0),
        |sums| *sums == held,
    )?;
    assert_eq!(stub.total(1)?, 8);
    // The vendor raises the limit: what was held goes by itself.
    stub.edit(1, json!({"max_consumptions": 100}))?;
    other.tally(&["sync"])?;
    other.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 14);
    Ok(())
}

#[test]
fn an_agent_can_be_another_agents_server() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let site = agent(&stub)?;
    let keys = site.json(&["app", "add", "device"])?;
    let url = site.url()?.to_owned();
    let flags = ["--sync-interval", "50ms", "--server-public-key"];
    let public_key = keys["public_key"].as_str().unwrap_or_default();
    let device = tally_tests::agent::Agent::start_as(
        env!("CARGO_BIN_EXE_tally-under-test"),
        &url,
        &tally_tests::agent::Setup {
            flags: flags
                .iter()
                .chain([&public_key])
                .map(|flag| (*flag).to_owned())
                .collect(),
        },
        (
            keys["api_key"].as_str().unwrap_or_default(),
            keys["shared_key"].as_str().unwrap_or_default(),
        ),
    )?;
    let app = device.app("inspector")?;
    device.add_license()?;
    assert_eq!(
        device.json(&["status"])?["server_keeps_idempotency_keys"],
        true
    );
    site.network("offline")?;
    assert_eq!(app.add(9)?.status, 200);
    device.wait_settled(0)?;
    assert_eq!((site.sums(0)?.pending, stub.total(1)?), (9, 0));
    site.network("online")?;
    site.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 9);
    Ok(())
}

#[test]
fn an_application_may_retry_under_a_key_even_over_a_restart() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let keyed = |client: &tally_tests::client::Client, units: i64| {
        let key = [("idempotency-key", "job-1")];
        client.post_with("/api/v4/add_consumption", by_key(units).to_string(), &key)
    };
    let first = keyed(&app, 5)?;
    assert_eq!(first.header("idempotency-key"), Some("job-1"));
    agent.kill()?;
    agent.restart()?;
    let app = app.at(agent.url()?);
    let again = keyed(&app, 5)?;
    assert_eq!(again.text, first.text);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = keyed(&app, 6)?;
    assert_eq!(
        (other.status, other.code().as_deref()),
        (422, Some("idempotency_key_reused"))
    );
    assert_eq!(agent.wait_settled(0)?.recorded, 5);
    Ok(())
}

/// An agent below trusts a refusal of a second attempt only where the key came back with `Idempotency-Replayed`.
#[test]
fn a_consumptions_key_comes_back_only_where_it_was_looked_up() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let path = "/api/v4/add_consumption";
    let post = |key: &str, body: &serde_json::Value| -> Result<(u16, [Option<String>; 2])> {
        let reply = app.post_with(path, body.to_string(), &[("idempotency-key", key)])?;
        let names = ["idempotency-key", "idempotency-replayed"];
        let headers = names.map(|name| reply.header(name).map(str::to_owned));
        Ok((reply.status, headers))
    };
    let looked_up = |key: &str, replayed: &str| [key, replayed].map(|it| Some(it.to_owned()));
    let nothing = [None, None];

    assert_eq!(post("a", &by_key(5))?, (200, looked_up("a", "false")));
    assert_eq!(post("a", &by_key(5))?, (200, looked_up("a", "true")));
    // The ledger refuses, after it has looked for the key.
    assert_eq!(post("b", &by_key(96))?, (400, looked_up("b", "false")));
    // These are refused before, some under a key that was counted.
    let mut other = by_key(5);
    other["license_key"] = json!("ZZZZ-ZZZZ-ZZZZ-ZZZZ");
    assert_eq!(post("c", &other)?, (400, nothing.clone()));
    let mut body = by_key(5);
    body["consumptions"] = json!("five");
    assert_eq!(post("a", &body)?, (400, nothing.clone()));
    let stranger = app.post_with(path, "{".to_owned(), &[("idempotency-key", "a")])?;
    assert_eq!(stranger.header("idempotency-key"), None);

    // A reading says that keys are kept, and not that one was looked up.
    let query = [
        ("license_key", seed::KEY),
        ("product", seed::PRODUCT),
        ("hardware_id", seed::DEVICE),
    ];
    let read = app.get_with("/api/v4/check_license", &query, &[("idempotency-key", "r")])?;
    assert_eq!(read.status, 200, "{}", read.text);
    assert_eq!(read.header("idempotency-key"), Some("r"));
    assert_eq!(read.header("idempotency-replayed"), None);
    Ok(())
}

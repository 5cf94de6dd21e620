//! Ten thousand consumptions, twenty drops of the network, a lost acknowledgement in each.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
};

use serde_json::json;
use tally_tests::{Result, agent::Sums, client::Client, seed, stub::Keys, wait};

use crate::{agent, stub};

const CLIENTS: i64 = 8;
const CONSUMPTIONS: i64 = 10_000;
const DROPS: i64 = 20;

/// Consumes from several clients at once until `of` consumptions were made in all; gives the units
/// that were granted.
fn consume(app: &Client, made: &AtomicI64, of: i64) -> Result<i64> {
    let granted = AtomicI64::new(0);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (app, granted, failed) = (app.clone(), &granted, &failed);
            scope.spawn(move || {
                while made.fetch_add(1, Ordering::Relaxed) < of {
                    let units = 1 + client % 3;
                    match app.add(units) {
                        Ok(reply) if reply.status == 200 => {
                            granted.fetch_add(units, Ordering::Relaxed);
                        }
                        _ => failed.store(true, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    anyhow::ensure!(!failed.into_inner(), "a consumption was refused");
    // Each client counted one that it did not make.
    made.fetch_sub(CLIENTS, Ordering::Relaxed);
    Ok(granted.into_inner())
}

#[track_caller]
fn check_each_unit_is_counted_once(keys: Keys) -> Result {
    let stub = stub(&[seed::license(1_000_000, json!({}))], keys)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let made = AtomicI64::new(0);
    let mut granted = 0;
    for drop in 1..=DROPS {
        agent.network("offline")?;
        granted += consume(&app, &made, drop * CONSUMPTIONS / DROPS)?;
        let lost =
            json!([{"path": "/api/v4/add_consumption", "action": {"drop": "after"}, "times": 1}]);
        stub.faults(&lost)?;
        agent.network("online")?;
        agent.wait_settled(0)?;
        assert_eq!(
            stub.fired()?,
            [1],
            "an acknowledgement was lost in drop {drop}"
        );
    }
    assert_eq!(made.into_inner(), CONSUMPTIONS);
    assert_eq!(
        agent.sums(0)?,
        Sums {
            recorded: granted,
            settled: granted,
            ..Sums::default()
        }
    );
    assert_eq!(stub.total(1)?, granted);
    Ok(())
}

#[test]
fn each_unit_is_counted_once_by_a_server_that_keeps_idempotency_keys() -> Result {
    check_each_unit_is_counted_once(Keys::Kept)
}

#[test]
fn each_unit_is_counted_once_by_a_server_that_does_not() -> Result {
    check_each_unit_is_counted_once(Keys::NotKept)
}

#[track_caller]
fn check_few_requests(keys: Keys) -> Result {
    let stub = stub(&[seed::license(1_000_000, json!({}))], keys)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    let made = AtomicI64::new(0);
    for reconnection in 1..=5 {
        // Some while online, some while offline: both kinds of event wait to be sent.
        assert_eq!(app.add(1)?.status, 200);
        agent.network("offline")?;
        consume(&app, &made, reconnection * 100)?;
        stub.forget_requests()?;
        agent.network("online")?;
        agent.wait_settled(0)?;
        let requests = stub.requests()?;
        assert!(
            requests.len() <= 2,
            "reconnection {reconnection} took {requests:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_reconnection_takes_two_requests_at_most_with_keys() -> Result {
    check_few_requests(Keys::Kept)
}

#[test]
fn a_reconnection_takes_two_requests_at_most_without_keys() -> Result {
    check_few_requests(Keys::NotKept)
}

#[test]
fn what_another_device_consumed_meanwhile_is_not_guessed_about() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    stub.faults(&json!([
        {"path": "/api/v4/add_consumption", "action": {"drop": "after"}, "times": 1},
        {"path": "/api/v4/check_license", "action": {"drop": "before"}},
    ]))?;
    agent.network("online")?;
    wait::until(
        "the answer to be lost",
        || agent.sums(0),
        |sums| sums.unknown == 5,
    )?;
    assert_eq!(stub.client()?.add(2)?.status, 200);
    stub.faults(&json!([]))?;
    let held = Sums {
        recorded: 5,
        held: 5,
        ..Sums::default()
    };
    wait::until(
        "the batch to be held",
        || agent.sums(0),
        |sums| *sums == held,
    )?;
    let status = agent.json(&["status"])?;
    assert_eq!(status["licenses"][0]["held"][0]["reason"], "undecidable");
    // Recording and syncing go on.
    assert_eq!(app.add(1)?.status, 200);
    let after = Sums {
        recorded: 6,
        settled: 1,
        held: 5,
        ..Sums::default()
    };
    wait::until(
        "the rest to be settled",
        || agent.sums(0),
        |sums| *sums == after,
    )?;
    Ok(())
}

//! The agent is killed again and again, while applications consume and the network fails.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use serde_json::json;
use tally_tests::{Result, agent::Agent, client::Client, seed, stub::Keys, wait};

use crate::{agent_with, stub};

const CLIENTS: i64 = 4;
const KILLS: i64 = 15;

/// How many units are granted between two kills.
const UNITS_BETWEEN: i64 = 40;

/// What applications know of their units.
#[derive(Default)]
struct Known {
    granted: AtomicI64,
    /// The agent was killed before it answered: recorded or not.
    unanswered: AtomicI64,
    stop: AtomicBool,
}

/// Consumes until told to stop, wherever the agent listens by then.
fn consume(known: &Known, app: &Mutex<Client>, units: i64) {
    while !known.stop.load(Ordering::Relaxed) {
        let current = app.lock().map(|app| app.clone());
        let Ok(current) = current else { return };
        match current.add(units) {
            Ok(reply) if reply.status == 200 => known.granted.fetch_add(units, Ordering::Relaxed),
            Ok(_) => 0,
            Err(_) => known.unanswered.fetch_add(units, Ordering::Relaxed),
        };
    }
}

fn kill_and_restart(agent: &mut Agent, known: &Known, app: &Mutex<Client>) -> Result {
    for _ in 0..KILLS {
        let before = known.granted.load(Ordering::Relaxed);
        let granted = || Ok(known.granted.load(Ordering::Relaxed) - before);
        wait::until("some units to be granted", granted, |units| {
            *units >= UNITS_BETWEEN
        })?;
        agent.kill()?;
        agent.restart()?;
        let mut app = app
            .lock()
            .map_err(|_| anyhow::anyhow!("an application panicked"))?;
        *app = app.at(agent.url()?);
    }
    Ok(())
}

#[track_caller]
fn check_kills(keys: Keys) -> Result {
    let stub = stub(&[seed::license(1_000_000, json!({}))], keys)?;
    let flags = ["--sync-interval", "20ms", "--settle-wait", "100ms"];
    let mut agent = agent_with(stub.url(), &flags)?;
    let app = Mutex::new(agent.app("inspector")?);
    agent.add_license()?;
    stub.faults(&json!([
        {"action": {"drop": "after"}, "probability": 0.2, "seed": 1},
        {"action": {"drop": "before"}, "probability": 0.1, "seed": 2},
        {"action": {"truncate": 30}, "probability": 0.1, "seed": 3},
        {"action": {"garbage": true}, "probability": 0.1, "seed": 4},
        {"action": {"status": 503}, "probability": 0.1, "seed": 5},
    ]))?;
    let known = Known::default();
    let killed = thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (known, app) = (&known, &app);
            scope.spawn(move || consume(known, app, 1 + client % 3));
        }
        let killed = kill_and_restart(&mut agent, &known, &app);
        known.stop.store(true, Ordering::Relaxed);
        killed
    });
    killed?;
    stub.faults(&json!([]))?;
    let recorded = agent.wait_settled(0)?.recorded;
    let (granted, unanswered) = (known.granted.into_inner(), known.unanswered.into_inner());
    assert_eq!(stub.total(1)?, recorded);
    let range = granted..=granted + unanswered;
    assert!(
        range.contains(&recorded),
        "{recorded} recorded, {range:?} known to applications"
    );
    Ok(())
}

#[test]
fn each_unit_is_counted_once_over_kills_with_keys() -> Result {
    check_kills(Keys::Kept)
}

#[test]
fn each_unit_is_counted_once_over_kills_without_keys() -> Result {
    check_kills(Keys::NotKept)
}

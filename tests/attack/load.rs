//! More work than the agent takes on, and work that ends badly.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tally_tests::{
    Result,
    agent::PANIC_AT,
    client::{Reply, by_key},
    seed, wait,
};

use crate::target::{ADD, Target};

#[test]
fn what_does_not_fit_is_told_so_at_once() -> Result {
    let mut target = Target::with_config("[limits]\nrequests = 1\n")?;
    let late = json!([{"path": "/api/v4/check_license", "action": {"delay_ms": 3000}, "times": 1}]);
    target.stub.faults(&late)?;
    target.stub.forget_requests()?;
    let unknown = seed::merged(by_key(1), json!({"license_key": "UNKNOWN"}));
    let app = target.app.clone();
    // Holds the only place for as long as the server takes.
    let slow = thread::spawn(move || app.post(ADD, &unknown));
    let asked = |requests: &Vec<serde_json::Value>| {
        requests
            .iter()
            .any(|request| request.to_string().contains("UNKNOWN"))
    };
    wait::until(
        "the slow one to be under way",
        || target.stub.requests(),
        asked,
    )?;
    let started = Instant::now();
    let refused = target.app.add(1)?;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.code().as_deref(), Some("unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Control calls have places of their own.
    target.agent.json(&["status"])?;
    let slow = slow.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    assert_eq!(slow.code().as_deref(), Some("license_not_found"));
    target.check_unharmed()
}

#[test]
fn an_application_that_floods_locks_no_other_out() -> Result {
    let mut target = Target::with_config("[limits]\nrequests = 4\n")?;
    let slow = json!([{"path": "/api/v4/check_license", "action": {"delay_ms": 5000}, "times": 1}]);
    target.stub.faults(&slow)?;
    let flood = target.agent.app("flood")?;
    let (answers, answered) = mpsc::channel();
    // Each holds a place for as long as the server takes.
    for number in 0..6 {
        let unknown = json!({"license_key": format!("UNKNOWN-{number}")});
        let (flood, answers) = (flood.clone(), answers.clone());
        thread::spawn(move || {
            let _ = answers.send(flood.post(ADD, &seed::merged(by_key(1), unknown)));
        });
    }
    drop(answers);
    for _ in 0..3 {
        let refused = answered.recv()??;
        assert_eq!(
            (refused.status, refused.code().as_deref()),
            (503, Some("unavailable"))
        );
    }
    // The place that is left is for who has none.
    target.grant(1)?;
    assert!(answered.try_recv().is_err(), "nobody held a place any more");
    let found = answered.iter().collect::<Result<Vec<_>>>()?;
    let codes: Vec<_> = found.iter().map(Reply::code).collect();
    assert_eq!(codes, vec![Some("license_not_found".to_owned()); 3]);
    target.check_unharmed()
}

#[test]
fn connections_that_are_all_at_work_turn_others_away_at_once() -> Result {
    let mut target = Target::with_config("[limits]\nconnections = 1\n")?;
    let late = json!([{"path": "/api/v4/check_license", "action": {"delay_ms": 2000}, "times": 1}]);
    target.stub.faults(&late)?;
    target.stub.forget_requests()?;
    let unknown = seed::merged(by_key(1), json!({"license_key": "UNKNOWN"})).to_string();
    let mut slow = crate::raw::Raw::connect(target.address())?;
    slow.send(&target.consume_with("", unknown.as_bytes()))?;
    let asked = |requests: &Vec<serde_json::Value>| {
        requests
            .iter()
            .any(|request| request.to_string().contains("UNKNOWN"))
    };
    wait::until(
        "the slow one to be under way",
        || target.stub.requests(),
        asked,
    )?;
    let mut other = crate::raw::Raw::connect(target.address())?;
    let answer = other.answer()?;
    let answer = answer.ok_or_else(|| anyhow::anyhow!("no answer"))?;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(
        slow.answer()?.and_then(|answer| answer.code()).as_deref(),
        Some("license_not_found")
    );
    target.check_unharmed()
}

#[test]
fn a_panic_in_one_request_harms_no_other() -> Result {
    let mut target = Target::start()?;
    target
        .agent
        .restart_with(&[(PANIC_AT, "http.before-record")])?;
    let app = target.app.at(target.agent.url()?);
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let app = app.clone();
            thread::spawn(move || app.add(1))
        })
        .collect();
    let mut codes = Vec::new();
    for thread in threads {
        let reply = thread.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        if reply.status != 200 {
            codes.push((reply.status, reply.code()));
        }
    }
    assert_eq!(codes, [(500, Some("internal_error".to_owned()))]);
    // One from the beginning, and fifteen of sixteen.
    assert_eq!(target.agent.sums(0)?.recorded, 16);
    assert_eq!(app.add(1)?.status, 200);
    assert!(target.agent.terminate()?.success());
    Ok(())
}

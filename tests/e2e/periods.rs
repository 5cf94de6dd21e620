//! Periods that turn, and clocks that are wrong.

use serde_json::{Value, json};
use tally_tests::{Result, seed, stub::Keys, wait};

use crate::{agent, stub};

fn daily(max_consumptions: i64) -> Value {
    seed::license(
        max_consumptions,
        json!({"reset_consumption": true, "consumption_period": "daily"}),
    )
}

#[test]
fn a_period_turns_on_time_while_offline() -> Result {
    let stub = stub(&[daily(10)], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    // Ten seconds are enough on a slow machine for what comes before midnight.
    stub.set_clock("2031-03-31T23:59:50Z")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(10)?.status, 200);
    assert_eq!(
        app.add(1)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    let granted = wait::until("midnight", || app.add(1), |reply| reply.status == 200)?;
    assert_eq!(granted.json()?["total_consumptions"], 1);
    Ok(())
}

#[test]
fn a_clock_that_is_years_off_still_syncs() -> Result {
    let stub = stub(&[seed::license(10, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    stub.advance(5 * 365 * 86_400)?;
    assert_eq!(app.add(3)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 3);
    let log = agent.json(&["log"])?;
    assert_eq!(log[0]["units"], 3);
    assert_eq!(app.add(1)?.status, 200);
    let log = agent.json(&["log"])?;
    let year = log[1]["at"]
        .as_str()
        .unwrap_or_default()
        .get(..4)
        .map(str::to_owned);
    assert!(year > Some("2030".to_owned()), "{log}");
    Ok(())
}

#[test]
fn units_of_one_period_do_not_share_a_request_with_the_next() -> Result {
    let stub = stub(&[daily(1000)], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    // Ten seconds are enough on a slow machine for what comes before midnight.
    stub.set_clock("2031-03-31T23:59:50Z")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(4)?.status, 200);
    wait::until(
        "midnight",
        || app.add(1),
        |reply| {
            reply
                .json()
                .is_ok_and(|answer| answer["total_consumptions"] == 1)
        },
    )?;
    agent.network("online")?;
    agent.wait_settled(0)?;
    let first: Vec<i64> = stub.activity(1)?.iter().map(|(_, units)| *units).collect();
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(first[1], 1, "{first:?}");
    Ok(())
}

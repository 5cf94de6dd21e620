//! Callers with right keys that want more than they may.

use serde_json::{Value, json};
use tally_tests::{
    Result,
    client::{Client, Reply, by_key},
    seed,
};

use crate::target::{ADD, Target};

fn check_license(app: &Client) -> Result<Reply> {
    let query = [
        ("license_key", seed::KEY),
        ("product", seed::PRODUCT),
        ("hardware_id", seed::DEVICE),
    ];
    app.get("/api/v4/check_license", &query)
}

#[track_caller]
fn check_code(reply: &Reply, status: u16, code: &str) -> Result {
    let body = reply.json()?;
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!(body["code"], code);
    assert_eq!(body["status"], status);
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3));
    Ok(())
}

#[test]
fn an_application_uses_its_own_product_and_licence_only() -> Result {
    let mut target = Target::start()?;
    let own = ["--product", seed::PRODUCT, "--license-key", seed::KEY];
    let app = target.agent.app_with("confined", &own)?;
    assert_eq!(app.add(1)?.status, 200);
    target.count(1);
    let other = |with: Value| app.post(ADD, &seed::merged(by_key(1), with));
    check_code(&other(json!({"product": "other"}))?, 400, "unknown_product")?;
    check_code(
        &other(json!({"license_key": "OTHER"}))?,
        400,
        "license_not_found",
    )?;
    let user = json!({"license_key": null, "username": seed::KEY});
    check_code(&other(user)?, 400, "license_not_found")?;
    let elsewhere = target
        .agent
        .app_with("elsewhere", &["--product", "other"])?;
    check_code(&elsewhere.add(1)?, 400, "unknown_product")?;
    check_code(&check_license(&elsewhere)?, 400, "unknown_product")?;
    target.check_unharmed()
}

#[test]
fn an_application_that_may_only_read_reads() -> Result {
    let mut target = Target::start()?;
    let app = target.agent.app_with("reader", &["--read-only"])?;
    check_code(&app.add(1)?, 400, "read_only_api_key")?;
    check_code(&app.add(0)?, 400, "read_only_api_key")?;
    assert_eq!(check_license(&app)?.status, 200);
    target.check_unharmed()
}

#[test]
fn an_application_that_asks_too_often_is_told_when_to_come_back() -> Result {
    let mut target = Target::start()?;
    let app = target.agent.app_with("hasty", &["--max-per-minute", "3"])?;
    // A wrong signature does not use its rate up.
    let key = |name: &str| -> Result<Value> {
        let apps = target.agent.json(&["app", "list"])?;
        let found = apps
            .as_array()
            .and_then(|apps| apps.iter().find(|app| app["name"] == name));
        Ok(found.map(|app| app["api_key"].clone()).unwrap_or_default())
    };
    let forger = Client::new(
        target.agent.url()?,
        key("hasty")?.as_str().unwrap_or_default(),
        "x",
    )?;
    for _ in 0..4 {
        check_code(&forger.add(1)?, 400, "signature_mismatch")?;
    }
    for _ in 0..3 {
        assert_eq!(app.add(1)?.status, 200);
    }
    target.count(3);
    let refused = app.add(1)?;
    check_code(&refused, 429, "rate_limited")?;
    let wait: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(check_license(&app)?.status, 200);
    target.check_unharmed()
}

#[test]
fn a_key_that_is_over_or_taken_away_is_refused_at_once() -> Result {
    let mut target = Target::start()?;
    let over = target.agent.app_with("over", &["--expires", "0s"])?;
    check_code(&over.add(1)?, 400, "revoked_api_key")?;
    check_code(&check_license(&over)?, 400, "revoked_api_key")?;
    let lasting = target.agent.app_with("lasting", &["--expires", "90d"])?;
    assert_eq!(lasting.add(1)?.status, 200);
    target.count(1);
    target.agent.json(&["app", "revoke", "lasting"])?;
    check_code(&lasting.add(1)?, 400, "revoked_api_key")?;
    target.agent.restart()?;
    let lasting = lasting.at(target.agent.url()?);
    check_code(&lasting.add(1)?, 400, "revoked_api_key")?;
    target.app = target.app.at(target.agent.url()?);
    target.check_unharmed()
}

#[test]
fn each_row_says_who_consumed() -> Result {
    let mut target = Target::start()?;
    let app = target.agent.app("second")?;
    assert_eq!(app.add(5)?.status, 200);
    target.count(5);
    let rows = target.agent.json(&["log"])?;
    let who: Vec<_> = rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            (
                row["app"].as_str().unwrap_or_default(),
                row["units"].as_i64(),
            )
        })
        .collect();
    assert_eq!(who, [("victim", Some(1)), ("second", Some(5))]);
    target.check_unharmed()
}

//! What the dashboard and `tally explain` read: the stream, the batches, consumption over time, and what a
//! row was judged by.

use std::io::{BufRead as _, BufReader, Lines};

use anyhow::{Context as _, ensure};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    client::{by_key, by_user},
    seed,
    stub::Keys,
    wait,
};

use crate::{agent, agent_with, stub};

/// So many may listen at the same time.
const STREAMS_MAX: usize = 16;

/// Asks the control API, as the page does.
fn ask(agent: &Agent, path: &str) -> Result<Response> {
    let client = Client::builder().no_proxy().build()?;
    let request = client.get(format!("{}{path}", agent.url()?));
    Ok(request.bearer_auth(agent.admin_token()?).send()?)
}

fn read(agent: &Agent, path: &str) -> Result<Value> {
    let answer = ask(agent, path)?;
    ensure!(answer.status().is_success(), "{path}: {}", answer.text()?);
    Ok(serde_json::from_str(&answer.text()?)?)
}

/// A stream of server-sent events.
struct Events(Lines<BufReader<Response>>);

impl Events {
    fn listen(agent: &Agent) -> Result<Self> {
        let answer = ask(agent, "/v1/stream")?;
        ensure!(answer.status() == 200, "{}", answer.status());
        Ok(Self(BufReader::new(answer).lines()))
    }

    /// The next status; `None` where the stream has ended.
    fn next(&mut self) -> Option<Value> {
        let mut lines = self.0.by_ref().map_while(std::io::Result::ok);
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
        serde_json::from_str(&data).ok()
    }

    /// The next status in which the first licence has recorded so many units.
    fn until_recorded(&mut self, units: i64) -> Option<Value> {
        std::iter::from_fn(|| self.next())
            .find(|status| status["licenses"][0]["conservation"]["recorded"] == units)
    }
}

/// The units of each application in a chart, all steps together.
fn sums(usage: &Value) -> Vec<(String, i64)> {
    let apps = usage["apps"].as_array().into_iter().flatten();
    let sum = |app: &Value| {
        let units = app["units"].as_array().into_iter().flatten();
        units.filter_map(Value::as_i64).sum()
    };
    apps.map(|app| {
        (
            app["name"].as_str().unwrap_or_default().to_owned(),
            sum(app),
        )
    })
    .collect()
}

#[test]
fn the_stream_tells_the_status_at_once_and_whenever_it_changes() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    let mut events = Events::listen(&agent)?;
    let first = events.next().context("a status")?;
    assert_eq!(first["licenses"][0]["conservation"]["recorded"], 0);
    assert_eq!(app.add(3)?.status, 200);
    let changed = events.until_recorded(3).context("the change")?;
    assert_eq!(changed["licenses"][0]["total"], 3);
    Ok(())
}

#[test]
fn the_stream_ends_with_the_agent_and_does_not_hold_it_up() -> Result {
    let stub = stub(&[], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let mut events = Events::listen(&agent)?;
    assert!(events.next().is_some());
    agent.terminate()?;
    assert_eq!(events.next(), None);
    Ok(())
}

#[test]
fn only_so_many_may_listen_and_who_leaves_makes_room() -> Result {
    let stub = stub(&[], Keys::Kept)?;
    let agent = agent(&stub)?;
    let mut all = Vec::new();
    for _ in 0..STREAMS_MAX {
        all.push(Events::listen(&agent)?);
    }
    let refused = ask(&agent, "/v1/stream")?;
    assert_eq!(refused.status(), 503);
    assert!(refused.text()?.contains("close a dashboard somewhere"));
    all.clear();
    wait::until(
        "a place to be free",
        || Ok(ask(&agent, "/v1/stream")?.status().as_u16()),
        |status| *status == 200,
    )?;
    Ok(())
}

#[test]
fn consumption_over_time_is_told_by_application_licence_and_feature() -> Result {
    let features = json!({"features": [{"id": 9, "code": "scan", "max_consumption": 50}]});
    let licenses = [
        seed::license(100, features),
        seed::user_license(100, json!({})),
    ];
    let stub = stub(&licenses, Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    agent.add_user_license()?;
    let (inspector, kiosk) = (agent.app("inspector")?, agent.app("kiosk")?);
    for (app, units) in [(&inspector, 5), (&kiosk, 2), (&inspector, 4)] {
        assert_eq!(app.add(units)?.status, 200);
    }
    let scan = seed::merged(by_key(7), json!({"feature": "scan"}));
    let path = "/api/v4/add_feature_consumption";
    assert_eq!(kiosk.post(path, &scan)?.status, 200);
    let path = "/api/v4/add_consumption";
    assert_eq!(kiosk.post(path, &by_user(1))?.status, 200);

    let of = |query: &str| -> Result<Vec<(String, i64)>> {
        let query = format!("/v1/usage?product={}&{query}", seed::PRODUCT);
        Ok(sums(&read(&agent, &query)?))
    };
    let named = |name: &str, units| (name.to_owned(), units);
    let key = format!("license={}", seed::KEY);
    for span in ["hour", "day", "week", "month"] {
        let own = of(&format!("{key}&span={span}"))?;
        assert_eq!(own, [named("inspector", 9), named("kiosk", 2)], "{span}");
    }
    assert_eq!(of(&format!("{key}&feature=scan"))?, [named("kiosk", 7)]);
    assert_eq!(of(&format!("license={}", seed::USER))?, [named("kiosk", 1)]);
    let unknown = ask(&agent, "/v1/usage?product=nothing&license=nobody")?;
    assert_eq!(unknown.status(), 404);
    Ok(())
}

#[test]
fn what_was_folded_into_daily_sums_still_counts() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent_with(stub.url(), &["--retention", "1ms"])?;
    agent.add_license()?;
    assert_eq!(agent.app("inspector")?.add(5)?.status, 200);
    agent.wait_settled(0)?;
    // The ledger is looked through at each start.
    agent.restart()?;
    wait::until(
        "the row to be folded",
        || read(&agent, "/v1/events"),
        |rows| rows == &json!([]),
    )?;
    let query = format!("product={}&license={}&span=week", seed::PRODUCT, seed::KEY);
    let usage = read(&agent, &format!("/v1/usage?{query}"))?;
    assert_eq!(sums(&usage), [("inspector".to_owned(), 5)]);
    assert_eq!(ask(&agent, "/v1/events/1")?.status(), 404);
    Ok(())
}

#[test]
fn the_chart_is_a_drawing_as_wide_as_it_is_shown() -> Result {
    let daily = json!({"reset_consumption": true, "consumption_period": "daily"});
    let stub = stub(&[seed::license(100, daily)], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    assert_eq!(agent.app("inspector")?.add(6)?.status, 200);
    let query = format!("product={}&license={}&width=400", seed::PRODUCT, seed::KEY);
    let answer = ask(&agent, &format!("/v1/usage.svg?{query}"))?;
    let kind = answer.headers().get("content-type").cloned();
    assert_eq!(kind.context("a type")?, "image/svg+xml");
    let drawing = answer.text()?;
    assert!(drawing.contains("viewBox=\"0 0 800 400\""), "{drawing}");
    assert!(drawing.contains(">inspector<"), "{drawing}");
    assert!(drawing.contains("the total returns to zero"), "{drawing}");
    Ok(())
}

#[test]
fn what_is_owed_is_found_among_all_batches() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(2)?.status, 200);
    agent.wait_settled(0)?;
    agent.network("offline")?;
    assert_eq!(app.add(3)?.status, 200);
    let units = |path: &str| -> Result<Vec<Value>> {
        let batches = read(&agent, path)?;
        let batches = batches.as_array().into_iter().flatten();
        Ok(batches.map(|batch| batch["units"].clone()).collect())
    };
    assert_eq!(units("/v1/batches")?, [3, 2]);
    assert_eq!(units("/v1/batches?owed=true")?, [3]);
    assert_eq!(units("/v1/batches?limit=1")?, [3]);
    Ok(())
}

#[test]
fn a_row_and_a_refusal_say_what_they_were_judged_by() -> Result {
    let overage = json!({"allow_overages": true, "max_overages": 20, "total_consumptions": 40});
    let stub = stub(&[seed::license(100, overage)], Keys::Kept)?;
    let agent = agent_with(stub.url(), &["--sync-interval", "1h"])?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(10)?.status, 200);
    assert_eq!(app.add(20)?.status, 200);
    assert_eq!(app.add(90)?.status, 400);

    let explained = agent.json(&["explain", "2"])?;
    assert_eq!(explained["row"]["units"], 20);
    let judged = &explained["judged_by"];
    let totals = [
        "server_total",
        "counted",
        "uncounted",
        "total_before",
        "cap",
    ]
    .map(|it| &judged[it]);
    assert_eq!(totals, [40, 40, 10, 50, 120]);

    let refused = agent.json(&["explain", "r1"])?;
    assert_eq!(refused["code"], "license_not_enough_consumptions");
    assert_eq!(refused["units"], 90);
    assert_eq!(refused["judged_by"]["total_before"], 70);
    assert!(!agent.tally(&["explain", "99"])?.status.success());
    Ok(())
}

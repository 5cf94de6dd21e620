//! What the lab's page is made of: the page, the stream, edits, scenarios that are played, and the guard.

use reqwest::Method;
use serde_json::{Value, json};
use tally_server_stub::{
    StubConfig,
    scenario::{file::Scenario, shipped},
};

use crate::world::{World, config, send, within};

/// Somebody who listens at the stream.
struct Listener {
    response: reqwest::Response,
    text: String,
}

impl Listener {
    /// Listens from this moment on.
    async fn at(world: &World) -> Self {
        let request = world.unsigned(Method::GET, "/stub/v1/stream");
        let mut listener = Self {
            response: request.send().await.unwrap(),
            text: String::new(),
        };
        listener.next("ready").await;
        listener
    }

    /// The data of the next event of this name; those before it are passed over.
    async fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}\ndata: ");
        within(async {
            loop {
                if let Some((_, rest)) = self.text.split_once(&wanted)
                    && let Some((data, rest)) = rest.split_once('\n')
                {
                    let (data, rest) = (serde_json::from_str(data).unwrap(), rest.len());
                    self.text.drain(..self.text.len() - rest);
                    return data;
                }
                let chunk = self.response.chunk().await.unwrap().unwrap();
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_request_and_what_it_changed_arrive_in_the_stream() {
    let world = World::start().await;
    let mut stream = Listener::at(&world).await;
    world.add(json!({"consumptions": 3})).await;
    let request = stream.next("request").await;
    assert_eq!(
        (&request["seq"], &request["status"]),
        (&json!(1), &json!(200))
    );
    assert_eq!(stream.next("activity").await["seq"], 1);
    world.add(json!({"consumptions": 4})).await;
    let activity = stream.next("activity").await;
    assert_eq!(
        (&activity["units"], &activity["total"]),
        (&json!(4), &json!(7))
    );
    assert_eq!(activity, world.get("/stub/v1/activity").await[1]);
}

#[tokio::test]
async fn what_testers_do_arrives_in_the_stream() {
    let world = World::start().await;
    let mut stream = Listener::at(&world).await;
    world
        .put("/stub/v1/network", &json!({"state": "gone"}))
        .await;
    assert_eq!(stream.next("network").await["reachable"], false);
    world
        .order_faults(json!([{"action": {"garbage": true}}]))
        .await;
    assert_eq!(stream.next("faults").await[0]["fired"], 0);
    world.set_clock("2031-05-05T12:00:00Z").await;
    assert!(
        stream.next("clock").await["now"]
            .as_str()
            .unwrap()
            .starts_with("2031")
    );
    assert_eq!(stream.next("licenses").await[0]["max_consumptions"], 10);
    world
        .change_license(1, json!({"max_consumptions": 55}))
        .await;
    assert_eq!(stream.next("licenses").await[0]["max_consumptions"], 55);
}

#[tokio::test]
async fn the_stub_ends_although_somebody_listens() {
    let world = World::start().await;
    let mut stream = Listener::at(&world).await;
    world.stub.shutdown().await;
    let rest = within(async {
        while let Ok(Some(_)) = stream.response.chunk().await {}
        stream.response.chunk().await
    });
    assert!(!matches!(rest.await, Ok(Some(_))));
}

#[tokio::test]
async fn a_licence_is_edited_field_by_field() {
    let world = World::start().await;
    world.add(json!({"consumptions": 4})).await;
    let patch = async |body: Value| {
        let request = world.unsigned(Method::PATCH, "/stub/v1/licenses/1");
        send(request.body(body.to_string())).await
    };
    let edited = patch(json!({"max_consumptions": 5, "validity_period": "2099-01-01"}))
        .await
        .json();
    assert_eq!(
        (&edited["max_consumptions"], &edited["total_consumptions"]),
        (&json!(5), &json!(4))
    );
    assert_eq!(
        world.add(json!({"consumptions": 2})).await.code(),
        "license_not_enough_consumptions"
    );
    let edited = patch(json!({"validity_period": null, "license_enabled": false}))
        .await
        .json();
    assert_eq!(edited["validity_period"], json!(null));
    assert_eq!(world.add(json!({})).await.code(), "license_not_enabled");
    assert_eq!(patch(json!({"id": 9})).await.code(), "validation_error");
    assert_eq!(patch(json!({"limit": 9})).await.code(), "validation_error");
    assert_eq!(
        patch(json!({"license_key": null})).await.code(),
        "validation_error"
    );
    let missing = world
        .unsigned(Method::PATCH, "/stub/v1/licenses/99")
        .body("{}");
    assert_eq!(send(missing).await.code(), "not_found");
}

#[tokio::test]
async fn the_clock_goes_over_the_next_turn_of_a_period() {
    let world = World::start().await;
    world.set_clock("2031-05-05T12:00:00Z").await;
    let daily = json!({"license_key": "DAILY", "consumptions": 3});
    assert_eq!(world.add(daily.clone()).await.total(), 3);
    let before = json!({"next_period": "daily", "advance_ms": -30_000});
    world.put("/stub/v1/clock", &before).await;
    assert_eq!(world.total(2).await, 3);
    world
        .put("/stub/v1/clock", &json!({"next_period": "daily"}))
        .await;
    let clock = world.get("/stub/v1/clock").await;
    assert_eq!(&clock["now"].as_str().unwrap()[..16], "2031-05-06T00:00");
    assert_eq!(world.total(2).await, 0);
}

#[tokio::test]
async fn the_page_is_whole_and_may_ask_nobody_else() {
    let world = World::start().await;
    let page = send(world.unsigned(Method::GET, "/")).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
    for (file, kind) in [
        ("/lab.css", "text/css"),
        ("/lab.js", "text/javascript"),
        ("/icon.svg", "image/svg"),
    ] {
        let reply = send(world.unsigned(Method::GET, file)).await;
        assert_eq!(reply.status, 200, "{file}");
        assert!(
            reply.header("content-type").unwrap().starts_with(kind),
            "{file}"
        );
        assert!(page.body.contains(file), "the page uses {file}");
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_before_anything_is_done() {
    let world = World::start().await;
    let with = async |name: &'static str, value: &str| {
        let put = world
            .unsigned(Method::PUT, "/stub/v1/faults")
            .header(name, value);
        send(put.body(r#"[{"action": {"garbage": true}}]"#)).await
    };
    assert_eq!(with("Host", "evil.example").await.code(), "forbidden");
    assert_eq!(
        with("Origin", "http://evil.example").await.code(),
        "forbidden"
    );
    assert_eq!(with("Origin", "null").await.code(), "forbidden");
    assert_eq!(world.get("/stub/v1/faults").await, json!([]));
    let page = world
        .unsigned(Method::GET, "/")
        .header("Host", "evil.example");
    assert_eq!(send(page).await.code(), "forbidden");
    assert_eq!(with("Origin", &world.stub.url()).await.status, 200);
}

#[tokio::test]
async fn a_name_can_be_allowed_and_the_license_api_has_any() {
    let plain = config(None);
    let world = World::with(StubConfig {
        allowed_hosts: vec!["stub".to_owned()],
        ..plain
    })
    .await;
    let at = |path, host| world.unsigned(Method::GET, path).header("Host", host);
    assert_eq!(send(at("/stub/v1/clock", "stub:7412")).await.status, 200);
    assert_eq!(
        send(at("/stub/v1/clock", "other:7412")).await.code(),
        "forbidden"
    );
    let check = send(at("/api/v4/check_license", "licences.example")).await;
    assert_eq!(check.code(), "missing_headers");
}

#[tokio::test]
async fn the_servers_side_of_a_scenario_is_played() {
    let world = World::start().await;
    let text = r#"
        name = "Two steps"
        story = "The network goes, and the licence is cut."
        seed = 5
        [[world.licenses]]
        id = 1
        product = "demo"
        license_key = "MAIN"
        devices = [{ hardware_id = "hw-1" }]
        [[steps]]
        at = "0s"
        network = { state = "slow", delay_ms = 1 }
        [[steps]]
        license = { id = 1, set = { max_consumptions = 3 } }
        [[steps]]
        license = { id = 1, set = { license_type = 3 } }
    "#;
    let play = world.unsigned(Method::PUT, "/stub/v1/scenario").body(text);
    assert_eq!(send(play).await.json()["state"], "running");
    let shown = async || world.get("/stub/v1/scenario").await;
    within(async { while shown().await["state"] == "running" {} }).await;
    let played = shown().await;
    let of = |step: usize| played["steps"][step]["state"].clone();
    assert_eq!(
        (of(0), of(1), of(2)),
        (json!("done"), json!("done"), json!("failed"))
    );
    assert_eq!(
        world.get("/stub/v1/licenses/1").await["max_consumptions"],
        3
    );
    assert_eq!(world.get("/stub/v1/network").await["seed"], 5);
    send(world.unsigned(Method::DELETE, "/stub/v1/scenario")).await;
    assert_eq!(world.get("/stub/v1/network").await["state"], "up");
}

#[tokio::test]
async fn a_scenario_that_is_stopped_does_nothing_more() {
    let world = World::start().await;
    let tunnel = shipped::ALL[0].text;
    send(
        world
            .unsigned(Method::PUT, "/stub/v1/scenario")
            .body(tunnel),
    )
    .await;
    let stopped = send(world.unsigned(Method::DELETE, "/stub/v1/scenario"))
        .await
        .json();
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(world.get("/stub/v1/scenario").await, stopped);
    let bad = world
        .unsigned(Method::PUT, "/stub/v1/scenario")
        .body("name = 3");
    let refused = send(bad).await;
    assert!(refused.body.contains("line 1"), "{}", refused.body);
    assert_eq!(refused.code(), "validation_error");
}

#[tokio::test]
async fn the_scenarios_that_come_with_the_program_are_listed() {
    let world = World::start().await;
    let listed = world.get("/stub/v1/scenarios").await;
    let count = listed.as_array().unwrap().len();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
    let files = std::fs::read_dir(folder).unwrap();
    let is_one = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".toml");
    let files = files.map(|file| file.unwrap().file_name()).filter(is_one);
    let all = files.count();
    assert_eq!((count, shipped::ALL.len()), (all, all));
    for scenario in shipped::ALL {
        let parsed = Scenario::parse(scenario.text);
        parsed.unwrap_or_else(|mistake| panic!("{}: {mistake}", scenario.file));
    }
}

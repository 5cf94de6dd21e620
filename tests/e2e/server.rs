//! A data folder whose server is another than before: by mistake, or because it moved.

use serde_json::json;
use tally_tests::{
    Result,
    agent::Agent,
    client::Client,
    process::Process,
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

/// Not of this device; a proxy leads there.
const ELSEWHERE: &str = "http://licences.example";

/// The server at first, which keeps keys, and the other.
fn stubs(other: Keys) -> Result<(Stub, Stub)> {
    let licenses = [seed::license(100, json!({}))];
    Ok((stub(&licenses, Keys::Kept)?, stub(&licenses, other)?))
}

/// An agent that knows the licence from a server, and an application of it.
fn knowing(server: &Stub) -> Result<(Agent, Client)> {
    let agent = agent(server)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    Ok((agent, app))
}

/// Starts the agent anew with [`ELSEWHERE`] as its server, which the proxy answers for.
fn restart_elsewhere(agent: &Agent, proxy: &str) -> Result<Process> {
    let mut command = agent.command(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--server-url",
        ELSEWHERE,
        "--insecure-server",
        "--sync-interval",
        "50ms",
        "--settle-wait",
        "200ms",
    ]);
    command.env("http_proxy", proxy);
    Process::start(&mut command, &agent.log())
}

#[test]
fn what_was_recorded_for_one_server_is_sent_to_another_only_when_somebody_says_that_it_moved()
-> Result {
    let (here, elsewhere) = stubs(Keys::Kept)?;
    let (mut agent, app) = knowing(&here)?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    agent.terminate()?;

    let mut process = restart_elsewhere(&agent, elsewhere.url())?;
    let at_work = app.at(process.url());
    assert_eq!(at_work.add(2)?.status, 200, "it records as before");
    agent.tally(&["sync"])?;
    let status = agent.json(&["status"])?;
    assert_eq!(status["connection"]["state"], "other_server", "{status}");
    assert_eq!(status["connection"]["owed_to"], "loopback", "{status}");
    let said = agent.tally(&["status"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("tally resolve --server-moved"), "{said}");
    let refresh = agent.tally(&["license", "refresh", seed::KEY])?;
    assert_eq!(refresh.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refresh.stderr).into_owned();
    assert!(said.contains("another licence server"), "{said}");
    let stranger = json!({"license_key": "other", "product": seed::PRODUCT, "hardware_id": seed::DEVICE,
        "consumptions": 1});
    let unknown = at_work.post("/api/v4/add_consumption", &stranger)?;
    assert_eq!(unknown.json()?["code"], "limits_unknown");
    let doctor = agent.tally(&["doctor"])?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("was recorded for another"), "{said}");
    assert_eq!(elsewhere.requests()?, Vec::<serde_json::Value>::new());

    let decided = agent.tally(&["resolve", "--server-moved", "--reason", "new address"])?;
    assert!(decided.status.success(), "{decided:?}");
    agent.wait_settled(0)?;
    assert_eq!((here.total(1)?, elsewhere.total(1)?), (0, 7));
    let again = agent.tally(&["resolve", "--server-moved"])?;
    assert!(!again.status.success(), "there is nothing to decide");
    process.terminate()?;

    // Nothing is owed: another server needs no decision.
    agent.restart()?;
    assert_eq!(app.at(agent.url()?).add(1)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!((here.total(1)?, elsewhere.total(1)?), (1, 7));
    Ok(())
}

#[test]
fn the_former_server_set_again_gets_what_it_is_owed() -> Result {
    let (here, elsewhere) = stubs(Keys::Kept)?;
    let (mut agent, app) = knowing(&here)?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    agent.terminate()?;
    let mut process = restart_elsewhere(&agent, elsewhere.url())?;
    assert_eq!(app.at(process.url()).add(2)?.status, 200);
    process.kill()?;
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!((here.total(1)?, elsewhere.total(1)?), (7, 0));
    Ok(())
}

#[test]
fn what_is_given_up_is_owed_to_nobody() -> Result {
    let (here, elsewhere) = stubs(Keys::Kept)?;
    let (mut agent, app) = knowing(&here)?;
    here.edit(1, json!({"max_consumptions": 3}))?;
    assert_eq!(app.add(5)?.status, 200);
    let status = wait::until(
        "the batch to be held",
        || agent.json(&["status"]),
        |status| status["licenses"][0]["held"][0]["reason"] == "limit",
    )?;
    let batch = status["licenses"][0]["held"][0]["batch"].to_string();
    agent.terminate()?;
    let _process = restart_elsewhere(&agent, elsewhere.url())?;
    let waived = agent.tally(&["resolve", &batch, "--waive", "a demo"])?;
    assert!(waived.status.success(), "{waived:?}");
    wait::until(
        "the other server to be used",
        || agent.json(&["status"]),
        |status| status["connection"]["state"] == "online",
    )
    .map(|_| ())
}

#[test]
fn what_a_server_that_is_gone_is_owed_can_be_given_up_without_what_came_after() -> Result {
    let (here, elsewhere) = stubs(Keys::Kept)?;
    let (mut agent, app) = knowing(&here)?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    agent.terminate()?;

    let mut process = restart_elsewhere(&agent, elsewhere.url())?;
    assert_eq!(app.at(process.url()).add(2)?.status, 200);
    // Over another start, it is still known what was whose.
    process.kill()?;
    let process = restart_elsewhere(&agent, elsewhere.url())?;
    assert_eq!(app.at(process.url()).add(1)?.status, 200);
    let log = agent.json(&["log"])?;
    assert_eq!(log[0]["units"], 5, "{log}");
    let batch = log[0]["batch"].to_string();
    let resent = agent.tally(&["resolve", &batch, "--resend"])?;
    assert_eq!(resent.status.code(), Some(1), "it would go to the other");
    let waived = agent.tally(&["resolve", &batch, "--waive", "the server is gone"])?;
    assert!(waived.status.success(), "{waived:?}");
    wait::until(
        "what came after to be settled",
        || agent.json(&["status"]),
        |status| status["synced"] == true,
    )?;
    assert_eq!(elsewhere.total(1)?, 3);
    let status = agent.json(&["status"])?;
    let sums = &status["licenses"][0]["conservation"];
    assert_eq!((&sums["waived"], &sums["settled"]), (&json!(5), &json!(3)));
    assert_eq!(here.total(1)?, 0);
    Ok(())
}

#[test]
fn a_server_that_moved_is_not_taken_to_keep_keys_as_it_did() -> Result {
    let (here, elsewhere) = stubs(Keys::NotKept)?;
    let (mut agent, app) = knowing(&here)?;
    // The last that is heard of the former server is nothing: the batch is unknown.
    here.faults(&json!([{"path": "/api/v4/add_consumption", "action": {"drop": "before"}}]))?;
    assert_eq!(app.add(5)?.status, 200);
    wait::until("it to be sent", || here.fired(), |fired| *fired >= vec![1])?;
    agent.kill()?;
    let lost =
        json!([{"path": "/api/v4/add_consumption", "action": {"drop": "after"}, "times": 1}]);
    elsewhere.faults(&lost)?;
    let _process = restart_elsewhere(&agent, elsewhere.url())?;
    let moved = agent.tally(&["resolve", "--server-moved"])?;
    assert!(moved.status.success(), "{moved:?}");
    agent.wait_settled(0)?;
    assert_eq!(elsewhere.total(1)?, 5);
    Ok(())
}

#[test]
fn what_the_former_server_has_counted_can_be_said() -> Result {
    let (here, elsewhere) = stubs(Keys::Kept)?;
    let (mut agent, app) = knowing(&here)?;
    here.faults(&json!([{"path": "/api/v4/add_consumption", "action": {"drop": "after"}}]))?;
    assert_eq!(app.add(5)?.status, 200);
    wait::until("it to be sent", || here.fired(), |fired| *fired >= vec![1])?;
    agent.kill()?;
    let _process = restart_elsewhere(&agent, elsewhere.url())?;
    let batch = agent.json(&["log"])?[0]["batch"].to_string();
    let applied = agent.tally(&["resolve", &batch, "--applied"])?;
    assert!(applied.status.success(), "{applied:?}");
    wait::until(
        "the other server to be used",
        || agent.json(&["status"]),
        |status| status["connection"]["state"] == "online",
    )?;
    assert_eq!((here.total(1)?, elsewhere.total(1)?), (5, 0));
    assert_eq!(agent.wait_settled(0)?.settled, 5);
    Ok(())
}

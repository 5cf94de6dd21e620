//! A data folder whose server is another than before: by mistake, or because it moved.

use serde_json::json;
use tally_tests::{Result, agent::Agent, process::Process, seed, stub::Keys, wait};

use crate::{agent, stub};

/// Not of this device; a proxy leads there.
const ELSEWHERE: &str = "http://licences.example";

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
    ]);
    command.env("http_proxy", proxy);
    Process::start(&mut command, &agent.log())
}

#[test]
fn what_was_recorded_for_one_server_is_sent_to_another_only_when_somebody_says_that_it_moved()
-> Result {
    let licenses = [seed::license(100, json!({}))];
    let (here, elsewhere) = (stub(&licenses, Keys::Kept)?, stub(&licenses, Keys::Kept)?);
    let mut agent = agent(&here)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
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
    let unknown = agent.tally(&["license", "refresh"])?;
    assert!(!unknown.status.success());
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
    let licenses = [seed::license(100, json!({}))];
    let (here, elsewhere) = (stub(&licenses, Keys::Kept)?, stub(&licenses, Keys::Kept)?);
    let mut agent = agent(&here)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
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
    let licenses = [seed::license(100, json!({}))];
    let (here, elsewhere) = (stub(&licenses, Keys::Kept)?, stub(&licenses, Keys::Kept)?);
    let mut agent = agent(&here)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
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

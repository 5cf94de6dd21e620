//! Which licences an agent knows: shown, read anew, imported, forgotten.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, agent_with, stub};

/// Runs a command with a file on standard input.
fn piped(agent: &Agent, args: &[&str], input: &str) -> Result<Output> {
    let mut command = agent.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    Ok(child.wait_with_output()?)
}

fn import(agent: &Agent, file: &str) -> Result<Value> {
    let output = piped(agent, &["license", "import", "-", "--json"], file)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The server's answer to `check_license`, and its signature.
fn saved(stub: &Stub) -> Result<(String, String)> {
    let query = [
        ("license_key", seed::KEY),
        ("product", seed::PRODUCT),
        ("hardware_id", seed::DEVICE),
    ];
    let reply = stub.client()?.get("/api/v4/check_license", &query)?;
    let signature = reply.header("LicenseSignature").unwrap_or_default();
    let signature = signature.to_owned();
    Ok((reply.text, signature))
}

fn named(device: &str) -> Value {
    json!({"product": seed::PRODUCT, "license_key": seed::KEY, "hardware_id": device})
}

fn with(line: Value, more: Value) -> String {
    seed::merged(line, more).to_string()
}

/// An agent that has never met the server, and knows its key.
fn unmet(stub: &Stub) -> Result<Agent> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("server.pem");
    std::fs::write(&key, stub.public_key()?)?;
    let key = key.display().to_string();
    let agent = agent_with(stub.url(), &["--server-public-key", &key])?;
    agent.network("offline")?;
    Ok(agent)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_licence_is_shown_with_all_that_is_known_of_it() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    let shown = agent.json(&["license", "show", seed::KEY])?;
    assert_eq!(shown["license_type"], "consumption", "{shown}");
    assert_eq!(shown["devices"][0]["hardware_id"], seed::DEVICE);
    assert_eq!(shown["counters"][0]["max_consumptions"], 100);
    assert_eq!(agent.json(&["license", "show", "1"])?["id"], 1);
    let unknown = agent.tally(&["license", "show", "NOBODY"])?;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        said(&unknown).contains("license list"),
        "{}",
        said(&unknown)
    );
    Ok(())
}

#[test]
fn a_refresh_tells_what_the_server_says_now() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    stub.edit(1, json!({"max_consumptions": 250}))?;
    let shown = agent.json(&["license", "refresh", seed::KEY])?;
    assert_eq!(shown["counters"][0]["cap"], 250, "{shown}");

    stub.edit(1, json!({"license_enabled": false}))?;
    let refused = agent.tally(&["license", "refresh", seed::KEY])?;
    assert!(
        said(&refused).contains("license_not_enabled"),
        "{}",
        said(&refused)
    );
    let shown = agent.json(&["license", "show", seed::KEY])?;
    assert_eq!(shown["refused"], "license_not_enabled");

    stub.edit(1, json!({"license_enabled": true}))?;
    let shown = agent.json(&["license", "refresh", seed::KEY])?;
    assert_eq!(shown["refused"], Value::Null);

    agent.network("offline")?;
    let away = agent.tally(&["license", "refresh", seed::KEY])?;
    assert_eq!(away.status.code(), Some(1));
    assert!(
        said(&away).contains("stays as it was known"),
        "{}",
        said(&away)
    );
    Ok(())
}

#[test]
fn what_is_owed_keeps_a_licence_known() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    app.add(5)?;
    let refused = agent.tally(&["license", "remove", seed::KEY])?;
    assert_eq!(refused.status.code(), Some(1));
    let why = said(&refused);
    assert!(why.contains("(5 units) waits, `tally sync`"), "{why}");
    assert_eq!(agent.sums(0)?.pending, 5);
    Ok(())
}

#[test]
fn a_forgotten_licence_leaves_its_rows_and_comes_back_with_its_sums() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    app.add(5)?;
    agent.wait_settled(0)?;
    let forgotten = agent.json(&["license", "remove", seed::KEY, "--reason", "moved"])?;
    assert_eq!(forgotten["seq"], 2);
    assert_eq!(agent.json(&["license", "list"])?, json!([]));
    let log = agent.json(&["log"])?;
    assert_eq!(log[0]["units"], 5, "{log}");
    assert_eq!(
        (&log[1]["note"]["decision"], &log[1]["note"]["reason"]),
        (&json!("forget"), &json!("moved"))
    );

    agent.restart()?;
    assert_eq!(agent.json(&["license", "list"])?, json!([]));
    agent.network("offline")?;
    let app = app.at(agent.url()?);
    assert_eq!(app.add(1)?.code().as_deref(), Some("limits_unknown"));

    agent.network("online")?;
    assert_eq!(app.add(1)?.status, 200);
    assert_eq!(agent.wait_settled(0)?.recorded, 6);
    assert!(agent.tally(&["verify"])?.status.success());
    Ok(())
}

#[test]
fn names_wait_for_the_next_contact_and_survive_a_restart() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    agent.network("offline")?;
    let csv = format!(
        "product,license_key,hardware_id\n{},{},{}\n",
        seed::PRODUCT,
        seed::KEY,
        seed::DEVICE
    );
    let imported = import(&agent, &csv)?;
    assert_eq!(imported[0]["result"]["outcome"], "waiting", "{imported}");
    let list = agent.tally(&["license", "list"])?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("wait to be read"), "{list}");

    agent.restart()?;
    let known = |licenses: &Value| licenses[0]["max_consumptions"] == 100;
    wait::until(
        "the name to be read",
        || agent.json(&["license", "list"]),
        known,
    )?;
    agent.network("offline")?;
    assert_eq!(agent.app("inspector")?.add(1)?.status, 200);
    Ok(())
}

#[test]
fn a_name_that_waits_can_be_removed() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.network("offline")?;
    import(&agent, &named(seed::DEVICE).to_string())?;
    let removed = agent.json(&["license", "remove", seed::KEY])?;
    assert_eq!(removed["seq"], Value::Null);
    agent.network("online")?;
    assert_eq!(agent.json(&["license", "list"])?, json!([]));
    Ok(())
}

#[test]
fn a_signed_answer_lets_a_device_start_that_never_met_the_server() -> Result {
    let stub = stub(
        &[seed::license(100, json!({"total_consumptions": 90}))],
        Keys::NotKept,
    )?;
    let (answer, signature) = saved(&stub)?;
    let agent = unmet(&stub)?;
    let line = with(
        named(seed::DEVICE),
        json!({"answer": answer, "signature": signature}),
    );
    let imported = import(&agent, &line)?;
    assert_eq!(imported[0]["result"]["outcome"], "imported", "{imported}");
    let app = agent.app("inspector")?;
    assert_eq!(app.add(10)?.status, 200);
    assert_eq!(
        app.add(1)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    let again = import(&agent, &line)?;
    assert_eq!(again[0]["result"]["outcome"], "known", "{again}");
    assert_eq!(agent.sums(0)?.pending, 10);

    agent.network("online")?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 100);
    assert!(agent.tally(&["verify"])?.status.success());
    Ok(())
}

#[test]
fn an_answer_that_the_server_did_not_sign_for_this_device_is_refused() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let (answer, signature) = saved(&stub)?;
    let raised = answer.replace("\"max_consumptions\":100", "\"max_consumptions\":900");
    assert_ne!(raised, answer);
    let agent = unmet(&stub)?;
    let refused = |line: &str, why: &str| -> Result {
        let imported = import(&agent, line)?;
        let error = imported[0]["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{imported}");
        assert_eq!(agent.json(&["license", "list"])?, json!([]));
        Ok(())
    };
    let own = named(seed::DEVICE);
    refused(
        &with(
            own.clone(),
            json!({"answer": raised, "signature": signature}),
        ),
        "not the server's",
    )?;
    refused(&with(own, json!({"answer": raised})), "without a signature")?;
    let other = with(
        named("device-9"),
        json!({"answer": answer, "signature": signature}),
    );
    refused(&other, "another licence or another device")
}

#[test]
fn without_the_servers_key_an_answer_on_file_proves_nothing() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let (answer, signature) = saved(&stub)?;
    let agent = agent(&stub)?;
    let line = with(
        named(seed::DEVICE),
        json!({"answer": answer, "signature": signature}),
    );
    let imported = import(&agent, &line)?;
    let error = imported[0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("--server-public-key"), "{imported}");
    Ok(())
}

#[test]
fn an_old_answer_raises_nothing_that_the_ledger_ever_knew() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let (answer, signature) = saved(&stub)?;
    let agent = unmet(&stub)?;
    agent.network("online")?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    app.add(95)?;
    agent.wait_settled(0)?;
    agent.json(&["license", "remove", seed::KEY])?;
    agent.network("offline")?;
    let line = with(
        named(seed::DEVICE),
        json!({"answer": answer, "signature": signature}),
    );
    let imported = import(&agent, &line)?;
    assert_eq!(imported[0]["result"]["outcome"], "imported", "{imported}");
    assert_eq!(
        app.add(6)?.code().as_deref(),
        Some("license_not_enough_consumptions")
    );
    assert_eq!(app.add(5)?.status, 200);
    Ok(())
}

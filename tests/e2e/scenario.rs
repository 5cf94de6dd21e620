//! `tally-stub scenario` over real agents: that it finds what is broken. The scenarios that ship run in
//! `.ci/run`.

use std::process::{Command, Output};

use serde_json::Value;
use tally_tests::Result;
use tempfile::TempDir;

/// Runs a scenario with one agent and one licence of 100 units.
fn run(rest: &str, agent_args: &str) -> Result<Output> {
    let folder = TempDir::new()?;
    let path = folder.path().join("story.toml");
    let world = r#"
        name = "Story"
        idempotency = false
        story = "Of a test."
        [[world.licenses]]
        product = "inspect"
        license_key = "AAAA"
        max_consumptions = 100
        devices = [{ hardware_id = "device-1" }]
    "#;
    std::fs::write(&path, format!("{world}{rest}"))?;
    let agent = env!("CARGO_BIN_EXE_tally-under-test");
    let command = format!(
        "{agent} run --data-dir {{data_dir}} --server-url {{server_url}} --sync-interval 50ms \
         --settle-wait 400ms {agent_args}"
    );
    let mut scenario = Command::new(env!("CARGO_BIN_EXE_stub-under-test"));
    let args = ["--json", "--agent-command", &command];
    Ok(scenario.arg("scenario").arg(&path).args(args).output()?)
}

/// What the report says of an expectation: what was found, and whether it holds.
#[track_caller]
fn line(report: &Value, what: &str) -> (String, bool) {
    let lines = report["expectations"].as_array().into_iter().flatten();
    let mut found = lines.filter(|line| line["what"] == what);
    let line = found
        .next()
        .unwrap_or_else(|| panic!("no {what:?}: {report}"));
    (
        line["found"].as_str().unwrap_or_default().to_owned(),
        line["ok"] == true,
    )
}

fn report(output: &Output) -> Result<Value> {
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_scenario_waits_until_everything_is_counted_and_passes() -> Result {
    let output = run(
        r#"
        [[steps]]
        network = { state = "gone" }
        [[steps]]
        consume = { times = 3, units = 10 }
        [[steps]]
        consume = { units = 80 }
        [[steps]]
        agent = { action = "kill" }
        [[steps]]
        network = { state = "up" }
        [[steps]]
        agent = { action = "start" }
        [expect]
        granted = 30
        refused = { license_not_enough_consumptions = 1 }
        server = [{ total = 30 }]
        "#,
        "",
    )?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(
        line(&report, "server: total of licence 1"),
        ("30".to_owned(), true)
    );
    Ok(())
}

#[test]
fn units_that_a_client_counts_twice_are_found() -> Result {
    // The answer is lost after the server has counted, somebody else moves the total before the agent can read it,
    // and the policy of this agent is to send again all the same.
    let output = run(
        r#"
        [[steps]]
        faults = [
            { path = "/api/v4/add_consumption", action = { drop = "after" }, times = 1 },
            { path = "/api/v4/check_license", action = { drop = "before" } },
        ]
        [[steps]]
        consume = { units = 7 }
        [[steps]]
        wait = { unknown = 7 }
        [[steps]]
        license = { id = 1, set = { total_consumptions = 9 } }
        [[steps]]
        faults = []
        [[steps]]
        wait = { settled = 7 }
        [expect]
        within = "300ms"
        "#,
        "--undecidable resend",
    )?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let counted = line(
        &report,
        "licence 1: the server counted what is settled, once",
    );
    assert_eq!(counted, ("14".to_owned(), false));
    Ok(())
}

#[test]
fn what_is_not_quiet_does_not_pass() -> Result {
    let output = run(
        r#"
        [[steps]]
        agent = { action = "offline" }
        [[steps]]
        consume = { units = 7 }
        [expect]
        within = "300ms"
        agents = [{ pending = 7, connection = "offline" }]
        "#,
        "",
    )?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let quiet = line(&report, "nothing is left to send");
    assert_eq!(
        quiet,
        ("agent still has something to send".to_owned(), false)
    );
    assert_eq!(
        line(&report, "agent: pending of licence 1"),
        ("7".to_owned(), true)
    );
    assert_eq!(
        line(&report, "agent: connection"),
        ("offline".to_owned(), true)
    );
    Ok(())
}

#[test]
fn a_refusal_that_nobody_announced_does_not_pass() -> Result {
    let output = run(
        "
        [[steps]]
        consume = { units = 101 }
        [expect]
        within = \"300ms\"
        ",
        "",
    )?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let refused = line(&report, "refused consumptions");
    assert_eq!(
        refused,
        ("1 × license_not_enough_consumptions".to_owned(), false)
    );
    Ok(())
}

#[test]
fn what_does_not_come_to_pass_breaks_the_scenario_off() -> Result {
    let output = run(
        "
        [[steps]]
        wait = { settled = 5, within = \"100ms\" }
        ",
        "",
    )?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let error = report["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("did not come to settled 5; there was settled 0"),
        "{error}"
    );
    Ok(())
}

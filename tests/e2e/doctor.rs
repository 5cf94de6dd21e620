//! `tally doctor`: each trouble is found by the check whose business it is, with what to do about it.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

fn world() -> Result<(Stub, Agent)> {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    Ok((stub, agent))
}

/// What doctor says with further flags: the exit code, and the checks.
fn doctor(agent: &Agent, flags: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let output = agent.tally(&[["doctor", "--json"].as_slice(), flags].concat())?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let checks = report["checks"].as_array().context("the checks")?.clone();
    assert_eq!(report["ok"], json!(output.status.success()), "{report:#}");
    Ok((output.status.code(), checks))
}

fn problems(checks: &[Value]) -> Vec<&str> {
    let problems = checks.iter().filter(|check| check["ok"] == json!(false));
    problems
        .filter_map(|check| check["name"].as_str())
        .collect()
}

/// These flags make the check of this name a problem, and no other; it says this, and how to mend it.
#[track_caller]
fn check_problem(agent: &Agent, flags: &[&str], name: &str, found: &str) -> Result {
    let (code, checks) = doctor(agent, flags)?;
    assert_eq!(code, Some(1), "{checks:#?}");
    assert_eq!(problems(&checks), [name], "{checks:#?}");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.context("the check")?;
    let said = check["found"].as_str().context("what was found")?;
    assert!(said.contains(found), "{check:#}");
    assert!(
        check["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
        "{check:#}"
    );
    Ok(())
}

#[test]
fn all_is_well_with_the_agent_running_and_stopped() -> Result {
    let (stub, mut agent) = world()?;
    agent.add_license()?;
    for flags in [["--server-url", stub.url()].as_slice(), &[]] {
        let (code, checks) = doctor(&agent, flags)?;
        assert_eq!(code, Some(0), "{checks:#?}");
    }
    agent.terminate()?;
    let (code, checks) = doctor(&agent, &["--server-url", stub.url()])?;
    assert_eq!(code, Some(0), "{checks:#?}");
    let names: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    let expected = [
        "version",
        "settings",
        "data directory",
        "file system",
        "modes",
        "agent",
        "recovery",
        "ledger",
        "reserve",
        "disk space",
        "proxy",
        "dns",
        "connection",
        "tls",
        "credentials",
        "clock",
    ];
    assert_eq!(names, expected);
    assert!(
        checks.iter().all(|check| check["skipped"] == json!(false)),
        "{checks:#?}"
    );
    Ok(())
}

#[test]
fn wrong_credentials_are_found_by_asking_the_server() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = Agent::start_as(
        env!("CARGO_BIN_EXE_tally-under-test"),
        stub.url(),
        &Setup::default(),
        (seed::API_KEY, "not the account's"),
    )?;
    agent.terminate()?;
    let flags = ["--server-url", stub.url()];
    check_problem(&agent, &flags, "credentials", "signature_mismatch")?;
    let (_, checks) = doctor(&agent, &flags)?;
    assert!(
        !format!("{checks:?}").contains("not the account's"),
        "no secret is shown"
    );
    Ok(())
}

#[test]
fn a_server_that_is_gone_is_found() -> Result {
    let (stub, mut agent) = world()?;
    let url = stub.url().to_owned();
    drop(stub);
    agent.terminate()?;
    check_problem(&agent, &["--server-url", &url], "connection", "refused")
}

#[test]
fn a_clock_that_is_off_by_an_hour_is_found() -> Result {
    let (stub, mut agent) = world()?;
    agent.terminate()?;
    stub.advance(3600)?;
    check_problem(
        &agent,
        &["--server-url", stub.url()],
        "clock",
        "behind the server's",
    )
}

#[test]
fn a_name_that_nobody_knows_is_found() -> Result {
    let (_stub, mut agent) = world()?;
    agent.terminate()?;
    let flags = ["--server-url", "https://licences.invalid"];
    check_problem(&agent, &flags, "dns", "licences.invalid")
}

#[test]
fn a_handshake_that_fails_is_found() -> Result {
    let (stub, mut agent) = world()?;
    agent.terminate()?;
    let url = stub.url().replace("http://", "https://");
    let (code, checks) = doctor(&agent, &["--server-url", &url])?;
    assert_eq!(code, Some(1), "{checks:#?}");
    assert_eq!(problems(&checks), ["tls", "credentials"], "{checks:#?}");
    Ok(())
}

#[test]
fn something_else_that_answers_is_no_licence_server() -> Result {
    let (stub, mut agent) = world()?;
    agent.terminate()?;
    stub.network(&json!({"state": "captive_portal"}))?;
    let flags = ["--server-url", stub.url()];
    check_problem(
        &agent,
        &flags,
        "credentials",
        "not as a licence server does",
    )
}

#[test]
fn a_file_that_others_can_read_is_found() -> Result {
    let (stub, agent) = world()?;
    let token = agent.data_dir().join("admin_token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644))?;
    let flags = ["--server-url", stub.url()];
    check_problem(&agent, &flags, "modes", "can be read by other users")
}

/// Each setting is shown with where it comes from; a running agent's own need not be known.
#[test]
fn settings_say_where_they_come_from() -> Result {
    let (stub, agent) = world()?;
    let file = agent.data_dir().join("tally.toml");
    let text = format!(
        "sync_interval = \"7s\"\n[server]\nurl = \"{}\"\nshared_key = \"hush\"\n",
        stub.url()
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let file = file.display().to_string();
    let (code, checks) = doctor(&agent, &["--config", &file, "--settle-wait", "9s"])?;
    assert_eq!(code, Some(0), "{checks:#?}");
    let settings = checks.iter().find(|check| check["name"] == "settings");
    let text = settings.context("the settings")?.to_string();
    for wanted in [
        "sync_interval = 7s  from the file",
        "settle_wait = 9s  from a flag",
        "TALLY_SERVER_API_KEY = (secret)  from the environment",
        "server.shared_key = (secret)  from the file",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    Ok(())
}

/// The status says since when the server is reached or not, and what a person should type.
#[test]
fn the_status_says_since_when_and_what_to_do() -> Result {
    let (stub, agent) = world()?;
    agent.add_license()?;
    let state = || Ok(agent.json(&["status"])?["connection"].clone());
    let online = state()?;
    assert_eq!(online["state"], "online");
    assert!(
        online["since_ms"].is_u64() && online["since"].is_string(),
        "{online}"
    );
    drop(stub);
    let app = agent.app("inspector")?;
    assert_eq!(app.add(3)?.status, 200);
    wait::until("the server to be missed", state, |state| {
        state["state"] == "unreachable"
    })?;
    let page = agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    for wanted in [
        "● offline for ",
        "3 units are owed",
        "`tally doctor` finds out why",
    ] {
        assert!(page.contains(wanted), "{page}");
    }
    assert!(
        !page.contains('\u{1b}'),
        "no colours where nobody sees them: {page:?}"
    );
    Ok(())
}

/// The next frame of `tally status --watch` that is as wanted.
fn frame(out: &mut impl BufRead, wanted: impl Fn(&str) -> bool) -> Result<String> {
    const ENDS: &[u8] = b"\x1b[?2026l";
    let mut seen = Vec::new();
    loop {
        let read = out.read_until(b'l', &mut seen)?;
        anyhow::ensure!(read > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        if seen.ends_with(ENDS) {
            let frame = String::from_utf8_lossy(&std::mem::take(&mut seen)).into_owned();
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }
}

#[test]
fn watching_goes_on_while_the_agent_starts_again_and_puts_the_terminal_back() -> Result {
    let (_stub, mut agent) = world()?;
    agent.add_license()?;
    let watch = agent.command(&["status", "--watch"]);
    let words: Vec<_> = std::iter::once(watch.get_program())
        .chain(watch.get_args())
        .collect();
    let words: Vec<_> = words
        .iter()
        .map(|word| format!("'{}'", word.display()))
        .collect();
    // A terminal of its own.
    let mut terminal = Command::new("script");
    terminal.args([
        "-qfec",
        &format!("stty cols 80 rows 24; exec {}", words.join(" ")),
        "/dev/null",
    ]);
    terminal
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    terminal.stdin(Stdio::piped());
    let mut process = terminal.stdout(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(process.stdout.take().context("its output")?);
    let is_missed = |frame: &str| frame.contains("the agent does not answer");
    let start = frame(&mut out, |frame| frame.contains("online for"))?;
    assert!(
        start.contains("\u{1b}[?1049h") && start.contains("\u{1b}[?25l"),
        "{start:?}"
    );
    agent.terminate()?;
    frame(&mut out, is_missed)?;
    agent.restart()?;
    frame(&mut out, |frame| !is_missed(frame))?;
    // As if somebody pressed Ctrl-C.
    let mut keyboard = process.stdin.take().context("its input")?;
    keyboard.write_all(b"\x03")?;
    let mut rest = String::new();
    out.read_to_string(&mut rest)?;
    assert!(rest.contains("\u{1b}[?25h\u{1b}[?1049l"), "{rest:?}");
    assert!(process.wait()?.success());
    Ok(())
}

//! The command line as people and scripts see it.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use serde_json::{Map, Value, json};
use tally_tests::{
    Result,
    agent::{Agent, Sums},
    seed, wait,
};

use crate::world;

const TALLY: &str = env!("CARGO_BIN_EXE_tally-under-test");

/// What differs from run to run.
const FILTERS: [(&str, &str); 9] = [
    (r"/tmp/[^\s;,']+", "[path]"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[moment]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "[uuid]",
    ),
    (r"\b[0-9a-f]{64}\b", "[hash]"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:[port]"),
    (r"\b\d+ (s|min|h)( \d+ min)?\b", "[span]"),
    (r"tally-under-test", "tally"),
    (r"tally \d+\.\d+\.\d+", "tally [version]"),
];

fn filtered(work: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    for (pattern, with) in FILTERS {
        settings.add_filter(pattern, with);
    }
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(work);
}

#[track_caller]
fn snapshot(name: &str, content: &str) {
    filtered(|| insta::assert_snapshot!(name, content));
}

/// What a command printed, and how it ended.
fn told(output: &Output) -> String {
    format!(
        "exit code: {}\n----- stdout -----\n{}----- stderr -----\n{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

fn help(path: &[String]) -> String {
    // The settings of whoever runs the tests would show in it.
    let output = Command::new(TALLY)
        .args(path)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "tally {path:?} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // A name has two spaces before it; what it is for, more.
    let commands = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = commands.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Looks at a command and those below it; returns those that do something and have no example.
fn look_at(path: &[String]) -> Vec<String> {
    let text = help(path);
    let name = [&["help".to_owned()], path].concat().join("_");
    snapshot(&name, &text);
    let below = subcommands(&text);
    if below.is_empty() {
        let lacks = !text.contains("Example");
        return lacks.then(|| path.join(" ")).into_iter().collect();
    }
    below
        .into_iter()
        .flat_map(|name| look_at(&[path, &[name]].concat()))
        .collect()
}

#[test]
fn help_of_every_command_has_an_example() {
    let lacking = look_at(&[]);
    assert!(lacking.is_empty(), "no example: {lacking:?}");
}

/// What stays of a value when its numbers and texts are left out.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, field)| (name.clone(), shape(field)));
            fields.collect::<Map<String, Value>>().into()
        }
    }
}

#[track_caller]
fn check_shape(agent: &Agent, name: &str, args: &[&str]) -> Result {
    snapshot_shape(name, &agent.json(args)?)
}

#[track_caller]
fn snapshot_shape(name: &str, printed: &Value) -> Result {
    let text = serde_json::to_string_pretty(&shape(printed))?;
    snapshot(&format!("json_{name}"), &text);
    Ok(())
}

#[test]
fn json_has_the_shapes_that_are_promised() -> Result {
    let (_stub, agent) = world()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("licenses.csv");
    std::fs::write(
        &file,
        "product,license_key,hardware_id\ninspect,EEEE-FFFF,device-1\n",
    )?;
    let file = file.display().to_string();
    let licence = [
        "--product",
        seed::PRODUCT,
        "--license-key",
        seed::KEY,
        "--hardware-id",
        seed::DEVICE,
    ];
    for (name, args) in [
        ("status", ["status"].as_slice()),
        ("license_import", &["license", "import", &file]),
        ("license_list", &["license", "list"]),
        ("license_show", &["license", "show", seed::KEY]),
        ("record", &[["record"].as_slice(), &licence].concat()),
        ("log", &["log"]),
        ("log_refused", &["log", "--refused"]),
        ("explain", &["explain", "1"]),
        ("explain_refusal", &["explain", "r1"]),
        ("verify", &["verify"]),
        ("app_list", &["app", "list"]),
        ("app_add", &["app", "add", "kiosk"]),
        ("app_revoke", &["app", "revoke", "kiosk"]),
        ("network", &["network", "online"]),
        (
            "license_add",
            &[["license", "add"].as_slice(), &licence].concat(),
        ),
        ("sync", &["sync"]),
        ("license_refresh", &["license", "refresh", seed::KEY]),
        ("dashboard", &["dashboard", "--print"]),
        ("license_remove", &["license", "remove", seed::KEY]),
    ] {
        check_shape(&agent, name, args)?;
    }
    Ok(())
}

#[test]
fn json_of_what_is_held_and_of_its_decision_has_the_promised_shape() -> Result {
    let (stub, agent) = world()?;
    // The 3 units that wait find no room any more.
    stub.edit(1, json!({"max_consumptions": 5}))?;
    agent.network("online")?;
    let is_held = |sums: &Sums| sums.held == 3;
    wait::until("the batch to be held", || agent.sums(0), is_held)?;
    check_shape(&agent, "status_held", &["status"])?;
    let status = agent.json(&["status"])?;
    let batch = status["licenses"][0]["held"][0]["batch"].to_string();
    check_shape(
        &agent,
        "resolve",
        &["resolve", &batch, "--waive", "a demo device"],
    )
}

#[test]
fn json_of_doctor_has_the_promised_shape() -> Result {
    let (_stub, mut agent) = world()?;
    check_shape(&agent, "doctor", &["doctor"])?;
    agent.terminate()?;
    let output = agent.tally(&[
        "doctor",
        "--json",
        "--server-url",
        "https://licences.invalid",
    ])?;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().unwrap();
    let problem = checks.iter().find(|check| check["ok"] == json!(false));
    snapshot_shape("doctor_problem", problem.unwrap())
}

/// By a `systemctl` that says what it says of a service that runs: nothing of this system is asked.
#[test]
fn json_of_the_services_state_has_the_promised_shape() -> Result {
    let (_stub, agent) = world()?;
    let folder = tempfile::tempdir()?;
    let systemctl = folder.path().join("systemctl");
    let says = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
                FragmentPath=/home/ada/.config/systemd/user/tally.service\nMainPID=4711\n";
    std::fs::write(&systemctl, format!("#!/bin/sh\ncat <<END\n{says}END\n"))?;
    std::fs::set_permissions(&systemctl, Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let mut command = agent.command(&["service", "status", "--user", "--json"]);
    let output = command.env("PATH", path).output()?;
    snapshot_shape("service_status", &serde_json::from_slice(&output.stdout)?)
}

#[test]
fn people_are_told_in_words() -> Result {
    let (_stub, agent) = world()?;
    for (name, args) in [
        ("status", ["status"].as_slice()),
        ("license_list", &["license", "list"]),
        ("license_show", &["license", "show", seed::KEY]),
        ("log", &["log"]),
        ("log_refused", &["log", "--refused"]),
        ("explain", &["explain", "1"]),
        ("explain_refusal", &["explain", "r1"]),
        ("verify", &["verify"]),
        ("license_remove_owed", &["license", "remove", seed::KEY]),
        ("license_unknown", &["license", "show", "NOBODY"]),
        ("resolve_unknown", &["resolve", "99", "--applied"]),
        ("explain_unknown", &["explain", "999"]),
    ] {
        snapshot(&format!("says_{name}"), &told(&agent.tally(args)?));
    }
    Ok(())
}

/// The newest row gets a place far off, as if there were others between.
fn leave_a_gap(agent: &Agent) -> Result {
    let ledger = rusqlite::Connection::open(agent.data_dir().join("ledger.db"))?;
    let sql = "UPDATE consumptions SET seq = seq + 300000
               WHERE seq = (SELECT max(seq) FROM consumptions)";
    assert_eq!(ledger.execute(sql, [])?, 1);
    Ok(())
}

#[test]
fn a_search_that_did_not_come_to_the_oldest_row_says_so() -> Result {
    let (_stub, agent) = world()?;
    let by_app = ["log", "--app", "inspector"];
    let said = |args: &[&str]| -> Result<String> {
        let output = agent.tally(args)?;
        Ok(String::from_utf8(output.stderr)?)
    };
    assert_eq!(said(&by_app)?, "", "everything was looked at");
    leave_a_gap(&agent)?;
    assert_eq!(agent.json(&by_app)?.as_array().map(Vec::len), Some(1));
    assert!(said(&by_app)?.contains("200000 rows"), "a row was left out");
    let after = ["--after", "1"];
    assert_eq!(
        said(&[by_app.as_slice(), &after].concat())?,
        "",
        "only the older one was left out"
    );
    let enough = ["--limit", "1"];
    assert_eq!(said(&[by_app.as_slice(), &enough].concat())?, "", "enough");
    assert_eq!(said(&["log"])?, "", "rows of all kinds are looked up");
    let url = format!("{}/v1/events?app=inspector", agent.url()?);
    let request = reqwest::blocking::Client::new().get(url);
    let answer = request.bearer_auth(agent.admin_token()?).send()?;
    assert_eq!(answer.headers()["tally-searched"], "200000");
    Ok(())
}

#[test]
fn errors_say_what_to_do_next() -> Result {
    let folder = tempfile::tempdir()?;
    let run = |args: &[&str]| -> Result<String> {
        let mut command = Command::new(TALLY);
        command
            .args(args)
            .arg("--data-dir")
            .arg(folder.path().join("nowhere"));
        Ok(told(&command.output()?))
    };
    snapshot("error_no_agent", &run(&["status"])?);
    snapshot("error_no_ledger", &run(&["verify"])?);
    snapshot("error_no_such_command", &run(&["frobnicate"])?);
    snapshot(
        "error_missing_argument",
        &run(&["license", "add", "--product", "inspect"])?,
    );
    Ok(())
}

/// Runs `tally --help` on a terminal.
fn on_a_terminal(variables: &[(&str, &str)]) -> Result<String> {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{TALLY} --help"), "/dev/null"]);
    command
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("CI")
        .envs(variables.iter().copied());
    Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() -> Result {
    let colour = "\u{1b}[";
    assert!(
        on_a_terminal(&[])?.contains(colour),
        "no colour on a terminal"
    );
    assert!(
        !on_a_terminal(&[("NO_COLOR", "1")])?.contains(colour),
        "NO_COLOR is ignored"
    );
    assert!(!help(&[]).contains(colour), "colour in a pipe");
    Ok(())
}

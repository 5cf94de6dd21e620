//! Texts that others control, in everything that a person reads: names of licences, devices and features, messages
//! and codes of a server. None may drive the terminal, turn the direction of what stands beside it, or make a line of
//! its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    process::Output,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::SystemTime,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tally_shared::time::Timestamp;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::target::ADD;

/// A new title for the window, a cleared screen, 8-bit control characters, an override and an isolate of direction,
/// a separator of lines, and lines of their own.
const EVIL: &str =
    "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{2028}\u{7f}\r\n<0>forged";

/// Whether a text is only shown: line feeds are the program's own.
#[track_caller]
fn check_is_text(what: &str, text: &str) {
    let drives = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let found: Vec<char> = text.chars().filter(|c| drives(*c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    let forged = text.lines().find(|line| line.starts_with("<0>forged"));
    assert_eq!(forged, None, "{what}: {text:?}");
}

fn named(name: &str) -> String {
    format!("{name}{EVIL}")
}

fn check(args: &[&str], output: &Output) -> Result<String> {
    let said = String::from_utf8(output.stdout.clone())?;
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{args:?}: {output:?}"
    );
    check_is_text(&format!("{args:?}"), &said);
    check_is_text(
        &format!("{args:?} on stderr"),
        std::str::from_utf8(&output.stderr)?,
    );
    Ok(said)
}

#[test]
fn names_of_others_are_only_shown_in_every_output() -> Result {
    let (product, key, device) = (named(seed::PRODUCT), named(seed::KEY), named(seed::DEVICE));
    let feature = named("scans");
    let seed = json!({
        "api_keys": [{"api_key": seed::API_KEY, "shared_key": seed::SHARED_KEY}],
        "products": [{"code": product}],
        "licenses": [{
            "id": 1, "product": product, "license_key": key, "max_consumptions": 10,
            "devices": [{"hardware_id": device}],
            "features": [{"code": feature, "max_consumption": 5}],
        }],
    });
    let stub = Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)?;
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let agent = Agent::start(program, stub.url(), &Setup::default())?;
    let license = [
        "--product",
        &product,
        "--license-key",
        &key,
        "--hardware-id",
        &device,
    ];
    let tally = |args: &[&str]| -> Result<String> { check(args, &agent.tally(args)?) };
    let with_license = |args: &[&str]| tally(&[args, license.as_slice()].concat());
    with_license(&["license", "add"])?;
    let app = agent.app_with("confined", &["--product", &product, "--license-key", &key])?;
    let subject = json!({"product": product, "license_key": key, "hardware_id": device});
    let consume = |path: &str, with: Value| app.post(path, &seed::merged(subject.clone(), with));
    assert_eq!(consume(ADD, json!({"consumptions": 2}))?.status, 200);
    assert_eq!(consume(ADD, json!({"consumptions": 99}))?.status, 400);
    let counted = consume(
        "/api/v4/add_feature_consumption",
        json!({"feature": feature}),
    )?;
    assert_eq!(counted.status, 200, "{}", counted.text);
    consume(
        "/api/v4/add_feature_consumption",
        json!({"feature": named("none")}),
    )?;
    agent.wait_settled(0)?;
    with_license(&["record"])?;
    with_license(&["record", "--units", "99"])?;
    with_license(&["record", "--json"])?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("licences.json");
    let strangers = json!([
        {"product": product, "license_key": named("OTHER"), "hardware_id": device},
        {"product": named("none"), "username": named("user"), "hardware_id": device},
    ]);
    fs::write(&file, strangers.to_string())?;
    let (file, missing) = (file.display().to_string(), named("/nowhere/file"));
    for args in [
        ["license", "import", &file].as_slice(),
        &["license", "import", "--later", &file],
        &["license", "import", &missing],
        &["license", "list"],
        &["license", "list", "--json"],
        &["license", "show", &key],
        &["license", "show", &key, "--json"],
        &["license", "show", &named("unknown")],
        &["license", "refresh", &key],
        &["license", "refresh", "1"],
        &["app", "list"],
        &["app", "list", "--json"],
        &["status"],
        &["status", "--json"],
        &["sync"],
        &["log"],
        &["log", "--json"],
        &["log", "--refused"],
        &["log", "--refused", "--json"],
        &["explain", "1"],
        &["explain", "1", "--json"],
        &["explain", "2"],
        &["explain", "r1"],
        &["explain", "r1", "--json"],
        &["verify"],
        &["export"],
        &["export", "--format", "jsonl"],
        &["doctor"],
        &["doctor", "--json"],
        &["license", "remove", &key, "--reason", EVIL],
        &["log"],
        &["log", "--json"],
        &["license", "list"],
    ] {
        tally(args)?;
    }
    check_programs_read_what_was_sent(&agent, &product, &device)
}

/// Nothing is lost to a program by how a text is shown.
fn check_programs_read_what_was_sent(agent: &Agent, product: &str, device: &str) -> Result {
    // A note of the ledger, with the reason.
    let rows = agent.json(&["log"])?;
    let newest = rows
        .as_array()
        .and_then(|rows| rows.last())
        .context("a row")?;
    let newest = newest["seq"].to_string();
    let explain = ["explain", newest.as_str()];
    check(&explain, &agent.tally(&explain)?)?;
    // Programs get what it is, to the byte.
    assert_eq!(rows[0]["hardware_id"], json!(device));
    let exported = agent.tally(&["export", "--format", "jsonl"])?.stdout;
    let exported = String::from_utf8(exported)?;
    let first: Value = serde_json::from_str(exported.lines().next().context("a row")?)?;
    assert_eq!(first["product"], json!(product));
    check_is_text("metrics", &agent.metrics()?);
    check_is_text("the agent's log", &agent.said()?);
    Ok(())
}

/// A server that says to requests what it is told to say. Until it is told to refuse look-ups as well, an honest one
/// answers those.
struct Hostile {
    url: String,
    says: Arc<Mutex<Says>>,
}

#[derive(Clone, Default)]
struct Says {
    body: String,
    /// The honest server's address, while it answers look-ups.
    honest: Option<String>,
}

impl Hostile {
    fn start(honest: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let says = Arc::new(Mutex::new(Says {
            body: String::new(),
            honest: Some(honest.trim_start_matches("http://").to_owned()),
        }));
        let answer = Arc::clone(&says);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                // Who goes away needs no answer.
                thread::spawn(move || serve(stream, &answer));
            }
        });
        Ok(Self { url, says })
    }

    fn say(&self, answer: &Value) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.body = answer.to_string();
    }

    fn refuse_look_ups_too(&self) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.honest = None;
    }
}

/// Answers one request, and hangs up.
fn serve(mut stream: TcpStream, says: &Mutex<Says>) -> Result {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.trim().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if lower.is_empty() {
            break;
        }
        head += &line;
    }
    reader.read_exact(&mut vec![0; length])?;
    let Says { body, honest } = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(honest) = honest.filter(|_| head.starts_with("GET ")) {
        let mut other = TcpStream::connect(honest)?;
        write!(other, "{head}Connection: close\r\n\r\n")?;
        std::io::copy(&mut other, &mut stream)?;
        return Ok(());
    }
    let date = Timestamp::from_system_time(SystemTime::now()).to_http_date();
    write!(
        stream,
        "HTTP/1.1 400 Bad Request\r\nDate: {date}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

fn refusal(code: &str) -> Value {
    json!({"status": 400, "code": code, "message": named("no")})
}

/// What a server says stands in each line of the log quoted, and makes no line.
fn check_log(agent: &Agent, is_begun: impl Fn(&str) -> bool) -> Result {
    let said = agent.said()?;
    check_is_text("the agent's log", &said);
    for line in said.lines() {
        assert!(is_begun(line), "{line:?} in {said}");
    }
    Ok(())
}

#[test]
fn what_a_server_says_is_only_shown_and_makes_no_line_of_the_log() -> Result {
    let seed = seed::seed(&[seed::license(10, json!({}))]);
    let stub = Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)?;
    let hostile = Hostile::start(stub.url())?;
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let mut agent = Agent::start(program, stub.url(), &Setup::default())?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(1)?.status, 200);
    agent.terminate()?;
    fs::write(agent.log(), "")?;
    let log = fs::metadata(agent.log())?;
    let stream = format!("{}:{}", log.dev(), log.ino());

    // The same ledger, with another server on this device.
    let mut command = agent.command(&["run", "--listen", "127.0.0.1:0"]);
    command.args([
        "--server-url",
        &hostile.url,
        "--sync-interval",
        "50ms",
        "--settle-wait",
        "200ms",
    ]);
    command.env("JOURNAL_STREAM", stream);
    hostile.say(&refusal("validation_error"));
    let mut process = tally_tests::process::Process::start(&mut command, &agent.log())?;
    wait::until(
        "the batch to be held",
        || agent.sums(0),
        |sums| sums.held == 1,
    )?;
    hostile.refuse_look_ups_too();
    let other = [
        "license",
        "add",
        "--product",
        seed::PRODUCT,
        "--license-key",
        "OTHER",
    ];
    let other = [other.as_slice(), &["--hardware-id", seed::DEVICE]].concat();
    for code in [
        "license_not_found",
        "validation_error",
        "license_expired",
        EVIL,
    ] {
        hostile.say(&refusal(code));
        let refused = agent.tally(&other)?;
        check(&other, &refused)?;
        assert_eq!(String::from_utf8(refused.stderr)?.lines().count(), 1);
        for args in [
            ["license", "refresh", seed::KEY].as_slice(),
            &["sync"],
            &["status"],
            &["license", "show", seed::KEY],
            &["license", "list"],
            &["log"],
            &["explain", "1"],
            &["doctor"],
        ] {
            check(args, &agent.tally(args)?)?;
        }
    }
    process.terminate()?;
    let said = agent.said()?;
    assert!(said.contains("forged"), "it is logged at all: {said}");
    let begins = ["<3>", "<4>", "<6>", "<7>"];
    check_log(&agent, |line| {
        begins.iter().any(|begin| line.starts_with(begin))
    })
}

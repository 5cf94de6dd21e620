//! `tally status`

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use serde_json::Value;
use tally_shared::time::Timestamp;

use super::{
    args::StatusArgs,
    bars,
    client::Agent,
    output::{self, Outcome, table},
};
use crate::config::paths::DataDir;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Clears the screen, and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn run(data_dir: &DataDir, args: &StatusArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    if args.watch {
        return watch(&agent);
    }
    let status: Value = agent.get("/v1/status")?;
    if args.output.json {
        output::json(&status)?;
    } else {
        output::text(&page(&status))?;
    }
    Ok(Outcome::Done)
}

/// Shows the state again and again, until it is interrupted or the agent ends.
fn watch(agent: &Agent) -> anyhow::Result<Outcome> {
    let clear = if std::io::stdout().is_terminal() {
        CLEAR
    } else {
        ""
    };
    loop {
        let status: Value = agent.get("/v1/status")?;
        let mut out = std::io::stdout().lock();
        let shown = write!(out, "{clear}{}\n\n", page(&status)).and_then(|()| out.flush());
        match shown {
            // Nobody looks any more.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(Outcome::Done);
            }
            other => other?,
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The state of an agent, for a person.
pub(super) fn page(status: &Value) -> String {
    let licenses = status
        .get("licenses")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut text = headline(status) + "\n";
    if let Some(advice) = status.get("storage_advice").and_then(Value::as_str) {
        text = text + "nothing is recorded: " + advice + "\n";
    }
    if status.get("evidence").and_then(Value::as_u64) > Some(0) {
        text +=
            "the ledger was changed behind the agent's back; `tally verify` says where it shows\n";
    }
    if licenses.is_empty() {
        return text + "\nno licence is known; `tally license add` makes one known\n";
    }
    let now = status.get("time").and_then(Value::as_str);
    let now = now.and_then(Timestamp::parse);
    text = text + "\n" + &bars::bars(&licenses, now) + "\n" + &license_table(&licenses);
    let held = held_lines(&licenses);
    if !held.is_empty() {
        text = text + "\nheld (`tally resolve` decides):\n" + &held;
    }
    let late = late_lines(&licenses);
    if !late.is_empty() {
        text = text + "\n" + &late;
    }
    text
}

fn headline(status: &Value) -> String {
    let connection = |key| status.pointer(&format!("/connection/{key}"));
    let state = connection("state")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    let what = match state {
        "online" => "online".to_owned(),
        "offline" => "offline: the network is switched off (`tally network online`)".to_owned(),
        "refused" => format!(
            "not syncing: the server refuses the credentials ({})",
            connection("refused").and_then(Value::as_str).unwrap_or("?")
        ),
        _ => "offline: the server is not reached; consumptions are recorded here".to_owned(),
    };
    let last = connection("last_answer_ms")
        .and_then(Value::as_u64)
        .map_or_else(
            || "never heard from the server".to_owned(),
            |ms| format!("heard from the server {} ago", ago(ms)),
        );
    let clock = match status.get("time_proven").and_then(Value::as_bool) {
        Some(true) => "",
        _ => " · the clock is not confirmed by the server yet",
    };
    format!("{what} · {last}{clock}")
}

/// Whole seconds are what a person wants to know.
fn ago(millis: u64) -> String {
    humantime::format_duration(Duration::from_secs(millis / 1000)).to_string()
}

/// The licences, each with where its units are. The sum is the promise: recorded = settled + pending +
/// in flight + unknown + held.
pub(super) fn license_table(licenses: &[Value]) -> String {
    let head = [
        "PRODUCT",
        "LICENCE",
        "USED",
        "LIMIT",
        "RECORDED",
        "SETTLED",
        "PENDING",
        "IN FLIGHT",
        "UNKNOWN",
        "HELD",
        "STATE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(licenses.iter().map(license_row));
    table(&rows)
}

fn license_row(license: &Value) -> [String; 11] {
    let text = |key: &str| {
        license
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let sum = |key: &str| {
        let value = license.pointer(&format!("/conservation/{key}"));
        value.map(ToString::to_string).unwrap_or_default()
    };
    let cap = license.get("cap").and_then(Value::as_i64);
    let name = match license.get("feature").and_then(Value::as_str) {
        Some(feature) => format!("{} · {feature}", text("holder_value")),
        None => text("holder_value"),
    };
    let refused = license.get("refused").and_then(Value::as_str);
    [
        text("product"),
        name,
        license
            .get("total")
            .map(ToString::to_string)
            .unwrap_or_default(),
        cap.map_or_else(|| "none".to_owned(), |cap| cap.to_string()),
        sum("recorded"),
        sum("settled"),
        sum("pending"),
        sum("in_flight"),
        sum("unknown"),
        sum("held"),
        refused.unwrap_or("ok").to_owned(),
    ]
}

fn late_lines(licenses: &[Value]) -> String {
    licenses
        .iter()
        .filter_map(|license| {
            let units = license.get("late")?.as_i64().filter(|units| *units != 0)?;
            let holder = license.get("holder_value")?.as_str()?;
            Some(format!(
                "{holder}: {units} units were sent after their period was over, and count in a later one\n"
            ))
        })
        .collect()
}

fn held_lines(licenses: &[Value]) -> String {
    let batches = licenses
        .iter()
        .filter_map(|license| license.get("held")?.as_array());
    batches
        .flatten()
        .fold(String::new(), |text, batch| text + &held_line(batch))
}

pub(super) fn held_line(batch: &Value) -> String {
    let text = |key: &str| batch.get(key).and_then(Value::as_str);
    let number = |key: &str| batch.get(key).map(ToString::to_string).unwrap_or_default();
    let since = text("since")
        .map(|since| format!(" since {since}"))
        .unwrap_or_default();
    let at = text("next_at")
        .map(|at| format!(", at {at} at the latest"))
        .unwrap_or_default();
    format!(
        "  batch {}: {} units, {}{since}; next step: {}{at}\n",
        number("batch"),
        number("units"),
        text("reason").unwrap_or("?"),
        text("next_step").unwrap_or("?"),
    )
}

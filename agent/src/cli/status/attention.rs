//! What needs a person, and what that person types next.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use tally_shared::time::Timestamp;

use super::Facts;
use crate::{
    cli::{
        human,
        screen::{Screen, paragraph},
    },
    core::book::Finding,
};

/// Number of findings that are shown one by one, newest first.
const FINDINGS_SHOWN: usize = 5;

/// Something that does not go on well by itself.
struct Matter {
    what: String,
    /// What to do about it: a command, or where to look.
    next: String,
}

/// One paragraph each; empty where nothing needs anybody.
pub(super) fn attention(status: &Value, now: Option<Timestamp>, screen: Screen) -> String {
    let facts = Facts(status);
    let mut matters: Vec<Matter> = copy(facts).into_iter().collect();
    matters.extend(of_agent(facts));
    for license in facts.licenses() {
        matters.extend(of_license(Facts(license), now));
    }
    let red = AnsiColor::Red.on_default().bold();
    let lines = matters.iter().map(|matter| {
        paragraph(&format!("! {}", matter.what), red, 0, screen)
            + &paragraph(&format!("→ {}", matter.next), Style::new(), 2, screen)
    });
    lines.collect()
}

fn of_agent(facts: Facts<'_>) -> Vec<Matter> {
    let mut matters = Vec::new();
    let mut add = |what: String, next: &str| {
        let next = next.to_owned();
        matters.push(Matter { what, next });
    };
    if let Some(advice) = facts.find("/storage_advice").and_then(Value::as_str) {
        add(
            "nothing is recorded: the ledger cannot be written".to_owned(),
            advice,
        );
    }
    if facts.number("/written_back") > 0 {
        add(
            "the ledger was deleted or moved away while the agent ran, and was written back"
                .to_owned(),
            "find out what did it, before it does so while no agent runs; `tally log` has the row",
        );
    }
    if facts.find("/risky_file_system/name").is_some() {
        let name = facts.text("/risky_file_system/name");
        let risk = facts.text("/risky_file_system/risk");
        let what = format!("the data directory is on {name}: {risk}");
        add(what, &facts.text("/risky_file_system/advice"));
    }
    match facts.text("/connection/state").as_str() {
        "refused" => add(
            format!(
                "the server refuses the credentials ({})",
                facts.text("/connection/refused")
            ),
            "set the right ones and start the agent again; `tally doctor` tries them",
        ),
        "other_server" => {
            let owed_to = facts.text("/connection/owed_to");
            let owed_to = match owed_to.as_str() {
                "loopback" => "a server on this device",
                address => address,
            };
            let server = facts.text("/server");
            add(
                format!(
                    "what is owed was recorded for {owed_to}, and {server} is set now: nothing is sent"
                ),
                "set the former `server.url` again; or, if it is the same server under another address: \
                 tally resolve --server-moved; or give up what it is owed: tally resolve BATCH --waive REASON",
            );
        }
        "offline" => add(
            "the network is switched off for a drill".to_owned(),
            "tally network online",
        ),
        "unreachable" if !facts.is_untried() => add(
            "the server is not reached; consumptions are recorded here".to_owned(),
            "`tally doctor` finds out why; `tally sync` tries at once",
        ),
        _ => {}
    }
    if facts.number("/evidence") > facts.number("/copy/explains") {
        add(
            "the ledger was changed behind the agent's back".to_owned(),
            "`tally verify` says where it shows",
        );
    }
    let findings = facts.find("/findings").cloned();
    let findings: Vec<Finding> = findings
        .and_then(|findings| serde_json::from_value(findings).ok())
        .unwrap_or_default();
    for finding in findings.iter().rev().take(FINDINGS_SHOWN) {
        let no = finding.seq.0;
        let next = format!(
            "{}; then: tally resolve --finding {no}",
            finding.kind.advice()
        );
        add(finding.what(), &next);
    }
    if findings.len() > FINDINGS_SHOWN {
        let more = findings.len() - FINDINGS_SHOWN;
        add(
            format!("the server's totals do not fit in {more} more findings"),
            "`tally verify` lists all of them",
        );
    }
    let is_proven = facts.find("/time_proven").and_then(Value::as_bool);
    if is_proven == Some(false) && !facts.is_untried() {
        add(
            "the server has not confirmed the clock since this device started; periods may turn at the wrong time"
                .to_owned(),
            "`tally sync` asks the server; `tally doctor` compares the clocks",
        );
    }
    matters
}

/// A copy, and what a person says of it.
fn copy(facts: Facts<'_>) -> Option<Matter> {
    facts.find("/copy/what")?;
    let of = match (facts.text("/copy/host"), facts.text("/copy/path")) {
        (host, path) if host.is_empty() || path.is_empty() => "an earlier one".to_owned(),
        (host, path) => format!("{path} on {host}"),
    };
    let what = if facts.text("/copy/what") == "older_copy" {
        "this is a copy of an earlier state of this ledger, put back".to_owned()
    } else {
        let written = facts.text("/copy/written_at");
        format!("this is a copy of {of}, written last at {written}: started elsewhere, or put back")
    };
    let held = match facts.number("/copy/held") {
        0 => String::new(),
        units => format!(
            "; {} of it, which the original may have sent, are held",
            human::units(units)
        ),
    };
    Some(Matter {
        what: what + &held,
        next: "say what became of the original: `tally device moved`, it is gone and this one goes on; \
               `tally device new`, it lives on and this is another"
            .to_owned(),
    })
}

fn of_license(license: Facts<'_>, now: Option<Timestamp>) -> Vec<Matter> {
    let holder = license.text("/holder_value");
    let name = match license.find("/feature").and_then(Value::as_str) {
        Some(feature) => format!("{holder} · {feature}"),
        None => holder,
    };
    let mut matters = Vec::new();
    if let Some(code) = license.find("/refused").and_then(Value::as_str) {
        matters.push(Matter {
            what: format!("the server refuses {name}: {code}"),
            next: "the vendor can allow it again; `tally sync` then asks at once".to_owned(),
        });
    }
    if let Some(left) = license.find("/refused_with_room").and_then(Value::as_i64) {
        let left = match left {
            i64::MAX => "no limit".to_owned(),
            left => format!("{left} left"),
        };
        matters.push(Matter {
            what: format!(
                "the server refuses units of {name} for the limit although the licence has {left} (a pool?)"
            ),
            next: "ask the vendor; it is tried again now and then, and `tally sync` tries at once"
                .to_owned(),
        });
    }
    matters.extend(unknown_batch(&name, license, now));
    let held = license.find("/held").and_then(Value::as_array);
    matters.extend(
        held.into_iter()
            .flatten()
            .map(|batch| held_batch(&name, Facts(batch), now)),
    );
    matters
}

/// What was sent and not answered, once a person may decide about it.
fn unknown_batch(name: &str, license: Facts<'_>, now: Option<Timestamp>) -> Option<Matter> {
    let number = license.find("/unknown/batch").and_then(Value::as_i64)?;
    let decidable_at = Timestamp::parse(&license.text("/unknown/decidable_at"))?;
    if now.is_none_or(|now| now < decidable_at) {
        return None;
    }
    Some(Matter {
        what: format!(
            "batch {number} of {name}, {}, was sent, and its answer was lost",
            human::units(license.number("/unknown/units")),
        ),
        next: format!(
            "it goes on by itself when the server can be asked; or say what became of it: tally resolve {number} \
             --applied | --not-applied | --resend | --waive REASON"
        ),
    })
}

fn held_batch(name: &str, batch: Facts<'_>, now: Option<Timestamp>) -> Matter {
    let time = |path: &str| Timestamp::parse(&batch.text(path));
    let since = time("/since")
        .zip(now)
        .map(|(since, now)| now.saturating_since(since));
    let since = since.map(|since: Duration| format!(" for {}", human::span(since)));
    let wait = time("/next_at")
        .zip(now)
        .map(|(at, now)| at.saturating_since(now));
    let wait = wait.map(|wait| format!(", in {} at the latest", human::span(wait)));
    let number = batch.number("/batch");
    let step = batch.text("/next_step");
    let next = match step.strip_prefix("none: ") {
        Some(why) => format!(
            "{why}: tally resolve {number} --applied | --not-applied | --resend | --waive REASON"
        ),
        None => format!(
            "{step}{}; or give it up: tally resolve {number} --waive REASON",
            wait.unwrap_or_default()
        ),
    };
    let reason = match batch.text("/reason").as_str() {
        "limit" => "over the limit".to_owned(),
        "undecidable" => "undecidable whether the server counted it".to_owned(),
        "late" => "its period is over".to_owned(),
        "gone" => "whether it was counted is not known, and the server no longer tells".to_owned(),
        "copy" => "this ledger is a copy, and the original may have sent it".to_owned(),
        code => format!("the server refuses it ({code})"),
    };
    Matter {
        what: format!(
            "batch {number} of {name}, {}, is held{}: {reason}",
            human::units(batch.number("/units")),
            since.unwrap_or_default(),
        ),
        next,
    }
}

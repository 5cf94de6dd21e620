//! `tally status`

mod attention;
mod bar;
mod license;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use tally_shared::time::Timestamp;

use super::{
    args::StatusArgs,
    client::Agent,
    human,
    output::{self, Outcome, table},
    screen::{Piece, Screen, flow, paragraph},
};
use crate::config::paths::DataDir;

/// For what must not be overlooked.
const ALARM: Style = AnsiColor::Red.on_default().bold();

/// How much is said of each licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// A paragraph.
    Full,
    /// A line.
    Line,
}

pub(super) fn run(data_dir: &DataDir, args: &StatusArgs) -> anyhow::Result<Outcome> {
    if args.watch {
        return watch::watch(data_dir);
    }
    let status: Value = Agent::connect(data_dir)?.get("/v1/status")?;
    if args.output.json {
        output::json(&status)?;
    } else {
        output::text(&page(&status, Detail::Full, Screen::of_stdout()))?;
    }
    Ok(Outcome::Done)
}

/// The state of an agent, for a person: whether it is online, what needs somebody, and the licences.
pub(super) fn page(status: &Value, detail: Detail, screen: Screen) -> String {
    let facts = Facts(status);
    let now = Timestamp::parse(&facts.text("/time"));
    let mut text = headline(facts, screen);
    let attention = attention::attention(status, now, screen);
    if !attention.is_empty() {
        text = text + "\n" + &attention;
    }
    if facts.licenses().is_empty() {
        let hint = "no licence is known; `tally license add` makes one known";
        return text + "\n" + &paragraph(hint, Style::new(), 0, screen);
    }
    if detail == Detail::Line {
        text += "\n";
    }
    for license in facts.licenses() {
        if detail == Detail::Full {
            text += "\n";
        }
        text += &license::block(license, now, detail, screen);
    }
    text
}

fn headline(facts: Facts<'_>, screen: Screen) -> String {
    let millis = |path: &str| facts.find(path).and_then(Value::as_u64);
    let span = |ms: u64| human::span(Duration::from_millis(ms));
    let since =
        millis("/connection/since_ms").map_or_else(String::new, |ms| format!(" for {}", span(ms)));
    let (what, color) = match facts.text("/connection/state").as_str() {
        "online" => ("online", AnsiColor::Green),
        "offline" => ("offline", AnsiColor::Yellow),
        "unreachable" if facts.is_untried() => ("not connected yet", AnsiColor::Yellow),
        "unreachable" => ("offline", AnsiColor::Red),
        "refused" | "other_server" => ("not syncing", AnsiColor::Red),
        _ => ("unknown", AnsiColor::Red),
    };
    let owed: i64 = facts
        .licenses()
        .iter()
        .map(|license| Facts(license).owed())
        .sum();
    let synced = facts.find("/synced").and_then(Value::as_bool) == Some(true);
    let last = match (millis("/connection/last_answer_ms"), synced) {
        (Some(ms), true) => format!("synced {} ago", span(ms)),
        (Some(ms), false) => format!("last heard from the server {} ago", span(ms)),
        (None, _) => "never heard from the server".to_owned(),
    };
    let mut pieces = vec![
        Piece::of([
            ("● ".to_owned(), color.on_default()),
            (format!("{what}{since}"), color.on_default().bold()),
        ]),
        Piece::plain(last),
        match owed {
            0 => Piece::plain("nothing is owed"),
            1 => Piece::plain("1 unit is owed"),
            owed => Piece::plain(format!("{owed} units are owed")),
        },
    ];
    if let Some(wait) = millis("/connection/next_try_ms") {
        pieces.push(Piece::plain(format!("next try in {}", span(wait))));
    }
    flow(&pieces, " · ", 0, screen)
}

/// A value of the control API, read by paths.
#[derive(Clone, Copy)]
struct Facts<'a>(&'a Value);

impl<'a> Facts<'a> {
    fn find(self, path: &str) -> Option<&'a Value> {
        self.0.pointer(path)
    }

    fn text(self, path: &str) -> String {
        let found = self.find(path).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    }

    fn number(self, path: &str) -> i64 {
        self.find(path).and_then(Value::as_i64).unwrap_or(0)
    }

    /// Whether there was nothing yet to ask the server about.
    fn is_untried(self) -> bool {
        let last = self.find("/connection/last_answer_ms");
        self.licenses().is_empty() && last.is_none_or(Value::is_null)
    }

    fn licenses(self) -> &'a [Value] {
        let found = self.find("/licenses").and_then(Value::as_array);
        found.map_or(&[], Vec::as_slice)
    }

    /// The units of a licence that the server has not counted.
    fn owed(self) -> i64 {
        let parts = ["pending", "in_flight", "unknown", "held"];
        let parts = parts.map(|part| self.number(&format!("/conservation/{part}")));
        parts.into_iter().fold(0, i64::saturating_add)
    }
}

/// The licences, each with where its units are.
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

//! A licence at a glance.

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use tally_shared::time::Timestamp;

use super::{Detail, Facts, bar};
use crate::cli::{
    human,
    screen::{Piece, Screen, flow},
};

/// The parts of the sum of all units, in the order of their lives.
const PARTS: [(&str, &str); 6] = [
    ("settled", "settled"),
    ("pending", "pending"),
    ("in_flight", "in flight"),
    ("unknown", "unknown"),
    ("held", "held"),
    ("waived", "waived"),
];

/// How much of it is used and left, when it begins anew, and where all its units are.
pub(super) fn block(
    license: &Value,
    now: Option<Timestamp>,
    detail: Detail,
    screen: Screen,
) -> String {
    let facts = Facts(license);
    let usage = usage(facts, now);
    if detail == Detail::Line {
        return line(facts, &usage, screen);
    }
    let mut name = vec![
        Piece::new(facts.text("/product"), Style::new().bold()),
        Piece::new(facts.text("/holder_value"), Style::new().bold()),
    ];
    if let Some(feature) = facts.find("/feature").and_then(Value::as_str) {
        name.push(Piece::new(feature, Style::new().bold()));
    }
    if let Some(code) = facts.find("/refused").and_then(Value::as_str) {
        let style = AnsiColor::Red.on_default().bold();
        name.push(Piece::new(format!("refused: {code}"), style));
    }
    let mut text = flow(&name, " · ", 0, screen) + &flow(&usage, " · ", 2, screen);
    text += &units(facts, screen);
    let late = facts.number("/late");
    if late != 0 {
        let line = match late {
            1 => "1 unit was sent after its period was over, and counts in a later one".to_owned(),
            late => format!(
                "{late} units were sent after their period was over, and count in a later one"
            ),
        };
        text += &crate::cli::screen::paragraph(&line, AnsiColor::Yellow.on_default(), 2, screen);
    }
    text
}

/// Bars stand below each other; a name that is too long is cut.
fn line(facts: Facts<'_>, usage: &[Piece], screen: Screen) -> String {
    let name = ["/product", "/holder_value", "/feature"].map(|path| facts.text(path));
    let name = name.join(" ");
    let head = usage.first().cloned().unwrap_or_else(|| Piece::plain(""));
    let whole = head.append(&format!("  {}", name.trim_end()), Style::new().bold());
    flow(&[whole], " ", 0, screen)
}

fn usage(facts: Facts<'_>, now: Option<Timestamp>) -> Vec<Piece> {
    let total = facts.number("/total");
    let owed = facts.owed();
    let mut pieces = Vec::new();
    match facts.find("/cap").and_then(Value::as_i64) {
        Some(cap) => {
            // Units of an earlier period are owed, and take no room in this one.
            let uncounted = owed.clamp(0, total.max(0));
            let left = cap.saturating_sub(total).max(0);
            let style = match left {
                0 => AnsiColor::Red.on_default().bold(),
                _ => Style::new(),
            };
            let text = format!(" {total} of {cap} used");
            pieces.push(bar::bar(total, uncounted, cap).append(&text, Style::new()));
            pieces.push(Piece::new(format!("{left} left"), style));
        }
        None => pieces.push(Piece::plain(format!("{total} used, without a limit"))),
    }
    let over = total.saturating_sub(facts.number("/max_consumptions"));
    if over > 0 && facts.find("/cap").is_some_and(Value::is_number) {
        let style = AnsiColor::Yellow.on_default();
        pieces.push(Piece::new(format!("{over} over the limit"), style));
    }
    if owed != 0 {
        let style = AnsiColor::Yellow.on_default();
        pieces.push(Piece::new(format!("{owed} not counted yet"), style));
    }
    if let Some(name) = facts.find("/pool/name").and_then(Value::as_str) {
        let total = facts.number("/pool/total");
        let of = match facts.find("/pool/cap").and_then(Value::as_i64) {
            Some(cap) => format!("{total} of {cap}"),
            None => total.to_string(),
        };
        pieces.push(Piece::plain(format!("pool {name}: {of} used")));
    }
    let resets = facts.find("/resets_at").and_then(Value::as_str);
    if let Some(at) = resets.and_then(Timestamp::parse) {
        pieces.push(Piece::plain(resets_at(at, now)));
    }
    pieces
}

fn resets_at(at: Timestamp, now: Option<Timestamp>) -> String {
    match now {
        Some(now) => {
            let wait = human::span(at.saturating_since(now));
            format!("resets in {wait} ({})", human::day(at))
        }
        None => format!("resets on {}", human::day(at)),
    }
}

/// The promise: recorded = settled + pending + in flight + unknown + held + waived.
fn units(facts: Facts<'_>, screen: Screen) -> String {
    let recorded = facts.number("/conservation/recorded");
    if recorded == 0 {
        return String::new();
    }
    let dim = Style::new().dimmed();
    let parts = PARTS
        .iter()
        .map(|(key, name)| (facts.number(&format!("/conservation/{key}")), name))
        .filter(|(units, _)| *units != 0)
        .map(|(units, name)| format!("{units} {name}"));
    let mut pieces: Vec<Piece> = parts.map(|part| Piece::new(part, dim)).collect();
    if let Some(first) = pieces.first_mut() {
        first.prepend(&format!("{recorded} recorded = "), dim);
    }
    flow(&pieces, " + ", 2, screen)
}

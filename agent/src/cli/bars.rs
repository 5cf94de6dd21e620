//! How much of each licence is used, at a glance.

use serde_json::Value;
use tally_shared::time::Timestamp;

/// How many cells a bar has.
const CELLS: i64 = 24;

const COUNTED: char = '█';
const UNCOUNTED: char = '▓';
const LEFT: char = '·';

/// A line or two for each licence: a bar of what the server has counted, what it has not, and what is
/// left, and when it begins anew.
pub(super) fn bars(licenses: &[Value], now: Option<Timestamp>) -> String {
    let lines = licenses.iter().map(|license| line(license, now));
    lines.collect()
}

fn line(license: &Value, now: Option<Timestamp>) -> String {
    let number = |key: &str| license.pointer(key).and_then(Value::as_i64).unwrap_or(0);
    let text = |key: &str| license.get(key).and_then(Value::as_str);
    let total = number("/total");
    let owed: i64 = ["pending", "in_flight", "unknown", "held"]
        .iter()
        .map(|state| number(&format!("/conservation/{state}")))
        .sum();
    // Units of an earlier period are owed, and take no room in this one.
    let uncounted = owed.clamp(0, total.max(0));
    let used = match license.get("cap").and_then(Value::as_i64) {
        Some(cap) => {
            let left = cap.saturating_sub(total).max(0);
            let over = overage(total, number("/max_consumptions"));
            format!(
                "[{}] {total} of {cap} used{over}, {left} left",
                bar(total, uncounted, cap)
            )
        }
        None => format!("{total} used, without a limit"),
    };
    let waiting = match owed {
        0 => String::new(),
        owed => format!(" · {owed} not counted by the server yet"),
    };
    let resets = text("resets_at")
        .and_then(Timestamp::parse)
        .map(|at| format!(" · begins anew {}", when(at, now)))
        .unwrap_or_default();
    let feature = text("feature").map(|feature| format!(" · {feature}"));
    format!(
        "{} {}{}\n  {used}{waiting}{resets}\n",
        text("product").unwrap_or_default(),
        text("holder_value").unwrap_or_default(),
        feature.unwrap_or_default(),
    )
}

fn overage(total: i64, limit: i64) -> String {
    match total.saturating_sub(limit) {
        over @ 1.. => format!(" ({over} over the limit)"),
        _ => String::new(),
    }
}

fn bar(total: i64, uncounted: i64, cap: i64) -> String {
    let cells = |units: i64| {
        let part = i128::from(units.clamp(0, cap.max(0))) * i128::from(CELLS);
        // What is used at all is seen, and what is left at all too.
        let exact = part.checked_div(i128::from(cap)).unwrap_or(0);
        i64::try_from(exact + i128::from(part > 0 && exact == 0)).unwrap_or(CELLS)
    };
    let used = if total < cap {
        cells(total).min(CELLS - 1)
    } else {
        CELLS
    };
    let uncounted = cells(uncounted).min(used);
    let repeat = |what: char, times: i64| -> String {
        std::iter::repeat_n(what, usize::try_from(times).unwrap_or(0)).collect()
    };
    repeat(COUNTED, used - uncounted) + &repeat(UNCOUNTED, uncounted) + &repeat(LEFT, CELLS - used)
}

/// In how long, and on which day.
fn when(at: Timestamp, now: Option<Timestamp>) -> String {
    let day = at.to_string();
    let day = day.split('T').next().unwrap_or_default();
    let Some(now) = now else {
        return format!("on {day}");
    };
    let minutes = at.saturating_since(now).as_secs() / 60;
    let wait = match minutes {
        0..60 => format!("{minutes} min"),
        60..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    format!("in {wait} ({day})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(total: i64, uncounted: i64, cap: i64, expected: &str) {
        assert_eq!(bar(total, uncounted, cap), expected);
    }

    #[test]
    fn a_bar_shows_what_is_counted_what_is_not_and_what_is_left() {
        check(0, 0, 100, "························");
        check(50, 25, 100, "██████▓▓▓▓▓▓············");
        check(100, 0, 100, "████████████████████████");
        check(100, 100, 100, "▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓");
    }

    #[test]
    fn a_little_is_seen_and_a_little_that_is_left_too() {
        check(1, 1, 1_000_000, "▓·······················");
        check(999_999, 0, 1_000_000, "███████████████████████·");
    }

    #[test]
    fn odd_numbers_make_no_bar_longer() {
        check(-5, 0, 100, "························");
        check(150, 0, 100, "████████████████████████");
        check(0, 0, 0, "████████████████████████");
        check(5, 5, -1, "████████████████████████");
        check(i64::MAX, i64::MAX, i64::MAX, "▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓");
    }

    #[test]
    fn a_licence_says_when_it_begins_anew() {
        let license = json!({
            "product": "inspect", "holder_value": "field@example.com", "feature": "scans",
            "total": 12, "max_consumptions": 10, "cap": 15, "resets_at": "2026-12-01T00:00:00.000Z",
            "conservation": {"pending": 2, "in_flight": 0, "unknown": 0, "held": 1},
        });
        let now = Timestamp::parse("2026-11-24T12:00:00Z");
        assert_eq!(
            line(&license, now),
            "inspect field@example.com · scans\n  [███████████████▓▓▓▓·····] 12 of 15 used (2 over the limit), 3 left \
             · 3 not counted by the server yet · begins anew in 6 days (2026-12-01)\n"
        );
    }
}

//! One licence, as a page for a person.

use serde_json::Value;

use crate::{
    cli::{
        args::JsonArgs,
        output::{self, Outcome},
    },
    foreign::shown,
};

pub(super) fn print(detail: &Value, args: JsonArgs) -> anyhow::Result<Outcome> {
    if args.json {
        output::json(detail)?;
    } else {
        output::text(&page(detail))?;
    }
    Ok(Outcome::Done)
}

fn page(detail: &Value) -> String {
    let mut page = Page(String::new());
    page.line(&format!(
        "{} {}",
        text(detail, "product"),
        text(detail, "holder_value")
    ));
    page.add("id", &number(detail, "/id"));
    page.add("type", text(detail, "license_type"));
    page.add("state", &state(detail));
    page.add("valid", &validity(detail));
    let devices = detail.get("devices").and_then(Value::as_array);
    for device in devices.into_iter().flatten() {
        let refused = match text(device, "refused") {
            "" => String::new(),
            code => format!(", which the server refuses: {code}"),
        };
        page.add(
            "device",
            &format!("{}{refused}", text(device, "hardware_id")),
        );
    }
    let names = detail.get("names").and_then(Value::as_array);
    for line in name_lines(names.map_or(&[], Vec::as_slice)) {
        page.add("opened by", &line);
    }
    let counters = detail.get("counters").and_then(Value::as_array);
    for counter in counters.into_iter().flatten() {
        add_counter(&mut page, counter);
    }
    page.0
}

/// The keys and users that open the licence, and the devices where they do.
fn name_lines(names: &[Value]) -> Vec<String> {
    if names.is_empty() {
        return vec![
            "no name any more: the server tells of another licence, or of none".to_owned(),
        ];
    }
    let line = |name: &Value| {
        let is_default = name.get("is_default") == Some(&Value::Bool(true));
        let how = if is_default { "" } else { ", with its id" };
        let (holder, device) = (text(name, "holder_value"), text(name, "hardware_id"));
        format!("{holder} on {device}{how}")
    };
    names.iter().map(line).collect()
}

fn add_counter(page: &mut Page, counter: &Value) {
    page.0 += "\n";
    if let Some(feature) = counter.get("feature").and_then(Value::as_str) {
        page.line(&format!("feature {feature}"));
    }
    let base = number(counter, "/max_consumptions");
    page.add(
        "limit",
        &match counter.get("cap").and_then(Value::as_i64) {
            None => "none".to_owned(),
            Some(cap) if cap.to_string() != base => format!("{cap}: {base}, and overage"),
            Some(cap) => cap.to_string(),
        },
    );
    page.add(
        "used",
        &format!(
            "{}, of which {} are not counted by the server yet",
            number(counter, "/total"),
            number(counter, "/uncounted")
        ),
    );
    page.add(
        "server said",
        &format!(
            "{} at {}",
            number(counter, "/server_total"),
            text(counter, "refreshed_at")
        ),
    );
    page.add(
        "period",
        &match (text(counter, "period"), text(counter, "resets_at")) {
            ("", _) => "none: the total never returns to zero".to_owned(),
            (period, at) => format!("{period}; the total returns to zero at {at}"),
        },
    );
    page.add("recorded", &sums(counter));
    let late = number(counter, "/late");
    if late != "0" {
        page.add("late", &format!("{late} sent after their period was over"));
    }
    page.add("exposure", &exposure(counter));
    let held = counter.get("held").and_then(Value::as_array);
    for batch in held.into_iter().flatten() {
        page.add("held", &held_line(batch));
    }
}

/// A batch that is held, since when and why, and what moves it on.
fn held_line(batch: &Value) -> String {
    let text = |key: &str| batch.get(key).and_then(Value::as_str);
    let number = |key: &str| batch.get(key).map(ToString::to_string).unwrap_or_default();
    let since = text("since")
        .map(|since| format!(" since {since}"))
        .unwrap_or_default();
    let at = text("next_at")
        .map(|at| format!(", at {at} at the latest"))
        .unwrap_or_default();
    format!(
        "batch {}: {} units, {}{since}; next step: {}{at}",
        number("batch"),
        number("units"),
        text("reason").unwrap_or("?"),
        text("next_step").unwrap_or("?"),
    )
}

/// Labels to the left, what they tell to the right.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0 += &shown(line);
        self.0.push('\n');
    }

    fn add(&mut self, label: &str, value: &str) {
        self.line(&format!("  {label:<12}{value}"));
    }
}

fn state(detail: &Value) -> String {
    let is = |key: &str| detail.get(key) == Some(&Value::Bool(true));
    match text(detail, "refused") {
        "" if !is("license_enabled") => "disabled by the vendor".to_owned(),
        "" if !is("license_active") => "not active".to_owned(),
        "" => "ok".to_owned(),
        code => format!("refused by the server: {code}"),
    }
}

fn validity(detail: &Value) -> String {
    let grace = match number(detail, "/grace_hours").as_str() {
        "0" => String::new(),
        hours => format!(", and {hours} hours of grace"),
    };
    match text(detail, "validity_period") {
        "" => "without end".to_owned(),
        end => format!("until {end}{grace}"),
    }
}

/// The promise: everything that was ever recorded is somewhere.
fn sums(counter: &Value) -> String {
    let part = |key: &str| number(counter, &format!("/conservation/{key}"));
    format!(
        "{} = {} settled + {} pending + {} in flight + {} unknown + {} held + {} waived",
        part("recorded"),
        part("settled"),
        part("pending"),
        part("in_flight"),
        part("unknown"),
        part("held"),
        part("waived"),
    )
}

fn exposure(counter: &Value) -> String {
    let shared = if counter.get("shared") == Some(&Value::Bool(true)) {
        "other devices consume of it too"
    } else {
        "no other device was seen to consume of it"
    };
    format!(
        "{} units could be beyond the limit now, {} at worst; {shared}",
        number(counter, "/exposure/now"),
        number(counter, "/exposure/at_worst"),
    )
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .map(ToString::to_string)
        .unwrap_or_default()
}

//! What must hold in the end, against what there is. Pure: everything that was seen is an argument.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tally_shared::units::Total;

use super::{
    file::{Amount, Expect, ExpectAgent, ExpectServer},
    report::Expectation,
};
use crate::engine::{activity::Activity, state::License};

/// A licence, or a feature of it.
pub(super) type Account = (i64, Option<String>);

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// What applications came to.
    pub(super) tallies: BTreeMap<(String, Account), Tally>,
    /// What each agent says of itself; `None` where it cannot be asked.
    pub(super) agents: Vec<(String, Option<Value>)>,
    /// The licences of the server.
    pub(super) licenses: Vec<License>,
    /// The server's log of activity.
    pub(super) activity: Vec<Activity>,
    /// How many requests reached the server.
    pub(super) requests: i64,
    /// How often the faults in force have struck.
    pub(super) fired: i64,
    /// Whether requests are still under way to the server.
    pub(super) under_way: bool,
}

/// What the applications of an agent came to, with a licence or feature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Units that were granted.
    pub(super) granted: i64,
    /// Consumptions that were refused, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// Consumptions that got no answer.
    pub(super) unanswered: i64,
    /// Their units: an agent may have recorded them or not.
    pub(super) unanswered_units: i64,
    /// Units that another agent granted: they came with the copy of its folder.
    pub(super) inherited: i64,
}

/// Holds everything expected against everything seen.
pub(super) fn judge(expect: &Expect, first_license: i64, seen: &Seen) -> Vec<Expectation> {
    let mut lines = Vec::new();
    if expect.quiet {
        lines.push(quiet(seen));
    }
    if expect.conservation {
        lines.extend(
            seen.agents
                .iter()
                .map(|(name, status)| conservation(name, status.as_ref())),
        );
    }
    if expect.nothing_lost {
        lines.extend(nothing_lost(seen));
    }
    if expect.counted_once {
        lines.extend(counted_once(seen));
    }
    if let Some(granted) = expect.granted {
        let found = seen.tallies.values().map(|tally| tally.granted).sum();
        lines.push(amount(
            "units granted to applications".to_owned(),
            granted,
            Some(found),
        ));
    }
    lines.push(refusals(&expect.refused, seen));
    let unanswered = seen.tallies.values().map(|tally| tally.unanswered).sum();
    lines.push(amount(
        "consumptions without an answer".to_owned(),
        expect.unanswered,
        Some(unanswered),
    ));
    if let Some(requests) = expect.requests {
        lines.push(amount(
            "requests that reached the server".to_owned(),
            requests,
            Some(seen.requests),
        ));
    }
    if let Some(fired) = expect.fired {
        lines.push(amount(
            "strikes of faults".to_owned(),
            fired,
            Some(seen.fired),
        ));
    }
    for expected in &expect.server {
        lines.extend(server(expected.get_ref(), first_license, seen));
    }
    for expected in &expect.agents {
        lines.extend(agent(expected.get_ref(), first_license, seen));
    }
    lines
}

/// The number that an agent's status has under a licence, such as `conservation/held`.
pub(super) fn sum_of(status: &Value, account: &Account, field: &str) -> Option<i64> {
    license_of(status, account)?
        .pointer(&format!("/conservation/{field}"))?
        .as_i64()
}

/// The number of findings that an agent shows.
pub(super) fn findings_of(status: &Value) -> i64 {
    i64::try_from(findings(Some(status)).count()).unwrap_or(i64::MAX)
}

/// The findings of an agent; none where it does not audit totals.
fn findings(status: Option<&Value>) -> impl Iterator<Item = &Value> {
    let all = status.and_then(|status| status["findings"].as_array());
    all.into_iter().flatten()
}

/// Whether an agent has nothing left to send but what is held.
pub(super) fn is_quiet(status: &Value) -> bool {
    status["synced"] == true && status["busy"] == false
}

fn license_of<'a>(status: &'a Value, (id, feature): &Account) -> Option<&'a Value> {
    let is_it = |license: &&Value| {
        license["id"] == *id && license["feature"].as_str() == feature.as_deref()
    };
    status["licenses"].as_array()?.iter().find(is_it)
}

fn accounts(status: &Value) -> Vec<Account> {
    let licenses = status["licenses"].as_array().into_iter().flatten();
    licenses
        .filter_map(|it| {
            Some((
                it["id"].as_i64()?,
                it["feature"].as_str().map(str::to_owned),
            ))
        })
        .collect()
}

fn quiet(seen: &Seen) -> Expectation {
    let loud = |(name, status): &(String, Option<Value>)| {
        let quiet = status.as_ref().is_none_or(is_quiet);
        (!quiet).then(|| format!("{name} still has something to send"))
    };
    let mut found: Vec<String> = seen.agents.iter().filter_map(loud).collect();
    if seen.under_way {
        found.push("a request is under way".to_owned());
    }
    line("nothing is left to send", "quiet", &found, "quiet")
}

fn conservation(name: &str, status: Option<&Value>) -> Expectation {
    let what = format!("{name}: the sum of its units is right");
    let Some(status) = status else {
        return not_running(what, "equal");
    };
    let parts = [
        "settled",
        "pending",
        "in_flight",
        "unknown",
        "held",
        "waived",
    ];
    let wrong = |account: &Account| {
        let sum = |field| sum_of(status, account, field).unwrap_or_default();
        let (recorded, parts) = (sum("recorded"), parts.into_iter().map(sum).sum::<i64>());
        (recorded != parts).then(|| format!("{}: {recorded} and {parts}", named(account)))
    };
    let found: Vec<String> = accounts(status).iter().filter_map(wrong).collect();
    line(&what, "equal", &found, "equal")
}

/// What was granted, or came with a copy, is recorded; what got no answer may be or not.
fn nothing_lost(seen: &Seen) -> Vec<Expectation> {
    let judge = |((name, account), tally): (&(String, Account), &Tally)| {
        let what = format!("{name}: granted units of {} are recorded", named(account));
        let least = tally.granted.saturating_add(tally.inherited);
        let right = match tally.unanswered_units {
            0 => Amount::Exactly(least),
            more => Amount::Range(super::file::Range {
                min: Some(least),
                max: Some(least.saturating_add(more)),
            }),
        };
        let found = status_of(seen, name).and_then(|status| sum_of(status, account, "recorded"));
        // An agent that refused everything need not know the licence.
        amount(what, right, found.or((least == 0).then_some(0)))
    };
    seen.tallies.iter().map(judge).collect()
}

/// The log of activity has exactly the units that agents call settled.
fn counted_once(seen: &Seen) -> Vec<Expectation> {
    if seen.agents.iter().any(|(_, status)| status.is_none()) {
        return vec![not_running(
            "units counted by the server, as settled".to_owned(),
            "equal",
        )];
    }
    let mut settled: BTreeMap<Account, i64> = BTreeMap::new();
    for status in seen.agents.iter().filter_map(|(_, status)| status.as_ref()) {
        for account in accounts(status) {
            let more = sum_of(status, &account, "settled").unwrap_or_default();
            *settled.entry(account).or_default() += more;
        }
    }
    let judge = |(account, settled): (Account, i64)| {
        let what = format!(
            "{}: the server counted what is settled, once",
            named(&account)
        );
        amount(
            what,
            Amount::Exactly(settled),
            Some(counted(seen, &account, None)),
        )
    };
    settled.into_iter().map(judge).collect()
}

fn counted(seen: &Seen, (id, feature): &Account, event: Option<&str>) -> i64 {
    let rows = seen.activity.iter().filter(|row| {
        row.license_id == *id
            && row.feature == *feature
            && event.is_none_or(|event| row.event.as_str() == event)
    });
    rows.map(|row| row.units.get()).sum()
}

fn refusals(expected: &BTreeMap<String, u64>, seen: &Seen) -> Expectation {
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, count) in seen.tallies.values().flat_map(|tally| &tally.refused) {
        *found.entry(code).or_default() += count;
    }
    let expected: BTreeMap<&str, u64> = expected
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(code, count)| (code.as_str(), *count))
        .collect();
    let text = |codes: &BTreeMap<&str, u64>| match codes.len() {
        0 => "none".to_owned(),
        _ => codes
            .iter()
            .map(|(code, count)| format!("{count} × {code}"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    Expectation {
        what: "refused consumptions".to_owned(),
        expected: text(&expected),
        found: text(&found),
        ok: expected == found,
    }
}

fn server(expected: &ExpectServer, first_license: i64, seen: &Seen) -> Vec<Expectation> {
    let account = (
        expected.license.unwrap_or(first_license),
        expected.feature.clone(),
    );
    let of = named(&account);
    let mut lines = Vec::new();
    if let Some(total) = expected.total {
        let found = seen.licenses.iter().find(|license| license.id == account.0);
        let found = found.and_then(|license| match &account.1 {
            None => Some(license.total_consumptions),
            Some(code) => license
                .consumption_feature(code)
                .map(|it| it.total_consumptions),
        });
        lines.push(amount(
            format!("server: total of {of}"),
            total,
            found.map(Total::get),
        ));
    }
    let license = seen.licenses.iter().find(|license| license.id == account.0);
    // A licence is a plain structure with text keys, which always has a JSON form.
    let license = license.and_then(|license| serde_json::to_value(license).ok());
    for (field, right) in &expected.has {
        let found = license.as_ref().and_then(|license| license.get(field));
        lines.push(text(
            format!("server: {field} of {of}"),
            &right.to_string(),
            &found.map(Value::to_string).unwrap_or_default(),
        ));
    }
    for (event, right) in &expected.activity {
        let what = format!("server: units of {of} as {event}");
        lines.push(amount(
            what,
            *right,
            Some(counted(seen, &account, Some(event))),
        ));
    }
    lines
}

fn agent(expected: &ExpectAgent, first_license: i64, seen: &Seen) -> Vec<Expectation> {
    let account = (
        expected.license.unwrap_or(first_license),
        expected.feature.clone(),
    );
    let first = seen.agents.first().map(|(name, _)| name.as_str());
    let name = expected.agent.as_deref().or(first).unwrap_or_default();
    let status = status_of(seen, name);
    let license = status.and_then(|status| license_of(status, &account));
    let of = named(&account);
    let sums = [
        ("recorded", expected.recorded),
        ("settled", expected.settled),
        ("pending", expected.pending),
        ("in_flight", expected.in_flight),
        ("unknown", expected.unknown),
        ("held", expected.held),
        ("waived", expected.waived),
    ];
    let mut lines = Vec::new();
    for (field, right) in sums {
        let Some(right) = right else { continue };
        let found = status.and_then(|status| sum_of(status, &account, field));
        lines.push(amount(
            format!("{name}: {} of {of}", field.replace('_', " ")),
            right,
            found,
        ));
    }
    if let Some(late) = expected.late {
        let found = license.and_then(|license| license["late"].as_i64());
        lines.push(amount(format!("{name}: late of {of}"), late, found));
    }
    if let Some(reasons) = &expected.held_for {
        let held = license.and_then(|license| license["held"].as_array());
        let mut found: Vec<&str> = held
            .into_iter()
            .flatten()
            .filter_map(|batch| batch["reason"].as_str())
            .collect();
        found.sort_unstable();
        found.dedup();
        let mut right: Vec<&str> = reasons.iter().map(String::as_str).collect();
        right.sort_unstable();
        lines.push(text(
            format!("{name}: why units of {of} are held"),
            &right.join(", "),
            &found.join(", "),
        ));
    }
    if let Some(right) = &expected.refused {
        let found = license
            .and_then(|license| license["refused"].as_str())
            .unwrap_or_default();
        lines.push(text(format!("{name}: why {of} is refused"), right, found));
    }
    if let Some(kinds) = &expected.findings {
        let found: BTreeSet<&str> = findings(status)
            .filter(|it| {
                it["license_id"] == account.0 && it["feature"].as_str() == account.1.as_deref()
            })
            .filter_map(|it| it["finding"].as_str())
            .collect();
        let right: BTreeSet<&str> = kinds.iter().map(String::as_str).collect();
        let words = |kinds: BTreeSet<&str>| kinds.into_iter().collect::<Vec<_>>().join(", ");
        lines.push(text(
            format!("{name}: findings of {of}"),
            &words(right),
            &words(found),
        ));
    }
    if let Some(right) = &expected.connection {
        let found = status.and_then(|status| status["connection"]["state"].as_str());
        lines.push(text(
            format!("{name}: connection"),
            right,
            found.unwrap_or("not running"),
        ));
    }
    lines
}

fn status_of<'a>(seen: &'a Seen, name: &str) -> Option<&'a Value> {
    seen.agents
        .iter()
        .find(|(other, _)| other == name)?
        .1
        .as_ref()
}

fn named((id, feature): &Account) -> String {
    match feature {
        None => format!("licence {id}"),
        Some(code) => format!("feature {code} of licence {id}"),
    }
}

fn amount(what: String, right: Amount, found: Option<i64>) -> Expectation {
    Expectation {
        what,
        expected: right.to_string(),
        found: found.map_or_else(|| "nothing".to_owned(), |found| found.to_string()),
        ok: found.is_some_and(|found| right.allows(found)),
    }
}

fn text(what: String, right: &str, found: &str) -> Expectation {
    let shown = |text: &str| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text.to_owned()
        }
    };
    Expectation {
        what,
        expected: shown(right),
        found: shown(found),
        ok: right == found,
    }
}

/// Holds where nothing was found to be wrong.
fn line(what: &str, expected: &str, wrong: &[String], right: &str) -> Expectation {
    Expectation {
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: if wrong.is_empty() {
            right.to_owned()
        } else {
            wrong.join("; ")
        },
        ok: wrong.is_empty(),
    }
}

fn not_running(what: String, expected: &str) -> Expectation {
    Expectation {
        what,
        expected: expected.to_owned(),
        found: "an agent does not run".to_owned(),
        ok: false,
    }
}

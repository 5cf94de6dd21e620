//! What an agent says of its licences: `GET /v1/status` and `GET /v1/events`.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, ensure};
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};
use tally_tests::{agent::Agent, seed};

use super::judge::{Batch, Claim, Doubt, License};

/// Reasons for which a batch is held that leave open whether it was counted. For any other it was refused.
const DOUBTFUL: [&str; 3] = ["undecidable", "gone", "copy"];

/// The most rows of a page.
const PAGE: usize = 1000;

/// The books of an agent.
pub(super) struct Books {
    http: Client,
    url: String,
    token: String,
}

impl Books {
    /// The books of this one.
    pub(super) fn of(agent: &Agent) -> tally_tests::Result<Self> {
        Ok(Self {
            http: Client::builder().no_proxy().build()?,
            url: agent.url()?.to_owned(),
            token: agent.admin_token()?,
        })
    }

    /// Makes a licence of [`seed::numbered_license`] known.
    pub(super) fn add_license(&self, number: usize) -> tally_tests::Result {
        let license = json!({
            "product": seed::PRODUCT, "license_key": seed::numbered_key(number),
            "hardware_id": seed::DEVICE,
        });
        let url = format!("{}/v1/licenses", self.url);
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json");
        self.ask(request.body(license.to_string()))?;
        Ok(())
    }

    /// Whether nothing is owed but what is held.
    pub(super) fn is_quiet(&self) -> tally_tests::Result<bool> {
        let status = self.status()?;
        let licenses = list(&status, "licenses");
        Ok(licenses.iter().all(|license| {
            let part = |name: &str| license.pointer(&format!("/conservation/{name}"));
            ["pending", "in_flight", "unknown"]
                .iter()
                .all(|name| part(name) == Some(&json!(0)))
        }))
    }

    /// What it says of each licence, by its key; what the server counted and what was granted is not in it.
    pub(super) fn licenses(&self) -> tally_tests::Result<HashMap<String, License>> {
        // Rows first: a row that is settled in between is one that was owed, and not the other way round.
        let rows = self.rows()?;
        let status = self.status()?;
        let mut licenses: HashMap<String, License> = HashMap::new();
        let reasons: HashMap<i64, &str> = list(&status, "licenses")
            .iter()
            .flat_map(|license| list(license, "held"))
            .filter_map(|held| Some((held.get("batch")?.as_i64()?, text(held, "reason")?)))
            .collect();
        for license in list(&status, "licenses") {
            let key = text(license, "holder_value").context("a licence")?;
            let is_shared = license.get("shared") == Some(&json!(true));
            licenses.entry(key.to_owned()).or_default().is_shared = is_shared;
        }
        for finding in list(&status, "findings") {
            let key = text(finding, "holder_value").context("a finding of a licence")?;
            let license = licenses.entry(key.to_owned()).or_default();
            license.findings.push(surplus(finding));
        }
        for ((key, number), (units, state)) in batches(&rows)? {
            let claim = match (state.as_str(), reasons.get(&number)) {
                ("settled", _) => Claim::Counted,
                ("sent" | "unknown", _) => Claim::Doubtful(Doubt::Unknown),
                ("held", reason) if reason.is_some_and(|found| DOUBTFUL.contains(found)) => {
                    Claim::Doubtful(Doubt::Held)
                }
                _ => Claim::NotCounted,
            };
            let license = licenses.entry(key).or_default();
            license.batches.push(Batch {
                number,
                units,
                claim,
            });
        }
        Ok(licenses)
    }

    /// Writes all that it says into a file, for whoever looks for the cause of a defect.
    pub(super) fn keep(&self, file: &Path) -> tally_tests::Result {
        let batches = self
            .http
            .get(format!("{}/v1/batches?limit={PAGE}", self.url));
        let all = json!({
            "status": self.status()?, "rows": self.rows()?, "batches": self.ask(batches)?,
        });
        Ok(std::fs::write(file, serde_json::to_string_pretty(&all)?)?)
    }

    /// All rows of the ledger.
    fn rows(&self) -> tally_tests::Result<Vec<Value>> {
        let (mut rows, mut after) = (Vec::new(), 0);
        loop {
            let url = format!("{}/v1/events?after={after}&limit={PAGE}", self.url);
            let page = self.ask(self.http.get(url))?;
            let page = page.as_array().context("rows")?;
            let Some(last) = page.last() else {
                return Ok(rows);
            };
            after = last.get("seq").and_then(Value::as_i64).context("a place")?;
            rows.extend_from_slice(page);
        }
    }

    fn status(&self) -> tally_tests::Result<Value> {
        self.ask(self.http.get(format!("{}/v1/status", self.url)))
    }

    fn ask(&self, request: RequestBuilder) -> tally_tests::Result<Value> {
        let answer = request.bearer_auth(&self.token).send()?;
        let (status, text) = (answer.status(), answer.text()?);
        ensure!(status.is_success(), "the agent answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

/// The units and the state of each batch, by the licence's key and the batch's number.
fn batches(rows: &[Value]) -> tally_tests::Result<HashMap<(String, i64), (i64, String)>> {
    let mut batches: HashMap<(String, i64), (i64, String)> = HashMap::new();
    let is_consumption = |row: &&Value| text(row, "kind") == Some("consumption");
    for row in rows.iter().filter(is_consumption) {
        let number = |name: &str| row.get(name).and_then(Value::as_i64).context("a number");
        let key = text(row, "holder_value").context("a key")?.to_owned();
        let state = text(row, "state").context("a state")?;
        let batch = batches.entry((key, number("batch")?));
        let batch = batch.or_insert_with(|| (0, state.to_owned()));
        batch.0 += number("units")?;
    }
    Ok(batches)
}

/// How many units a finding says were counted beyond those of settled batches. Where a batch was refused and counted, that
/// batch is held.
fn surplus(finding: &Value) -> i64 {
    let units = finding.get("units").and_then(Value::as_i64);
    let is_surplus = text(finding, "finding") == Some("counted_more_than_once");
    units.filter(|_| is_surplus).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let found = value.get(name).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

//! The metrics, and the dashboard that is shipped for them (packaging/grafana.json).

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tally_tests::{Result, agent::Agent, seed, stub::Keys};

use crate::{agent, stub};

fn metrics(agent: &Agent) -> Result<String> {
    let token = fs::read_to_string(agent.data_dir().join("admin_token"))?;
    let answer = reqwest::blocking::Client::new()
        .get(format!("{}/metrics", agent.url()?))
        .bearer_auth(token.trim())
        .send()?;
    Ok(answer.error_for_status()?.text()?)
}

/// The words of a text that name metrics.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tally_"))
        .map(str::to_owned)
        .collect()
}

/// All texts below these keys.
fn texts<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| texts(item, keys, found)),
        Value::Object(fields) => {
            for (key, field) in fields {
                match field.as_str() {
                    Some(text) if keys.contains(&key.as_str()) => found.push(text),
                    _ => texts(field, keys, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_metric_has_its_help_and_the_dashboard_knows_them_all() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    let text = metrics(&agent)?;
    let families = |kind: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
        lines.filter_map(|line| line.split(' ').next()).collect()
    };
    assert_eq!(families("# HELP "), families("# TYPE "));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let exist: BTreeSet<String> = samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect();

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/grafana.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let mut queries = Vec::new();
    texts(&dashboard, &["expr", "query"], &mut queries);
    let shown: BTreeSet<String> = queries.into_iter().flat_map(names).collect();
    assert_eq!(shown, exist);
    Ok(())
}

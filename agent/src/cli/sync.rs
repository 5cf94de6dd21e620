//! `tally sync`

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    args::JsonArgs,
    client::Agent,
    output::{self, Outcome},
    screen::Screen,
    status,
};
use crate::config::paths::DataDir;

pub(super) fn run(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let result: Value = agent.ask(Method::POST, "/v1/sync", &json!({}))?;
    let synced = result
        .get("synced")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    if args.json {
        output::json(&result)?;
    } else {
        let status = result.get("status").cloned().unwrap_or_default();
        let headline = if synced {
            "synced"
        } else {
            "not everything could be sent"
        };
        output::text(&format!(
            "{headline}\n\n{}",
            status::page(&status, status::Detail::Full, Screen::of_stdout())
        ))?;
    }
    Ok(if synced {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

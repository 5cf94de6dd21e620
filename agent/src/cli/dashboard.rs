//! `tally dashboard`

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;

use super::{
    args::DashboardArgs,
    client::Agent,
    output::{self, Outcome},
};
use crate::{config::paths::DataDir, http::DashboardLink};

pub(super) fn run(data_dir: &DataDir, args: DashboardArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let link: DashboardLink = agent.ask(Method::POST, "/v1/dashboard", &json!({}))?;
    if args.output.json {
        output::json(&link)?;
    } else if args.print {
        output::line(&link.url)?;
    } else {
        open::that_detached(&link.url).with_context(|| {
            format!(
                "no browser can be opened here; open this link in one on this device: {}",
                link.url
            )
        })?;
        output::line("the dashboard opens in your browser")?;
    }
    Ok(Outcome::Done)
}

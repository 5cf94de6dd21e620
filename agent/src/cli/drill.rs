//! `tally network online | offline`

use reqwest::Method;
use serde_json::Value;

use super::{
    args::NetworkArgs,
    client::Agent,
    output::{self, Outcome},
};
use crate::{config::paths::DataDir, core::link::NetworkMode, http::SetNetwork};

pub(super) fn run(data_dir: &DataDir, args: &NetworkArgs) -> anyhow::Result<Outcome> {
    let request = SetNetwork { mode: args.mode };
    let connection: Value = Agent::connect(data_dir)?.ask(Method::PUT, "/v1/network", &request)?;
    if args.output.json {
        output::json(&connection)?;
        return Ok(Outcome::Done);
    }
    output::line(match args.mode {
        NetworkMode::Online => "the agent may use the network again",
        NetworkMode::Offline => {
            "the agent acts as if there were no network; `tally network online` ends it"
        }
    })?;
    Ok(Outcome::Done)
}

//! `tally resolve`

use reqwest::Method;

use super::{
    args::ResolveArgs,
    client::Agent,
    output::{self, Outcome},
};
use crate::{
    config::paths::DataDir,
    core::Decision,
    http::{Resolve, Resolved},
};

pub(super) fn run(data_dir: &DataDir, args: ResolveArgs) -> anyhow::Result<Outcome> {
    let (decision, what) = if args.decision.applied {
        (Decision::Applied, "settled")
    } else if args.decision.not_applied {
        (Decision::NotApplied, "to be sent")
    } else if args.decision.resend {
        (Decision::Resend, "to be sent again")
    } else {
        (Decision::Waive, "given up")
    };
    let request = Resolve {
        decision,
        reason: args.decision.waive.or(args.reason),
    };
    let path = format!("/v1/batches/{}/resolve", args.batch);
    let resolved: Resolved = Agent::connect(data_dir)?.ask(Method::POST, &path, &request)?;
    if args.output.json {
        output::json(&resolved)?;
    } else {
        output::line(&format!(
            "batch {} is {what}; row {} of the ledger says so",
            args.batch, resolved.seq
        ))?;
    }
    Ok(Outcome::Done)
}

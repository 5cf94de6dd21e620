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
    http::{Resolve, Resolved, Seen, ServerMoved},
};

pub(super) fn run(data_dir: &DataDir, args: ResolveArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let (resolved, what): (Resolved, String) = if let Some(batch) = args.batch {
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
        let path = format!("/v1/batches/{batch}/resolve");
        let resolved = agent.ask(Method::POST, &path, &request)?;
        (resolved, format!("batch {batch} is {what}"))
    } else if let Some(finding) = args.finding {
        let request = Seen {
            reason: args.reason,
        };
        let path = format!("/v1/findings/{finding}/seen");
        let resolved = agent.ask(Method::POST, &path, &request)?;
        (resolved, format!("finding {finding} is shown no more"))
    } else {
        let request = ServerMoved {
            reason: args.reason,
        };
        let resolved = agent.ask(Method::POST, "/v1/server/moved", &request)?;
        let what = "what is owed is sent to the server that is set now".to_owned();
        (resolved, what)
    };
    output::decided(args.output, &resolved, &what)?;
    Ok(Outcome::Done)
}

//! `tally record`

use serde_json::Value;
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent},
};

use super::{
    args::RecordArgs,
    client::{Agent, refusal},
    license,
    output::{self, Outcome},
};
use crate::{apps, config::paths::DataDir};

pub(super) fn run(data_dir: &DataDir, args: RecordArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let keys = apps::read(data_dir, &args.app)?;
    let request = AddConsumption {
        subject: license::subject(data_dir, args.license)?,
        feature: args.feature,
        units: Units::new(args.units),
        setting: OverageSetting {
            allow_overages: args.allow_overages,
            max_overages: args.max_overages.map(i64::from),
        },
        event: ConsumptionEvent::Add,
    };
    let reply = agent.consume(&keys, &request, args.idempotency_key.as_deref())?;
    if args.output.json {
        output::line(&reply.body)?;
    } else if reply.status.is_success() {
        let answer: Value = serde_json::from_str(&reply.body)?;
        let total = answer
            .get("total_consumptions")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let max = answer
            .get("max_consumptions")
            .or_else(|| answer.get("max_consumption"));
        let is_unlimited = answer.get("allow_unlimited_consumptions") == Some(&Value::Bool(true));
        let of = match max.and_then(Value::as_i64) {
            Some(max) if !is_unlimited => format!("of {max} used"),
            _ => "used, without a limit".to_owned(),
        };
        output::line(&format!("granted {} · {total} {of}", args.units))?;
    } else {
        anyhow::bail!("refused: {}", refusal(&reply));
    }
    Ok(if reply.status.is_success() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

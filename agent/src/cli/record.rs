//! `tally record`

use serde_json::Value;
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, error::ErrorBody},
};

use super::{
    args::RecordArgs,
    client::{Agent, Reply, as_owner, refusal},
    license,
    output::{self, Outcome},
};
use crate::{apps, config::paths::DataDir};

pub(super) fn run(data_dir: &DataDir, args: RecordArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let keys = as_owner(data_dir, |dir| apps::read(dir, &args.app))?;
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
        output::json_text(&reply.body)?;
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
        anyhow::bail!("refused: {}{}", refusal(&reply), next_step(&reply));
    }
    Ok(if reply.status.is_success() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

/// What can be done about a refusal, where its message does not say it.
fn next_step(reply: &Reply) -> String {
    let code = serde_json::from_str::<ErrorBody>(&reply.body)
        .ok()
        .and_then(|error| ErrorCode::from_name(&error.code));
    let step = match code {
        Some(ErrorCode::LicenseNotEnoughConsumptions | ErrorCode::FeatureNotEnoughConsumptions) => {
            "`tally log --refused` has its number, and `tally explain` says what it was judged by"
        }
        Some(
            ErrorCode::UnknownProduct
            | ErrorCode::LicenseNotFound
            | ErrorCode::DeviceNotFound
            | ErrorCode::UnsupportedProductFeature
            | ErrorCode::InvalidLicenseFeatureCode,
        ) => {
            "`tally license list` shows what is known here, with its devices in `tally license show`"
        }
        Some(ErrorCode::LimitsUnknown) => "`tally doctor` finds out why the server cannot be asked",
        _ => return String::new(),
    };
    format!("; {step}")
}

//! What a request does to a licence that every check has let pass: the last two checks of the
//! contract's order (negative, limit), and the change. Pure: the caller stores what comes out.

use serde::Serialize;
use tally_shared::{
    limits::{self, Grant, Standing},
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ApiError, Counter, ErrorCode, FeatureCounter},
};

use super::{activity::Activity, state::License};

/// A granted request: what to store, and what to answer.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The licence after it.
    pub(crate) license: License,
    /// The row of the activity log.
    pub(crate) activity: Activity,
    /// The answer's body.
    pub(crate) counter: AnyCounter,
}

/// The body of an answer, for a licence or a feature.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum AnyCounter {
    /// `add_consumption`.
    License(Counter),
    /// `add_feature_consumption`.
    Feature(FeatureCounter),
}

/// Adds units to the licence, or to its feature that the request names.
pub(crate) fn add(
    mut license: License,
    asked: &AddConsumption,
    now: Timestamp,
) -> Result<Granted, ApiError> {
    let (grant, counter) = match &asked.feature {
        None => {
            let grant = decide(&license.standing(now), asked, now)?;
            license.settle(&grant);
            (grant, AnyCounter::License(license.counter()))
        }
        Some(code) => {
            let feature = license
                .features
                .iter_mut()
                .find(|feature| feature.code == *code)
                .ok_or_else(|| unsupported(code))?;
            let grant = decide(&feature.standing(now), asked, now)?;
            feature.total_consumptions = grant.total;
            (grant, AnyCounter::Feature(feature.counter()))
        }
    };
    let activity = Activity {
        seq: 0,
        license_id: license.id,
        feature: asked.feature.clone(),
        event: asked.event,
        units: asked.units,
        total: grant.total,
        hardware_id: asked.subject.hardware_id.clone(),
        at: now,
    };
    Ok(Granted {
        license,
        activity,
        counter,
    })
}

/// The refusal for a feature that the licence lacks, or that cannot be consumed.
pub(crate) fn unsupported(code: &str) -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedProductFeature,
        format!("the licence has no consumption feature `{code}`"),
    )
}

fn decide(standing: &Standing, asked: &AddConsumption, now: Timestamp) -> Result<Grant, ApiError> {
    // Every granted unit is in the total, so nothing is pending on the server's side.
    limits::decide(standing, Units::ZERO, &asked.request(), now).map_err(|refusal| {
        let code = ErrorCode::from_refusal(refusal, asked.feature.is_some());
        ApiError::new(code, refusal.to_string())
    })
}

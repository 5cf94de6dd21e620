//! What a request does to a licence that every check has let pass: the last two checks of the
//! contract's order (negative, limit), and the change. Pure: the caller stores what comes out.

use serde::Serialize;
use tally_shared::{
    limits::{self, Grant, OverageSetting, Request, Standing},
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ApiError, Counter, ErrorCode, FeatureCounter},
};

use super::{activity::Activity, pool::Pool, state::License};

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
    License(PooledCounter),
    /// `add_feature_consumption`.
    Feature(FeatureCounter),
}

/// A licence's counter, and its pool's where it has one.
#[derive(Debug, Serialize)]
pub(crate) struct PooledCounter {
    #[serde(flatten)]
    counter: Counter,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<Pool>,
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
            if let Some(pool) = &mut license.pool {
                pool.total_consumptions = draw(pool, asked, now)?;
            }
            let counter = PooledCounter {
                counter: license.counter(),
                pool: license.pool.clone(),
            };
            (grant, AnyCounter::License(counter))
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

/// The pool's total after the request, which must fit there too; its own overage stays as it is.
fn draw(pool: &Pool, asked: &AddConsumption, now: Timestamp) -> Result<Total, ApiError> {
    let request = Request {
        units: asked.units,
        setting: OverageSetting::default(),
    };
    let drawn = limits::decide(&pool.standing(now), Units::ZERO, &request, now);
    let grant = drawn.map_err(|refusal| {
        let code = ErrorCode::from_refusal(refusal, false);
        ApiError::new(
            code,
            format!("the pool {} `{}`: {refusal}", pool.id, pool.name),
        )
    })?;
    Ok(grant.total)
}

fn decide(standing: &Standing, asked: &AddConsumption, now: Timestamp) -> Result<Grant, ApiError> {
    // Every granted unit is in the total, so nothing is pending on the server's side.
    limits::decide(standing, Units::ZERO, &asked.request(), now).map_err(|refusal| {
        let code = ErrorCode::from_refusal(refusal, asked.feature.is_some());
        ApiError::new(code, refusal.to_string())
    })
}

//! The limit rule: may these units be consumed?
//!
//! [`decide`] is the one place that answers it, for the server and for the agent (contract, "Limits,
//! as the server applies them"). It is pure: the caller brings the limits, the total and the time,
//! and a refusal changes nothing.

use serde::{Deserialize, Serialize};

use crate::{
    period::Period,
    time::Timestamp,
    units::{Total, Units},
};

/// What a licence or a feature allows.
///
/// The five booleans and numbers are the contract's fields of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// The limit of a period, without overage.
    pub max_consumptions: i64,
    /// No limit at all.
    pub allow_unlimited_consumptions: bool,
    /// Whether a request may lower the total.
    pub allow_negative_consumptions: bool,
    /// Whether the limit may be passed.
    pub allow_overages: bool,
    /// By how much the limit may be passed; 0 means without bound. No meaning without `allow_overages`.
    pub max_overages: i64,
}

/// Where a licence or a feature stands: its limits, its total, and when that total was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What is allowed.
    pub limits: Limits,
    /// The period after which the total returns to zero; `None` where it never does.
    pub reset: Option<Period>,
    /// The total at `as_of`.
    pub total: Total,
    /// When `total` was right.
    pub as_of: Timestamp,
}

/// The part of a request that bears on the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Units to add.
    pub units: Units,
    /// The overage setting that comes with them.
    pub setting: OverageSetting,
}

/// What a request wants to change of a licence's overage; applied before its units are judged, and
/// lasting once it is granted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverageSetting {
    /// The new `allow_overages`, where given.
    pub allow_overages: Option<bool>,
    /// The new `max_overages`, where given. Never negative.
    pub max_overages: Option<i64>,
}

/// A granted request: what the licence looks like after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The total after the request, with everything pending in it.
    pub total: Total,
    /// The limits after the request's overage setting.
    pub limits: Limits,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The limit would be passed.
    #[error("{requested} more units would pass the limit: {used} of {cap} are used")]
    NotEnough {
        /// Units asked for.
        requested: Units,
        /// The total before the request, with everything pending in it.
        used: Total,
        /// The highest total that the limits allow.
        cap: i64,
    },
    /// Negative units where the licence does not allow them.
    #[error("negative units are not allowed here")]
    NegativeNotAllowed,
    /// The new total does not fit in 64 bits.
    #[error("the total would not fit in 64 bits")]
    Overflow,
}

impl Limits {
    /// The highest total that these limits allow, or `None` where there is no bound.
    pub const fn cap(&self) -> Option<i64> {
        if self.allow_unlimited_consumptions || (self.allow_overages && self.max_overages == 0) {
            return None;
        }
        let overage = if self.allow_overages {
            self.max_overages
        } else {
            0
        };
        Some(self.max_consumptions.saturating_add(overage))
    }

    /// These limits with an overage setting applied.
    #[must_use]
    pub fn with(mut self, setting: OverageSetting) -> Self {
        self.allow_overages = setting.allow_overages.unwrap_or(self.allow_overages);
        self.max_overages = setting.max_overages.unwrap_or(self.max_overages);
        self
    }
}

impl OverageSetting {
    /// Whether it asks for nothing.
    pub const fn is_empty(&self) -> bool {
        self.allow_overages.is_none() && self.max_overages.is_none()
    }
}

impl Standing {
    /// The start of the period that holds `at`, or `None` where totals never return to zero.
    pub fn period_start(&self, at: Timestamp) -> Option<Timestamp> {
        self.reset.map(|period| period.start(at))
    }

    /// The total at `now`: zero where a new period has begun since `as_of`.
    pub fn total_at(&self, now: Timestamp) -> Total {
        if self.period_start(now) > self.period_start(self.as_of) {
            Total::ZERO
        } else {
            self.total
        }
    }

    /// How many units still fit at `now` beside `pending`, or `None` where there is no bound. Negative
    /// where the limit is already passed.
    pub fn room(&self, pending: Units, now: Timestamp) -> Option<i64> {
        let used = self.total_at(now).get().saturating_add(pending.get());
        self.limits.cap().map(|cap| cap.saturating_sub(used))
    }
}

/// Decides one request.
///
/// `pending` is what has been granted in the current period and is not in `standing.total` yet: zero
/// on a server, and on an agent everything that the server has not counted. `now` decides the period.
///
/// # Errors
///
/// A [`Refusal`]; then nothing is changed, the overage setting of the request included.
pub fn decide(
    standing: &Standing,
    pending: Units,
    request: &Request,
    now: Timestamp,
) -> Result<Grant, Refusal> {
    let limits = standing.limits.with(request.setting);
    let used = standing
        .total_at(now)
        .checked_add(pending)
        .ok_or(Refusal::Overflow)?;
    if request.units < Units::ZERO && !limits.allow_negative_consumptions {
        return Err(Refusal::NegativeNotAllowed);
    }
    let total = used.checked_add(request.units).ok_or(Refusal::Overflow)?;
    match limits.cap() {
        Some(cap) if request.units > Units::ZERO && total.get() > cap => Err(Refusal::NotEnough {
            requested: request.units,
            used,
            cap,
        }),
        Some(_) | None => Ok(Grant { total, limits }),
    }
}

//! Consumption pools: several licences draw from one counter, whose own limit refuses too.

use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::Standing, period::Period, time::Timestamp, units::Total, wire::Counter,
};

/// A pool, as it stands on each of its licences. Those with the same `id` are one pool: what is counted or edited on one of
/// them is on all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The server's id of it.
    pub id: i64,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// The limit without overage.
    #[serde(default)]
    pub max_consumptions: i64,
    /// The units that all its licences have consumed in the current period.
    #[serde(default)]
    pub total_consumptions: Total,
    /// No limit.
    #[serde(default)]
    pub allow_unlimited_consumptions: bool,
    /// True where the limit may be passed.
    #[serde(default)]
    pub allow_overages: bool,
    /// The most overage; 0 without bound.
    #[serde(default)]
    pub max_overages: i64,
    /// True where the total returns to zero.
    #[serde(default)]
    pub reset_consumption: bool,
    /// The period after which the total returns to zero.
    #[serde(default)]
    pub consumption_period: Option<Period>,
}

impl Pool {
    /// The pool's standing, its total being right at `as_of`. Negative units are for the licence to allow or refuse.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        let counter = Counter {
            id: self.id,
            max_consumptions: self.max_consumptions,
            total_consumptions: self.total_consumptions,
            allow_unlimited_consumptions: self.allow_unlimited_consumptions,
            allow_negative_consumptions: true,
            allow_overages: self.allow_overages,
            max_overages: self.max_overages,
            reset_consumption: self.reset_consumption,
            consumption_period: self.consumption_period,
        };
        counter.standing(as_of)
    }
}

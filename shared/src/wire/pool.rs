//! The `pool` object of an answer: several licences draw from one counter, whose own limit refuses too.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    limits::{Limits, Standing},
    period::Period,
    time::Timestamp,
    units::Total,
};

/// A consumption pool, as an answer describes it. Each field may be missing or `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolCounter {
    /// The server's id of it.
    pub id: Option<i64>,
    /// For people.
    pub name: Option<String>,
    /// The limit without overage.
    pub max_consumptions: Option<i64>,
    /// What all its licences have consumed in the current period.
    pub total_consumptions: Option<Total>,
    /// No limit.
    pub allow_unlimited_consumptions: Option<bool>,
    /// Whether the limit may be passed.
    pub allow_overages: Option<bool>,
    /// By how much; 0 without bound.
    pub max_overages: Option<i64>,
    /// Whether the total returns to zero.
    pub reset_consumption: Option<bool>,
    /// How often it does.
    pub consumption_period: Option<Period>,
}

/// An answer of a licence or a feature that may draw from a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InPool<T> {
    /// The counter.
    #[serde(flatten)]
    pub counter: T,
    /// The pool that it draws from, where it does.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub pool: Option<PoolCounter>,
}

/// A pool that cannot be read limits nothing that can be known beforehand; the answer is one all the same.
fn lenient<'de, D>(deserializer: D) -> Result<Option<PoolCounter>, D::Error>
where
    D: Deserializer<'de>,
{
    let value: Option<Value> = Option::deserialize(deserializer)?;
    Ok(PoolCounter::of_value(value.as_ref()))
}

impl PoolCounter {
    /// The pool that an answer has in this field.
    pub(super) fn of_value(value: Option<&Value>) -> Option<Self> {
        let pool = value.filter(|pool| pool.is_object())?;
        Some(Self::deserialize(pool).unwrap_or_default())
    }

    /// The answer for a pool that stands so.
    pub fn new(id: i64, name: &str, standing: &Standing, total: Total) -> Self {
        let limits = standing.limits;
        Self {
            id: Some(id),
            name: Some(name.to_owned()),
            max_consumptions: Some(limits.max_consumptions),
            total_consumptions: Some(total),
            allow_unlimited_consumptions: Some(limits.allow_unlimited_consumptions),
            allow_overages: Some(limits.allow_overages),
            max_overages: Some(limits.max_overages),
            reset_consumption: Some(standing.reset.is_some()),
            consumption_period: standing.reset,
        }
    }

    /// How the pool stands by this answer, which was right at `as_of`. Without a limit or a total it limits nothing that can be
    /// known beforehand. Whether a total may be lowered is for the licence to say.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        let is_told = self.max_consumptions.is_some() && self.total_consumptions.is_some();
        let is_unlimited = self.allow_unlimited_consumptions.unwrap_or_default() || !is_told;
        let is_reset = self.reset_consumption.unwrap_or_default();
        Standing {
            limits: Limits {
                max_consumptions: self.max_consumptions.unwrap_or_default(),
                allow_unlimited_consumptions: is_unlimited,
                allow_negative_consumptions: true,
                allow_overages: self.allow_overages.unwrap_or_default(),
                max_overages: self.max_overages.unwrap_or_default(),
            },
            reset: self.consumption_period.filter(|_| is_reset),
            total: self.total_consumptions.unwrap_or_default(),
            as_of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_tells_no_limit_or_no_total_limits_nothing() {
        let cap = |text: &str| {
            let pool: PoolCounter = serde_json::from_str(text).unwrap();
            let standing = pool.standing(Timestamp::default());
            standing.limits.cap().map(|cap| cap - standing.total.get())
        };
        assert_eq!(cap(r#"{"id":3,"name":"n"}"#), None);
        assert_eq!(cap(r#"{"max_consumptions":9}"#), None);
        assert_eq!(
            cap(r#"{"total_consumptions":9,"max_consumptions":null}"#),
            None
        );
        assert_eq!(
            cap(r#"{"max_consumptions":9,"total_consumptions":4,"newer":1}"#),
            Some(5)
        );
        let overages = r#"{"max_consumptions":9,"total_consumptions":4,"allow_overages":true,"max_overages":2}"#;
        assert_eq!(cap(overages), Some(7));
    }
}

//! Consumption periods: when a licence's total returns to zero.
//!
//! Periods are in UTC (contract, "Limits, as the server applies them"): daily at midnight, weekly on
//! Monday at midnight, monthly on the 1st, annually on 1 January.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How often a licence with `reset_consumption` starts again at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Period {
    /// From midnight.
    Daily,
    /// From Monday, midnight.
    Weekly,
    /// From the 1st of the month, midnight.
    Monthly,
    /// From 1 January, midnight.
    Annually,
}

impl Period {
    /// Every period, in order of length.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Annually];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Annually => "annually",
        }
    }

    /// The start of the period that holds `at`.
    #[must_use]
    pub fn start(self, at: Timestamp) -> Timestamp {
        midnight(self.first_day(at.to_chrono()))
    }

    /// The start of the period after the one that holds `at`: the moment of the next reset.
    #[must_use]
    pub fn next(self, at: Timestamp) -> Timestamp {
        let first = self.first_day(at.to_chrono());
        let next = match self {
            Self::Daily => first.checked_add_days(Days::new(1)),
            Self::Weekly => first.checked_add_days(Days::new(7)),
            Self::Monthly => first.checked_add_months(Months::new(1)),
            Self::Annually => first.checked_add_months(Months::new(12)),
        };
        // A timestamp ends with the year 9999 and the calendar far beyond it.
        midnight(next.unwrap_or(NaiveDate::MAX))
    }

    fn first_day(self, at: DateTime<Utc>) -> NaiveDate {
        let day = at.date_naive();
        let first = match self {
            Self::Daily => Some(day),
            Self::Weekly => {
                let since_monday = day.weekday().num_days_from_monday();
                day.checked_sub_days(Days::new(u64::from(since_monday)))
            }
            Self::Monthly => day.with_day(1),
            Self::Annually => day.with_ordinal(1),
        };
        first.unwrap_or(day)
    }
}

fn midnight(day: NaiveDate) -> Timestamp {
    Timestamp::from_millis(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
}

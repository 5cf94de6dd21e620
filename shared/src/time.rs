//! A point in time, as both sides reckon it: milliseconds since the Unix epoch, in UTC.
//!
//! Nothing here reads a clock. The text forms are those of the contract: the `Date` header
//! (RFC 9110, IMF-fixdate) and `validity_period` (RFC 3339 with milliseconds).

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime))]
pub struct Timestamp(i64);

/// The last instant that the text forms can write: the end of the year 9999.
const LATEST_MS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// A timestamp from milliseconds since the epoch, brought into the years 1970 to 9999: the range
    /// that the `Date` header can write.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self(0)
        } else if millis > LATEST_MS {
            Self(LATEST_MS)
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time moved by `millis` (which may be negative), within the supported range.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This time moved forward by `duration`, within the supported range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// How long this is after `earlier`; zero where it is before.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// How far apart the two are, in either direction.
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// The value of a `Date` header, such as `Tue, 07 Jun 2011 20:51:35 GMT`. Milliseconds are dropped.
    pub fn to_http_date(self) -> String {
        // In range by construction: 0 <= millis <= LATEST_MS, which is httpdate's own range.
        let since_epoch = Duration::from_millis(self.0.unsigned_abs());
        httpdate::fmt_http_date(UNIX_EPOCH + since_epoch)
    }

    /// Parses a `Date` header in any of the three forms of RFC 9110.
    pub fn from_http_date(text: &str) -> Option<Self> {
        let time = httpdate::parse_http_date(text).ok()?;
        Some(Self::from_system_time(time))
    }

    /// A reading of the system's clock.
    pub fn from_system_time(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(_before_epoch) => Self(0),
        }
    }

    /// Parses RFC 3339 (`2030-01-01T00:00:00.000Z`) or a bare date, which means its midnight in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(Self::from_millis(time.timestamp_millis()));
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self::from_millis(
            date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis(),
        ))
    }

    pub(crate) fn to_chrono(self) -> DateTime<Utc> {
        // Every value in range is representable, so the fallback is never taken.
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .to_chrono()
                .to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_header_survives_a_round_trip() {
        let time = Timestamp::parse("2011-06-07T20:51:35Z").unwrap();
        assert_eq!(time.to_http_date(), "Tue, 07 Jun 2011 20:51:35 GMT");
        assert_eq!(
            Timestamp::from_http_date("Tue, 07 Jun 2011 20:51:35 GMT"),
            Some(time)
        );
    }

    #[test]
    fn a_bare_date_is_its_midnight_and_text_has_milliseconds() {
        let time = Timestamp::parse("2030-01-01").unwrap();
        assert_eq!(time.to_string(), "2030-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::parse("2030-13-01"), None);
    }

    #[test]
    fn arithmetic_stays_in_the_range_that_a_date_header_can_write() {
        assert_eq!(
            Timestamp::from_millis(i64::MAX).to_http_date(),
            "Fri, 31 Dec 9999 23:59:59 GMT"
        );
        assert_eq!(
            Timestamp::from_millis(5).plus_millis(i64::MIN).as_millis(),
            0
        );
    }
}

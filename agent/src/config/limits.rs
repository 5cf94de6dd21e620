//! How much anybody may use of the agent before others suffer: the `[limits]` table.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, file};

/// What one agent takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`LimitsFile::connections`].
    pub connections: usize,
    /// See [`LimitsFile::requests`].
    pub requests: usize,
    /// See [`LimitsFile::control_requests`].
    pub control_requests: usize,
    /// See [`LimitsFile::head_time`].
    pub head_time: Duration,
    /// See [`LimitsFile::body_time`].
    pub body_time: Duration,
    /// See [`LimitsFile::idle_time`].
    pub idle_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 512,
            control_requests: 32,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(1),
        }
    }
}

/// The `[limits]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Open connections; less where the system has fewer files. Above it, the one that waits longest makes room.
    pub connections: Option<usize>,
    /// Consumptions and reads of applications under way. Above it, 503 at once. The last quarter is for applications
    /// that have less than a quarter.
    pub requests: Option<usize>,
    /// Control calls under way, counted on their own: a flood of applications locks nobody out.
    pub control_requests: Option<usize>,
    /// How long the head of a request may take to arrive.
    #[serde(deserialize_with = "file::duration")]
    pub head_time: Option<Duration>,
    /// How long its body may take.
    #[serde(deserialize_with = "file::duration")]
    pub body_time: Option<Duration>,
    /// How long a connection may do nothing.
    #[serde(deserialize_with = "file::duration")]
    pub idle_time: Option<Duration>,
}

impl LimitsFile {
    /// Fills what is not set.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Limit`] for a limit that lets nothing through.
    pub fn resolve(&self) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let number = |name: &'static str, set: Option<usize>, default: usize| match set {
            Some(0) => Err(ConfigError::Limit { name }),
            other => Ok(other.unwrap_or(default)),
        };
        let time = |name: &'static str, set: Option<Duration>, default: Duration| match set {
            Some(time) if time.is_zero() => Err(ConfigError::Limit { name }),
            other => Ok(other.unwrap_or(default)),
        };
        Ok(Limits {
            connections: number("connections", self.connections, default.connections)?,
            requests: number("requests", self.requests, default.requests)?,
            control_requests: number(
                "control_requests",
                self.control_requests,
                default.control_requests,
            )?,
            head_time: time("head_time", self.head_time, default.head_time)?,
            body_time: time("body_time", self.body_time, default.body_time)?,
            idle_time: time("idle_time", self.idle_time, default.idle_time)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_lets_nothing_through_is_refused_by_its_name() {
        let none = LimitsFile {
            requests: Some(0),
            ..LimitsFile::default()
        };
        let refused = none.resolve().unwrap_err().to_string();
        assert!(refused.contains("`requests`"), "{refused}");
        let some = LimitsFile {
            requests: Some(7),
            ..LimitsFile::default()
        };
        assert_eq!(some.resolve().unwrap().requests, 7);
        assert_eq!(some.resolve().unwrap().connections, 1024);
    }
}

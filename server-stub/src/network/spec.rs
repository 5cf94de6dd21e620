//! A state of the network as it is ordered, read strictly from JSON.

use serde::{Deserialize, Serialize};

/// The longest time in an order, in milliseconds: ten minutes, longer than any client waits.
pub const TIME_MS_MAX: u64 = 600_000;
/// The shortest phase of a flapping network, in milliseconds.
pub const PHASE_MS_MIN: u64 = 10;
/// The most requests of a window that are counted one by one.
pub const REQUESTS_MAX: usize = 10_000;

/// A state of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "a network state, such as {state = \"gone\"}"
)]
pub enum NetworkState {
    /// Everything arrives.
    #[default]
    Up,
    /// Nothing arrives. On a stub with a control address of its own, connections are refused, and open ones are
    /// reset; on one without, a connection is reset as soon as a request of the License API comes on it.
    Gone,
    /// Everything arrives late: half of the time on the way in, half on the way out.
    Slow {
        /// How late, in milliseconds; up to 600000.
        delay_ms: u64,
        /// Up to so many milliseconds more, drawn for each request.
        #[serde(default)]
        jitter_ms: u64,
        /// The seed of what is drawn.
        #[serde(default)]
        seed: u64,
    },
    /// It comes and goes, beginning with up.
    Flapping {
        /// How long it is up, in milliseconds; 10 to 600000.
        up_ms: u64,
        /// How long it is gone, in milliseconds; 10 to 600000.
        down_ms: u64,
        /// Up to so many milliseconds more, drawn for each phase.
        #[serde(default)]
        jitter_ms: u64,
        /// The seed of what is drawn.
        #[serde(default)]
        seed: u64,
    },
    /// A page in HTML with status 200 answers every request in the stub's place.
    CaptivePortal,
    /// So many requests in a window pass; a refusal answers all others in the stub's place.
    RateLimited {
        /// How many pass; up to 10000, and none where it is 0.
        requests: usize,
        /// The window that they are counted in, in milliseconds.
        #[serde(default = "one_second")]
        window_ms: u64,
        /// What the others are answered: 429, or 503.
        #[serde(default = "too_many_requests")]
        status: u16,
        /// Their `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

/// A state that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidState {
    /// A time out of range.
    #[error("`{field}` must be between {min} and {TIME_MS_MAX}")]
    Time {
        /// Which one.
        field: &'static str,
        /// The least that is accepted.
        min: u64,
    },
    /// A status that no limit of the rate has.
    #[error("`status` must be 429 or 503")]
    Status,
    /// More than are counted.
    #[error("`requests` must be at most {REQUESTS_MAX}")]
    Requests,
}

impl NetworkState {
    /// Its name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Gone => "gone",
            Self::Slow { .. } => "slow",
            Self::Flapping { .. } => "flapping",
            Self::CaptivePortal => "captive_portal",
            Self::RateLimited { .. } => "rate_limited",
        }
    }

    /// The same with this seed, where it draws anything and has no seed of its own.
    #[must_use]
    pub fn seeded(mut self, with: u64) -> Self {
        if let Self::Slow { seed, .. } | Self::Flapping { seed, .. } = &mut self
            && *seed == 0
        {
            *seed = with;
        }
        self
    }

    /// Checks what the shape cannot say.
    ///
    /// # Errors
    ///
    /// The first value out of its range.
    pub fn check(&self) -> Result<(), InvalidState> {
        match *self {
            Self::Up | Self::Gone | Self::CaptivePortal => Ok(()),
            Self::Slow {
                delay_ms,
                jitter_ms,
                ..
            } => {
                time("delay_ms", 0, delay_ms)?;
                time("jitter_ms", 0, jitter_ms)
            }
            Self::Flapping {
                up_ms,
                down_ms,
                jitter_ms,
                ..
            } => {
                time("up_ms", PHASE_MS_MIN, up_ms)?;
                time("down_ms", PHASE_MS_MIN, down_ms)?;
                time("jitter_ms", 0, jitter_ms)
            }
            Self::RateLimited { status, .. } if !matches!(status, 429 | 503) => {
                Err(InvalidState::Status)
            }
            Self::RateLimited { requests, .. } if requests > REQUESTS_MAX => {
                Err(InvalidState::Requests)
            }
            Self::RateLimited { window_ms, .. } => time("window_ms", 1, window_ms),
        }
    }
}

fn time(field: &'static str, min: u64, value: u64) -> Result<(), InvalidState> {
    if (min..=TIME_MS_MAX).contains(&value) {
        Ok(())
    } else {
        Err(InvalidState::Time { field, min })
    }
}

const fn one_second() -> u64 {
    1000
}

const fn too_many_requests() -> u16 {
    429
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn survives(json: &str) {
        let state: NetworkState = serde_json::from_str(json).unwrap();
        assert_eq!(state.check(), Ok(()));
        assert_eq!(serde_json::to_string(&state).unwrap(), json);
        assert!(json.contains(&format!(r#""{}""#, state.name())));
    }

    #[track_caller]
    fn refused(json: &str, part_of_message: &str) {
        let message = match serde_json::from_str::<NetworkState>(json) {
            Ok(state) => state.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part_of_message), "{message}");
    }

    #[test]
    fn every_state_is_written_as_it_is_read() {
        survives(r#"{"state":"up"}"#);
        survives(r#"{"state":"gone"}"#);
        survives(r#"{"state":"slow","delay_ms":800,"jitter_ms":400,"seed":7}"#);
        survives(r#"{"state":"flapping","up_ms":900,"down_ms":700,"jitter_ms":0,"seed":0}"#);
        survives(r#"{"state":"captive_portal"}"#);
        survives(
            r#"{"state":"rate_limited","requests":3,"window_ms":1000,"status":503,"retry_after":1}"#,
        );
    }

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        refused(r#"{"state":"foggy"}"#, "unknown variant `foggy`");
        refused(r#"{"state":"slow"}"#, "missing field `delay_ms`");
        refused(r#"{"state":"slow","delay_ms":600001}"#, "`delay_ms`");
        refused(r#"{"state":"flapping","up_ms":9,"down_ms":10}"#, "`up_ms`");
        refused(
            r#"{"state":"rate_limited","requests":1,"status":500}"#,
            "429",
        );
        refused(r#"{"state":"rate_limited","requests":10001}"#, "10000");
        refused(
            r#"{"state":"rate_limited","requests":1,"window_ms":0}"#,
            "`window_ms`",
        );
    }
}

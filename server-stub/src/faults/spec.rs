//! A fault as it is ordered, read strictly from JSON.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};

use crate::api::endpoint::Endpoint;

/// The most faults that can be ordered at a time; a plan is searched for each request.
pub const FAULTS_MAX: usize = 100;
/// The longest delay, in milliseconds. Longer than any client waits.
pub const DELAY_MS_MAX: u64 = 600_000;

/// What goes wrong, for which requests, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Only requests to this path; `None` for every path of the License API.
    #[serde(default)]
    pub path: Option<String>,
    /// Only requests of this device; `None` for every device.
    #[serde(default)]
    pub hardware_id: Option<String>,
    /// What goes wrong.
    pub action: Action,
    /// After so many times, never again; `None` for always.
    #[serde(default)]
    pub times: Option<u64>,
    /// How likely it strikes a request that it matches.
    #[serde(default = "always")]
    pub probability: f64,
    /// The seed of the random numbers that `probability` is held against.
    #[serde(default)]
    pub seed: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawAction")]
pub enum Action {
    /// The connection is closed, nothing is applied.
    DropBefore,
    /// Applied, then the connection is closed with no answer.
    DropAfter,
    /// Applied and answered late, by so many milliseconds.
    Delay(u64),
    /// Nothing is applied; an error answer with this status, and `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Applied; only the first bytes of the answer are sent, then the connection is closed.
    Truncate(usize),
    /// Applied; a 200 comes whose body is not the contract's.
    Garbage,
    /// Applied; the answer's `LicenseSignature` is wrong.
    BadSignature,
    /// The answer's `Date` is wrong by so many seconds.
    SkewDate(i64),
}

impl Fault {
    /// Checks what the shape cannot say; the error is what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(path) = &self.path
            && Endpoint::of_path(path).is_none()
        {
            return Err(format!("`path` {path:?} is not a path of the License API"));
        }
        if !(0.0..=1.0).contains(&self.probability) {
            return Err("`probability` must be between 0 and 1".to_owned());
        }
        Ok(())
    }
}

fn always() -> f64 {
    1.0
}

/// The JSON of an action: an object with one of these fields, and `retry_after` beside `status`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAction {
    drop: Option<Moment>,
    delay_ms: Option<u64>,
    status: Option<u16>,
    retry_after: Option<u64>,
    truncate: Option<usize>,
    garbage: Option<bool>,
    bad_signature: Option<bool>,
    skew_date: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Moment {
    Before,
    After,
}

impl TryFrom<RawAction> for Action {
    type Error = String;

    fn try_from(raw: RawAction) -> Result<Self, String> {
        let drop = raw.drop.map(|moment| match moment {
            Moment::Before => Self::DropBefore,
            Moment::After => Self::DropAfter,
        });
        let candidates = [
            drop,
            raw.delay_ms.map(Self::Delay),
            raw.status
                .map(|status| Self::Status(status, raw.retry_after)),
            raw.truncate.map(Self::Truncate),
            raw.garbage.map(|_| Self::Garbage),
            raw.bad_signature.map(|_| Self::BadSignature),
            raw.skew_date.map(Self::SkewDate),
        ];
        let mut actions = candidates.into_iter().flatten();
        let (Some(action), None) = (actions.next(), actions.next()) else {
            return Err(
                "`action` must have exactly one of drop, delay_ms, status, truncate, \
                        garbage, bad_signature, skew_date"
                    .to_owned(),
            );
        };
        if raw.retry_after.is_some() && raw.status.is_none() {
            return Err("`retry_after` goes with `status` only".to_owned());
        }
        if raw.garbage == Some(false) || raw.bad_signature == Some(false) {
            return Err("`garbage` and `bad_signature` can only be true".to_owned());
        }
        match action {
            Self::Status(status, _) if !(400..=599).contains(&status) => {
                Err("`status` must be between 400 and 599".to_owned())
            }
            Self::Delay(delay_ms) if delay_ms > DELAY_MS_MAX => {
                Err(format!("`delay_ms` must be at most {DELAY_MS_MAX}"))
            }
            valid => Ok(valid),
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::DropBefore => map.serialize_entry("drop", "before")?,
            Self::DropAfter => map.serialize_entry("drop", "after")?,
            Self::Delay(delay_ms) => map.serialize_entry("delay_ms", delay_ms)?,
            Self::Status(status, retry_after) => {
                map.serialize_entry("status", status)?;
                if let Some(seconds) = retry_after {
                    map.serialize_entry("retry_after", seconds)?;
                }
            }
            Self::Truncate(bytes) => map.serialize_entry("truncate", bytes)?,
            Self::Garbage => map.serialize_entry("garbage", &true)?,
            Self::BadSignature => map.serialize_entry("bad_signature", &true)?,
            Self::SkewDate(seconds) => map.serialize_entry("skew_date", seconds)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn survives(json: &str) {
        let action: Action = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&action).unwrap(), json);
    }

    #[track_caller]
    fn refused(json: &str, part_of_message: &str) {
        let message = serde_json::from_str::<Action>(json)
            .unwrap_err()
            .to_string();
        assert!(message.contains(part_of_message), "{message}");
    }

    #[test]
    fn every_action_is_written_as_it_is_read() {
        survives(r#"{"drop":"before"}"#);
        survives(r#"{"drop":"after"}"#);
        survives(r#"{"delay_ms":2000}"#);
        survives(r#"{"status":503,"retry_after":5}"#);
        survives(r#"{"status":500}"#);
        survives(r#"{"truncate":20}"#);
        survives(r#"{"garbage":true}"#);
        survives(r#"{"bad_signature":true}"#);
        survives(r#"{"skew_date":-3600}"#);
    }

    #[test]
    fn an_action_that_is_not_exactly_one_is_refused() {
        refused("{}", "exactly one");
        refused(r#"{"truncate":1,"garbage":true}"#, "exactly one");
        refused(r#"{"drop":"during"}"#, "unknown variant `during`");
        refused(r#"{"explode":true}"#, "unknown field `explode`");
        refused(r#"{"truncate":1,"retry_after":5}"#, "`retry_after`");
        refused(r#"{"garbage":false}"#, "only be true");
        refused(r#"{"status":200}"#, "between 400 and 599");
        refused(r#"{"delay_ms":600001}"#, "at most 600000");
    }
}

//! A fault as it is ordered, read strictly from JSON.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};

use tally_shared::wire::ErrorCode;

use crate::api::endpoint::Endpoint;

/// The most faults that can be ordered at a time; a plan is searched for each request.
pub const FAULTS_MAX: usize = 100;
/// The longest delay, in milliseconds. Longer than any client waits.
pub const DELAY_MS_MAX: u64 = 600_000;
/// The oldest state that reads are answered from, in milliseconds.
pub const STALE_MS_MAX: u64 = 3_600_000;
/// The most changes that the store goes back by at a time; as many are kept.
pub const ROLL_BACK_MAX: u32 = 10_000;
/// The furthest that a `Date` is off, in seconds: a hundred years.
pub const SKEW_SECONDS_MAX: i64 = 3_155_760_000;
/// The most bytes that are sent of an answer which breaks off: more than any answer has.
pub const TRUNCATE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest `Retry-After`, in seconds: a year.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 31_557_600;

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
    /// Only requests that are signed with this API key; `None` for every caller.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Only requests with an `Idempotency-Key`, which HTTP layers take leave to repeat, or only those without; `None` for
    /// both.
    #[serde(default)]
    pub keyed: Option<bool>,
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
    /// A consumption is applied twice, as where a gateway repeats it; the second answer is sent.
    Duplicate,
    /// The connection is closed; a consumption is checked and applied so many milliseconds later.
    Late(u64),
    /// A read is answered from the state of so many milliseconds ago.
    Stale(u64),
    /// A consumption is applied; a refusal is answered, and `Retry-After` in seconds with it.
    RefuseAfter(Refusal, Option<u64>),
    /// All idempotency keys are forgotten, before the request is served.
    ForgetKeys,
    /// The store goes back by so many changing requests, before the request is served.
    RollBack(u32),
    /// The connection stays open, nothing is applied and nothing answered.
    BlackHole,
}

/// The refusal of a request that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRefusal", into = "RawRefusal")]
pub enum Refusal {
    /// An error status.
    Status(u16),
    /// A code of the contract, with its own status.
    Code(ErrorCode),
}

/// The JSON of a refusal: a status or the name of a code.
#[derive(Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a status from 400 to 599, or a code of the contract"
)]
enum RawRefusal {
    Status(u16),
    Code(String),
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
        let path = self.path.as_deref().and_then(Endpoint::of_path);
        if path.is_some_and(|endpoint| !self.action.is_for(endpoint)) {
            return Err(format!(
                "requests to `path` {:?} are not what this action strikes",
                self.path.as_deref().unwrap_or_default()
            ));
        }
        Ok(())
    }
}

impl Action {
    /// True where it decides about a request or its answer; of these faults, one strikes a request.
    pub(super) const fn decides(self) -> bool {
        !matches!(
            self,
            Self::Delay(_)
                | Self::SkewDate(_)
                | Self::Stale(_)
                | Self::ForgetKeys
                | Self::RollBack(_)
        )
    }

    /// True where it strikes requests of this kind: some faults are of reads only, others of what is applied.
    pub(super) const fn is_for(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Stale(_) => !endpoint.changes(),
            Self::Duplicate | Self::Late(_) | Self::RefuseAfter(..) => endpoint.changes(),
            _ => true,
        }
    }
}

fn always() -> f64 {
    1.0
}

/// The JSON of an action: an object with one of these fields, and `retry_after` beside `status` and `refuse_after`.
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
    duplicate: Option<bool>,
    late_ms: Option<u64>,
    stale_ms: Option<u64>,
    refuse_after: Option<Refusal>,
    forget_keys: Option<bool>,
    roll_back: Option<u32>,
    black_hole: Option<bool>,
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
        let flags = [
            (raw.garbage, Self::Garbage),
            (raw.bad_signature, Self::BadSignature),
            (raw.duplicate, Self::Duplicate),
            (raw.forget_keys, Self::ForgetKeys),
            (raw.black_hole, Self::BlackHole),
        ];
        let candidates = [
            drop,
            raw.delay_ms.map(Self::Delay),
            raw.status
                .map(|status| Self::Status(status, raw.retry_after)),
            raw.truncate.map(Self::Truncate),
            raw.skew_date.map(Self::SkewDate),
            raw.late_ms.map(Self::Late),
            raw.stale_ms.map(Self::Stale),
            raw.refuse_after
                .map(|refusal| Self::RefuseAfter(refusal, raw.retry_after)),
            raw.roll_back.map(Self::RollBack),
        ];
        let flagged = flags.into_iter().map(|(flag, action)| flag.map(|_| action));
        let mut actions = candidates.into_iter().chain(flagged).flatten();
        let (Some(action), None) = (actions.next(), actions.next()) else {
            return Err(
                "`action` must have exactly one of drop, delay_ms, status, truncate, garbage, \
                 bad_signature, skew_date, duplicate, late_ms, stale_ms, refuse_after, forget_keys, \
                 roll_back, black_hole"
                    .to_owned(),
            );
        };
        if raw.retry_after.is_some() && raw.status.is_none() && raw.refuse_after.is_none() {
            return Err("`retry_after` goes with `status` and `refuse_after` only".to_owned());
        }
        if flags.iter().any(|(flag, _)| *flag == Some(false)) {
            return Err(
                "`garbage`, `bad_signature`, `duplicate`, `forget_keys` and `black_hole` can only \
                 be true"
                    .to_owned(),
            );
        }
        within(
            "retry_after",
            raw.retry_after.unwrap_or(0),
            0,
            RETRY_AFTER_SECONDS_MAX,
        )?;
        action.bounded()
    }
}

impl Action {
    /// The same, where its number is one that can be.
    fn bounded(self) -> Result<Self, String> {
        match self {
            Self::Status(status, _) => within("status", status, 400, 599),
            Self::Delay(ms) => within("delay_ms", ms, 0, DELAY_MS_MAX),
            Self::Late(ms) => within("late_ms", ms, 0, DELAY_MS_MAX),
            Self::Stale(ms) => within("stale_ms", ms, 1, STALE_MS_MAX),
            Self::RollBack(requests) => within("roll_back", requests, 1, ROLL_BACK_MAX),
            Self::Truncate(bytes) => within("truncate", bytes, 0, TRUNCATE_BYTES_MAX),
            Self::SkewDate(seconds) => {
                within("skew_date", seconds, -SKEW_SECONDS_MAX, SKEW_SECONDS_MAX)
            }
            _ => Ok(()),
        }?;
        Ok(self)
    }
}

fn within<T: Copy + PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), String> {
    if value < least || value > most {
        return Err(format!("`{field}` must be between {least} and {most}"));
    }
    Ok(())
}

impl TryFrom<RawRefusal> for Refusal {
    type Error = String;

    fn try_from(raw: RawRefusal) -> Result<Self, String> {
        match raw {
            RawRefusal::Status(status) => {
                within("refuse_after", status, 400, 599)?;
                Ok(Self::Status(status))
            }
            RawRefusal::Code(name) => {
                ErrorCode::from_name(&name).map(Self::Code).ok_or_else(|| {
                    let names: Vec<&str> = ErrorCode::ALL.iter().map(|it| it.as_str()).collect();
                    format!(
                        "`refuse_after` has no code `{name}`; there are {}",
                        names.join(", ")
                    )
                })
            }
        }
    }
}

impl From<Refusal> for RawRefusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Status(status) => Self::Status(status),
            Refusal::Code(code) => Self::Code(code.as_str().to_owned()),
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
            Self::Status(status, _) => map.serialize_entry("status", status)?,
            Self::Truncate(bytes) => map.serialize_entry("truncate", bytes)?,
            Self::Garbage => map.serialize_entry("garbage", &true)?,
            Self::BadSignature => map.serialize_entry("bad_signature", &true)?,
            Self::SkewDate(seconds) => map.serialize_entry("skew_date", seconds)?,
            Self::Duplicate => map.serialize_entry("duplicate", &true)?,
            Self::Late(ms) => map.serialize_entry("late_ms", ms)?,
            Self::Stale(ms) => map.serialize_entry("stale_ms", ms)?,
            Self::RefuseAfter(refusal, _) => map.serialize_entry("refuse_after", refusal)?,
            Self::ForgetKeys => map.serialize_entry("forget_keys", &true)?,
            Self::RollBack(requests) => map.serialize_entry("roll_back", requests)?,
            Self::BlackHole => map.serialize_entry("black_hole", &true)?,
        }
        if let Self::Status(_, Some(seconds)) | Self::RefuseAfter(_, Some(seconds)) = self {
            map.serialize_entry("retry_after", seconds)?;
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
        survives(r#"{"duplicate":true}"#);
        survives(r#"{"late_ms":5000}"#);
        survives(r#"{"stale_ms":60000}"#);
        survives(r#"{"refuse_after":429,"retry_after":1}"#);
        survives(r#"{"refuse_after":"license_not_enough_consumptions"}"#);
        survives(r#"{"forget_keys":true}"#);
        survives(r#"{"roll_back":3}"#);
        survives(r#"{"black_hole":true}"#);
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
        refused(r#"{"delay_ms":600001}"#, "between 0 and 600000");
        refused(r#"{"late_ms":600001}"#, "between 0 and 600000");
        refused(r#"{"stale_ms":0}"#, "between 1 and 3600000");
        refused(r#"{"roll_back":0}"#, "between 1 and 10000");
        refused(r#"{"refuse_after":200}"#, "between 400 and 599");
        refused(
            r#"{"refuse_after":"no_such_code"}"#,
            "no code `no_such_code`",
        );
        refused(r#"{"refuse_after":true}"#, "a code of the contract");
        refused(r#"{"skew_date":9000000000}"#, "`skew_date` must be between");
        refused(r#"{"black_hole":false}"#, "only be true");
    }
}

//! The contract's test vectors, which come from an independent implementation (`vectors/README.md`).
//!
//! Every vector of a file runs, and all that fail are reported together, each with its index. The
//! counts are asserted, so that a file that lost its vectors does not pass.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fmt::Debug;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};
use tally_shared::{
    limits::{Grant, Limits, Request, Standing, decide},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ErrorCode},
};

const LIMITS: &str = include_str!("vectors/limits.json");
const LIMITS_COUNT: usize = 235;
const BODIES: &str = include_str!("vectors/bodies.json");
const BODIES_COUNT: usize = 69;
const PERIODS: &str = include_str!("vectors/periods.json");
const PERIODS_COUNT: usize = 124;

#[test]
fn every_limits_vector_is_decided_as_expected() {
    check(LIMITS, LIMITS_COUNT, |vector: &LimitsVector| {
        difference(
            vector.decide(vector.total, Units::ZERO),
            vector.expect.outcome(vector.policy),
        )
    });
}

#[test]
fn a_limits_vector_ends_the_same_however_its_total_is_split_with_pending() {
    check(LIMITS, LIMITS_COUNT, |vector: &LimitsVector| {
        let expected = vector.expect.outcome(vector.policy);
        splits(vector.total).find_map(|(total, pending)| {
            difference(vector.decide(total, pending), expected)
                .map(|problem| format!("with {total} counted and {pending} pending, {problem}"))
        })
    });
}

#[test]
fn every_body_vector_is_accepted_or_refused_as_expected() {
    check(BODIES, BODIES_COUNT, |vector: &BodyVector| {
        difference(vector.read().err(), vector.error.as_deref().map(code))
    });
}

#[test]
fn an_accepted_body_vector_means_the_same_when_it_is_written_again() {
    check(BODIES, BODIES_COUNT, |vector: &BodyVector| {
        let request = vector.read().ok()?;
        difference(AddConsumption::from_json(&request.to_json()), Ok(request))
    });
}

#[test]
fn every_period_vector_starts_and_ends_as_expected() {
    check(PERIODS, PERIODS_COUNT, |vector: &PeriodVector| {
        difference(
            (
                vector.period.start(vector.at),
                vector.period.next(vector.at),
            ),
            (vector.start, vector.next),
        )
    });
}

#[test]
fn a_total_counts_until_the_period_of_its_vector_is_over() {
    check(PERIODS, PERIODS_COUNT, |vector: &PeriodVector| {
        let standing = vector.standing(Total::new(7));
        let last_moment = vector.next.plus_millis(-1);
        difference(
            [vector.start, vector.at, last_moment, vector.next].map(|now| standing.total_at(now)),
            [7, 7, 7, 0].map(Total::new),
        )
    });
}

/// Runs every vector of a file; `problem` says what is wrong with one.
#[track_caller]
fn check<V: DeserializeOwned>(file: &str, count: usize, problem: impl Fn(&V) -> Option<String>) {
    let vectors: Vec<&RawValue> = serde_json::from_str(file).unwrap();
    assert_eq!(vectors.len(), count, "the number of vectors in the file");
    let failures: Vec<String> = vectors
        .iter()
        .enumerate()
        .filter_map(|(index, raw)| {
            let found = match serde_json::from_str(raw.get()) {
                Ok(vector) => problem(&vector),
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            found.map(|problem| format!("vector {index}: {problem}\n{raw}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {count} vectors fail\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "its callers make the values on the spot"
)]
fn difference<T: PartialEq + Debug>(actual: T, expected: T) -> Option<String> {
    (actual != expected).then(|| format!("is {actual:?}, should be {expected:?}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsVector {
    policy: Limits,
    total: Total,
    /// Those fields of a body that bear on the limit.
    request: Map<String, Value>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Expect {
    Granted {
        granted: bool,
        total: Total,
        allow_overages: bool,
        max_overages: i64,
    },
    Refused {
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyVector {
    /// As it stands in the file: a number must not pass through a type that rounds it.
    body: Box<RawValue>,
    #[serde(deserialize_with = "null_but_there")]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodVector {
    period: Period,
    at: Timestamp,
    start: Timestamp,
    next: Timestamp,
}

impl LimitsVector {
    fn decide(&self, total: Total, pending: Units) -> Result<Grant, ErrorCode> {
        let standing = Standing {
            limits: self.policy,
            reset: None,
            total,
            as_of: Timestamp::default(),
        };
        decide(&standing, pending, &self.request(), Timestamp::default())
            .map_err(|refusal| ErrorCode::from_refusal(refusal, false))
    }

    /// The request as a body says it, so that what a missing field means is put to the test as well.
    fn request(&self) -> Request {
        let mut body = self.request.clone();
        body.insert("license_key".to_owned(), "k".into());
        body.insert("product".to_owned(), "p".into());
        body.insert("hardware_id".to_owned(), "h".into());
        let body = Value::Object(body).to_string();
        AddConsumption::from_json(body.as_bytes())
            .unwrap()
            .request()
    }
}

impl Expect {
    fn outcome(&self, policy: Limits) -> Result<Grant, ErrorCode> {
        match self {
            &Self::Granted {
                granted,
                total,
                allow_overages,
                max_overages,
            } => {
                assert!(granted, "a vector that is not granted carries an error");
                let limits = Limits {
                    allow_overages,
                    max_overages,
                    ..policy
                };
                Ok(Grant { total, limits })
            }
            Self::Refused { error } => Err(code(error)),
        }
    }
}

impl BodyVector {
    fn read(&self) -> Result<AddConsumption, ErrorCode> {
        AddConsumption::from_json(self.body.get().as_bytes()).map_err(|error| error.code)
    }
}

impl PeriodVector {
    fn standing(&self, total: Total) -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: 10,
                allow_unlimited_consumptions: false,
                allow_negative_consumptions: false,
                allow_overages: false,
                max_overages: 0,
            },
            reset: Some(self.period),
            total,
            as_of: self.at,
        }
    }
}

/// Ways to have a total partly counted by the server and partly pending.
fn splits(total: Total) -> impl Iterator<Item = (Total, Units)> {
    let whole = total.get();
    [1, -1, 1_000, -1_000, whole / 2, whole, i64::MAX, i64::MIN]
        .into_iter()
        .filter_map(move |pending| {
            let counted = whole.checked_sub(pending)?;
            Some((Total::new(counted), Units::new(pending)))
        })
}

fn code(name: &str) -> ErrorCode {
    ErrorCode::from_name(name).unwrap()
}

/// An optional text that must be written, if only as `null`.
fn null_but_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

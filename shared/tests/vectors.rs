//! The contract's test vectors, from an independent implementation.

use serde::Deserialize;
use serde_json::Value;
use tally_shared::{
    limits::{Limits, OverageSetting, Request, Standing, decide},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ErrorCode},
};

#[derive(Debug, Deserialize)]
struct LimitVector {
    policy: Limits,
    total: i64,
    request: RequestVector,
    expect: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestVector {
    #[serde(default = "one")]
    consumptions: i64,
    allow_overages: Option<bool>,
    max_overages: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct BodyVector {
    body: Value,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PeriodVector {
    period: Period,
    at: Timestamp,
    start: Timestamp,
    next: Timestamp,
}

const fn one() -> i64 {
    1
}

/// Decides a vector with a part of its total pending, as an agent would have it.
fn decided(vector: &LimitVector, pending: i64) -> Value {
    let now = Timestamp::from_millis(0);
    let total = Total::new(vector.total - pending);
    let standing = Standing {
        limits: vector.policy,
        reset: None,
        total,
        as_of: now,
    };
    let setting = OverageSetting {
        allow_overages: vector.request.allow_overages,
        max_overages: vector.request.max_overages,
    };
    let request = Request {
        units: Units::new(vector.request.consumptions),
        setting,
    };
    match decide(&standing, Units::new(pending), &request, now) {
        Ok(grant) => serde_json::json!({
            "granted": true,
            "total": grant.total,
            "allow_overages": grant.limits.allow_overages,
            "max_overages": grant.limits.max_overages,
        }),
        Err(refusal) => {
            serde_json::json!({"error": ErrorCode::from_refusal(refusal, false).as_str()})
        }
    }
}

#[test]
fn every_limit_vector_is_decided_as_it_says() {
    let vectors: Vec<LimitVector> =
        serde_json::from_str(include_str!("vectors/limits.json")).unwrap();
    assert_eq!(vectors.len(), 235);
    for (index, vector) in vectors.iter().enumerate() {
        assert_eq!(
            decided(vector, 0),
            vector.expect,
            "vector {index}: {vector:?}"
        );
    }
}

#[test]
fn what_is_pending_counts_as_if_it_were_in_the_total() {
    let vectors: Vec<LimitVector> =
        serde_json::from_str(include_str!("vectors/limits.json")).unwrap();
    for (index, vector) in vectors.iter().enumerate() {
        for pending in [1, -1, 7, vector.total] {
            let splits = vector.total.checked_sub(pending).is_some();
            let got = if splits {
                decided(vector, pending)
            } else {
                vector.expect.clone()
            };
            assert_eq!(
                got, vector.expect,
                "vector {index} with {pending} pending: {vector:?}"
            );
        }
    }
}

#[test]
fn every_body_vector_is_accepted_or_refused_as_it_says() {
    let vectors: Vec<BodyVector> =
        serde_json::from_str(include_str!("vectors/bodies.json")).unwrap();
    assert_eq!(vectors.len(), 69);
    for (index, vector) in vectors.iter().enumerate() {
        let parsed = AddConsumption::from_json(vector.body.to_string().as_bytes());
        let error = parsed.as_ref().err().map(|error| error.code.as_str());
        assert_eq!(
            error,
            vector.error.as_deref(),
            "vector {index}: {vector:?} gave {parsed:?}"
        );
    }
}

#[test]
fn every_period_vector_starts_and_ends_as_it_says() {
    let vectors: Vec<PeriodVector> =
        serde_json::from_str(include_str!("vectors/periods.json")).unwrap();
    assert_eq!(vectors.len(), 124);
    for (index, vector) in vectors.iter().enumerate() {
        let got = (
            vector.period.start(vector.at),
            vector.period.next(vector.at),
        );
        assert_eq!(
            got,
            (vector.start, vector.next),
            "vector {index}: {vector:?}"
        );
    }
}

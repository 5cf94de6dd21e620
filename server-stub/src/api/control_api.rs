//! The control surface for testers, under `/stub/v1/`.

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json as value;
use tally_shared::time::Timestamp;

use super::{Failure, Shared, json};
use crate::{
    engine::Engine,
    faults::plan::{Fault, Plan},
    seed::License,
};

type Result<T> = std::result::Result<T, Failure>;

/// The body of `PUT /stub/v1/clock`: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetClock {
    /// The time that it is to be.
    now: Option<Timestamp>,
    /// By how much it is to go forward; negative to go back.
    advance_ms: Option<i64>,
    /// The same in seconds.
    advance_seconds: Option<i64>,
}

/// The query of `GET /stub/v1/activity`.
#[derive(Deserialize)]
pub(super) struct ActivityQuery {
    license_id: Option<i64>,
}

pub(super) async fn faults(State(shared): State<Shared>) -> Result<Response> {
    json(&shared.plan().states())
}

pub(super) async fn set_faults(State(shared): State<Shared>, body: Bytes) -> Result<Response> {
    let faults: Vec<Fault> = read(&body)?;
    for fault in &faults {
        fault.check().map_err(Failure::invalid)?;
    }
    *shared.plan() = Plan::new(faults);
    json(&shared.plan().states())
}

pub(super) async fn clock(State(shared): State<Shared>) -> Result<Response> {
    tell_clock(&shared).await
}

pub(super) async fn set_clock(State(shared): State<Shared>, body: Bytes) -> Result<Response> {
    let request: SetClock = read(&body)?;
    shared
        .with_engine(move |engine| {
            let offset = engine.clock_offset()?;
            let advance = match request {
                SetClock {
                    now: Some(wanted), ..
                } => wanted.as_millis() - engine.now()?.as_millis(),
                SetClock {
                    advance_ms,
                    advance_seconds,
                    ..
                } => advance_ms
                    .unwrap_or(0)
                    .saturating_add(advance_seconds.unwrap_or(0).saturating_mul(1000)),
            };
            engine.set_clock(offset.saturating_add(advance))
        })
        .await?;
    tell_clock(&shared).await
}

pub(super) async fn licenses(State(shared): State<Shared>) -> Result<Response> {
    json(&shared.with_engine(Engine::licenses).await?)
}

pub(super) async fn license(State(shared): State<Shared>, Path(id): Path<i64>) -> Result<Response> {
    json(&shared.with_engine(move |engine| engine.license(id)).await?)
}

pub(super) async fn replace_license(
    State(shared): State<Shared>,
    Path(id): Path<i64>,
    body: Bytes,
) -> Result<Response> {
    let license: License = read(&body)?;
    json(
        &shared
            .with_engine(move |engine| engine.replace_license(id, license))
            .await?,
    )
}

pub(super) async fn activity(
    State(shared): State<Shared>,
    Query(query): Query<ActivityQuery>,
) -> Result<Response> {
    json(
        &shared
            .with_engine(move |engine| engine.activity(query.license_id))
            .await?,
    )
}

pub(super) async fn requests(State(shared): State<Shared>) -> Result<Response> {
    json(&shared.requests().all())
}

pub(super) async fn forget_requests(State(shared): State<Shared>) -> Result<Response> {
    shared.requests().clear();
    json(&value!([]))
}

pub(super) async fn public_key(State(shared): State<Shared>) -> Result<Response> {
    let pem = shared.with_engine(Engine::public_key).await?;
    Ok(([("content-type", "application/x-pem-file")], pem).into_response())
}

pub(super) async fn health() -> Result<Response> {
    json(&value!({"status": "ok"}))
}

async fn tell_clock(shared: &Shared) -> Result<Response> {
    let told = shared
        .with_engine(|engine| Ok((engine.now()?, engine.clock_offset()?)))
        .await?;
    json(&value!({"now": told.0, "offset_ms": told.1}))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| Failure::invalid(error.to_string()))
}

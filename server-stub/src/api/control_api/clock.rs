//! `/stub/v1/clock`: the stub's own time, read and moved.

use axum::{body::Bytes, extract::State, response::Response};
use serde::Deserialize;

use super::{Answered, Stub, read};
use crate::{
    api::reply,
    control::{self, ClockChange},
};

pub(super) async fn show(State(stub): Stub) -> Response {
    reply::json(&stub.clock.read())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: i64,
}

pub(super) async fn set(State(stub): Stub, body: Bytes) -> Answered {
    let change: ClockChange = read(&body)?;
    Ok(reply::json(&control::move_clock(&stub, &change).await?))
}

pub(super) async fn advance(State(stub): Stub, body: Bytes) -> Answered {
    let Advance { seconds } = read(&body)?;
    let change = ClockChange {
        advance_seconds: Some(seconds),
        ..ClockChange::default()
    };
    Ok(reply::json(&control::move_clock(&stub, &change).await?))
}

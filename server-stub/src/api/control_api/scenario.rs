//! `/stub/v1/scenario`: the server's side of a scenario, played on this stub.

use axum::{body::Bytes, extract::State, response::Response};
use tally_shared::wire::{ApiError, ErrorCode};

use super::{Answered, Stub};
use crate::{
    api::reply,
    control::invalid,
    scenario::{file::Scenario, playback, shipped},
};

pub(super) async fn shipped() -> Response {
    reply::json(&shipped::listed())
}

pub(super) async fn show(State(stub): Stub) -> Response {
    reply::json(&playback::shown(&stub))
}

/// The body is the scenario's text, in TOML.
pub(super) async fn play(State(stub): Stub, body: Bytes) -> Answered {
    let text = std::str::from_utf8(&body).map_err(|_| invalid("the scenario is not text"))?;
    let scenario = Scenario::parse(text)
        .map_err(|mistake| ApiError::new(ErrorCode::ValidationError, mistake.to_string()))?;
    Ok(reply::json(&playback::play(&stub, scenario)))
}

pub(super) async fn stop(State(stub): Stub) -> Answered {
    Ok(reply::json(&playback::stop(&stub)?))
}

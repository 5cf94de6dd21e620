//! Which application calls: the contract's `Date` and `Authorization`, with a local key pair.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, header::DATE, request::Parts},
};
use tally_shared::{
    auth::{Authorization, check_date},
    wire::{ApiError, ErrorCode},
};

use super::{Api, answer::Refused};
use crate::{apps::App, ledger::engine::lock};

/// The application that signed the request.
pub(super) struct Caller(pub(super) Arc<App>);

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        authenticate(&parts.headers, api).map(Self).map_err(Refused)
    }
}

fn authenticate(headers: &HeaderMap, api: &Api) -> Result<Arc<App>, ApiError> {
    let text = |name: &axum::http::HeaderName| match headers.get(name) {
        Some(value) => Ok(value.to_str().ok()),
        None => Err(()),
    };
    let (Ok(date), Ok(header)) = (text(&DATE), text(&AUTHORIZATION)) else {
        return Err(ApiError::new(
            ErrorCode::MissingHeaders,
            "the headers `Date` and `Authorization` are required",
        ));
    };
    let date = date.unwrap_or_default();
    check_either_clock(date, api)?;
    let authorization = Authorization::parse(header.unwrap_or_default())?;
    let app = api.apps.find(authorization.api_key()).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidApiKey,
            "no application has this API key; `tally app add NAME` makes one",
        )
    })?;
    authorization.verify(app.keys.shared_key.expose(), date)?;
    Ok(app)
}

/// Applications on this device sign by its wall clock, however wrong it is; agents that use this one
/// as their server have corrected theirs by it.
fn check_either_clock(date: &str, api: &Api) -> Result<(), ApiError> {
    let reading = api.clocks.reading();
    check_date(date, reading.wall)
        .or_else(|_| check_date(date, lock(&api.clock).corrected(reading.mono)))
}

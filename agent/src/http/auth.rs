//! Which application calls: the contract's `Date` and `Authorization`, with a local key pair.

use std::sync::Arc;

use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, DATE},
};
use tally_shared::{
    auth::{Authorization, check_date},
    wire::{ApiError, ErrorCode},
};

use super::Api;
use crate::{apps::App, ledger::engine::lock};

/// The application that signed a request.
pub(super) fn authenticate(headers: &HeaderMap, api: &Api) -> Result<Arc<App>, ApiError> {
    let (Some(date), Some(header)) = (headers.get(DATE), headers.get(AUTHORIZATION)) else {
        return Err(ApiError::new(
            ErrorCode::MissingHeaders,
            "the headers `Date` and `Authorization` are required",
        ));
    };
    let date = date.to_str().unwrap_or_default();
    check_either_clock(date, api)?;
    let authorization = Authorization::parse(header.to_str().unwrap_or_default())?;
    let app = api.apps.find(authorization.api_key()).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidApiKey,
            "no application has this API key; `tally app add NAME` makes one",
        )
    })?;
    authorization.verify(&app.shared_key, date)?;
    Ok(app)
}

/// Applications on this device sign by its wall clock, however wrong it is; agents that use this one
/// as their server have corrected theirs by it.
fn check_either_clock(date: &str, api: &Api) -> Result<(), ApiError> {
    let reading = api.clocks.reading();
    check_date(date, reading.wall)
        .or_else(|_| check_date(date, lock(&api.clock).corrected(reading.mono)))
}

//! Who is calling: the checks of the contract's "Authorization", in the order of its table.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, DATE, HeaderName},
};
use tally_shared::{
    auth::{Authorization, SharedKey, check_date},
    time::Timestamp,
    wire::{ApiError, ErrorCode},
};

use super::{endpoint::Endpoint, error::Failure};
use crate::{
    seed::{ApiKey, ApiKeyState},
    store::Tx,
};

/// Accepts the headers and the signature of a request, or says the first thing wrong with them.
pub(super) fn authenticate(
    tx: &Tx<'_>,
    headers: &HeaderMap,
    endpoint: Endpoint,
    now: Timestamp,
) -> Result<ApiKey, Failure> {
    let (date, authorization) = required_headers(headers)?;
    check_date(&date, now)?;
    let authorization = Authorization::parse(&authorization)?;
    let api_key = tx.api_key(authorization.api_key())?.ok_or_else(|| {
        let message = format!("there is no API key `{}`", authorization.api_key());
        ApiError::new(ErrorCode::InvalidApiKey, message)
    })?;
    may_call(&api_key, endpoint)?;
    authorization.verify(&SharedKey::new(&api_key.shared_key), &date)?;
    Ok(api_key)
}

fn required_headers(headers: &HeaderMap) -> Result<(String, String), ApiError> {
    match (text(headers, &DATE), text(headers, &AUTHORIZATION)) {
        (Some(date), Some(authorization)) => Ok((date, authorization)),
        (date, authorization) => {
            let missing: Vec<&str> = [("Date", date), ("Authorization", authorization)]
                .into_iter()
                .filter_map(|(name, value)| value.is_none().then_some(name))
                .collect();
            let message = format!("missing: {}", missing.join(", "));
            Err(ApiError::new(ErrorCode::MissingHeaders, message))
        }
    }
}

/// Bytes that are not text become a sign that is in no valid header, so the header's own check refuses
/// them.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn may_call(key: &ApiKey, endpoint: Endpoint) -> Result<(), ApiError> {
    match key.state {
        ApiKeyState::Revoked => Err(ApiError::new(
            ErrorCode::RevokedApiKey,
            format!("the API key `{}` was revoked", key.api_key),
        )),
        ApiKeyState::ReadOnly if endpoint.changes() => Err(ApiError::new(
            ErrorCode::ReadOnlyApiKey,
            format!("the API key `{}` may only read", key.api_key),
        )),
        ApiKeyState::ReadOnly | ApiKeyState::Active => Ok(()),
    }
}

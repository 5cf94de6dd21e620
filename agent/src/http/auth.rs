//! Which application calls: the contract's `Date` and `Authorization`, with a local key pair, and what
//! the application may do.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header::AUTHORIZATION, header::DATE, request::Parts},
};
use tally_shared::{
    auth::{Authorization, check_date},
    wire::{ApiError, ErrorCode},
};

use super::{Api, answer::Refused, connection::Connection, guard};
use crate::{apps::App, ledger::engine::lock};

/// The application that signed the request.
pub(super) struct Caller(pub(super) Arc<App>);

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let error = match authenticate(&parts.headers, api) {
            Ok(app) => {
                if let Some(connection) = parts.extensions.get::<Arc<Connection>>() {
                    connection.prove();
                }
                allow(&app, api, &parts.method)?;
                return Ok(Self(app));
            }
            Err(error) => error,
        };
        if let (true, Some(connection)) = (
            is_of_a_wrong_key(error.code),
            parts.extensions.get::<Arc<Connection>>(),
        ) {
            let now = api.clocks.mono();
            api.strangers
                .meet(connection, now, error.code.as_str())
                .await;
        }
        Err(error.into())
    }
}

fn authenticate(headers: &HeaderMap, api: &Api) -> Result<Arc<App>, ApiError> {
    let (Some(date), Some(header)) = (
        guard::one(headers, &DATE)?,
        guard::one(headers, &AUTHORIZATION)?,
    ) else {
        return Err(ApiError::new(
            ErrorCode::MissingHeaders,
            "the headers `Date` and `Authorization` are required",
        ));
    };
    check_either_clock(date, api)?;
    let authorization = Authorization::parse(header)?;
    let app = api.apps.find(authorization.api_key())?;
    authorization.verify_with(app.key(), date)?;
    Ok(app)
}

/// Applications on this device sign by its wall clock, however wrong it is; agents that use this one
/// as their server have corrected theirs by it.
fn check_either_clock(date: &str, api: &Api) -> Result<(), ApiError> {
    check_date(date, api.clocks.wall())
        .or_else(|_| check_date(date, lock(&api.clock).corrected(api.clocks.mono())))
}

/// What the License API changes, it changes by `POST`.
fn allow(app: &App, api: &Api, method: &Method) -> Result<(), Refused> {
    let consumes = *method == Method::POST;
    let now = api.clocks.mono();
    // The corrected clock: setting the device's back makes no key live longer.
    app.rights()
        .may_call(consumes, lock(&api.clock).corrected(now))?;
    if consumes && let Err(wait) = app.keep_pace(now) {
        let error = ApiError::new(
            ErrorCode::RateLimited,
            "this API key asks more often than it may; nothing was recorded",
        );
        return Err(Refused::until(error, wait));
    }
    Ok(())
}

const fn is_of_a_wrong_key(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidApiKey | ErrorCode::RevokedApiKey | ErrorCode::SignatureMismatch
    )
}

//! Which application calls: the contract's `Date` and `Authorization`, with a local key pair, and what
//! the application may do.

use std::sync::Arc;

use tally_shared::{
    auth::{Authorization, check_date},
    wire::{ApiError, ErrorCode},
};

use super::{Api, answer::Refused, connection::Connection, guard::Decisive};
use crate::{apps::App, ledger::engine::lock};

/// The application that signed a request, where it may make it.
///
/// # Errors
///
/// The contract's codes; for a wrong key after a wait.
pub(super) async fn caller(
    api: &Api,
    connection: &Connection,
    decisive: &Decisive<'_>,
    consumes: bool,
) -> Result<Arc<App>, Refused> {
    match authenticate(decisive, api) {
        Ok(app) => {
            connection.prove();
            allow(&app, api, consumes)?;
            Ok(app)
        }
        Err(error) => {
            if is_of_a_wrong_key(error.code) {
                let now = api.clocks.mono();
                let what = error.code.as_str();
                api.strangers.meet(connection, now, what).await;
            }
            Err(error.into())
        }
    }
}

fn authenticate(decisive: &Decisive<'_>, api: &Api) -> Result<Arc<App>, ApiError> {
    let (Some(date), Some(header)) = (decisive.date(), decisive.authorization()) else {
        return Err(ApiError::new(
            ErrorCode::MissingHeaders,
            "the headers `Date` and `Authorization` are required",
        ));
    };
    check_either_clock(date, api)?;
    let authorization = Authorization::parse(header)?;
    let app = api.apps.find(authorization.api_key())?;
    app.verify(&authorization, date)?;
    Ok(app)
}

/// Applications on this device sign by its wall clock, however wrong it is; agents that use this one
/// as their server have corrected theirs by it.
fn check_either_clock(date: &str, api: &Api) -> Result<(), ApiError> {
    check_date(date, api.clocks.wall())
        .or_else(|_| check_date(date, lock(&api.clock).corrected(api.clocks.mono())))
}

fn allow(app: &App, api: &Api, consumes: bool) -> Result<(), Refused> {
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

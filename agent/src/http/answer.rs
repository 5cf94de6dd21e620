//! Answers in the contract's form: compact JSON, a signature on what succeeded, and the agent's date.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tally_shared::{
    signature::{KeyError, Signer},
    wire::{ApiError, ErrorCode, IDEMPOTENCY_REPLAYED, LICENSE_SIGNATURE},
};

use crate::{
    apps::App,
    core::{Unforgettable, Unresolvable},
    ledger::{
        LedgerError,
        answers::Answer,
        engine::{MembershipError, RecordError, ResolveError},
    },
    secret::NoRandom,
};

/// An error of the contract, as an answer.
#[derive(Debug)]
pub(super) struct Refused {
    error: ApiError,
    /// When another try makes sense, in seconds.
    retry_after: Option<u64>,
}

pub(super) type Result<T> = std::result::Result<T, Refused>;

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError::new(code, message).into()
    }

    /// With the time after which another try makes sense, rounded up to whole seconds.
    pub(super) fn until(error: ApiError, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            error,
            retry_after: Some(seconds.max(1)),
        }
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let retry_after = (error.code == ErrorCode::Unavailable).then_some(1);
        Self { error, retry_after }
    }
}

impl From<RecordError> for Refused {
    fn from(error: RecordError) -> Self {
        let code = match &error {
            RecordError::Unknown => ErrorCode::LimitsUnknown,
            RecordError::KeyReused => ErrorCode::IdempotencyKeyReused,
            RecordError::Storage(_) => ErrorCode::StorageUnavailable,
            RecordError::Unavailable(_) => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ResolveError> for Refused {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Unresolvable(
                why @ (Unresolvable::Unknown(_) | Unresolvable::NoFinding(_)),
            ) => Self::new(ErrorCode::NotFound, why.to_string()),
            ResolveError::Unresolvable(
                why @ (Unresolvable::UnderWay(_)
                | Unresolvable::NotSent(_)
                | Unresolvable::TooEarly(..)
                | Unresolvable::OfAnother(_)
                | Unresolvable::NoCopy
                | Unresolvable::SameServer),
            ) => Self::new(ErrorCode::ValidationError, why.to_string()),
            ResolveError::Record(error) => error.into(),
        }
    }
}

impl From<MembershipError> for Refused {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Unforgettable(why @ Unforgettable::Unknown) => {
                Self::new(ErrorCode::NotFound, why.to_string())
            }
            MembershipError::Unforgettable(why @ Unforgettable::Owed(_)) => {
                Self::new(ErrorCode::ValidationError, why.to_string())
            }
            MembershipError::Record(error) => error.into(),
        }
    }
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        tracing::error!(?error, "cannot read the ledger");
        Self::new(ErrorCode::InternalError, error.to_string())
    }
}

impl From<NoRandom> for Refused {
    fn from(error: NoRandom) -> Self {
        Self::new(ErrorCode::InternalError, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let answer = Answer::refused(&self.error);
        let mut response = json(answer.status, answer.body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.error.code == ErrorCode::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer of the License API; what succeeded is signed over the exact bytes of the body, where the
/// application wants it.
///
/// `is_looked_up` says that an idempotency key was looked up, so that the answer says whether it was known.
pub(super) async fn licensed(
    answer: Answer,
    is_looked_up: bool,
    app: &App,
    signer: &Arc<Signer>,
) -> Result<Response> {
    let (status, replayed) = (answer.status, answer.replayed);
    let signs = app.signs_answers() && status == 200;
    let mut response = if signs {
        let (body, signature) = apart(signer, move |signer| {
            let signature = signer.sign(answer.body.as_bytes());
            (answer.body, signature)
        })
        .await?;
        let mut response = json(status, body);
        // Base64 is always a valid header value.
        if let Ok(value) = HeaderValue::try_from(signature.map_err(|error| cannot_sign(&error))?) {
            response.headers_mut().insert(LICENSE_SIGNATURE, value);
        }
        response
    } else {
        json(status, answer.body)
    };
    if is_looked_up {
        let replayed = HeaderValue::from_static(if replayed { "true" } else { "false" });
        response
            .headers_mut()
            .insert(IDEMPOTENCY_REPLAYED, replayed);
    }
    Ok(response)
}

/// Signs on a thread of its own: an RSA signature takes longer than all else of a request, and shall
/// delay no other.
pub(super) async fn apart<T: Send + 'static>(
    signer: &Arc<Signer>,
    work: impl FnOnce(&Signer) -> T + Send + 'static,
) -> Result<T> {
    let signer = Arc::clone(signer);
    let done = tokio::task::spawn_blocking(move || work(&signer)).await;
    done.map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))
}

/// An answer that could not be signed is none.
pub(super) fn cannot_sign(error: &KeyError) -> Refused {
    Refused::new(ErrorCode::InternalError, error.to_string())
}

/// An answer of the control API.
pub(super) fn plain(value: &impl Serialize) -> Result<Response> {
    let body = serde_json::to_string(value)
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))?;
    Ok(json(200, body))
}

pub(super) async fn not_found() -> Refused {
    Refused::new(ErrorCode::NotFound, "no such path")
}

pub(super) async fn method_not_allowed() -> Refused {
    Refused::new(ErrorCode::MethodNotAllowed, "this path has other methods")
}

fn json(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

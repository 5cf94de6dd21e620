//! Bodies: read whole, within a length and a time.

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, Request},
};
use http_body_util::{BodyExt as _, Limited};
use tally_shared::wire::{BODY_BYTES_MAX, ErrorCode};

use super::{Api, answer::Refused};

/// The body of a request.
pub(super) struct Posted(pub(super) Bytes);

impl FromRequest<Api> for Posted {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refused> {
        let body: Body = request.into_body();
        // What is announced as too long is not even begun.
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_long());
        }
        let limit = api.limits.body_time;
        let collected = Limited::new(body, BODY_BYTES_MAX).collect();
        match tokio::time::timeout(limit, collected).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
            Ok(Err(_)) => Err(Refused::new(
                ErrorCode::ValidationError,
                "the body could not be read to its end",
            )),
            Err(_) => Err(Refused::new(
                ErrorCode::RequestTimeout,
                format!("the body did not arrive within {limit:?}; nothing was recorded"),
            )),
        }
    }
}

fn too_long() -> Refused {
    Refused::new(
        ErrorCode::ValidationError,
        format!("the body is longer than {BODY_BYTES_MAX} bytes"),
    )
}

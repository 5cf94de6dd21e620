//! Bodies: read whole, within a length and a time.

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
};
use http_body_util::BodyExt as _;
use tally_shared::wire::{BODY_BYTES_MAX, ErrorCode};

use super::{Api, answer::Refused};
use crate::config::limits::Limits;

/// The body of a control call.
pub(super) struct Posted(pub(super) Bytes);

impl FromRequest<Api> for Posted {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refused> {
        let body: Body = request.into_body();
        read(body, &api.limits()).await.map(Self)
    }
}

/// Reads a body to its end.
///
/// # Errors
///
/// `validation_error` where it is too long, which is told before it is read if it was announced;
/// `request_timeout`.
pub(super) async fn read<B>(body: B, limits: &Limits) -> Result<Bytes, Refused>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let limit = limits.body_time;
    let read = tokio::time::timeout(limit, collect(body)).await;
    read.unwrap_or_else(|_| {
        Err(Refused::new(
            ErrorCode::RequestTimeout,
            format!("the body did not arrive within {limit:?}; nothing was recorded"),
        ))
    })
}

/// It nearly always arrives in one piece.
async fn collect<B>(mut body: B) -> Result<Bytes, Refused>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut whole = Bytes::new();
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Refused::new(
                ErrorCode::ValidationError,
                "the body could not be read to its end",
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len().max(parts.len()) + data.len() > BODY_BYTES_MAX {
            return Err(too_long());
        }
        if parts.is_empty() && whole.is_empty() {
            whole = data;
            continue;
        }
        if parts.is_empty() {
            parts.extend_from_slice(&whole);
        }
        parts.extend_from_slice(&data);
    }
    Ok(if parts.is_empty() {
        whole
    } else {
        parts.into()
    })
}

fn too_long() -> Refused {
    Refused::new(
        ErrorCode::ValidationError,
        format!("the body is longer than {BODY_BYTES_MAX} bytes"),
    )
}

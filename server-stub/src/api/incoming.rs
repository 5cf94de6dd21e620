//! A request of the License API, read from the connection and not judged yet.

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::Value;
use tally_shared::auth::Authorization;
use tally_shared::wire::{ApiError, BODY_BYTES_MAX, ErrorCode, IDEMPOTENCY_KEY};

use super::endpoint::Endpoint;

/// Of an oversized body, so much is read and thrown away, so that a client which is still sending can
/// read the refusal. Beyond it, the connection is closed.
const DISCARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What it asks for.
    pub(crate) endpoint: Endpoint,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its query string, undecoded.
    pub(crate) query: String,
    body: Option<Bytes>,
}

impl Incoming {
    /// Reads a request to its end. `None` where the connection ends before.
    pub(crate) async fn read(endpoint: Endpoint, request: Request) -> Option<Self> {
        let (parts, mut body) = request.into_parts();
        let mut read = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.ok()?.into_data() else {
                continue;
            };
            length += chunk.len();
            if length <= BODY_BYTES_MAX {
                read.extend_from_slice(&chunk);
            } else if length > DISCARD_BYTES_MAX {
                break;
            }
        }
        Some(Self {
            endpoint,
            headers: parts.headers,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: (length <= BODY_BYTES_MAX).then(|| read.freeze()),
        })
    }

    /// The body.
    ///
    /// # Errors
    ///
    /// `validation_error` where it was too large to be read.
    pub(crate) fn body(&self) -> Result<&[u8], ApiError> {
        self.body.as_deref().ok_or_else(|| {
            let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            ApiError::new(ErrorCode::ValidationError, message)
        })
    }

    /// The parameters of the query.
    ///
    /// # Errors
    ///
    /// `validation_error` where it cannot be read.
    pub(crate) fn parameters(&self) -> Result<Vec<(String, String)>, ApiError> {
        serde_urlencoded::from_str(&self.query).map_err(|error| {
            let message = format!("the query cannot be read: {error}");
            ApiError::new(ErrorCode::ValidationError, message)
        })
    }

    /// The device that sent it, as far as that can be read: for faults and for the log.
    pub(crate) fn hardware_id(&self) -> Option<String> {
        if self.endpoint == Endpoint::CheckLicense {
            let mut parameters = self.parameters().ok()?.into_iter();
            return parameters
                .find(|(name, _)| name == "hardware_id")
                .map(|(_, value)| value);
        }
        let body: Value = serde_json::from_slice(self.body().ok()?).ok()?;
        body.get("hardware_id")?.as_str().map(str::to_owned)
    }

    /// The API key that it is signed with, as far as that can be read: for faults and for the log.
    pub(crate) fn api_key(&self) -> Option<String> {
        let header = self.headers.get(AUTHORIZATION)?.to_str().ok()?;
        let authorization = Authorization::parse(header).ok()?;
        Some(authorization.api_key().to_owned())
    }

    /// The `Idempotency-Key`, as sent.
    pub(crate) fn idempotency_key(&self) -> Option<&HeaderValue> {
        self.headers.get(IDEMPOTENCY_KEY)
    }

    /// The body for people: JSON where it is JSON, else text.
    pub(crate) fn shown_body(&self) -> Value {
        self.body.as_deref().map_or_else(
            || Value::from(format!("(more than {BODY_BYTES_MAX} bytes)")),
            shown,
        )
    }
}

/// Bytes for people: JSON where they are JSON, else text; `null` where there are none.
pub(crate) fn shown(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()))
}

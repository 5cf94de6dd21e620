//! The answer to a request: what is stored under an idempotency key, and replayed byte for byte.

use bytes::Bytes;
use serde::Serialize;
use tally_shared::{
    signature::{KeyError, Signer},
    wire::ApiError,
};

/// An answer, apart from how it is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Compact JSON.
    pub(crate) body: Bytes,
    /// The `LicenseSignature` over `body`; on each 200.
    pub(crate) signature: Option<String>,
}

/// An answer that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("cannot write the answer")]
    Write(#[from] serde_json::Error),
    #[error("cannot sign the answer")]
    Sign(#[from] KeyError),
}

impl Answer {
    /// A 200 with a signature over its exact bytes.
    pub(crate) fn signed(body: &impl Serialize, signer: &Signer) -> Result<Self, AnswerError> {
        let body = serde_json::to_vec(body)?;
        Ok(Self {
            status: 200,
            signature: Some(signer.sign(&body)?),
            body: body.into(),
        })
    }

    /// A refusal.
    pub(crate) fn refused(error: &ApiError) -> Self {
        let mut answer = Self::control(&error.body());
        answer.status = error.code.status();
        answer
    }

    /// A 200 of the control surface, which is not signed.
    pub(crate) fn control(body: &impl Serialize) -> Self {
        // Every body is a plain structure with text keys, which always has a JSON form.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self {
            status: 200,
            body: body.into(),
            signature: None,
        }
    }
}

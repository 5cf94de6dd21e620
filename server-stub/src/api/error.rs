//! What can stop a request: a refusal of the contract, or a failure of the stub itself.

use tally_shared::wire::{ApiError, ErrorCode};

use crate::engine::answer::AnswerError;

/// Why a request did not come to a 200.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The contract refuses it.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] rusqlite::Error),
    /// The answer cannot be written or signed.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// A defect.
    #[error("the request panicked")]
    Panic(#[source] tokio::task::JoinError),
}

impl Failure {
    /// The refusal that the client is told. A failure of the stub is logged, and told as
    /// `internal_error` without details.
    pub(crate) fn into_refusal(self) -> ApiError {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Store(_) | Self::Answer(_) | Self::Panic(_) => {
                tracing::error!(error = &self as &dyn std::error::Error, "request failed");
                ApiError::new(
                    ErrorCode::InternalError,
                    "the stub failed; its log says why",
                )
            }
        }
    }
}

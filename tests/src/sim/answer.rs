//! Answers of the model server.

use std::time::Duration;

use serde_json::{Value, json};
use tally_agent::core::{event::KeyEcho, outcome::RawAnswer};
use tally_shared::time::Timestamp;

use super::server::Instant;

/// An answer on its way.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The status and the body.
    pub(super) raw: RawAnswer,
    /// What it says of the key.
    pub(super) echo: KeyEcho,
    /// Its `Date`.
    pub(super) date: Timestamp,
    /// When the server made it.
    pub(super) made_at: Instant,
    /// Whether a cache gave it.
    pub(super) cached: Option<Cached>,
}

/// That a cache gave an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cached {
    /// The `Age` that it says.
    pub(super) age: Option<Duration>,
}

/// What a request that was granted is answered.
pub(super) fn success(body: &Value) -> RawAnswer {
    raw(200, body.to_string())
}

/// A refusal of the contract's.
pub(super) fn refusal(code: &str) -> RawAnswer {
    refuse(400, code)
}

/// The same, of that status.
pub(super) fn refuse(status: u16, code: &str) -> RawAnswer {
    let body = json!({"status": status, "code": code, "message": "as the contract says"});
    raw(status, body.to_string())
}

/// An answer of that status and body.
pub(super) fn raw(status: u16, body: String) -> RawAnswer {
    RawAnswer {
        status,
        signature: None,
        retry_after: None,
        is_fresh: true,
        body: body.into_bytes(),
    }
}

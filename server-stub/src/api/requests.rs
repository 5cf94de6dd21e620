//! The last requests, with what was answered.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;
use tally_shared::time::Timestamp;

use crate::faults::plan::Action;

/// How many requests are kept.
const KEPT: usize = 1000;

/// The last requests.
#[derive(Default)]
pub(super) struct RequestLog {
    kept: VecDeque<LoggedRequest>,
    count: u64,
}

/// A request, with what was answered.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LoggedRequest {
    /// Its place, from 1.
    pub(super) seq: u64,
    /// When it was answered, by the stub's clock.
    pub(super) at: Timestamp,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// JSON where it is, else text.
    pub(super) body: Value,
    pub(super) idempotency_key: Option<String>,
    pub(super) hardware_id: Option<String>,
    /// What was answered, whether or not it reached the client; `null` where nothing was.
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    /// JSON where it is, else text.
    pub(super) answer: Value,
    /// Whether a total may have moved by it.
    pub(super) applied: bool,
    /// Whether it was the stored answer of an earlier request.
    pub(super) replayed: bool,
    /// The fault that fired.
    pub(super) fault: Option<Action>,
}

impl RequestLog {
    pub(super) fn push(&mut self, request: LoggedRequest) {
        self.count += 1;
        self.kept.push_back(LoggedRequest {
            seq: self.count,
            ..request
        });
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<LoggedRequest> {
        self.kept.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// JSON where it is, else text.
pub(super) fn json_or_text(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

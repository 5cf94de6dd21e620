//! The last requests of the License API, and what was answered: for a test to look at. In memory only.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;
use tally_shared::time::Timestamp;

use super::{
    execute::Executed,
    incoming::{Incoming, shown},
};
use crate::faults::spec::Action;

/// How many are kept. A test that sends more looks at totals, not at single requests.
const ENTRIES_MAX: usize = 1000;

/// A request, and what was answered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// 1 for the first request since the start or the last clearing.
    pub(crate) seq: u64,
    /// When it was answered, by the stub's clock.
    pub(crate) at: Timestamp,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) query: String,
    /// JSON, or text where it is not JSON.
    pub(crate) body: Value,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) hardware_id: Option<String>,
    /// The API key that it is signed with.
    pub(crate) api_key: Option<String>,
    /// `None` where nothing was answered.
    pub(crate) status: Option<u16>,
    /// The error's code.
    pub(crate) code: Option<String>,
    /// What was answered, as far as a fault let it through; JSON or text.
    pub(crate) answer: Value,
    /// Whether it changed the licence.
    pub(crate) applied: bool,
    /// Whether the answer was that of an earlier request.
    pub(crate) replayed: bool,
    /// The last fault that struck it.
    pub(crate) fault: Option<Action>,
    /// The state of the network that it did not just pass.
    pub(crate) network: Option<&'static str>,
}

impl Entry {
    /// A request that is not answered yet.
    pub(super) fn new(
        incoming: &Incoming,
        caller: Caller,
        fault: Option<Action>,
        network: Option<&'static str>,
    ) -> Self {
        let key = incoming.idempotency_key();
        Self {
            seq: 0,
            at: Timestamp::default(),
            method: incoming.endpoint.method(),
            path: incoming.endpoint.path(),
            query: incoming.query.clone(),
            body: incoming.shown_body(),
            idempotency_key: key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned()),
            hardware_id: caller.hardware_id,
            api_key: caller.api_key,
            status: None,
            code: None,
            answer: Value::Null,
            applied: false,
            replayed: false,
            fault,
            network,
        }
    }

    /// Puts in what was answered.
    pub(super) fn answered(&mut self, executed: &Executed) {
        self.answer = shown(&executed.answer.body);
        self.status = Some(executed.answer.status);
        let code = self.answer["code"].as_str();
        self.code = code
            .filter(|_| self.answer.get("status").is_some())
            .map(str::to_owned);
        self.applied = executed.activity.is_some();
        self.replayed = executed.is_replayed();
    }
}

impl Caller {
    /// The device and the API key that a request names.
    pub(super) fn of(incoming: &Incoming) -> Self {
        Self {
            hardware_id: incoming.hardware_id(),
            api_key: incoming.api_key(),
        }
    }
}

/// The device and the API key of a request, as far as they can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// The device.
    pub(super) hardware_id: Option<String>,
    /// The API key.
    pub(super) api_key: Option<String>,
}

/// The last requests, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    entries: VecDeque<Entry>,
    count: u64,
}

impl RequestLog {
    /// Adds a request, with its number and time.
    pub(crate) fn add(&mut self, mut entry: Entry, at: Timestamp) -> Entry {
        self.count += 1;
        entry.at = at;
        entry.seq = self.count;
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry.clone());
        entry
    }

    /// Puts what came of a request later in the place of its entry; nothing where that is gone.
    pub(crate) fn replace(&mut self, entry: &Entry) {
        let mut entries = self.entries.iter_mut();
        if let Some(place) = entries.find(|it| it.seq == entry.seq) {
            *place = entry.clone();
        }
    }

    /// All that are kept.
    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }

    /// How many there were since the start or the last clearing.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

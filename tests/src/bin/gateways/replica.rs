//! A replica that is behind for reads: a look-up is answered as the server would have answered it some time ago, with
//! the date of now.
//!
//! Its answer is made of the server's own: the units that were counted since then are taken off the total.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::message::Message;

/// A replica that is behind.
pub(super) struct Replica {
    behind: Duration,
    /// What was counted, by the licence's id.
    counted: Mutex<HashMap<i64, Vec<(Instant, i64)>>>,
}

impl Replica {
    /// A replica that is so far behind.
    pub(super) fn new(behind: Duration) -> Self {
        Self {
            behind,
            counted: Mutex::default(),
        }
    }

    /// Hears of a consumption, and how the server answered it.
    pub(super) fn counted(&self, request: &Message, answer: &Message) {
        if !answer.is_ok() {
            return;
        }
        let number = |body: &[u8], field: &str| -> Option<i64> {
            let body: Value = serde_json::from_slice(body).ok()?;
            body.get(field)?.as_i64()
        };
        let (id, units) = (
            number(&answer.body, "id"),
            number(&request.body, "consumptions"),
        );
        if let (Some(id), Some(units), Ok(mut counted)) = (id, units, self.counted.lock()) {
            counted.entry(id).or_default().push((Instant::now(), units));
        }
    }

    /// Takes what was counted lately off the answer to a look-up.
    pub(super) fn falls_behind(&self, request: &Message, answer: &mut Message) {
        if !request.target().contains("/check_license") || !answer.is_ok() {
            return;
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else {
            return;
        };
        let Some(id) = body.get("id").and_then(Value::as_i64) else {
            return;
        };
        let lately = self.lately(id);
        if let Some(total) = body.get_mut("total_consumptions")
            && let Some(now) = total.as_i64()
            && lately != 0
        {
            *total = (now - lately).into();
            answer.set_body(body.to_string().into_bytes());
        }
    }

    fn lately(&self, id: i64) -> i64 {
        let Ok(mut counted) = self.counted.lock() else {
            return 0;
        };
        let Some(counted) = counted.get_mut(&id) else {
            return 0;
        };
        counted.retain(|(at, _)| at.elapsed() < self.behind);
        counted.iter().map(|(_, units)| units).sum()
    }
}

//! What an `Idempotency-Key` was first used for, until the ledger remembers it.
//!
//! The contract's signature covers the date and not the body, so whoever sees a signed request can send
//! another body with it for as long as its date is accepted. A key is bound to its request before any
//! work, so that with this key there is no other body: where the ledger answers, it remembers the key
//! itself, for days; where nothing could be recorded, the binding stays here until no signature of that
//! time is accepted any more.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tally_shared::auth::DATE_WINDOW;

use crate::{core::chain::Hash, ledger::answers::RequestKey};

/// As long as a date can be accepted: it may be ahead by the window, and then behind by it.
const KEPT: Duration = Duration::from_secs(2 * DATE_WINDOW.as_secs());

/// Bindings of one application at the same time; the oldest gives way.
const BINDINGS_MAX: usize = 1024;

/// The bindings of one application.
#[derive(Debug, Default)]
pub(super) struct Bindings(Mutex<HashMap<String, Bound>>);

#[derive(Clone, Copy, Debug)]
struct Bound {
    fingerprint: Hash,
    until: Duration,
}

impl Bindings {
    /// Binds a key to its request; `false` where it is bound to another one.
    pub(super) fn bind(&self, key: &RequestKey, now: Duration) -> bool {
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = bound.get(&key.key).filter(|earlier| earlier.until > now) {
            return earlier.fingerprint == key.fingerprint;
        }
        if bound.len() >= BINDINGS_MAX {
            bound.retain(|_, other| other.until > now);
            let oldest = bound.iter().min_by_key(|(_, other)| other.until);
            let oldest = oldest.map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| bound.len() >= BINDINGS_MAX) {
                bound.remove(&oldest);
            }
        }
        let until = now.saturating_add(KEPT);
        let fingerprint = key.fingerprint;
        bound.insert(key.key.clone(), Bound { fingerprint, until });
        true
    }

    /// The ledger remembers the key from here on.
    pub(super) fn release(&self, key: &RequestKey) {
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bound.remove(&key.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn request(key: &str, body: u8) -> RequestKey {
        RequestKey {
            key: key.to_owned(),
            fingerprint: Hash([body; 32]),
        }
    }

    #[test]
    fn a_key_goes_with_one_body_until_it_is_released_or_no_date_of_its_time_is_accepted() {
        let bindings = Bindings::default();
        assert!(bindings.bind(&request("k", 1), NOW));
        assert!(bindings.bind(&request("k", 1), NOW));
        assert!(!bindings.bind(&request("k", 2), NOW));
        assert!(!bindings.bind(&request("k", 2), NOW + DATE_WINDOW));
        assert!(bindings.bind(&request("other", 2), NOW));
        assert!(bindings.bind(&request("k", 2), NOW + 2 * DATE_WINDOW));
        bindings.release(&request("k", 2));
        assert!(bindings.bind(&request("k", 3), NOW + 2 * DATE_WINDOW));
    }

    #[test]
    fn bindings_are_bounded_and_the_oldest_gives_way() {
        let bindings = Bindings::default();
        for number in 0..3000_u32 {
            let now = NOW + Duration::from_millis(number.into());
            assert!(bindings.bind(&request(&number.to_string(), 1), now));
        }
        assert_eq!(bindings.0.lock().unwrap().len(), BINDINGS_MAX);
        assert!(!bindings.bind(&request("2999", 2), NOW));
        assert!(bindings.bind(&request("0", 2), NOW));
    }
}

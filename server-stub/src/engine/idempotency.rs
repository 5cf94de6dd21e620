//! `Idempotency-Key`, as the IETF httpapi draft has it: what makes two requests the same, and which
//! are running.
//!
//! The stored answers are in the store, written in the transaction of the request itself. What runs
//! is only in memory: a stub that was killed runs nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest;

/// SHA-256 over method, path and body.
pub(crate) type Fingerprint = [u8; 32];

/// An idempotency key, which belongs to the API key that sent it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScopedKey {
    /// Whose it is.
    pub(crate) api_key: String,
    /// The value of the header.
    pub(crate) key: String,
}

/// The requests with an idempotency key that are being answered at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<BTreeMap<ScopedKey, Fingerprint>>>);

/// One running request; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Claim {
    running: Running,
    key: ScopedKey,
}

/// The fingerprint of a request. The zero bytes keep the parts apart: neither a method nor a path
/// can hold one.
pub(crate) fn fingerprint(method: &str, path: &str, body: &[u8]) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [method.as_bytes(), b"\0", path.as_bytes(), b"\0", body] {
        context.update(part);
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

impl Running {
    /// Begins a request.
    ///
    /// # Errors
    ///
    /// The fingerprint of the request that is running under the same key.
    pub(crate) fn claim(
        &self,
        key: ScopedKey,
        fingerprint: Fingerprint,
    ) -> Result<Claim, Fingerprint> {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = requests.get(&key) {
            return Err(*other);
        }
        requests.insert(key.clone(), fingerprint);
        Ok(Claim {
            running: self.clone(),
            key,
        })
    }
}

impl Claim {
    /// The key that is claimed.
    pub(crate) const fn key(&self) -> &ScopedKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let requests = self.running.0.lock();
        requests
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

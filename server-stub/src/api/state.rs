//! What every request shares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tally_shared::{signature::Signer, wire::ApiError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{error::Failure, requests::RequestLog};
use crate::{
    engine::{clock::Clock, idempotency::Running},
    faults::plan::Plan,
    store::Store,
};

/// The running stub.
pub(crate) struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Plan>,
    requests: Mutex<RequestLog>,
    /// The stub's own time.
    pub(crate) clock: Clock,
    /// Signs answers.
    pub(crate) signer: Signer,
    /// The key that verifies them, in PEM.
    pub(crate) public_key: String,
    /// Whether `Idempotency-Key` is heeded.
    pub(crate) idempotency: bool,
    /// What is being answered.
    pub(crate) running: Running,
    /// Requests in progress, which do not end with their connection.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the stub stops.
    pub(crate) stopping: CancellationToken,
}

/// What [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) signer: Signer,
    pub(crate) public_key: String,
    pub(crate) idempotency: bool,
}

impl Shared {
    /// A stub that has answered nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            store: Mutex::new(parts.store),
            faults: Mutex::default(),
            requests: Mutex::default(),
            clock: parts.clock,
            signer: parts.signer,
            public_key: parts.public_key,
            idempotency: parts.idempotency,
            running: Running::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// The database; waits for others. Never held across an `await`.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The faults.
    pub(crate) fn faults(&self) -> MutexGuard<'_, Plan> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last requests.
    pub(crate) fn requests(&self) -> MutexGuard<'_, RequestLog> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what blocks (the database, signing) where it does not hold up other requests.
    ///
    /// # Errors
    ///
    /// What the work says, and `internal_error` where it panicked.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, ApiError> {
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|panic| Err(Failure::Panic(panic)))
            .map_err(Failure::into_refusal)
    }
}

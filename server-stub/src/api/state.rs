//! What every request shares.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tally_shared::{signature::Signer, wire::ApiError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{error::Failure, requests::RequestLog};
use crate::{
    engine::{clock::Clock, idempotency::Running},
    faults::plan::Plan,
    live::Live,
    network::Network,
    scenario::playback::Playback,
    store::Store,
};

/// The running stub.
pub(crate) struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Plan>,
    requests: Mutex<RequestLog>,
    playback: Mutex<Playback>,
    under_way: AtomicUsize,
    /// Between clients and the License API.
    pub(crate) network: Network,
    /// Tells who listens what happens.
    pub(crate) live: Live,
    /// Where clients find the License API.
    pub(crate) addr: SocketAddr,
    /// Further names under which the control surface is served.
    pub(crate) allowed_hosts: Vec<String>,
    /// The stub's own time.
    pub(crate) clock: Clock,
    /// Signs answers.
    pub(crate) signer: Signer,
    /// The key that verifies them, in PEM.
    pub(crate) public_key: String,
    idempotency: AtomicBool,
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
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) addr: SocketAddr,
}

impl Shared {
    /// A stub that has answered nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            store: Mutex::new(parts.store),
            faults: Mutex::default(),
            requests: Mutex::default(),
            playback: Mutex::default(),
            under_way: AtomicUsize::new(0),
            network: Network::new(),
            live: Live::new(),
            addr: parts.addr,
            allowed_hosts: parts.allowed_hosts,
            clock: parts.clock,
            signer: parts.signer,
            public_key: parts.public_key,
            idempotency: AtomicBool::new(parts.idempotency),
            running: Running::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// True where `Idempotency-Key` is heeded.
    pub(crate) fn keeps_keys(&self) -> bool {
        self.idempotency.load(Ordering::SeqCst)
    }

    /// Heeds `Idempotency-Key` from now on, or no longer; what is kept stays kept.
    pub(crate) fn keep_keys(&self, enabled: bool) {
        self.idempotency.store(enabled, Ordering::SeqCst);
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

    /// The scenario that is played.
    pub(crate) fn playback(&self) -> MutexGuard<'_, Playback> {
        self.playback.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of the License API as under way, until what comes back is dropped.
    pub(crate) fn under_way(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(self))
    }

    /// How many requests of the License API have come and are not answered.
    pub(crate) fn requests_under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
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

/// A request of the License API that is under way.
pub(crate) struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

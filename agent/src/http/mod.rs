//! What applications and people talk to: the License API, as the licence server speaks it, and the
//! agent's own control API, over TCP on loopback and over a Unix socket.

mod answer;
mod auth;
mod control_api;
mod guard;
mod license_api;
mod look_up;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post, put},
};
use tally_shared::{
    signature::Signer,
    wire::{ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, BODY_BYTES_MAX, CHECK_LICENSE},
};
use tokio::sync::Mutex;

use crate::{
    apps::Apps,
    deps::Clocks,
    ledger::{engine::SharedClock, writer::Ledger},
    sync::client::Client,
};

pub use self::control_api::{AddLicense, FullStatus, Resolve, Resolved, SetNetwork, SyncResult};

/// What handlers need.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// The parts of [`Api`].
pub struct Inner {
    /// Where consumptions are recorded.
    pub ledger: Ledger,
    /// The ledger's file, for questions that do not concern the writer.
    pub ledger_path: PathBuf,
    /// Who may consume.
    pub apps: Apps,
    /// Signs answers.
    pub signer: Arc<Signer>,
    /// The licence server, for licences that are not known yet.
    pub client: Arc<Client>,
    /// The corrected clock.
    pub clock: SharedClock,
    /// The device's clocks.
    pub clocks: Arc<dyn Clocks>,
    /// One unknown licence is asked for at a time, so that a flood of them stays a trickle.
    pub look_up: Mutex<()>,
}

impl Api {
    /// Puts the parts together.
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route(ADD_CONSUMPTION, post(license_api::add_consumption))
        .route(
            ADD_FEATURE_CONSUMPTION,
            post(license_api::add_feature_consumption),
        )
        .route(CHECK_LICENSE, get(license_api::check_license))
        .route("/v1/status", get(control_api::status))
        .route(
            "/v1/licenses",
            get(control_api::licenses).post(control_api::add_license),
        )
        .route("/v1/events", get(control_api::events))
        .route("/v1/batches", get(control_api::batches))
        .route("/v1/batches/{batch}/resolve", post(control_api::resolve))
        .route("/v1/sync", post(control_api::sync))
        .route("/v1/network", put(control_api::set_network))
        .route("/v1/apps/reload", post(control_api::reload_apps))
        .route("/healthz", get(control_api::health))
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}

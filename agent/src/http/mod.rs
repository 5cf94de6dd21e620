//! What applications and people talk to: the License API, as the licence server speaks it, and the
//! agent's own control API, over TCP on loopback and over a Unix socket.

mod answer;
mod auth;
mod control_api;
mod guard;
mod license_api;
mod look_up;
pub(crate) mod serve;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::Request,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use hyper::body::Incoming;
use tally_shared::{
    signature::Signer,
    wire::{BODY_BYTES_MAX, IDEMPOTENCY_KEY},
};
use tokio::sync::Mutex;
use tower::ServiceExt as _;

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

/// Answers requests: those of the License API by a short way of their own, since nearly all are, and all
/// others by the router.
#[derive(Clone)]
pub struct Service {
    api: Api,
    control: Router,
}

impl Service {
    /// Serves everything.
    pub fn new(api: Api) -> Self {
        let control = control_routes(api.clone());
        Self { api, control }
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response {
        let key = request.headers().get(IDEMPOTENCY_KEY).cloned();
        let mut response = match guard::check(request.headers(), request.uri()) {
            Err(refused) => refused.into_response(),
            Ok(()) => match license_api::Call::of(request.uri().path()) {
                Some(call) => call.answer(&self.api, request).await.into_response(),
                None => match self.control.oneshot(request.map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            },
        };
        guard::dress(&mut response, key, &self.api);
        response
    }
}

fn control_routes(api: Api) -> Router {
    Router::new()
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
        .with_state(api)
}

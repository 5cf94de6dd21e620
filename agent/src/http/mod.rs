//! What applications and people talk to: the License API, as the licence server speaks it, and the
//! agent's own control API, over TCP on loopback and over a Unix socket.

//!
//! A request comes in through `serve` (sockets, limits), `front` and `guard` (checks before any work),
//! and `auth` or `admin` (who calls).

mod admin;
mod answer;
mod apps;
mod auth;
mod body;
mod chart;
mod connection;
mod control_api;
mod dashboard;
mod front;
mod guard;
mod license_api;
pub(crate) mod licenses;
mod look_up;
mod metrics;
pub mod openapi;
pub(crate) mod serve;
mod slots;
mod strangers;
mod stream;
pub mod tls;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicUsize},
};

use axum::{
    Router, middleware,
    routing::{delete, get, post, put},
};
use tally_shared::signature::Signer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{connection::Connections, look_up::LookUps, slots::Slots, strangers::Strangers};
use crate::{
    apps::Apps,
    config::limits::Limits,
    deps::Clocks,
    file_system::Risky,
    ledger::{engine::SharedClock, writer::Ledger},
    secret::Secret,
    sync::client::Client,
    waiting::WaitingList,
};

pub use self::admin::DashboardLink;
pub use self::apps::{AddApp, AppKeys, Revoked};
pub(crate) use self::control_api::SEARCHED;
pub use self::control_api::{
    Device, FullStatus, Resolve, Resolved, Seen, ServerMoved, SetNetwork, SyncResult,
};
pub use self::licenses::{
    AddLicense, Forgotten, ImportLicense, ImportOutcome, Imported, LicenseDetail, Named,
};

/// What handlers need.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// What an [`Api`] is made of.
pub struct Parts {
    /// Where consumptions are recorded.
    pub ledger: Ledger,
    /// The ledger's file, for questions that do not concern the writer.
    pub ledger_path: PathBuf,
    /// The file system that the ledger is on, where that is one on which it is not safe.
    pub risky: Option<Risky>,
    /// Names of licences that wait to be read.
    pub waiting: WaitingList,
    /// Who may consume.
    pub apps: Apps,
    /// What opens the control API.
    pub admin_token: Secret,
    /// Signs answers.
    pub signer: Arc<Signer>,
    /// The licence server, for licences that are not known yet.
    pub client: Arc<Client>,
    /// The corrected clock.
    pub clock: SharedClock,
    /// The device's clocks.
    pub clocks: Arc<dyn Clocks>,
    /// How much anybody may use.
    pub limits: Limits,
    /// How the listener proves who it is, where other devices can reach it.
    pub tls: Option<Arc<tls::Tls>>,
    /// Where browsers find the agent, such as `http://127.0.0.1:7411`.
    pub origin: String,
    /// Ends what would go on for ever.
    pub stopping: CancellationToken,
}

/// What handlers share.
pub struct Inner {
    ledger: Ledger,
    ledger_path: PathBuf,
    risky: Option<Risky>,
    waiting: WaitingList,
    apps: Apps,
    admin: admin::Admin,
    signer: Arc<Signer>,
    client: Arc<Client>,
    clock: SharedClock,
    clocks: Arc<dyn Clocks>,
    limits: RwLock<Limits>,
    tls: Option<Arc<tls::Tls>>,
    origin: String,
    look_ups: LookUps,
    connections: Arc<Connections>,
    slots: Slots,
    /// How many slots are used by who needs no key: together, they count as an application.
    keyless: AtomicUsize,
    control_slots: Slots,
    strangers: Strangers,
    streams: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Api {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            ledger: parts.ledger,
            ledger_path: parts.ledger_path,
            risky: parts.risky,
            waiting: parts.waiting,
            apps: parts.apps,
            admin: admin::Admin::new(parts.admin_token),
            signer: parts.signer,
            client: parts.client,
            clock: parts.clock,
            clocks: parts.clocks,
            limits: RwLock::new(parts.limits),
            tls: parts.tls,
            origin: parts.origin,
            look_ups: LookUps::default(),
            connections: Arc::new(Connections::new(parts.limits.connections)),
            slots: Slots::new(parts.limits.requests),
            keyless: AtomicUsize::new(0),
            control_slots: Slots::new(parts.limits.control_requests),
            strangers: Strangers::default(),
            streams: Arc::new(Semaphore::new(stream::STREAMS_MAX)),
            stopping: parts.stopping,
        }))
    }
}

impl Api {
    /// Takes on more, or less, from here on.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        self.slots.set_max(limits.requests);
        self.control_slots.set_max(limits.control_requests);
        self.connections.set_max(limits.connections);
    }

    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// All routes but those of the License API, which go by a short way of their own: nearly all requests are.
fn router(api: Api) -> Router {
    let control = Router::new()
        .route("/v1/status", get(control_api::status))
        .route("/v1/licenses", get(licenses::list).post(licenses::add))
        .route("/v1/licenses/import", post(licenses::import))
        .route("/v1/licenses/waiting", get(licenses::waiting))
        .route("/v1/license", get(licenses::show).delete(licenses::remove))
        .route("/v1/license/refresh", post(licenses::refresh))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/events", get(control_api::events))
        .route("/v1/events/{seq}", get(control_api::explain_row))
        .route("/v1/refusals", get(control_api::refusals))
        .route("/v1/batches", get(control_api::batches))
        .route("/v1/batches/{batch}/resolve", post(control_api::resolve))
        .route("/v1/server/moved", post(control_api::server_moved))
        .route("/v1/device", post(control_api::device_is))
        .route(
            "/v1/findings/{finding}/seen",
            post(control_api::see_finding),
        )
        .route("/v1/usage", get(control_api::usage))
        .route("/v1/usage.svg", get(control_api::usage_chart))
        .route("/v1/stream", get(stream::stream))
        .route("/v1/sync", post(control_api::sync))
        .route("/v1/network", put(control_api::set_network))
        .route("/v1/apps", post(apps::add))
        .route("/v1/apps/{name}", delete(apps::revoke))
        .route("/v1/apps/reload", post(apps::reload_apps))
        .route("/v1/dashboard", post(admin::make_link))
        .route("/v1/{*rest}", axum::routing::any(answer::not_found))
        .method_not_allowed_fallback(answer::method_not_allowed)
        .route_layer(middleware::from_fn_with_state(api.clone(), admin::require));
    Router::new()
        .route("/openapi.json", get(openapi::file))
        .route("/healthz", get(control_api::health))
        .route("/open", get(admin::open))
        .merge(dashboard::router())
        .merge(control)
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .with_state(api)
}

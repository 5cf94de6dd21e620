//! The HTTP side: the License API, and the control surface under `/stub/v1/`.
//!
//! `endpoint` and `incoming` are a request, read; `order` lists the checks, `execute` runs one request
//! as one transaction, `license_api` ties them
//! together, and `delivery` sends the answer with whatever fault strikes it.

mod auth;
mod control_api;
mod delivery;
pub(crate) mod endpoint;
pub(crate) mod error;
mod execute;
mod guard;
mod incoming;
mod lab;
mod license_api;
mod order;
mod reply;
pub(crate) mod requests;
pub(crate) mod state;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::Response,
    routing::{get, post},
};
use tally_shared::wire::{
    ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, ApiError, CHECK_LICENSE, ErrorCode,
};

use self::state::Shared;

/// Every route: what clients see of the stub, and what testers do.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let license_api = Router::new()
        .route(ADD_CONSUMPTION, post(license_api::handle))
        .route(ADD_FEATURE_CONSUMPTION, post(license_api::handle))
        .route(CHECK_LICENSE, get(license_api::handle));
    finished(license_api.merge(testers_side(&shared)), shared)
}

/// The routes of the control address: what testers do.
pub(crate) fn control_router(shared: Arc<Shared>) -> Router {
    finished(testers_side(&shared), shared)
}

fn testers_side(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    control_api::router()
        .merge(lab::router())
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            guard::guard,
        ))
        .route("/healthz", get(control_api::healthz))
}

fn finished(router: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

async fn no_such_path() -> Response {
    reply::refused(&ApiError::new(ErrorCode::NotFound, "no such path"))
}

async fn wrong_method() -> Response {
    let message = "the path is served, but not by this method";
    reply::refused(&ApiError::new(ErrorCode::MethodNotAllowed, message))
}

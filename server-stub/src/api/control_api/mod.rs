//! The control surface `/stub/v1/`: for tests and demonstrations. It asks nobody who they are; the guard
//! before it refuses other sites.

mod api_keys;
mod clock;
mod licenses;
mod scenario;
mod stream;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use tally_shared::wire::{ApiError, ErrorCode};

use super::{reply, state::Shared};
use crate::{
    control::{self, invalid},
    faults::spec::Fault,
    network::spec::NetworkState,
};

/// The longest body of a control request; a licence with hundreds of devices fits.
const CONTROL_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Who asks, in every handler.
type Stub = State<Arc<Shared>>;

/// What a handler answers.
type Answered = Result<Response, Refused>;

/// A refusal as a response.
struct Refused(ApiError);

/// The routes.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/stub/v1/about", get(about))
        .route("/stub/v1/public_key", get(public_key))
        .route("/stub/v1/faults", get(faults).put(set_faults))
        .route("/stub/v1/network", get(network).put(set_network))
        .route(
            "/stub/v1/idempotency",
            get(idempotency).put(set_idempotency),
        )
        .route("/stub/v1/api_keys", get(api_keys::list))
        .route(
            "/stub/v1/api_keys/{name}",
            get(api_keys::show)
                .put(api_keys::put)
                .delete(api_keys::remove),
        )
        .route("/stub/v1/clock", get(clock::show).put(clock::set))
        .route("/stub/v1/clock/advance", post(clock::advance))
        .route("/stub/v1/licenses", get(licenses::list))
        .route(
            "/stub/v1/licenses/{id}",
            get(licenses::show)
                .put(licenses::put)
                .patch(licenses::patch)
                .delete(licenses::remove),
        )
        .route("/stub/v1/activity", get(activity))
        .route("/stub/v1/requests", get(requests).delete(clear_requests))
        .route("/stub/v1/stream", get(stream::stream))
        .route("/stub/v1/scenarios", get(scenario::shipped))
        .route(
            "/stub/v1/scenario",
            get(scenario::show)
                .put(scenario::play)
                .delete(scenario::stop),
        )
        .layer(DefaultBodyLimit::max(CONTROL_BODY_BYTES_MAX))
}

/// Whether it runs; for everybody.
pub(super) async fn healthz() -> Response {
    reply::json(&serde_json::json!({ "status": "ok" }))
}

/// What the stub is, and where clients find it.
async fn about(State(stub): Stub) -> Response {
    reply::json(&serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "server_url": format!("http://{}", stub.addr),
        "idempotency": stub.keeps_keys(),
    }))
}

async fn public_key(State(stub): Stub) -> Response {
    reply::text("application/x-pem-file", stub.public_key.clone())
}

async fn faults(State(stub): Stub) -> Response {
    reply::json(&stub.faults().report())
}

async fn set_faults(State(stub): Stub, body: Bytes) -> Answered {
    let ordered: Vec<Fault> = read(&body)?;
    Ok(reply::json(&control::set_faults(&stub, ordered)?))
}

async fn network(State(stub): Stub) -> Response {
    reply::json(&stub.network.report())
}

async fn set_network(State(stub): Stub, body: Bytes) -> Answered {
    let state: NetworkState = read(&body)?;
    Ok(reply::json(&control::set_network(&stub, state)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Idempotency {
    enabled: bool,
}

async fn idempotency(State(stub): Stub) -> Response {
    reply::json(&control::idempotency(&stub))
}

async fn set_idempotency(State(stub): Stub, body: Bytes) -> Answered {
    let Idempotency { enabled } = read(&body)?;
    Ok(reply::json(&control::keep_keys(&stub, enabled)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivityQuery {
    license_id: Option<i64>,
}

async fn activity(State(stub): Stub, RawQuery(query): RawQuery) -> Answered {
    let query: ActivityQuery = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|error| invalid(error.to_string()))?;
    let rows = stub.blocking(move |stub| Ok(stub.store().begin()?.activity(query.license_id)?));
    Ok(reply::json(&rows.await?))
}

async fn requests(State(stub): Stub) -> Response {
    reply::json(&stub.requests().all())
}

async fn clear_requests(State(stub): Stub) -> Response {
    stub.requests().clear();
    stub.live.tell("requests_cleared", &serde_json::json!({}));
    reply::json(&stub.requests().all())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::ValidationError
        } else {
            ErrorCode::InvalidJson
        };
        ApiError::new(code, error.to_string())
    })
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        reply::refused(&self.0)
    }
}

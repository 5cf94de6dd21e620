//! HTTP: the License API, and the control surface for testers.

mod control_api;
mod license_api;
mod requests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE, header::DATE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, put},
};
use serde::Serialize;
use tally_shared::{
    time::Timestamp,
    wire::{
        ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, ApiError, BODY_BYTES_MAX, CHECK_LICENSE,
        ErrorCode,
    },
};

use self::requests::RequestLog;
use crate::{
    engine::{Engine, EngineError, Reply},
    faults::plan::Plan,
};

/// What handlers share.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    plan: Mutex<Plan>,
    requests: Mutex<RequestLog>,
}

/// Marks an answer that is dated already.
#[derive(Clone, Copy)]
struct Dated;

/// All routes.
pub fn router(engine: Arc<Engine>) -> Router {
    let shared = Shared(Arc::new(Inner {
        engine,
        plan: Mutex::default(),
        requests: Mutex::default(),
    }));
    Router::new()
        .route(ADD_CONSUMPTION, any(license_api::serve))
        .route(ADD_FEATURE_CONSUMPTION, any(license_api::serve))
        .route(CHECK_LICENSE, any(license_api::serve))
        .route(
            "/stub/v1/faults",
            get(control_api::faults).put(control_api::set_faults),
        )
        .route(
            "/stub/v1/clock",
            get(control_api::clock).put(control_api::set_clock),
        )
        .route("/stub/v1/licenses", get(control_api::licenses))
        .route(
            "/stub/v1/licenses/{id}",
            get(control_api::license).merge(put(control_api::replace_license)),
        )
        .route("/stub/v1/activity", get(control_api::activity))
        .route(
            "/stub/v1/requests",
            get(control_api::requests).delete(control_api::forget_requests),
        )
        .route("/stub/v1/public_key", get(control_api::public_key))
        .route("/healthz", get(control_api::health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), date))
        .with_state(shared)
}

/// Dates every answer by the stub's clock.
async fn date(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if response.extensions().get::<Dated>().is_none()
        && let Ok(now) = shared.0.engine.now()
    {
        set_date(&mut response, now);
    }
    response
}

fn set_date(response: &mut Response, date: Timestamp) {
    // An HTTP date is always a valid header value.
    if let Ok(value) = HeaderValue::from_str(&date.to_http_date()) {
        response.headers_mut().insert(DATE, value);
        response.extensions_mut().insert(Dated);
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, RequestLog> {
        self.0
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Runs something that waits for the storage, off the threads that serve.
    async fn with_engine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Failure> {
        let engine = Arc::clone(&self.0.engine);
        let done = tokio::task::spawn_blocking(move || work(&engine)).await;
        done.map_err(|error| Failure::internal(error.to_string()))?
            .map_err(Failure::from)
    }
}

/// An error answer.
struct Failure(ApiError);

impl Failure {
    fn internal(message: impl Into<String>) -> Self {
        Self(ApiError::new(ErrorCode::InternalError, message))
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self(ApiError::new(ErrorCode::ValidationError, message))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::NoLicense(_) => ErrorCode::NotFound,
            EngineError::Seed(_) => ErrorCode::ValidationError,
            EngineError::Storage(_) | EngineError::Malformed(_) | EngineError::Key(_) => {
                tracing::error!(?error, "the stub failed");
                ErrorCode::InternalError
            }
        };
        Self(ApiError::new(code, error.to_string()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let reply = Reply::refused(&self.0);
        json_text(reply.status, reply.body)
    }
}

async fn not_found() -> Failure {
    Failure(ApiError::new(ErrorCode::NotFound, "no such path"))
}

async fn method_not_allowed() -> Failure {
    Failure(ApiError::new(
        ErrorCode::MethodNotAllowed,
        "this path has other methods",
    ))
}

fn json_text(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn json(value: &impl Serialize) -> Result<Response, Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(json_text(200, text))
}

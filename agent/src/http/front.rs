//! What every request goes through: the checks before any work, the routes, and what every answer
//! carries. A panic in one request ends with a 500 for that request, and nothing else.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderValue, Method, Request,
        header::{DATE, HeaderName},
    },
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use tally_shared::{time::Timestamp, wire::ErrorCode};
use tower::ServiceExt as _;

use super::{
    Api,
    answer::Refused,
    connection::Connection,
    guard::{Decisive, Loopback},
    license_api::Call,
};
use crate::ledger::engine::lock;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const IDEMPOTENCY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// All that stands between a connection and the routes.
pub(super) struct Front {
    api: Api,
    control: Router,
    date: Mutex<(i64, HeaderValue)>,
}

impl Front {
    /// In front of everything.
    pub(super) fn new(api: &Api) -> Self {
        Self {
            api: api.clone(),
            control: super::router(api.clone()),
            date: Mutex::new((i64::MIN, HeaderValue::from_static(""))),
        }
    }

    /// Answers a request.
    pub(super) async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        connection.begin_work();
        let (head, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let decisive = Decisive::of(&head.headers);
        let is_reading = head.method == Method::GET;
        let key = decisive.as_ref().ok();
        let key = key.and_then(|decisive| decisive.idempotency_key.cloned());
        let checked = decisive.and_then(|decisive| {
            match &self.api.tls {
                Some(tls) if connection.is_public() => decisive.check(&head.uri, tls.as_ref()),
                _ => decisive.check(&head.uri, &Loopback),
            }?;
            Ok(decisive)
        });
        let mut response = match (checked, Call::of(head.uri.path())) {
            (Err(error), _) => Refused::from(error).into_response(),
            (Ok(decisive), Some(call)) => {
                let work = call.answer(&self.api, connection, &head, &decisive, body);
                without_panic(work).await
            }
            (Ok(_), None) => {
                let request = Request::from_parts(head, Body::new(body));
                without_panic(self.route(connection, request)).await
            }
        };
        let headers = response.headers_mut();
        headers.insert(DATE, self.date());
        headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        // A reading tells that keys are kept. On a consumption, the key comes back only where it was looked up: a refusal
        // before that says nothing of an earlier attempt.
        if let Some(key) = key.filter(|_| is_reading || headers.contains_key(REPLAYED_HEADER)) {
            headers.insert(IDEMPOTENCY_HEADER, key);
        }
        connection.end_work(has_body && response.status().as_u16() >= 400);
        Ok(response)
    }

    async fn route(&self, connection: &Arc<Connection>, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(Arc::clone(connection));
        let routed = self.control.clone().oneshot(request).await;
        routed.unwrap_or_else(|never| match never {})
    }

    /// By the corrected clock, which an agent that uses this one as its server corrects itself by.
    /// Written once a second.
    fn date(&self) -> HeaderValue {
        let api = &self.api;
        let now = lock(&api.clock).corrected(api.clocks.mono());
        let second = now.as_millis() / 1000;
        let mut last = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != second {
            *last = (second, header(now));
        }
        last.1.clone()
    }
}

/// Answers 500 where the work panics. Nothing that is left half-changed by that is used again: the ledger's desk closes
/// when a turn ends so, and other locks hold no half-changed state.
async fn without_panic(work: impl Future<Output = impl IntoResponse>) -> Response {
    let work = AssertUnwindSafe(async { work.await.into_response() });
    match work.catch_unwind().await {
        Ok(response) => response,
        Err(_panic) => {
            tracing::error!("a request ended by a defect of the agent; others go on");
            let message = "a defect of the agent ended this request";
            Refused::new(ErrorCode::InternalError, message).into_response()
        }
    }
}

fn header(time: Timestamp) -> HeaderValue {
    // An HTTP date is always a valid header value.
    HeaderValue::from_str(&time.to_http_date()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

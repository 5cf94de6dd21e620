//! The License API: authentication, then the engine, with faults around both.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{RawQuery, State, rejection::BytesRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{AUTHORIZATION, DATE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use tally_shared::{
    auth::{Authorization, check_date},
    time::Timestamp,
    wire::{
        ADD_FEATURE_CONSUMPTION, AddConsumption, ApiError, BODY_BYTES_MAX, CHECK_LICENSE,
        CheckLicense, ErrorCode, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_REPLAYED,
        LICENSE_SIGNATURE,
    },
};

use super::{
    Failure, Shared, json_text,
    requests::{LoggedRequest, json_or_text},
    set_date,
};
use crate::{
    engine::{Call, Engine, EngineError, Reply},
    faults::{
        cut::Scissors,
        plan::{Action, DropAction, StatusAction, Verdict, When},
    },
    seed::KeyState,
};

/// A body that is no answer of the contract's, as a captive portal sends it.
const GARBAGE: &str = "<!doctype html><title>Welcome to the Wi-Fi</title><p>Please sign in.";

/// A request as it came.
struct Incoming {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Result<Bytes, ApiError>,
}

pub(super) async fn serve(
    State(shared): State<Shared>,
    Extension(scissors): Extension<Scissors>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let path = uri.path().to_owned();
    let incoming = Incoming {
        method,
        path,
        query,
        headers,
        body: body.map_err(|error| unreadable(&error)),
    };
    let mut logged = incoming.logged();
    let verdict = shared
        .plan()
        .judge(&incoming.path, logged.hardware_id.as_deref());
    logged.fault.clone_from(&verdict.action);

    if let Some(Action::Drop(DropAction { drop: When::Before })) = verdict.action {
        shared.requests().push(LoggedRequest {
            at: shared.engine().now()?,
            ..logged
        });
        scissors.cut_after(0);
        return Ok(StatusCode::OK.into_response());
    }
    let key = idempotency_key(&incoming.headers, shared.engine());
    let reply = match &verdict.action {
        Some(Action::Status(action)) => by_force(action),
        _ => answer(&shared, incoming, verdict.delay_ms).await?,
    };
    let now = shared.engine().now()?;
    shared.requests().push(answered(logged, &reply, now));
    let mut response = respond(&reply, &verdict, &scissors);
    set_date(
        &mut response,
        now.plus_millis(verdict.skew_date.saturating_mul(1000)),
    );
    if let Ok(Some(key)) = key
        && let Ok(value) = HeaderValue::from_str(&key)
    {
        response.headers_mut().insert(IDEMPOTENCY_KEY, value);
    }
    Ok(response)
}

/// Answers by the contract. A late answer is late after it was applied, and its key counts as in use
/// until then.
async fn answer(shared: &Shared, incoming: Incoming, delay_ms: u64) -> Result<Reply, Failure> {
    let engine = std::sync::Arc::clone(&shared.0.engine);
    let handle = tokio::runtime::Handle::current();
    let work = move || {
        let reply = decide(&engine, &incoming, || {
            handle.block_on(tokio::time::sleep(Duration::from_millis(delay_ms)));
        })?;
        Ok::<_, EngineError>(reply)
    };
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::internal(error.to_string()))??)
}

/// The order of checks: headers and signature, then JSON and shape, then the engine's.
fn decide(
    engine: &Engine,
    incoming: &Incoming,
    then_wait: impl FnOnce(),
) -> Result<Reply, EngineError> {
    let reads = incoming.path == CHECK_LICENSE;
    let api_key = match authenticate(engine, &incoming.headers, reads)? {
        Ok(api_key) => api_key,
        Err(error) => return Ok(Reply::refused(&error)),
    };
    let wanted = if reads { Method::GET } else { Method::POST };
    if incoming.method != wanted {
        let error = ApiError::new(ErrorCode::MethodNotAllowed, format!("use {wanted}"));
        return Ok(Reply::refused(&error));
    }
    let key = match idempotency_key(&incoming.headers, engine) {
        Ok(key) => key.filter(|_| !reads),
        Err(error) => return Ok(Reply::refused(&error)),
    };
    let running = match key.map(|key| engine.claim(&api_key, &key)).transpose() {
        Ok(running) => running,
        Err(error) => return Ok(Reply::refused(&error)),
    };
    let fingerprint = incoming.fingerprint();
    let key = running
        .as_ref()
        .map(|running| (running, fingerprint.as_slice()));
    let reply = engine.answer(incoming.call(), key)?;
    then_wait();
    Ok(reply)
}

/// Which key pair signed the request, or the first thing that is wrong with its headers.
fn authenticate(
    engine: &Engine,
    headers: &HeaderMap,
    reads: bool,
) -> Result<Result<String, ApiError>, EngineError> {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default().to_owned())
    };
    let (Some(date), Some(header)) = (text(DATE), text(AUTHORIZATION)) else {
        return Ok(Err(ApiError::new(
            ErrorCode::MissingHeaders,
            "the headers `Date` and `Authorization` are required",
        )));
    };
    let parsed = check_date(&date, engine.now()?).and_then(|()| Authorization::parse(&header));
    let authorization = match parsed {
        Ok(authorization) => authorization,
        Err(error) => return Ok(Err(error)),
    };
    let refuse = |code, why: &str| Ok(Err(ApiError::new(code, why)));
    let Some(key) = engine.api_key(authorization.api_key())? else {
        return refuse(ErrorCode::InvalidApiKey, "nobody has this API key");
    };
    match key.state {
        KeyState::Revoked => {
            return refuse(ErrorCode::RevokedApiKey, "this API key was revoked");
        }
        KeyState::ReadOnly if !reads => {
            return refuse(ErrorCode::ReadOnlyApiKey, "this API key may only read");
        }
        KeyState::ReadOnly | KeyState::Active => {}
    }
    Ok(authorization
        .verify(&key.shared_key, &date)
        .map(|()| key.api_key))
}

/// The request's `Idempotency-Key`, where this stub keeps keys.
fn idempotency_key(headers: &HeaderMap, engine: &Engine) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY).filter(|_| engine.keeps_keys()) else {
        return Ok(None);
    };
    let usable = |key: &&str| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX;
    match value.to_str().ok().filter(usable) {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(ApiError::new(
            ErrorCode::ValidationError,
            format!(
                "`{IDEMPOTENCY_KEY}` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters"
            ),
        )),
    }
}

impl Incoming {
    fn call(&self) -> Result<Call, ApiError> {
        if self.path == CHECK_LICENSE {
            let query = self.query.as_deref().unwrap_or_default();
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
                .map_err(|error| ApiError::new(ErrorCode::ValidationError, error.to_string()))?;
            return CheckLicense::from_query(pairs).map(Call::Check);
        }
        let body = self.body.as_ref().map_err(Clone::clone)?;
        let request = if self.path == ADD_FEATURE_CONSUMPTION {
            AddConsumption::feature_from_json(body)
        } else {
            AddConsumption::from_json(body)
        };
        request.map(Box::new).map(Call::Add)
    }

    fn fingerprint(&self) -> Vec<u8> {
        let body = self.body.as_ref().map(AsRef::as_ref).unwrap_or_default();
        [
            self.method.as_str().as_bytes(),
            b" ",
            self.path.as_bytes(),
            b"\n",
            body,
        ]
        .concat()
    }

    fn logged(&self) -> LoggedRequest {
        let bytes = self.body.as_ref().map(AsRef::as_ref).unwrap_or_default();
        let body = json_or_text(bytes);
        let key = self
            .headers
            .get(IDEMPOTENCY_KEY)
            .and_then(|value| value.to_str().ok());
        let from_query = || {
            let query = self.query.as_deref()?;
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
            pairs
                .into_iter()
                .find(|(name, _)| name == "hardware_id")
                .map(|(_, value)| value)
        };
        let from_body = body
            .get("hardware_id")
            .and_then(|id| id.as_str())
            .map(str::to_owned);
        LoggedRequest {
            method: self.method.to_string(),
            path: self.path.clone(),
            query: self.query.clone(),
            idempotency_key: key.map(str::to_owned),
            hardware_id: from_body.or_else(from_query),
            body,
            ..LoggedRequest::default()
        }
    }
}

fn answered(logged: LoggedRequest, reply: &Reply, now: Timestamp) -> LoggedRequest {
    let answer = json_or_text(reply.body.as_bytes());
    let code = answer
        .get("code")
        .and_then(|code| code.as_str())
        .map(str::to_owned);
    LoggedRequest {
        at: now,
        status: Some(reply.status),
        code: code.filter(|_| reply.status >= 400),
        answer,
        applied: reply.applied,
        replayed: reply.replayed,
        ..logged
    }
}

/// Makes the response, and breaks it where a fault says so.
fn respond(reply: &Reply, verdict: &Verdict, scissors: &Scissors) -> Response {
    let mut signature = reply.signature.clone();
    let mut response = match &verdict.action {
        Some(Action::Garbage(_)) => {
            return (StatusCode::OK, [("content-type", "text/html")], GARBAGE).into_response();
        }
        _ => json_text(reply.status, reply.body.clone()),
    };
    match &verdict.action {
        Some(Action::Drop(_)) => scissors.cut_after(0),
        Some(Action::Truncate(action)) => scissors.cut_after(action.truncate),
        Some(Action::BadSignature(_)) => signature = signature.map(|text| forged(&text)),
        Some(Action::Status(StatusAction {
            retry_after: Some(seconds),
            ..
        })) => {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        _ => {}
    }
    // Base64 is always a valid header value.
    if let Some(value) = signature.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(LICENSE_SIGNATURE, value);
    }
    if reply.replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Another signature of the same form.
fn forged(signature: &str) -> String {
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{first}{}", signature.get(1..).unwrap_or_default())
}

/// The answer of a status fault.
fn by_force(action: &StatusAction) -> Reply {
    let code = match action.status {
        429 => ErrorCode::RateLimited,
        500 => ErrorCode::InternalError,
        _ => ErrorCode::Unavailable,
    };
    let error = ApiError::new(code, "a fault that a tester ordered");
    let mut body = error.body();
    body.status = action.status;
    Reply {
        status: action.status,
        body: serde_json::to_string(&body).unwrap_or_default(),
        ..Reply::refused(&error)
    }
}

fn unreadable(rejection: &BytesRejection) -> ApiError {
    let message = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        format!("the body is longer than {BODY_BYTES_MAX} bytes")
    } else {
        "the body could not be read to its end".to_owned()
    };
    ApiError::new(ErrorCode::ValidationError, message)
}

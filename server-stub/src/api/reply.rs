//! Answers as HTTP responses.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Serialize;
use tally_shared::wire::ApiError;

use crate::engine::answer::Answer;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LICENSE_SIGNATURE: HeaderName = HeaderName::from_static("licensesignature");

/// An answer with its signature.
pub(super) fn answer(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body.clone()));
    // Every status here is one of the contract's, or was checked when a fault was ordered.
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if let Some(signature) = &answer.signature {
        set(&mut response, LICENSE_SIGNATURE, signature);
    }
    response
}

/// A 200 of the control surface.
pub(super) fn json(body: &impl Serialize) -> Response {
    answer(&Answer::control(body))
}

/// A refusal.
pub(super) fn refused(error: &ApiError) -> Response {
    answer(&Answer::refused(error))
}

/// Text of some type.
pub(super) fn text(content_type: &'static str, text: String) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// Sets a header whose value was made here.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    // Values are Base64, numbers and dates: all of them are valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

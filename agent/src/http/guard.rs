//! Checks before any work: a loopback port is reachable by every web page in the device's browser.
//!
//! A page cannot choose the `Host` that a browser sends, and cannot hide its `Origin`; refusing foreign
//! ones holds off DNS rebinding and cross-site requests. Every answer is dated by the corrected clock,
//! which an agent that uses this one as its server corrects itself by.

use axum::{
    http::{
        HeaderMap, HeaderValue, Uri,
        header::{DATE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};
use tally_shared::wire::{ErrorCode, IDEMPOTENCY_KEY};

use super::{Api, answer::Refused};
use crate::ledger::engine::lock;

/// Dates an answer, and echoes the key under which it is remembered.
pub(super) fn dress(response: &mut Response, key: Option<HeaderValue>, api: &Api) {
    let headers = response.headers_mut();
    let date = lock(&api.clock)
        .corrected(api.clocks.reading().mono)
        .to_http_date();
    // An HTTP date is always a valid header value.
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(DATE, date);
    }
    if let Some(key) = key {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Refuses what a foreign page may have sent.
pub(super) fn check(headers: &HeaderMap, uri: &Uri) -> Result<(), Refused> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or(""))
    };
    let host = text(HOST).or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    if !host.is_some_and(is_own_name) {
        return Err(Refused::new(
            ErrorCode::Forbidden,
            "this agent is served as 127.0.0.1, localhost or [::1] only",
        ));
    }
    let own_origin = |origin: &str| {
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(is_own_name)
    };
    if text(ORIGIN).is_some_and(|origin| !own_origin(origin)) {
        return Err(Refused::new(
            ErrorCode::Forbidden,
            "requests of other sites are refused",
        ));
    }
    Ok(())
}

/// Whether a `Host` is a name of this device, with or without a port.
fn is_own_name(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    port.parse::<u16>().is_ok()
        && ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(host: &str, expected: bool) {
        assert_eq!(is_own_name(host), expected, "{host}");
    }

    #[test]
    fn only_names_of_this_device_are_served() {
        check_name("127.0.0.1:7411", true);
        check_name("localhost", true);
        check_name("LOCALHOST:1", true);
        check_name("[::1]:7411", true);
        check_name("[::1]", true);
        check_name("evil.example", false);
        check_name("127.0.0.1.evil.example:7411", false);
        check_name("localhost:port", false);
        check_name("", false);
        check_name("::1", false);
    }
}

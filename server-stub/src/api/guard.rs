//! Who may use the control surface: programs, and the lab's own page. Not the page of another site.
//!
//! A loopback port is reachable by every web page in the tester's browser. A page cannot choose the `Host`
//! that its browser sends, and cannot hide its `Origin`; refusing foreign ones holds off DNS rebinding
//! and cross-site requests. A `Host` that is an address was typed by somebody, so it is accepted: a name
//! can be rebound, an address cannot.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use hyper::{
    HeaderMap,
    header::{HOST, HeaderName, HeaderValue, ORIGIN},
};
use tally_shared::wire::{ApiError, ErrorCode};

use super::{reply, state::Shared};

/// Everything is the page's own: no other host is asked for anything, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Lets a request through, or refuses it before anything is done.
pub(super) async fn guard(
    State(stub): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match check(request.headers(), &stub.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => reply::refused(&refusal),
    };
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let text = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(HOST).unwrap_or_default();
    if !is_own(host, allowed) {
        let message = format!(
            "the control surface is served as localhost, or by an address; for the name {host:?}, \
             start the stub with --allow-host"
        );
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let same = |origin: &str| {
        let site = origin.split_once("://").map_or("", |(_, site)| site);
        site.eq_ignore_ascii_case(host)
    };
    if text(ORIGIN).is_some_and(|origin| !same(origin)) {
        let message = "requests of other sites are refused";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}

/// Whether a `Host`, with or without a port, is localhost, an address, or a name that was allowed.
fn is_own(host: &str, allowed: &[String]) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_address = match bare {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => matches!(name.parse::<IpAddr>(), Ok(IpAddr::V4(_))),
    };
    let is_name = |own: &str| name.eq_ignore_ascii_case(own);
    port.parse::<u16>().is_ok()
        && (is_address || is_name("localhost") || allowed.iter().any(|own| is_name(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(host: &str, expected: bool) {
        assert_eq!(is_own(host, &["stub".to_owned()]), expected, "{host}");
    }

    #[test]
    fn only_localhost_addresses_and_allowed_names_are_served() {
        check_host("127.0.0.1:7412", true);
        check_host("localhost", true);
        check_host("LOCALHOST:1", true);
        check_host("[::1]:7412", true);
        check_host("192.168.1.5:7412", true);
        check_host("stub:7412", true);
        check_host("evil.example", false);
        check_host("127.0.0.1.evil.example:7412", false);
        check_host("localhost:port", false);
        check_host("::1", false);
        check_host("[evil]", false);
        check_host("", false);
    }

    #[track_caller]
    fn check_origin(origin: &'static str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:7412"));
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        assert_eq!(check(&headers, &[]).is_ok(), expected, "{origin}");
    }

    #[test]
    fn only_the_page_itself_is_an_origin() {
        check_origin("http://127.0.0.1:7412", true);
        check_origin("http://127.0.0.1:7411", false);
        check_origin("http://evil.example", false);
        check_origin("null", false);
    }
}

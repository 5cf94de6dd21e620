//! Checks before any work: a loopback port is reachable by every web page in the device's browser.
//!
//! A page cannot choose the `Host` that a browser sends, and cannot hide its `Origin` or
//! `Sec-Fetch-Site`; refusing foreign ones holds off DNS rebinding and cross-site requests. What a page
//! can send without asking (a form, a `no-cors` post) cannot carry the content type of JSON.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
    uri::Authority,
};
use tally_shared::wire::{ApiError, ErrorCode};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which an agent is served.
pub(super) trait Names {
    /// Whether this is one, as it stands in `Host`, with or without a port.
    fn is_own(&self, host: &str) -> bool;
    /// How its pages' origins begin.
    fn scheme(&self) -> &'static str;
}

/// The names of a listener that only this device can reach.
pub(super) struct Loopback;

impl Names for Loopback {
    fn is_own(&self, host: &str) -> bool {
        without_port(host).is_some_and(|name| {
            ["127.0.0.1", "localhost", "[::1]"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own))
        })
    }

    fn scheme(&self) -> &'static str {
        "http://"
    }
}

/// Refuses what does not come from a program of the device, or from the agent's own pages.
///
/// # Errors
///
/// `forbidden`, or `unsupported_media_type`.
pub(super) fn check(headers: &HeaderMap, uri: &Uri, names: &impl Names) -> Result<(), ApiError> {
    let host = one(headers, &HOST)?;
    let authority = uri.authority().map(Authority::as_str);
    // A request line with a host of its own counts as much as the header.
    let (Some(host), true) = (
        host.or(authority),
        authority.is_none_or(|name| names.is_own(name)),
    ) else {
        return Err(foreign_host());
    };
    if !names.is_own(host) {
        return Err(foreign_host());
    }
    if let Some(origin) = one(headers, &ORIGIN)? {
        let own = origin.strip_prefix(names.scheme());
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Err(foreign_site());
        }
    }
    // `none`: the user typed the address, or a program of the device opened it.
    match one(headers, &SEC_FETCH_SITE)? {
        None | Some("same-origin" | "none") => {}
        Some(_) => return Err(foreign_site()),
    }
    if has_body(headers) && !is_json(one(headers, &CONTENT_TYPE)?) {
        return Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "the body must come with `Content-Type: application/json`",
        ));
    }
    Ok(())
}

/// A header that may stand once only: with two of them, others may see another one than we.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("the header `{name}` stands more than once"),
        ));
    }
    // What is not text is no value that is accepted anywhere.
    Ok(Some(HeaderValue::to_str(value).unwrap_or("\u{fffd}")))
}

/// Whether the request has a body, or may have one.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The name in a `Host`; `None` where what follows it is no port.
pub(super) fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.contains(']') => {
            let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            (is_port && port.parse::<u16>().is_ok()).then_some(name)
        }
        _ => Some(host),
    }
}

fn foreign_host() -> ApiError {
    ApiError::new(
        ErrorCode::Forbidden,
        "this agent is not served under that host name; on its own device it is 127.0.0.1, \
         localhost or [::1]",
    )
}

fn foreign_site() -> ApiError {
    ApiError::new(ErrorCode::Forbidden, "requests of other sites are refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(host: &str, expected: bool) {
        assert_eq!(Loopback.is_own(host), expected, "{host}");
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
        check_name("localhost.:7411", false);
        check_name("localhost:port", false);
        check_name("localhost:", false);
        check_name("localhost:+1", false);
        check_name("localhost:99999", false);
        check_name("user@localhost", false);
        check_name("", false);
        check_name("::1", false);
        check_name("2130706433", false);
        check_name("0.0.0.0", false);
    }

    #[track_caller]
    fn code(headers: &[(&'static str, &str)]) -> Option<ErrorCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let checked = check(&map, &Uri::from_static("/v1/status"), &Loopback);
        checked.err().map(|error| error.code)
    }

    const OWN: (&str, &str) = ("host", "127.0.0.1:7411");

    #[test]
    fn an_origin_is_its_own_to_the_port() {
        assert_eq!(code(&[OWN]), None);
        assert_eq!(code(&[OWN, ("origin", "http://127.0.0.1:7411")]), None);
        for foreign in [
            "http://127.0.0.1:8000",
            "http://127.0.0.1",
            "http://localhost:7411",
            "https://127.0.0.1:7411",
            "null",
            "",
            "http://127.0.0.1:7411.evil.example",
            "http://evil.example",
            "file://",
        ] {
            let refused = code(&[OWN, ("origin", foreign)]);
            assert_eq!(refused, Some(ErrorCode::Forbidden), "{foreign}");
        }
    }

    #[test]
    fn a_header_that_decides_stands_once() {
        let refused = Some(ErrorCode::Forbidden);
        assert_eq!(code(&[OWN, ("host", "evil.example")]), refused);
        let own = ("origin", "http://127.0.0.1:7411");
        assert_eq!(code(&[OWN, own, ("origin", "null")]), refused);
        assert_eq!(code(&[]), refused);
    }

    #[test]
    fn sites_beside_it_are_other_sites() {
        let site = |value: &str| code(&[OWN, ("sec-fetch-site", value)]);
        assert_eq!(site("same-origin"), None);
        assert_eq!(site("none"), None);
        for foreign in ["same-site", "cross-site", "", "None"] {
            assert_eq!(site(foreign), Some(ErrorCode::Forbidden), "{foreign}");
        }
    }

    #[test]
    fn a_body_is_json() {
        let body = |kind: &str| code(&[OWN, ("content-length", "2"), ("content-type", kind)]);
        assert_eq!(body("application/json"), None);
        assert_eq!(body("Application/JSON; charset=utf-8"), None);
        for other in [
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/jsonp",
            "",
        ] {
            assert_eq!(
                body(other),
                Some(ErrorCode::UnsupportedMediaType),
                "{other}"
            );
        }
        let refused = Some(ErrorCode::UnsupportedMediaType);
        assert_eq!(code(&[OWN, ("transfer-encoding", "chunked")]), refused);
        assert_eq!(code(&[OWN, ("content-length", "0")]), None);
    }

    #[test]
    fn a_request_line_with_a_foreign_host_is_refused() {
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_static("127.0.0.1:7411"));
        let foreign = Uri::from_static("http://evil.example/v1/status");
        assert!(check(&map, &foreign, &Loopback).is_err());
        let own = Uri::from_static("http://127.0.0.1:7411/v1/status");
        assert!(check(&map, &own, &Loopback).is_ok());
    }
}

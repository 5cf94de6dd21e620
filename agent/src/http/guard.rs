//! Checks before any work: a loopback port is reachable by every web page in the device's browser.
//!
//! A page cannot choose the `Host` that a browser sends, and cannot hide its `Origin` or
//! `Sec-Fetch-Site`; refusing foreign ones holds off DNS rebinding and cross-site requests. What a page
//! can send without asking (a form, a `no-cors` post) cannot carry the content type of JSON.

use axum::http::{HeaderMap, HeaderValue, Uri, uri::Authority};
use tally_shared::wire::{ApiError, ErrorCode};

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

/// What of a request's head decides who asks, and how it is taken.
#[derive(Default)]
pub(super) struct Decisive<'a> {
    host: Option<&'a HeaderValue>,
    origin: Option<&'a HeaderValue>,
    sec_fetch_site: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    /// As it was sent.
    pub(super) idempotency_key: Option<&'a HeaderValue>,
    date: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    /// Whether the request has a body, or may have one.
    has_body: bool,
}

impl<'a> Decisive<'a> {
    /// Reads it, all at once: to ask for each of them costs more than all else here.
    ///
    /// # Errors
    ///
    /// `forbidden` where one of them stands more than once: others may see another of them than we.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        let mut found = Self::default();
        for (name, value) in headers {
            let slot = match name.as_str() {
                "host" => &mut found.host,
                "origin" => &mut found.origin,
                "sec-fetch-site" => &mut found.sec_fetch_site,
                "content-type" => &mut found.content_type,
                "idempotency-key" => &mut found.idempotency_key,
                "date" => &mut found.date,
                "authorization" => &mut found.authorization,
                "content-length" => {
                    found.has_body |= value != "0";
                    continue;
                }
                "transfer-encoding" => {
                    found.has_body = true;
                    continue;
                }
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(ApiError::new(
                    ErrorCode::Forbidden,
                    format!("the header `{name}` stands more than once; send it once"),
                ));
            }
        }
        Ok(found)
    }

    /// `Date`.
    pub(super) fn date(&self) -> Option<&'a str> {
        self.date.map(text)
    }

    /// `Authorization`.
    pub(super) fn authorization(&self) -> Option<&'a str> {
        self.authorization.map(text)
    }

    /// Refuses what does not come from a program of the device, or from the agent's own pages.
    ///
    /// # Errors
    ///
    /// `forbidden`, or `unsupported_media_type`.
    pub(super) fn check(&self, uri: &Uri, names: &impl Names) -> Result<(), ApiError> {
        let authority = uri.authority().map(Authority::as_str);
        // A request line with a host of its own counts as much as the header.
        let (Some(host), true) = (
            self.host.map(text).or(authority),
            authority.is_none_or(|name| names.is_own(name)),
        ) else {
            return Err(foreign_host());
        };
        if !names.is_own(host) {
            return Err(foreign_host());
        }
        if let Some(origin) = self.origin.map(text) {
            let own = origin.strip_prefix(names.scheme());
            if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
                return Err(foreign_site());
            }
        }
        // `none`: the user typed the address, or a program of the device opened it.
        match self.sec_fetch_site.map(text) {
            None | Some("same-origin" | "none") => {}
            Some(_) => return Err(foreign_site()),
        }
        if self.has_body && !is_json(self.content_type.map(text)) {
            return Err(ApiError::new(
                ErrorCode::UnsupportedMediaType,
                "the body must come with `Content-Type: application/json`",
            ));
        }
        Ok(())
    }
}

/// What is not text is no value that is accepted anywhere.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("\u{fffd}")
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
        let uri = Uri::from_static("/v1/status");
        let checked = Decisive::of(&map).and_then(|decisive| decisive.check(&uri, &Loopback));
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
        let (date, key) = (("date", "now"), ("idempotency-key", "1"));
        assert_eq!(code(&[OWN, date, ("authorization", "a"), key]), None);
        assert_eq!(code(&[OWN, date, date]), refused);
        assert_eq!(code(&[OWN, key, ("idempotency-key", "2")]), refused);
        assert_eq!(code(&[]), refused);
    }

    #[test]
    fn what_is_not_text_is_no_value_of_ours_and_is_not_missing() {
        let mut map = HeaderMap::new();
        for name in ["host", "date", "authorization"] {
            map.append(name, HeaderValue::from_bytes(b"localhost\xff").unwrap());
        }
        let decisive = Decisive::of(&map).unwrap();
        assert_eq!(decisive.date(), Some("\u{fffd}"));
        assert_eq!(decisive.authorization(), Some("\u{fffd}"));
        let checked = decisive.check(&Uri::from_static("/"), &Loopback);
        assert_eq!(checked.unwrap_err().code, ErrorCode::Forbidden);
        map.append("date", HeaderValue::from_static("now"));
        assert!(Decisive::of(&map).is_err());
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
        map.insert("host", HeaderValue::from_static("127.0.0.1:7411"));
        let decisive = Decisive::of(&map).unwrap();
        let foreign = Uri::from_static("http://evil.example/v1/status");
        assert!(decisive.check(&foreign, &Loopback).is_err());
        let own = Uri::from_static("http://127.0.0.1:7411/v1/status");
        assert!(decisive.check(&own, &Loopback).is_ok());
    }
}

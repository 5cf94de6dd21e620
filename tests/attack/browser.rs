//! What a hostile web page in the device's browser can send: whatever it wants, but with the `Host`,
//! `Origin` and `Sec-Fetch-Site` that the browser writes. Keys and token are right in all of these, so
//! that nothing but the origin refuses them.

use tally_tests::Result;

use crate::target::Target;

#[test]
fn a_name_that_was_rebound_to_loopback_is_not_served() -> Result {
    let mut target = Target::start()?;
    let port = target.address().port();
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("evil.example#@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}@evil.example"),
        format!("127.0.0.1:{port}, evil.example"),
        format!("0.0.0.0:{port}"),
        format!("2130706433:{port}"),
        format!("127.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("localhost.:{port}"),
        format!("127.0.0.1:{port}0000"),
        String::new(),
        "\u{e9}".to_owned(),
    ] {
        let line = format!("Host: {host}\r\n");
        for request in [
            target.consume(&line),
            target.control("GET /v1/status", &line, true),
            target.control("GET /", &line, false),
            target.control("GET /healthz", &line, false),
        ] {
            let answer = target.send(&request)?;
            // Some of these are no `Host` at all: HTTP itself refuses them.
            let status = answer.map_or(400, |answer| answer.status);
            assert!(matches!(status, 400 | 403), "{status} for {host:?}");
        }
    }
    let own = format!("Host: {}\r\nHost: evil.example\r\n", target.address());
    target.check_refused(&target.consume(&own), "forbidden")?;
    let absolute = target.control("GET http://evil.example/v1/status", "", true);
    target.check_refused(&absolute, "forbidden")?;
    target.check_unharmed()
}

#[test]
fn a_foreign_origin_is_refused_in_every_form() -> Result {
    let mut target = Target::start()?;
    let port = target.address().port();
    for origin in [
        "null".to_owned(),
        "https://evil.example".to_owned(),
        format!("http://evil.example:{port}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        "http://127.0.0.1".to_owned(),
        format!("http://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}.evil.example"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://user@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port} http://evil.example"),
        "file://".to_owned(),
        "chrome-extension://aaaa".to_owned(),
        "about:blank".to_owned(),
        "*".to_owned(),
        String::new(),
    ] {
        let line = format!("Origin: {origin}\r\n");
        for request in [
            target.consume(&line),
            target.control("GET /v1/status", &line, true),
            target.control("POST /v1/sync", &line, true),
            target.control("GET /", &line, false),
        ] {
            target.check_refused(&request, "forbidden")?;
        }
    }
    target.check_unharmed()
}

#[test]
fn a_request_of_another_site_is_refused_although_it_names_no_origin() -> Result {
    let mut target = Target::start()?;
    // Images, scripts, styles, frames, links and forms: a browser need not name their origin.
    for site in ["cross-site", "same-site"] {
        for kind in ["image", "script", "iframe", "document", "empty"] {
            let lines = format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Dest: {kind}\r\n");
            target.check_refused(&target.consume(&lines), "forbidden")?;
            let read = target.control("GET /v1/status", &lines, true);
            target.check_refused(&read, "forbidden")?;
            let open = target.control("GET /open?code=guess", &lines, false);
            target.check_refused(&open, "forbidden")?;
        }
    }
    target.check_unharmed()
}

#[test]
fn a_post_that_needs_no_permission_of_the_browser_is_refused() -> Result {
    let mut target = Target::start()?;
    for kind in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/json, text/plain",
        "",
    ] {
        // An old browser would send neither `Origin` nor `Sec-Fetch-Site`.
        let request = target.consume(&format!("Content-Type: {kind}\r\n"));
        target.check_refused(&request, "unsupported_media_type")?;
    }
    target.check_unharmed()
}

#[test]
fn a_browser_that_asks_for_permission_gets_none() -> Result {
    let mut target = Target::start()?;
    let asks = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: authorization,content-type\r\n\
        Access-Control-Request-Private-Network: true\r\n";
    let request = target.control("OPTIONS /api/v4/add_consumption", asks, false);
    let answer = target.ask(&request)?;
    assert_eq!(answer.status, 403);
    let head = answer.head.to_ascii_lowercase();
    assert!(!head.contains("access-control-allow"), "{head}");
    let socket = "Origin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let request = target.control("GET /v1/status", socket, true);
    target.check_refused(&request, "forbidden")?;
    target.check_unharmed()
}

#[test]
fn what_is_answered_can_neither_be_framed_nor_sniffed_nor_embedded() -> Result {
    let mut target = Target::start()?;
    let page = target.ask(&target.control("GET /", "", false))?;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let status = target.ask(&target.control("GET /v1/status", "", true))?;
    for answer in [page, status] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("cross-origin-resource-policy");
        assert_eq!(policy, Some("same-origin"));
    }
    target.check_unharmed()
}

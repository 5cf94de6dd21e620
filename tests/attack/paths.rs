//! Requests whose line, headers or framing are not what they should be.

use tally_tests::Result;

use crate::{raw::Raw, target::Target};

#[test]
fn no_way_of_writing_a_path_leads_around_the_token() -> Result {
    let mut target = Target::start()?;
    for path in [
        "/v1/status",
        "//v1/status",
        "/v1//status",
        "/v1/./status",
        "/x/../v1/status",
        "/api/v4/../../v1/status",
        "/v1/status/",
        "/v1/status/..",
        "/v1/status;x",
        "/v1/status?token=x",
        "/v1/status%00",
        "/v1%2fstatus",
        "/%76%31/status",
        "/V1/STATUS",
        "/v1/%2e%2e/v1/status",
        "/v1\\status",
        "/..%5cv1/status",
        "/v1/nothing",
        "/v1",
        "/v1/",
        "/openapi.json/../v1/status",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/admin_token",
        "/admin_token",
        "/healthz/../v1/status",
        "*",
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "GETT"] {
            let request =
                target.control(&format!("{method} {path}"), "Connection: close\r\n", false);
            let answer = target.ask(&request)?;
            let status = answer.status;
            assert!(matches!(status, 400..500), "{method} {path}: {answer:?}");
            assert!(!answer.body.contains("conservation"), "{method} {path}");
        }
    }
    target.check_unharmed()
}

#[test]
fn headers_without_an_end_are_cut_off() -> Result {
    let mut target = Target::start()?;
    let start = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n", target.address());
    let many = "X-Many: y\r\n".repeat(200);
    let long = format!("X-Long: {}\r\n", "y".repeat(1 << 20));
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(1 << 20));
    for flood in [
        format!("{start}{many}\r\n"),
        format!("{start}{long}\r\n"),
        line,
    ] {
        // It may hang up before all of it was sent.
        let status = target.send(flood.as_bytes()).ok().flatten();
        let status = status.map_or(431, |answer| answer.status);
        assert!(matches!(status, 400 | 414 | 431), "{status}");
    }
    let mut endless = Raw::connect(target.address())?;
    endless.send(start.as_bytes())?;
    let mut sent = 0;
    while sent < 64 << 20 && endless.send(many.as_bytes()).is_ok() {
        sent += many.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes of headers were taken");
    target.check_unharmed()
}

#[test]
fn a_request_that_ends_in_two_places_smuggles_nothing() -> Result {
    let mut target = Target::start()?;
    let host = format!("Host: {}\r\n", target.address());
    let kind = "Content-Type: application/json\r\n";
    let inner = String::from_utf8(target.consume(""))?;
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5\r\n Content-Length: 6\r\n",
        "Transfer-Encoding: identity, chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
    ] {
        let outer = format!("POST /v1/sync HTTP/1.1\r\n{host}{kind}{framing}\r\n0\r\n\r\n{inner}");
        let mut raw = Raw::connect(target.address())?;
        let _ = raw.send(outer.as_bytes());
        let mut answers = Vec::new();
        while let Some(answer) = raw.answer()? {
            let is_last = answer.header("connection") == Some("close");
            answers.push(answer.status);
            if is_last || answers.len() > 3 {
                break;
            }
        }
        assert!(!answers.contains(&200), "{framing:?}: {answers:?}");
    }
    target.check_unharmed()
}

#[test]
fn bytes_that_are_no_http_are_hung_up_on() -> Result {
    let mut target = Target::start()?;
    let whole = target.consume("");
    let mut cases: Vec<Vec<u8>> = vec![
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50),
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\nHost: evil.example\n\n".to_vec(),
        vec![0; 40_000],
        vec![b'\n'; 40_000],
    ];
    // The same garbage in each run: a right request, with bytes changed by a small generator.
    let mut state = 7_u32;
    for _ in 0..300 {
        let mut broken = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Within the head, so that no digit of the units is changed into another.
            let place = (state >> 8) as usize % 200;
            broken[place] = (state >> 24) as u8;
        }
        cases.push(broken);
    }
    let mut granted = 0;
    for bytes in cases {
        let mut raw = Raw::connect(target.address())?;
        let _ = raw.send(&bytes);
        raw.finish()?;
        if raw.answer()?.is_some_and(|answer| answer.status == 200) {
            granted += 1;
        }
    }
    // A changed byte may have changed nothing that matters.
    target.count(granted);
    target.check_unharmed()
}

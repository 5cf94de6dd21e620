//! Bodies that are too long, too deep, broken, or mean two things at once.

use std::fmt::Write as _;

use tally_tests::{Result, client::by_key};

use crate::{
    raw::Raw,
    target::{ADD, Target},
};

const GIBIBYTE: usize = 1 << 30;

#[test]
fn a_gibibyte_that_is_announced_is_refused_before_it_comes() -> Result {
    let mut target = Target::start()?;
    for length in [GIBIBYTE.to_string(), u64::MAX.to_string()] {
        let signature = target.signature();
        let head = format!(
            "POST {ADD} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{signature}\
             Content-Length: {length}\r\n\r\n",
            target.address()
        );
        let answer = target.ask(head.as_bytes())?;
        assert!(matches!(answer.status, 400 | 413 | 431), "{answer:?}");
    }
    target.check_unharmed()
}

#[test]
fn a_gibibyte_that_is_streamed_is_cut_off() -> Result {
    let mut target = Target::start()?;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
    for signature in [target.signature(), String::new()] {
        let head = format!(
            "POST {ADD} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{signature}\
             Transfer-Encoding: chunked\r\n\r\n",
            target.address()
        );
        let mut raw = Raw::connect(target.address())?;
        raw.send(head.as_bytes())?;
        let mut sent = 0;
        while sent < GIBIBYTE && raw.send(chunk.as_bytes()).is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    target.check_unharmed()
}

#[test]
fn a_body_that_is_a_little_too_long_gets_its_answer() -> Result {
    let mut target = Target::start()?;
    for length in [64 * 1024 + 1, 100_000, 250_000] {
        let body = vec![b' '; length];
        let request = target.consume_with("", &body);
        target.check_refused(&request, "validation_error")?;
        let unsigned = [&request[..10], &request[10..]].concat();
        let unsigned = String::from_utf8(unsigned)?.replace("Authorization", "X-Other");
        target.check_refused(unsigned.as_bytes(), "missing_headers")?;
    }
    target.check_unharmed()
}

#[test]
fn json_without_an_end_to_its_depth_is_refused() -> Result {
    let mut target = Target::start()?;
    for depth in [200, 30_000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let whole = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let inside = format!("{{\"product\":{whole}}}");
            let never_closed = open.repeat(depth);
            for body in [whole, inside, never_closed] {
                let answer = target.ask(&target.consume_with("", body.as_bytes()))?;
                assert_eq!(answer.status, 400, "{answer:?}");
                assert!(answer.code().is_some(), "{answer:?}");
                let request = control_post(&target, "/v1/licenses", body.as_bytes());
                assert_eq!(target.ask(&request)?.status, 400);
            }
        }
    }
    target.check_unharmed()
}

#[test]
fn bytes_that_are_no_text_and_text_that_is_no_json_are_refused() -> Result {
    let mut target = Target::start()?;
    let cases: [&[u8]; 14] = [
        b"\xff\xfe",
        b"{\"product\":\"\xc3\x28\"}",
        b"{\"product\":\"\xed\xa0\x80\"}",
        b"{\"product\":\"\\ud800\"}",
        b"\xef\xbb\xbf{}",
        b"\0",
        b"{\"product\":\"a\0b\"}",
        b"{} {}",
        b"{}garbage",
        b"{'product':1}",
        b"{\"product\":NaN}",
        b"nul",
        b"\"text\"",
        b"[[[[",
    ];
    for body in cases {
        let answer = target.ask(&target.consume_with("", body))?;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.code().is_some(), "{answer:?}");
        for path in ["/v1/licenses", "/v1/batches/1/resolve"] {
            let answer = target.ask(&control_post(&target, path, body))?;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
        }
    }
    target.check_unharmed()
}

#[test]
fn a_body_that_says_two_things_is_refused() -> Result {
    let mut target = Target::start()?;
    let whole = by_key(1).to_string();
    let fields = whole.trim_start_matches('{');
    for first in [
        "\"consumptions\":0",
        "\"product\":\"other\"",
        "\"license_key\":\"OTHER\"",
        "\"hardware_id\":\"other\"",
        "\"\\u0070roduct\":\"other\"",
    ] {
        let body = format!("{{{first},{fields}");
        let request = target.consume_with("", body.as_bytes());
        let answer = target.ask(&request)?;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    target.check_unharmed()
}

#[test]
fn numbers_that_fit_nowhere_are_refused() -> Result {
    let mut target = Target::start()?;
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "9223372036854775807",
        "18446744073709551616",
        "1e400",
        "-1e400",
        "1e18",
        "1.5",
        "1e-5",
        "0x10",
        "01",
        "+1",
        "Infinity",
        "\"1\"",
        "[1]",
        &"9".repeat(10_000),
    ] {
        let mut body = String::new();
        let whole = by_key(777).to_string();
        write!(body, "{}", whole.replace("777", number))?;
        let answer = target.ask(&target.consume_with("", body.as_bytes()))?;
        assert_eq!(answer.status, 400, "{number}: {answer:?}");
        assert!(answer.code().is_some(), "{answer:?}");
    }
    target.check_unharmed()
}

fn control_post(target: &Target, path: &str, body: &[u8]) -> Vec<u8> {
    let length = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = target.control(&format!("POST {path}"), &length, true);
    request.extend_from_slice(body);
    request
}

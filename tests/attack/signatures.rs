//! Keys and signatures that are missing, wrong, stolen or replayed.

use std::{
    sync::mpsc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use tally_shared::{auth, time::Timestamp};
use tally_tests::{
    Result,
    client::{Client, by_key},
    seed,
};

use crate::target::{ADD, Target};

fn date(offset: i64) -> String {
    let now = Timestamp::from_system_time(SystemTime::now());
    now.plus_millis(offset * 1000).to_http_date()
}

#[test]
fn without_a_right_signature_nothing_is_done() -> Result {
    let mut target = Target::start()?;
    let other = target.agent.json(&["app", "add", "other"])?;
    let other_key = other["shared_key"].as_str().unwrap_or_default();
    let (key, shared) = (target.api_key.clone(), target.shared_key.clone());
    let now = date(0);
    let right = auth::authorization(&key, &shared, &now);
    let signature = auth::sign(&shared, &now);
    let with = |signature: &str| {
        format!(r#"algorithm="hmac-sha256",headers="date",signature="{signature}",apikey="{key}""#)
    };
    let cases: Vec<(String, &str)> = vec![
        (format!("Date: {now}\r\n"), "missing_headers"),
        (format!("Authorization: {right}\r\n"), "missing_headers"),
        (
            both(&now, &auth::authorization("nobody", &shared, &now)),
            "invalid_api_key",
        ),
        (
            both(&now, &auth::authorization("", &shared, &now)),
            "invalid_api_key",
        ),
        (
            both(&now, &auth::authorization(&key, other_key, &now)),
            "signature_mismatch",
        ),
        (
            both(&now, &auth::authorization(&key, "", &now)),
            "signature_mismatch",
        ),
        (both(&now, &with("")), "signature_mismatch"),
        (both(&now, &with(&signature[..43])), "signature_mismatch"),
        (
            both(&now, &with(&format!("{signature}AAAA"))),
            "signature_mismatch",
        ),
        (both(&now, &with(&"A".repeat(4000))), "signature_mismatch"),
        (
            both(&now, &with(&signature.to_lowercase())),
            "signature_mismatch",
        ),
        // Signed, but for another time.
        (both(&date(-5), &right), "signature_mismatch"),
        (both(&date(-16 * 60), &right), "date_header_diff"),
        (both(&date(16 * 60), &right), "date_header_diff"),
        (both("", &right), "date_header_diff"),
        (both(&now, &right.replace("sha256", "md5")), "hmac_required"),
        (
            both(&now, &right.replace(r#""date""#, r#""""#)),
            "authorization_invalid_headers",
        ),
        (
            both(&now, &format!("{right},{right}")),
            "authorization_invalid_headers",
        ),
        (
            both(&now, &format!("Bearer {}", target.token)),
            "hmac_required",
        ),
        (
            format!("{}Date: {now}\r\n", both(&now, &right)),
            "forbidden",
        ),
        (
            format!("{}Authorization: {right}\r\n", both(&now, &right)),
            "forbidden",
        ),
        (
            format!(
                "{}Idempotency-Key: 1\r\nIdempotency-Key: 2\r\n",
                both(&now, &right)
            ),
            "forbidden",
        ),
    ];
    for (headers, code) in cases {
        let body = by_key(1).to_string();
        let request = format!(
            "POST {ADD} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            target.address(),
            body.len()
        );
        target.check_refused(request.as_bytes(), code)?;
    }
    target.check_unharmed()
}

fn both(date: &str, authorization: &str) -> String {
    format!("Date: {date}\r\nAuthorization: {authorization}\r\n")
}

#[test]
fn a_stolen_signature_takes_no_other_body_under_its_key() -> Result {
    let mut target = Target::start()?;
    let keyed = "Idempotency-Key: once\r\n";
    let signature = target.signature();
    let request = |body: &str| {
        let length = body.len();
        let host = target.address();
        format!(
            "POST {ADD} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{signature}{keyed}\r\n{body}"
        )
    };
    let (own, other) = (by_key(0).to_string(), by_key(500).to_string());
    assert_eq!(target.ask(request(&own).as_bytes())?.status, 200);
    target.check_refused(request(&other).as_bytes(), "idempotency_key_reused")?;
    let again = target.ask(request(&own).as_bytes())?;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    target.check_unharmed()
}

#[test]
fn neither_does_one_whose_request_could_not_be_recorded() -> Result {
    let mut target = Target::start()?;
    target.agent.network("offline")?;
    let unknown = seed::merged(by_key(1), json!({"license_key": "NOBODY-KNOWS"}));
    let request = |target: &Target, body: &str| {
        target.consume_with("Idempotency-Key: k\r\n", body.as_bytes())
    };
    let own = unknown.to_string();
    target.check_refused(&request(&target, &own), "limits_unknown")?;
    let other = by_key(500).to_string();
    target.check_refused(&request(&target, &other), "idempotency_key_reused")?;
    // The request itself may be tried again.
    target.check_refused(&request(&target, &own), "limits_unknown")?;
    target.agent.network("online")?;
    target.check_unharmed()
}

#[test]
fn wrong_keys_are_counted_and_slowed_and_a_right_one_is_not() -> Result {
    let mut target = Target::start()?;
    let forger = Client::new(target.agent.url()?, &target.api_key, "guess")?;
    let started = Instant::now();
    for _ in 0..10 {
        assert_eq!(forger.add(1)?.code().as_deref(), Some("signature_mismatch"));
    }
    // 50 + 100 + 200 + 400 + 800 ms after five that were free.
    assert!(started.elapsed() >= Duration::from_millis(1500));
    let (answered, answer) = mpsc::channel();
    let slowed = std::thread::spawn(move || answered.send(forger.add(1).map(|reply| reply.status)));
    for _ in 0..5 {
        target.grant(1)?;
    }
    assert!(
        answer.try_recv().is_err(),
        "the wrong key was answered first"
    );
    assert_eq!(answer.recv()??, 400);
    slowed.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    let status = target.agent.json(&["status"])?;
    assert_eq!(status["wrong_keys"], 11);
    let said = target.agent.said()?;
    assert_eq!(said.matches("with wrong keys").count(), 1, "{said}");
    assert!(!said.contains(&target.shared_key));
    target.check_unharmed()
}

//! Writes inputs to begin with: what the contract shows, and small ledgers.

use std::{fs, path::Path};

const BODIES: &[&str] = &[
    r#"{"product":"inspect","license_key":"AAAA-BBBB-CCCC-DDDD","hardware_id":"device","consumptions":3}"#,
    r#"{"product":"inspect","username":"a@example.com","license_id":7,"hardware_id":"device","consumptions":-3,"allow_overages":true,"max_overages":5,"is_offline":true}"#,
    r#"{"product":"inspect","license_key":"K","hardware_id":"d","feature":"scans","consumptions":1,"consumption_event":"offline_floating_consumptions_sync"}"#,
    "product=inspect&license_key=K&hardware_id=device",
    "product=inspect&username=a%40example.com&license_id=7&hardware_id=d",
];

const HEADERS: &[&str] = &[
    "algorithm=\"hmac-sha256\",headers=\"date\",signature=\"7oNfEOFSS3p1rxOZqbOCqTq5C2Yc4jW0oPJGPRaKLBs=\",apikey=\"key\"\nMon, 23 Nov 2026 12:00:00 GMT",
    "algorithm=\"hmac-sha256\", headers=\"date\", signature=\"\", apikey=\"\"\n23 Nov 2026",
    "Bearer abc\n",
];

const ANSWERS: &[(u16, &str)] = &[
    (
        200,
        r#"{"id":1,"max_consumptions":100,"total_consumptions":3,"allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,"reset_consumption":false,"consumption_period":null,"license_type":"consumption","license_active":true,"license_enabled":true}"#,
    ),
    (
        200,
        r#"{"id":1,"code":"scans","name":"scans","feature_type":"consumption","max_consumption":10,"total_consumptions":1,"allow_overages":true,"max_overages":2,"reset_consumption":true,"consumption_period":"monthly","allow_unlimited_consumptions":false,"allow_negative_consumptions":false}"#,
    ),
    (
        400,
        r#"{"status":400,"code":"license_not_enough_consumptions","message":"no"}"#,
    ),
    (
        401,
        r#"{"status":401,"code":"signature_mismatch","message":"no"}"#,
    ),
    (429, "{}"),
    (503, "<html>"),
];

fn main() -> anyhow::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, no: usize, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{no}")), bytes)
    };
    for (no, body) in BODIES.iter().enumerate() {
        write("request_body", no, body.as_bytes())?;
    }
    for (no, header) in HEADERS.iter().enumerate() {
        write("authorization", no, header.as_bytes())?;
    }
    for (no, (status, body)) in ANSWERS.iter().enumerate() {
        let head = [status.to_be_bytes().as_slice(), &[u8::from(no == 1)]].concat();
        write("server_answer", no, &[&head, body.as_bytes()].concat())?;
    }
    write("ledger", 0, &tally_fuzz::sample(false)?)?;
    write("ledger", 1, &tally_fuzz::sample(true)?)?;
    Ok(())
}

//! Many connections that do little: each costs its sender as much as the agent, and none costs others.

use std::time::{Duration, Instant};

use tally_tests::{Result, client::by_key};

use crate::{raw::Raw, target::Target};

/// Short, so that a test sees them end.
const SHORT: &str = "[limits]\nhead_time = \"1s\"\nbody_time = \"1s\"\nidle_time = \"2s\"\n";

/// How many slow ones of each kind.
const SLOW: usize = 200;

/// How many that do nothing.
const IDLE: usize = 10_000;

#[test]
fn slow_heads_and_slow_bodies_hold_nobody_else_up() -> Result {
    let mut target = Target::start()?;
    let body = by_key(1).to_string();
    let whole = target.consume_with("", body.as_bytes());
    let head = whole.len() - body.len();
    let mut slow = Vec::new();
    for place in 0..SLOW {
        for end in [place % head, head + place % body.len()] {
            let mut raw = Raw::connect(target.address())?;
            raw.send(&whole[..end])?;
            slow.push(raw);
        }
    }
    for byte in 0..20 {
        for raw in &mut slow {
            // One byte at a time of a header that never ends, or of a body that is never whole.
            let _ = raw.send(b" ");
        }
        let asked = Instant::now();
        target.grant(1)?;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?} at byte {byte}");
    }
    target.check_unharmed()
}

#[test]
fn whoever_takes_too_long_is_let_go() -> Result {
    let mut target = Target::with_config(SHORT)?;
    let body = by_key(1).to_string();
    let whole = target.consume_with("", body.as_bytes());
    let mut head = Raw::connect(target.address())?;
    head.send(&whole[..60])?;
    let mut silent = Raw::connect(target.address())?;
    let mut part = Raw::connect(target.address())?;
    part.send(&whole[..whole.len() - 1])?;
    let mut kept = Raw::connect(target.address())?;
    kept.send(&whole)?;
    assert_eq!(kept.answer()?.map(|answer| answer.status), Some(200));
    // Recorded by `kept`.
    let late = part.answer()?;
    let code = late.as_ref().and_then(crate::raw::Answer::code);
    assert_eq!(code.as_deref(), Some("request_timeout"), "{late:?}");
    for raw in [&mut head, &mut silent, &mut kept, &mut part] {
        raw.closed()?;
    }
    target.count(1);
    target.check_unharmed()
}

#[test]
fn a_head_that_drips_is_let_go_as_well() -> Result {
    let mut target = Target::with_config(SHORT)?;
    let mut raw = Raw::connect(target.address())?;
    raw.send(b"GET /healthz HTTP/1.1\r\n")?;
    let started = Instant::now();
    // Each byte comes well within the time of an idle connection.
    while raw.send(b"X-A: b\r\n").is_ok() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    target.check_unharmed()
}

#[test]
fn ten_thousand_idle_connections_are_borne() -> Result {
    let mut target = Target::start()?;
    let open = IDLE.min(files_of_this_process()?.saturating_sub(200));
    if open < IDLE {
        eprintln!("only {open} of {IDLE} connections: the system allows no more files");
    }
    let app = target.app.clone();
    let mut proven = Raw::connect(target.address())?;
    proven.send(&target.consume(""))?;
    assert_eq!(proven.answer()?.map(|answer| answer.status), Some(200));
    target.count(1);
    let mut idle = Vec::with_capacity(open);
    for number in 0..open {
        idle.push(Raw::connect(target.address())?);
        if number % 1000 == 0 {
            // New ones are let in.
            assert_eq!(app.add(0)?.status, 200);
            target.grant(1)?;
        }
    }
    // One that proved its key is kept, although it waited longest.
    proven.send(&target.consume(""))?;
    assert_eq!(proven.answer()?.map(|answer| answer.status), Some(200));
    target.count(1);
    target.agent.json(&["status"])?;
    target.check_unharmed()?;
    drop(idle);
    target.check_unharmed()
}

/// As many files as this process may have open, after it took all that it can get.
fn files_of_this_process() -> Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, all)?;
    let files = limit.maximum.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    Ok(files)
}

//! The agent, as the tests run it: it can be told to kill itself, or to panic, at a named point of its code.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, getpid, kill_process};
use tally_tests::agent::{KILL_AT, PANIC_AT};

fn main() -> Result<ExitCode> {
    if let Ok(kill_at) = std::env::var(KILL_AT) {
        let (point, times) = kill_at.split_once(':').context("point:n")?;
        arm(point, times.parse()?)?;
    }
    if let Ok(point) = std::env::var(PANIC_AT) {
        fail::cfg(point, "1*panic(as told)").map_err(anyhow::Error::msg)?;
    }
    Ok(tally_agent::cli::main())
}

/// The process ends the n-th time that it comes to the point, and does nothing more.
fn arm(point: &str, times: u64) -> Result<()> {
    let reached = AtomicU64::new(0);
    let kill = move || {
        if reached.fetch_add(1, Ordering::SeqCst) + 1 >= times {
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    };
    fail::cfg_callback(point, kill).map_err(anyhow::Error::msg)
}

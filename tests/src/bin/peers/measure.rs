//! What is measured of whom, and how the load is made.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use serde::Serialize;
use tally_tests::{
    client::by_key,
    load::{Load, Outcome, Target},
    watched::Watched,
};

/// Connections are new for each measurement; this settles them.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// An application's API key, and what it signs with.
pub(crate) type KeyPair = (String, String);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    Bare,
    Redis,
    Tally,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Cell {
    pub(crate) peer: Peer,
    pub(crate) unix: bool,
    pub(crate) connections: usize,
}

/// What a cell came to in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Measured {
    /// Grants per second.
    pub(crate) rate: f64,
    /// Latencies in microseconds; 0 where the tool does not say.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Processor time of the server for each grant, in microseconds.
    pub(crate) cpu: f64,
    /// Processor time of the load generator for each grant, in microseconds.
    pub(crate) load_cpu: f64,
    /// Context switches of the server for each grant.
    pub(crate) switches: f64,
    /// Resident memory of the server at the end, in MB.
    pub(crate) memory: f64,
}

impl Cell {
    pub(crate) const fn new(peer: Peer, unix: bool, connections: usize) -> Self {
        Self {
            peer,
            unix,
            connections,
        }
    }
}

/// The middle of some figures.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// A server's Unix socket, or where its URL says.
pub(crate) fn target(unix: bool, socket: &Path, url: &str) -> tally_tests::Result<Target> {
    Ok(if unix {
        Target::Unix(socket.to_owned())
    } else {
        Target::Tcp(url.trim_start_matches("http://").parse()?)
    })
}

/// Requests for one unit, signed by an application.
pub(crate) fn load(
    target: Target,
    connections: usize,
    duration: Duration,
    (api_key, shared_key): &KeyPair,
) -> Load {
    Load {
        target,
        connections,
        threads: connections.div_ceil(128).min(2),
        warm_up: WARM_UP,
        duration,
        api_key: api_key.clone(),
        shared_key: shared_key.clone(),
        bodies: vec![by_key(1).to_string()],
    }
}

/// What comes of a load, and what the server uses meanwhile.
#[expect(clippy::cast_precision_loss, reason = "figures, for people")]
pub(crate) fn under(load: &Load, server: Watched) -> tally_tests::Result<Measured> {
    let before = server.used()?;
    let outcome = load.run()?;
    let used = server.used()?.since(before);
    ensure!(outcome.refused == 0, "{} were refused", outcome.refused);
    // What the warm-up used is in the server's figures, so its grants are as well.
    let share = 1.0 + WARM_UP.as_secs_f64() / load.duration.as_secs_f64();
    let grants = outcome.granted as f64;
    Ok(Measured {
        rate: outcome.rate(),
        p50: micros(&outcome, 0.5),
        p99: micros(&outcome, 0.99),
        p999: micros(&outcome, 0.999),
        cpu: used.cpu.as_secs_f64() * 1e6 / (grants * share),
        load_cpu: outcome.cpu.as_secs_f64() * 1e6 / grants,
        switches: used.switches as f64 / (grants * share),
        memory: server.memory()?,
    })
}

/// A quantile of the latencies, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a latency, for people")]
pub(crate) fn micros(outcome: &Outcome, quantile: f64) -> f64 {
    outcome.latency.value_at_quantile(quantile) as f64 / 1000.0
}

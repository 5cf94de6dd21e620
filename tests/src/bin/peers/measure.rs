//! What is measured of whom.

use serde::Serialize;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
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

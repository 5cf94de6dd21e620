//! What is measured of whom.

use std::{fs, time::Duration};

use anyhow::Context as _;
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

/// A process, watched from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched(pub(crate) u32);

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// Of the threads that there are.
    pub(crate) switches: u64,
}

impl Used {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            // Threads of before may have ended.
            switches: self.switches.saturating_sub(before.switches),
        }
    }
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

impl Watched {
    pub(crate) fn used(self) -> tally_tests::Result<Used> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // After the name, which may hold anything, in parentheses; 14th and 15th of all fields.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        let mut used = Used {
            cpu: Duration::from_millis(ticks * 10),
            switches: 0,
        };
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let folder = task?.path();
            // A thread may end while it is looked at.
            let Ok(status) = fs::read_to_string(folder.join("status")) else {
                continue;
            };
            used.switches += status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(used)
    }

    /// Resident memory in MB.
    pub(crate) fn memory(self) -> tally_tests::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?;
        Ok(kilobytes / 1024.0)
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

//! What a process uses, as the system tells anybody who asks (Linux).

use std::{fs, time::Duration};

use anyhow::Context as _;

/// The unit of processor times in `/proc`.
const TICK: Duration = Duration::from_millis(10);

/// A process, watched from outside, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Watched(pub u32);

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Processor time, to 10 ms.
    pub cpu: Duration,
    /// Context switches of the threads that there are.
    pub switches: u64,
}

impl Used {
    /// What was used since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            // Threads of before may have ended.
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

impl Watched {
    /// What it has used since its start.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn used(self) -> crate::Result<Used> {
        let stat = self.read("stat")?;
        // After the name, which may hold anything, in parentheses; 14th and 15th of all fields.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u32>)
            .sum::<Result<u32, _>>()?;
        let mut used = Used {
            cpu: TICK * ticks,
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
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn memory(self) -> crate::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most that its resident memory has been, in MB.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn memory_peak(self) -> crate::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(self, name: &str) -> crate::Result<f64> {
        let status = self.read("status")?;
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
            .with_context(|| format!("no {name}"))?
            .parse()?;
        Ok(kilobytes / 1024.0)
    }

    fn read(self, file: &str) -> crate::Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

//! How fast the agent asks the server.

use std::collections::{BTreeMap, VecDeque};

use super::{server::Instant, world::Failure};

/// The time that requests are counted over.
const WINDOW: Instant = 10_000;

/// So many requests in that time, for all licences together, are a storm. The service takes 200 from one
/// address, which several agents share; the worlds have three licences, and people who nudge and restart the
/// agent: most of them stay below 40.
const ALL_MAX: usize = 60;

/// The same for one licence.
const ONE_MAX: usize = 40;

/// How fast the agent asks the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    all: VecDeque<Instant>,
    of: BTreeMap<String, VecDeque<Instant>>,
    /// The most requests within the window so far, for all licences and for one.
    pub(super) most: (usize, usize),
}

impl Pace {
    /// A request leaves.
    ///
    /// # Errors
    ///
    /// Where there were too many of late.
    pub(super) fn ask(&mut self, now: Instant, holder: &str) -> Result<(), Failure> {
        let all = add(&mut self.all, now);
        let one = add(self.of.entry(holder.to_owned()).or_default(), now);
        self.most = (self.most.0.max(all), self.most.1.max(one));
        if all > ALL_MAX || one > ONE_MAX {
            return Err(format!(
                "a storm: {all} requests in {WINDOW} ms, {one} of them for {holder}"
            ));
        }
        Ok(())
    }
}

fn add(times: &mut VecDeque<Instant>, now: Instant) -> usize {
    times.push_back(now);
    while times.front().is_some_and(|at| *at <= now - WINDOW) {
        times.pop_front();
    }
    times.len()
}

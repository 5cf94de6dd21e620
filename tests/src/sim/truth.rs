//! The truth: which of the agent's rows the server counted, and how often.
//!
//! A row is known by the life of the agent that recorded it and its place in the ledger, whatever id the
//! request had that carried it: so a copy of a ledger has the same rows, and what is granted after the copy
//! was taken are others.

use std::collections::BTreeMap;

use super::server::Instant;

/// A counter on the server: the licence's index, and its own.
pub(super) type Place = (usize, usize);

/// Rows of one lane that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// The life that recorded the first.
    pub(super) life: u32,
    /// Their lane.
    pub(super) lane: i64,
    /// The first.
    pub(super) first: i64,
    /// The last.
    pub(super) last: i64,
    /// The sum of their units.
    pub(super) units: i64,
}

/// What an agent does not know of a counter when it sends units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unheard {
    /// Since when it has not heard of it.
    pub(super) since: Instant,
    /// Whether it knows that others use it.
    pub(super) is_shared: bool,
}

/// What was counted of some rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// The rows.
    pub(super) rows: Rows,
    /// Where.
    pub(super) place: Place,
    /// How often.
    pub(super) times: i64,
    /// How many of these times no client could have kept from happening.
    pub(super) repeats: i64,
    /// What the agent had not heard when it first sent what was counted.
    pub(super) unheard: Unheard,
}

/// Everything that was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    by_lane: BTreeMap<(u32, i64), Vec<Counted>>,
    /// How many requests were counted.
    pub(super) requests: u64,
}

/// The lives that a ledger had, each with the last row that it recorded; the last one goes on.
#[derive(Clone, Debug)]
pub(super) struct Lineage(Vec<(u32, i64)>);

/// Units that the server counted once and counts no more: it was put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fallen {
    /// Where.
    pub(super) place: Place,
    /// When.
    pub(super) at: Instant,
    /// When the agent had last heard of it.
    pub(super) heard: Instant,
    /// When it heard of it again.
    pub(super) seen: Option<Seen>,
}

/// The agent heard of units that fell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// When the server said so.
    pub(super) said_at: Instant,
    /// When that reached the agent.
    pub(super) heard_at: Instant,
    /// Whether nothing of the counter was in doubt then.
    pub(super) is_clear: bool,
    /// Whether it heard of it once more, late enough to believe it.
    pub(super) is_confirmed: bool,
}

impl Rows {
    const fn overlap(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Truth {
    /// The server counts these rows once more.
    pub(super) fn count(&mut self, rows: &[Rows], place: Place, is_repeat: bool, unheard: Unheard) {
        self.requests += 1;
        for rows in rows {
            let lane = self.by_lane.entry((rows.life, rows.lane)).or_default();
            let mut is_known = false;
            for counted in lane.iter_mut().filter(|found| found.rows.overlap(rows)) {
                is_known = true;
                counted.times += 1;
                counted.repeats += i64::from(is_repeat);
            }
            if !is_known {
                lane.push(Counted {
                    rows: *rows,
                    place,
                    times: 1,
                    repeats: i64::from(is_repeat),
                    unheard,
                });
            }
        }
    }

    /// Whether any of these rows is counted.
    pub(super) fn has(&self, rows: &[Rows]) -> bool {
        rows.iter().any(|rows| {
            let lane = self.by_lane.get(&(rows.life, rows.lane));
            let mut counted = lane.into_iter().flatten();
            counted.any(|found| found.rows.overlap(rows))
        })
    }

    /// The units of these rows that are counted.
    pub(super) fn units_of(&self, rows: &[Rows]) -> i64 {
        let counted = rows.iter().filter(|rows| self.has(&[**rows]));
        counted.map(|rows| rows.units).sum()
    }

    /// What the agent had not heard when these rows were first counted, where they were.
    pub(super) fn unheard(&self, rows: &[Rows]) -> Option<Unheard> {
        let mut lanes = rows.iter().filter_map(|rows| {
            let lane = self.by_lane.get(&(rows.life, rows.lane))?;
            lane.iter().find(|found| found.rows.overlap(rows))
        });
        lanes.next().map(|found| found.unheard)
    }

    /// Everything that was counted.
    pub(super) fn all(&self) -> impl Iterator<Item = &Counted> {
        self.by_lane.values().flatten()
    }

    /// All units that were counted at a place, each as often as it was.
    pub(super) fn sum_of_all(&self, place: Place) -> i64 {
        let here = self.all().filter(|found| found.place == place);
        here.map(|found| found.rows.units * found.times).sum()
    }

    /// The units of a lineage that were counted at a place, each as often as it was.
    pub(super) fn sum(&self, place: Place, lineage: &Lineage) -> i64 {
        let here = self.all().filter(|found| found.place == place);
        let own = here.filter(|found| lineage.owner(found.rows.first) == found.rows.life);
        own.map(|found| found.rows.units * found.times).sum()
    }
}

impl Lineage {
    /// A ledger that is no copy.
    pub(super) fn new() -> Self {
        Self(vec![(0, i64::MAX)])
    }

    /// The life that recorded a row.
    pub(super) fn owner(&self, seq: i64) -> u32 {
        let mut lives = self.0.iter();
        lives
            .find(|(_, last)| seq <= *last)
            .map_or(0, |(life, _)| *life)
    }

    /// The life that goes on.
    pub(super) fn life(&self) -> u32 {
        self.0.last().map_or(0, |(life, _)| *life)
    }

    /// A new life of a copy whose newest row is this one.
    pub(super) fn branch(&self, newest: i64, life: u32) -> Self {
        let mut lives = self.0.clone();
        lives.retain(|(_, last)| *last <= newest || *last == i64::MAX);
        if let Some((_, last)) = lives.last_mut() {
            *last = newest;
        }
        lives.push((life, i64::MAX));
        Self(lives)
    }
}

//! The judgement: what the server counted, held against what the agent says of each batch.
//!
//! Each grant has a random number of units, so that the units of a batch name it: an entry of the server's log of
//! activity belongs to the batch with the same units. Sums alone would let a batch that was lost hide one that was
//! counted twice.

use std::collections::HashMap;

/// A licence, as all sides know it.
#[derive(Debug, Default)]
pub(super) struct License {
    /// Units that the application got a 200 for.
    pub(super) granted: i64,
    /// What the agent says of its batches.
    pub(super) batches: Vec<Batch>,
    /// What the agent says was counted beyond its batches.
    pub(super) findings: Vec<i64>,
    /// Whether the agent says that others use it too; in this test nobody does.
    pub(super) is_shared: bool,
    /// The entries of the server's log.
    pub(super) counted: Vec<i64>,
}

/// A batch, as the agent knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) number: i64,
    pub(super) units: i64,
    pub(super) claim: Claim,
}

/// What the agent says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It was counted once.
    Counted,
    /// Nobody knows: it waits for a person, or for a reading.
    Doubtful(Doubt),
    /// It was not counted.
    NotCounted,
}

/// What a batch in doubt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A person.
    Held,
    /// A reading of the total.
    Unknown,
}

/// What came of it, for one licence or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Units that the agent recorded.
    pub(super) recorded: i64,
    /// Units that the server counted.
    pub(super) counted: i64,
    /// Batches.
    pub(super) batches: i64,
    /// Batches that are held for a person.
    pub(super) held: i64,
    /// Batches that wait for a reading.
    pub(super) unknown: i64,
    /// Entries of the server's log beyond one for each batch.
    pub(super) surplus: i64,
    /// Their units.
    pub(super) surplus_units: i64,
    /// The findings.
    pub(super) findings: i64,
    /// Their units.
    pub(super) finding_units: i64,
    /// Units that findings speak of and that were not counted twice.
    pub(super) false_units: i64,
    /// Licences that others are said to use.
    pub(super) shared: i64,
    /// Units that were counted twice, and neither a finding nor a batch in doubt says so.
    pub(super) unnoticed: i64,
    /// Units that an application got a 200 for and that are neither counted, nor owed, nor held.
    pub(super) lost: i64,
}

impl License {
    /// Judges it.
    pub(super) fn judge(&self) -> Verdict {
        let mut verdict = Verdict {
            recorded: self.batches.iter().map(|batch| batch.units).sum(),
            counted: self.counted.iter().sum(),
            batches: self.batches.len().try_into().unwrap_or(i64::MAX),
            held: self.count(Claim::Doubtful(Doubt::Held)),
            unknown: self.count(Claim::Doubtful(Doubt::Unknown)),
            findings: self.findings.len().try_into().unwrap_or(i64::MAX),
            finding_units: self.findings.iter().sum(),
            shared: self.is_shared.into(),
            ..Verdict::default()
        };
        verdict.lost = (self.granted - verdict.recorded).max(0);
        let mut beside_doubt = 0;
        for (units, group) in self.groups() {
            let surplus = (group.entries - group.counted - group.doubtful).max(0);
            verdict.surplus += surplus;
            verdict.surplus_units += surplus * units;
            verdict.lost += (group.counted - group.entries).max(0) * units;
            if group.doubtful == 0 {
                beside_doubt += surplus * units;
            }
        }
        verdict.unnoticed = (beside_doubt - verdict.finding_units).max(0);
        verdict.false_units = (verdict.finding_units - verdict.surplus_units).max(0);
        verdict
    }

    /// The batches that something is wrong with, and what, where the licence has units that were lost or counted twice
    /// unnoticed.
    pub(super) fn complaints(&self) -> Vec<String> {
        let verdict = self.judge();
        if verdict.lost == 0 && verdict.unnoticed == 0 {
            return Vec::new();
        }
        let mut complaints: Vec<String> = self
            .batches
            .iter()
            .filter_map(|batch| {
                let is_it = |units: &&i64| **units == batch.units;
                let entries = self.counted.iter().filter(is_it).count();
                let said = match (batch.claim, entries) {
                    (Claim::Counted, 1) | (Claim::NotCounted, 0) | (Claim::Doubtful(_), _) => return None,
                    (Claim::Counted, _) => "once",
                    (Claim::NotCounted, _) => "not at all",
                };
                let Batch { number, units, .. } = batch;
                Some(format!(
                    "batch {number} of {units} units was counted {entries} times, the agent says {said}"
                ))
            })
            .collect();
        if self.granted > verdict.recorded {
            let Self { granted, .. } = self;
            complaints.push(format!("{granted} granted, {} recorded", verdict.recorded));
        }
        complaints
    }

    fn count(&self, claim: Claim) -> i64 {
        let found = self.batches.iter().filter(|batch| batch.claim == claim);
        found.count().try_into().unwrap_or(i64::MAX)
    }

    /// Batches and entries by their units.
    fn groups(&self) -> HashMap<i64, Group> {
        let mut groups: HashMap<i64, Group> = HashMap::new();
        for batch in &self.batches {
            let group = groups.entry(batch.units).or_default();
            match batch.claim {
                Claim::Counted => group.counted += 1,
                Claim::Doubtful(_) => group.doubtful += 1,
                Claim::NotCounted => {}
            }
        }
        for &units in &self.counted {
            groups.entry(units).or_default().entries += 1;
        }
        groups
    }
}

/// Batches of the same units, and the entries of the server's log with these units.
#[derive(Default)]
struct Group {
    counted: i64,
    doubtful: i64,
    entries: i64,
}

impl Verdict {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            recorded: self.recorded + other.recorded,
            counted: self.counted + other.counted,
            batches: self.batches + other.batches,
            held: self.held + other.held,
            unknown: self.unknown + other.unknown,
            surplus: self.surplus + other.surplus,
            surplus_units: self.surplus_units + other.surplus_units,
            findings: self.findings + other.findings,
            finding_units: self.finding_units + other.finding_units,
            false_units: self.false_units + other.false_units,
            shared: self.shared + other.shared,
            unnoticed: self.unnoticed + other.unnoticed,
            lost: self.lost + other.lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Claim, Doubt, License, Verdict};

    const HELD: Claim = Claim::Doubtful(Doubt::Held);

    fn judged(batches: &[(i64, Claim)], findings: &[i64], counted: &[i64]) -> Verdict {
        let license = License {
            granted: batches.iter().map(|(units, _)| units).sum(),
            batches: batches
                .iter()
                .map(|&(units, claim)| Batch {
                    number: 1,
                    units,
                    claim,
                })
                .collect(),
            findings: findings.to_vec(),
            is_shared: false,
            counted: counted.to_vec(),
        };
        license.judge()
    }

    #[test]
    fn what_was_counted_once_is_neither_lost_nor_counted_twice() {
        let verdict = judged(&[(5, Claim::Counted), (7, Claim::NotCounted)], &[], &[5]);
        assert_eq!(
            (verdict.surplus, verdict.unnoticed, verdict.lost),
            (0, 0, 0)
        );
    }

    #[test]
    fn what_was_counted_twice_is_unnoticed_unless_a_finding_says_so() {
        let settled = [(5, Claim::Counted), (7, Claim::Counted)];
        let verdict = judged(&settled, &[], &[5, 7, 5]);
        assert_eq!((verdict.surplus_units, verdict.unnoticed), (5, 5));
        let verdict = judged(&settled, &[5], &[5, 7, 5]);
        assert_eq!((verdict.unnoticed, verdict.false_units), (0, 0));
        let verdict = judged(&settled, &[5], &[5, 7, 5, 7]);
        assert_eq!(verdict.unnoticed, 7);
    }

    #[test]
    fn a_batch_in_doubt_says_that_it_may_have_been_counted_and_how_often_is_not_known() {
        assert_eq!(judged(&[(5, HELD)], &[], &[5, 5]).unnoticed, 0);
        assert_eq!(judged(&[(5, HELD)], &[], &[]).lost, 0);
    }

    #[test]
    fn a_batch_that_waits_as_not_counted_and_was_is_counted_twice_before_long() {
        assert_eq!(judged(&[(5, Claim::NotCounted)], &[], &[5]).unnoticed, 5);
    }

    #[test]
    fn a_lost_batch_is_not_hidden_by_another_that_was_counted_twice() {
        let settled = [(5, Claim::Counted), (7, Claim::Counted)];
        let verdict = judged(&settled, &[], &[7, 7]);
        assert_eq!((verdict.lost, verdict.unnoticed), (5, 7));
    }

    #[test]
    fn a_finding_of_more_than_was_counted_twice_is_false() {
        assert_eq!(judged(&[(5, Claim::Counted)], &[5], &[5]).false_units, 5);
    }

    #[test]
    fn a_grant_that_was_not_recorded_is_lost() {
        let license = License {
            granted: 5,
            ..License::default()
        };
        assert_eq!(license.judge().lost, 5);
    }
}

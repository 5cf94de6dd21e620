//! Was a batch counted? The total tells, where nothing else moved it.

use tally_shared::{
    limits::{OverageSetting, Standing},
    units::{Total, Units},
};

/// What a total says of a batch whose request had no valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The total moved by exactly its units.
    Applied,
    /// The total does not hold its units.
    Without,
    /// The total is one from before the last reading: a replica that is behind gave it, and it says nothing.
    Behind,
    /// Others consumed too, the total fell, the period turned, or the licence was edited.
    Undecidable,
}

/// Compares how the account stood before a batch of `units` was sent with how it stands now. `setting` is what the batch
/// itself set of the overage. `reached` is the highest total, of those read since, that certainly does not hold the batch:
/// the total before where there is none.
///
/// A batch is counted in one step. Where no two neighbours of the totals that were read, in their order, are as far apart as the
/// batch, none of the steps between them was it, whatever others added and in whichever order replicas told them. Only the
/// step from `reached` is left to be looked at.
///
/// Others only add, unless negative units are allowed: a total that moved by less than the batch does not hold it. Where
/// others may return units, only a total that did not move says so; their return of as many units as the batch has
/// cannot be told apart.
///
/// A setting that is in force shows nothing where the total moved by more: another device, or the vendor, may have set the
/// same. One that is not in force contradicts a total that moved by the batch: another device added as much, or the vendor
/// set the overage back.
pub(super) fn verdict(
    units: Units,
    (before, reached): (&Standing, Total),
    setting: OverageSetting,
    after: &Standing,
) -> Verdict {
    let is_turned = after.period_start(before.as_of) != after.period_start(after.as_of);
    let with_setting = before.limits.with(setting);
    let is_edited = before.reset != after.reset
        || !(after.limits == before.limits || after.limits == with_setting);
    if is_turned || is_edited {
        return Verdict::Undecidable;
    }
    if after.total < reached && after.total >= before.total {
        return Verdict::Behind;
    }
    let Some(moved) = after.total.since(reached).map(Units::get) else {
        return Verdict::Undecidable;
    };
    let is_set = (before.limits != with_setting).then_some(after.limits == with_setting);
    let units = units.get();
    let may_be_returned = before.limits.allow_negative_consumptions;
    let is_without = if may_be_returned {
        moved == 0
    } else {
        (0..units).contains(&moved)
    };
    match is_set {
        Some(false) if is_without || units == 0 => Verdict::Without,
        Some(true) if moved == units || units == 0 => Verdict::Applied,
        None if moved == units => Verdict::Applied,
        None if is_without => Verdict::Without,
        Some(_) | None => Verdict::Undecidable,
    }
}

#[cfg(test)]
mod tests {
    use tally_shared::{limits::Limits, time::Timestamp};

    use super::*;

    fn standing(total: i64, overages: bool) -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: 100,
                allow_unlimited_consumptions: false,
                allow_negative_consumptions: false,
                allow_overages: overages,
                max_overages: 0,
            },
            reset: None,
            total: Total::new(total),
            as_of: Timestamp::default(),
        }
    }

    fn told(moved: i64) -> Verdict {
        let setting = OverageSetting::default();
        let (before, after) = (standing(10, false), standing(10 + moved, false));
        verdict(Units::new(5), (&before, before.total), setting, &after)
    }

    #[test]
    fn less_than_the_batch_does_not_hold_it_and_more_may() {
        assert_eq!(told(5), Verdict::Applied);
        assert_eq!(told(0), Verdict::Without);
        assert_eq!(told(4), Verdict::Without);
        assert_eq!(told(6), Verdict::Undecidable);
        assert_eq!(told(-1), Verdict::Undecidable);
    }

    #[test]
    fn small_steps_do_not_hold_the_batch_however_far_they_lead() {
        let told = |reached: i64, total: i64| {
            let (before, after) = (standing(10, false), standing(total, false));
            let seen = (&before, Total::new(reached));
            verdict(Units::new(5), seen, OverageSetting::default(), &after)
        };
        assert_eq!(told(14, 18), Verdict::Without);
        assert_eq!(told(14, 14), Verdict::Without);
        assert_eq!(told(14, 12), Verdict::Behind);
        assert_eq!(told(14, 9), Verdict::Undecidable);
        assert_eq!(told(14, 19), Verdict::Applied);
        assert_eq!(told(14, 20), Verdict::Undecidable);
    }

    #[test]
    fn where_units_may_be_returned_only_a_total_that_stands_still_does_not_hold_the_batch() {
        let returning = |total| {
            let mut standing = standing(total, false);
            standing.limits.allow_negative_consumptions = true;
            standing
        };
        let told = |moved: i64| {
            let (before, after) = (returning(10), returning(10 + moved));
            verdict(
                Units::new(5),
                (&before, before.total),
                OverageSetting::default(),
                &after,
            )
        };
        assert_eq!(told(0), Verdict::Without);
        assert_eq!(told(5), Verdict::Applied);
        assert_eq!(told(3), Verdict::Undecidable);
    }

    #[test]
    fn of_a_setting_that_is_not_in_force_nobody_can_tell_whether_its_batch_was_counted() {
        let setting = OverageSetting {
            allow_overages: Some(true),
            max_overages: None,
        };
        let told = |moved: i64, is_set| {
            let (before, after) = (standing(10, false), standing(10 + moved, is_set));
            verdict(Units::new(5), (&before, before.total), setting, &after)
        };
        assert_eq!(told(4, false), Verdict::Without);
        assert_eq!(told(5, false), Verdict::Undecidable);
        assert_eq!(told(12, false), Verdict::Undecidable);
        assert_eq!(told(5, true), Verdict::Applied);
        assert_eq!(told(3, true), Verdict::Undecidable);
    }
}

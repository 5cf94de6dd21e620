//! Laws of the shared rules, tried on arbitrary values.

use proptest::{collection::vec, prelude::*};
use tally_shared::{
    auth::Authorization,
    limits::{Limits, OverageSetting, Refusal, Request, Standing, decide},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, CheckLicense, ConsumptionEvent, Holder, Subject},
};

/// Small numbers, so that limits are met, and the extremes, so that sums overflow.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -20..200_i64, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        number(),
        any::<[bool; 3]>(),
        prop_oneof![0..50_i64, Just(i64::MAX)],
    )
        .prop_map(
            |(max_consumptions, [unlimited, negative, overages], max_overages)| Limits {
                max_consumptions,
                allow_unlimited_consumptions: unlimited,
                allow_negative_consumptions: negative,
                allow_overages: overages,
                max_overages,
            },
        )
}

fn setting() -> impl Strategy<Value = OverageSetting> {
    (any::<Option<bool>>(), proptest::option::of(0..50_i64)).prop_map(
        |(allow_overages, max_overages)| OverageSetting {
            allow_overages,
            max_overages,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    (number(), setting()).prop_map(|(units, setting)| Request {
        units: Units::new(units),
        setting,
    })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..253_000_000_000_000_i64).prop_map(Timestamp::from_millis)
}

fn period() -> impl Strategy<Value = Period> {
    prop::sample::select(Period::ALL.to_vec())
}

fn standing(limits: Limits, total: i64) -> Standing {
    Standing {
        limits,
        reset: None,
        total: Total::new(total),
        as_of: Timestamp::default(),
    }
}

fn judge(standing: &Standing, pending: i64, request: &Request) -> Result<i64, Refusal> {
    decide(standing, Units::new(pending), request, Timestamp::default())
        .map(|grant| grant.total.get())
}

proptest! {
    #[test]
    fn a_grant_is_the_exact_sum_and_never_raises_the_total_beyond_the_cap(
        limits in limits(), total in number(), pending in number(), request in request(),
    ) {
        let before = i128::from(total) + i128::from(pending);
        if let Ok(after) = judge(&standing(limits, total), pending, &request) {
            prop_assert_eq!(i128::from(after), before + i128::from(request.units.get()));
            let raised = request.units > Units::ZERO;
            let cap = limits.with(request.setting).cap();
            prop_assert!(!raised || cap.is_none_or(|cap| after <= cap));
        }
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_and_never_wraps(
        limits in limits(), total in number(), pending in number(), request in request(),
    ) {
        let sum = i128::from(total) + i128::from(pending);
        let after = sum + i128::from(request.units.get());
        let fits = i64::try_from(sum).is_ok() && i64::try_from(after).is_ok();
        let decided = judge(&standing(limits, total), pending, &request);
        prop_assert!(fits || decided.is_err());
    }

    #[test]
    fn nothing_added_is_never_refused_and_lowering_never_for_the_limit(
        limits in limits(), total in -1000..1000_i64, units in -100..=0_i64,
    ) {
        let limits = Limits { allow_negative_consumptions: true, ..limits };
        let request = Request { units: Units::new(units), setting: OverageSetting::default() };
        prop_assert_eq!(judge(&standing(limits, total), 0, &request), Ok(total + units));
    }

    #[test]
    fn granting_in_any_split_ends_at_the_same_total_where_all_fit(
        limits in limits(), total in 0..100_i64, parts in vec(0..20_i64, 1..8),
    ) {
        let whole: i64 = parts.iter().sum();
        let add = |units| Request { units: Units::new(units), setting: OverageSetting::default() };
        let at_once = judge(&standing(limits, total), 0, &add(whole));
        let one_by_one = parts.iter().try_fold(total, |total, part| {
            judge(&standing(limits, total), 0, &add(*part))
        });
        prop_assert!(at_once.is_err() || one_by_one == at_once);
    }

    #[test]
    fn a_refused_request_leaves_what_a_later_one_meets_unchanged(
        limits in limits(), total in number(), first in request(), second in request(),
    ) {
        let standing = standing(limits, total);
        let alone = judge(&standing, 0, &second);
        let after_a_refusal = judge(&standing, 0, &first).is_err();
        prop_assert!(!after_a_refusal || judge(&standing, 0, &second) == alone);
    }

    #[test]
    fn a_period_holds_its_moment_and_touches_the_next(period in period(), at in timestamp()) {
        let (start, next) = (period.start(at), period.next(at));
        prop_assert!(start <= at && at < next);
        prop_assert_eq!(period.start(start), start);
        prop_assert_eq!(period.start(next), next);
        prop_assert_eq!(period.start(next.plus_millis(-1)), start);
    }

    #[test]
    fn a_total_counts_until_its_period_ends(period in period(), at in timestamp(), total in 1..99_i64) {
        let standing = Standing {
            reset: Some(period),
            as_of: at,
            ..standing(
                Limits {
                    max_consumptions: 0,
                    allow_unlimited_consumptions: false,
                    allow_negative_consumptions: false,
                    allow_overages: false,
                    max_overages: 0,
                },
                total,
            )
        };
        prop_assert_eq!(standing.total_at(period.next(at).plus_millis(-1)).get(), total);
        prop_assert_eq!(standing.total_at(period.next(at)).get(), 0);
        prop_assert_eq!(standing.total_at(period.start(at)).get(), total);
    }

    #[test]
    fn a_request_survives_the_wire(
        key in "[A-Za-z0-9-]{1,40}", user in any::<bool>(), license_id in proptest::option::of(0..i64::MAX),
        units in any::<i64>(), setting in setting(), offline in any::<bool>(),
    ) {
        let holder = if user { Holder::Username(key) } else { Holder::LicenseKey(key) };
        let request = AddConsumption {
            subject: Subject {
                product: "p\"\u{1F600}".to_owned(),
                holder,
                license_id,
                hardware_id: "h".to_owned(),
            },
            feature: None,
            units: Units::new(units),
            setting,
            event: if offline { ConsumptionEvent::OfflineSync } else { ConsumptionEvent::Add },
        };
        prop_assert_eq!(AddConsumption::from_json(&request.to_json()), Ok(request));
    }

    #[test]
    fn rubbish_is_refused_and_never_panics(
        bytes in vec(any::<u8>(), 0..200), text in "\\PC{0,100}",
        pairs in vec(("[a-z_]{0,12}", "\\PC{0,20}"), 0..6),
    ) {
        let _ = AddConsumption::from_json(&bytes);
        let _ = AddConsumption::feature_from_json(text.as_bytes());
        let _ = Authorization::parse(&text);
        let _ = CheckLicense::from_query(pairs);
        let _ = Timestamp::parse(&text);
    }
}

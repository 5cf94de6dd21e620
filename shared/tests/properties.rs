//! Laws that hold for every limit, total, time and body, not only for those that somebody thought of.
//!
//! A failure prints the smallest case found and its seed, which proptest keeps beside this file in
//! `laws.proptest-regressions`; `cargo test -p tally-shared --test laws` repeats it first.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, FileFailurePersistence},
};
use serde_json::{Map, Value, json};
use tally_shared::{
    auth::{Authorization, SharedKey, authorization, check_date},
    limits::{Grant, Limits, OverageSetting, Refusal, Request, Standing, decide},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, CheckLicense, ConsumptionEvent, Counter, Holder, Subject},
};

/// The first moment of 1971: an earlier one may lie in the first period of its kind.
const YEAR_MS: i64 = 365 * 24 * 3_600_000;
/// The last moment that there is, and the last whose year is followed by another.
const LATEST_MS: i64 = 253_402_300_799_999;
const LATEST_BEFORE_LAST_YEAR_MS: i64 = LATEST_MS - YEAR_MS;

fn config() -> Config {
    Config {
        cases: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_grant_of_units_passes_the_cap(
        standing in standing(),
        pending in units(),
        units in 1..=i64::MAX,
        setting in setting(),
        now in timestamp(),
    ) {
        let request = Request { units: Units::new(units), setting };
        let granted = decide(&standing, pending, &request, now).ok();
        let passed = granted.filter(|grant| i128::from(grant.total.get()) > cap(&grant.limits));
        prop_assert_eq!(passed, None);
    }

    #[test]
    fn decisions_are_those_of_a_model_that_cannot_overflow(
        standing in standing(),
        pending in units(),
        request in request(),
    ) {
        let decided = decide(&standing, pending, &request, standing.as_of);
        prop_assert_eq!(decided.map_err(kind), model(&standing, pending, &request));
    }

    #[test]
    fn a_granted_total_is_the_exact_sum(
        standing in standing(),
        pending in units(),
        request in request(),
    ) {
        let sum = i128::from(standing.total.get())
            + i128::from(pending.get())
            + i128::from(request.units.get());
        let total = decide(&standing, pending, &request, standing.as_of)
            .map_or(sum, |grant| i128::from(grant.total.get()));
        prop_assert_eq!(total, sum);
    }

    #[test]
    fn a_refused_request_changes_nothing_for_those_that_follow(
        standing in standing(),
        requests in vec(request(), 1..8),
    ) {
        let (end, granted) = run(standing, &requests);
        let (end_without, all) = run(standing, &granted);
        prop_assert_eq!(end, end_without);
        prop_assert_eq!(granted, all);
    }

    #[test]
    fn a_refused_request_is_refused_again_for_the_same_reason(
        standing in standing(),
        request in request(),
        pending in units(),
        now in timestamp(),
    ) {
        let first = decide(&standing, pending, &request, now);
        prop_assert_eq!(decide(&standing, pending, &request, now), first);
    }

    #[test]
    fn units_end_at_the_same_total_however_they_are_split(
        standing in standing(),
        parts in vec(prop_oneof![1_i64..20, 1..=i64::MAX / 8], 1..=8),
        setting in setting(),
    ) {
        let whole = [Request { units: Units::new(parts.iter().sum()), setting }];
        let parts: Vec<_> = parts
            .into_iter()
            .map(|units| Request { units: Units::new(units), setting })
            .collect();
        let (end_of_whole, granted_whole) = run(standing, &whole);
        let (end_of_parts, granted_parts) = run(standing, &parts);
        let fits = granted_parts.len() == parts.len();
        prop_assert_eq!(granted_whole.len() == whole.len(), fits);
        prop_assert_eq!(end_of_whole == end_of_parts, fits || granted_parts.is_empty());
    }

    #[test]
    fn what_is_pending_counts_as_what_is_counted(
        standing in standing(),
        pending in units(),
        request in request(),
    ) {
        let split = decide(&standing, pending, &request, standing.as_of);
        let counted = standing
            .total
            .checked_add(pending)
            .ok_or(Refusal::Overflow)
            .and_then(|total| {
                let counted = Standing { total, ..standing };
                decide(&counted, Units::ZERO, &request, standing.as_of)
            });
        prop_assert_eq!(split, counted);
    }

    #[test]
    fn no_units_are_granted_whatever_the_total(
        standing in standing(),
        pending in units(),
        setting in setting(),
    ) {
        let request = Request { units: Units::ZERO, setting };
        let expected = standing
            .total
            .checked_add(pending)
            .ok_or(Refusal::Overflow)
            .map(|total| Grant { total, limits: standing.limits.with(setting) });
        prop_assert_eq!(decide(&standing, pending, &request, standing.as_of), expected);
    }

    #[test]
    fn lowering_is_never_refused_for_the_limit_where_it_is_allowed(
        standing in standing(),
        pending in units(),
        units in i64::MIN..0,
        setting in setting(),
        now in timestamp(),
    ) {
        let limits = Limits { allow_negative_consumptions: true, ..standing.limits };
        let standing = Standing { limits, ..standing };
        let request = Request { units: Units::new(units), setting };
        let refused = decide(&standing, pending, &request, now).err();
        prop_assert!(matches!(refused, None | Some(Refusal::Overflow)), "{refused:?}");
    }

    #[test]
    fn lowering_is_never_granted_where_it_is_not_allowed(
        standing in standing(),
        pending in units(),
        units in i64::MIN..0,
        setting in setting(),
        now in timestamp(),
    ) {
        let limits = Limits { allow_negative_consumptions: false, ..standing.limits };
        let standing = Standing { limits, ..standing };
        let request = Request { units: Units::new(units), setting };
        prop_assert!(decide(&standing, pending, &request, now).is_err());
    }

    #[test]
    fn what_there_is_room_for_is_granted_and_one_unit_more_is_not(
        limits in limits(),
        total in -1_000..1_000_i64,
        pending in -1_000..1_000_i64,
        room in 1..1_000_i64,
    ) {
        let (total, pending) = (Total::new(total), Units::new(pending));
        let limits = Limits {
            max_consumptions: total.get() + pending.get() + room,
            allow_unlimited_consumptions: false,
            allow_overages: false,
            ..limits
        };
        let now = Timestamp::default();
        let standing = Standing { limits, reset: None, total, as_of: now };
        let fits = |units| decide(&standing, pending, &plain(units), now).is_ok();
        prop_assert_eq!(standing.room(pending, now), Some(room));
        prop_assert_eq!((fits(room), fits(room + 1)), (true, false));
    }

    #[test]
    fn a_total_of_an_earlier_period_does_not_count(
        standing in standing(),
        period in period(),
        request in request(),
        now in YEAR_MS..=LATEST_MS,
    ) {
        let now = Timestamp::from_millis(now);
        let last_moment = period.start(now).plus_millis(-1);
        let stale = Standing { reset: Some(period), as_of: last_moment, ..standing };
        let fresh = Standing { total: Total::ZERO, reset: None, ..standing };
        prop_assert_eq!(
            decide(&stale, Units::ZERO, &request, now),
            decide(&fresh, Units::ZERO, &request, now)
        );
    }

    #[test]
    fn a_clock_that_goes_back_brings_no_total_to_zero(standing in standing(), back in 0..i64::MAX) {
        let now = standing.as_of.plus_millis(-back);
        prop_assert_eq!(standing.total_at(now), standing.total);
    }

    #[test]
    fn without_a_reset_no_time_brings_a_total_to_zero(standing in standing(), now in timestamp()) {
        let standing = Standing { reset: None, ..standing };
        prop_assert_eq!(standing.total_at(now), standing.total);
    }

    #[test]
    fn a_time_lies_in_its_period(period in period(), at in early_timestamp()) {
        prop_assert!(period.start(at) <= at);
        prop_assert!(at < period.next(at));
    }

    #[test]
    fn periods_leave_no_gap_and_do_not_overlap(period in period(), at in early_timestamp()) {
        let (start, next) = (period.start(at), period.next(at));
        prop_assert_eq!(period.start(start), start);
        prop_assert_eq!(period.next(start), next);
        prop_assert_eq!(period.start(next), next);
        prop_assert_eq!(period.start(next.plus_millis(-1)), start);
    }

    #[test]
    fn a_later_time_lies_in_no_earlier_period(
        period in period(),
        at in timestamp(),
        later in 0..LATEST_MS,
    ) {
        let later = at.plus_millis(later);
        prop_assert!(period.start(at) <= period.start(later));
        prop_assert!(period.next(at) <= period.next(later));
    }

    #[test]
    fn a_period_starts_no_later_than_those_that_it_is_made_of(at in timestamp()) {
        let [daily, weekly, monthly, annually] = Period::ALL.map(|period| period.start(at));
        prop_assert!(weekly <= daily && monthly <= daily && annually <= monthly);
    }

    #[test]
    fn a_time_survives_the_date_header_to_the_second(at in timestamp()) {
        let whole_second = Timestamp::from_millis(at.as_millis() / 1_000 * 1_000);
        prop_assert_eq!(Timestamp::from_http_date(&at.to_http_date()), Some(whole_second));
    }

    #[test]
    fn a_time_survives_its_text(at in timestamp()) {
        prop_assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
    }

    #[test]
    fn a_request_survives_being_written_and_read(request in add_consumption()) {
        prop_assert_eq!(AddConsumption::from_json(&request.to_json()), Ok(request));
    }

    #[test]
    fn a_feature_request_survives_being_written_and_read(
        request in add_consumption(),
        feature in text(),
    ) {
        let setting = OverageSetting::default();
        let request = AddConsumption { feature: Some(feature), setting, ..request };
        prop_assert_eq!(AddConsumption::feature_from_json(&request.to_json()), Ok(request));
    }

    #[test]
    fn a_query_survives_being_written_and_read(subject in subject()) {
        let request = CheckLicense { subject };
        let query = request.to_query();
        let query = query.into_iter().map(|(name, value)| (name.to_owned(), value));
        prop_assert_eq!(CheckLicense::from_query(query), Ok(request));
    }

    #[test]
    fn a_standing_survives_its_answer(
        standing in standing(),
        id in any::<i64>(),
    ) {
        let json = serde_json::to_vec(&Counter::new(id, &standing, standing.total)).unwrap();
        let counter: Counter = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(counter.id, id);
        prop_assert_eq!(counter.standing(standing.as_of), standing);
    }

    #[test]
    fn any_bytes_are_refused_as_a_body_and_panic_nothing(bytes in vec(any::<u8>(), 0..256)) {
        prop_assert!(AddConsumption::from_json(&bytes).is_err());
        prop_assert!(AddConsumption::feature_from_json(&bytes).is_err());
    }

    #[test]
    fn a_damaged_body_panics_nothing(
        request in add_consumption(),
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = request.to_json();
        *position.get_mut(&mut body) = byte;
        check_bodies(&body);
    }

    #[test]
    fn what_is_accepted_of_a_strange_body_means_the_same_when_it_is_written_again(
        body in strange_body(),
    ) {
        check_bodies(&Value::Object(body).to_string().into_bytes());
    }

    #[test]
    fn any_text_as_authorization_panics_nothing(header in any::<String>()) {
        prop_assert!(Authorization::parse(&header).is_err());
    }

    #[test]
    fn a_signed_date_is_accepted_whatever_the_order_of_the_parameters(
        shared_key in text(),
        at in timestamp(),
        order in Just([0, 1, 2, 3]).prop_shuffle(),
    ) {
        let date = at.to_http_date();
        let header = authorization("k", &shared_key, &date);
        let parameters: Vec<_> = header.split(',').collect();
        let header = order.map(|index| parameters[index]).join(", ");
        let read = Authorization::parse(&header).unwrap();
        prop_assert_eq!((read.api_key(), read.verify(&SharedKey::new(&shared_key), &date)), ("k", Ok(())));
    }

    #[test]
    fn a_strange_authorization_panics_nothing_and_gives_no_key_but_its_own(
        pieces in vec(authorization_piece(), 0..12),
    ) {
        let header = pieces.concat();
        let api_key = Authorization::parse(&header).map_or("k", |read| read.api_key());
        prop_assert!(["k", "é"].contains(&api_key), "{api_key:?}");
        let _refused_or_not = check_date(&header, Timestamp::default());
    }

    #[test]
    fn any_query_panics_nothing(
        query in vec((any::<String>(), any::<String>()), 0..6),
    ) {
        prop_assert!(CheckLicense::from_query(query).is_err());
    }

    #[test]
    fn what_is_accepted_of_a_strange_query_names_the_licence_that_it_named(
        query in vec((field().prop_map(str::to_owned), strange_text()), 0..6),
    ) {
        let named = CheckLicense::from_query(query.clone()).map_or(true, |request| {
            let holder = &request.subject.holder;
            query.contains(&(holder.field().to_owned(), holder.value().to_owned()))
        });
        prop_assert!(named);
    }
}

/// The highest total, reckoned without overflow.
fn cap(limits: &Limits) -> i128 {
    match (
        limits.allow_unlimited_consumptions,
        limits.allow_overages,
        limits.max_overages,
    ) {
        (true, _, _) | (_, true, 0) => i128::MAX,
        (false, true, overage) => i128::from(limits.max_consumptions) + i128::from(overage),
        (false, false, _) => i128::from(limits.max_consumptions),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NotEnough { used: Total, cap: i128 },
    NegativeNotAllowed,
    Overflow,
}

/// A refusal as the model gives it.
fn kind(refusal: Refusal) -> Kind {
    match refusal {
        Refusal::NotEnough {
            requested: _,
            used,
            cap,
        } => Kind::NotEnough {
            used,
            cap: cap.into(),
        },
        Refusal::NegativeNotAllowed => Kind::NegativeNotAllowed,
        Refusal::Overflow => Kind::Overflow,
    }
}

/// The contract's rule in 128 bits, within the period of `standing.as_of`.
fn model(standing: &Standing, pending: Units, request: &Request) -> Result<Grant, Kind> {
    let fit = |number: i128| {
        i64::try_from(number)
            .map(Total::new)
            .map_err(|_| Kind::Overflow)
    };
    let limits = Limits {
        allow_overages: request
            .setting
            .allow_overages
            .unwrap_or(standing.limits.allow_overages),
        max_overages: request
            .setting
            .max_overages
            .unwrap_or(standing.limits.max_overages),
        ..standing.limits
    };
    let units = i128::from(request.units.get());
    let used = i128::from(standing.total.get()) + i128::from(pending.get());
    let used_total = fit(used)?;
    if units < 0 && !limits.allow_negative_consumptions {
        return Err(Kind::NegativeNotAllowed);
    }
    let total = fit(used + units)?;
    let cap = cap(&limits);
    if units > 0 && used + units > cap {
        return Err(Kind::NotEnough {
            used: used_total,
            cap,
        });
    }
    Ok(Grant { total, limits })
}

/// What a server does: a grant becomes the new standing, a refusal leaves the old one. Gives the end and
/// the requests that were granted.
fn run(start: Standing, requests: &[Request]) -> (Standing, Vec<Request>) {
    let mut standing = start;
    let mut granted = Vec::new();
    for request in requests {
        if let Ok(Grant { total, limits }) = decide(&standing, Units::ZERO, request, start.as_of) {
            standing = Standing {
                limits,
                total,
                ..standing
            };
            granted.push(*request);
        }
    }
    (standing, granted)
}

/// Reads a body both ways; what is accepted is the same when it is written and read again.
#[track_caller]
fn check_bodies(body: &[u8]) {
    let read = AddConsumption::from_json(body);
    let again = read
        .as_ref()
        .map(|request| AddConsumption::from_json(&request.to_json()));
    assert_eq!(again.unwrap_or(read.clone()), read);
    let read = AddConsumption::feature_from_json(body);
    let again = read
        .as_ref()
        .map(|request| AddConsumption::feature_from_json(&request.to_json()));
    assert_eq!(again.unwrap_or(read.clone()), read);
}

fn standing() -> impl Strategy<Value = Standing> {
    (limits(), option::of(period()), number(), timestamp()).prop_map(
        |(limits, reset, total, as_of)| Standing {
            limits,
            reset,
            total: Total::new(total),
            as_of,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        number(),
        unlikely(),
        any::<bool>(),
        any::<bool>(),
        natural(),
    )
        .prop_map(
            |(max, unlimited, negative, overages, max_overages)| Limits {
                max_consumptions: max,
                allow_unlimited_consumptions: unlimited,
                allow_negative_consumptions: negative,
                allow_overages: overages,
                max_overages,
            },
        )
}

fn request() -> impl Strategy<Value = Request> {
    (units(), setting()).prop_map(|(units, setting)| Request { units, setting })
}

fn plain(units: i64) -> Request {
    Request {
        units: Units::new(units),
        setting: OverageSetting::default(),
    }
}

fn setting() -> impl Strategy<Value = OverageSetting> {
    (option::of(any::<bool>()), option::of(natural())).prop_map(|(allow_overages, max_overages)| {
        OverageSetting {
            allow_overages,
            max_overages,
        }
    })
}

fn units() -> impl Strategy<Value = Units> {
    number().prop_map(Units::new)
}

/// Mostly small, so that limits are met from both sides, and often at the ends of what fits.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -20..20_i64,
        1 => any::<i64>(),
        1 => i64::MAX - 20..=i64::MAX,
        1 => i64::MIN..=i64::MIN + 20,
    ]
}

fn natural() -> impl Strategy<Value = i64> {
    prop_oneof![
        2 => Just(0),
        4 => 1..20_i64,
        1 => 0..=i64::MAX,
        1 => i64::MAX - 20..=i64::MAX,
    ]
}

fn unlikely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

fn period() -> impl Strategy<Value = Period> {
    select(&Period::ALL)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        // Where clocks usually are.
        1_500_000_000_000..2_500_000_000_000_i64,
        0..=LATEST_MS,
        0..100_000_i64,
        LATEST_MS - 100_000..=LATEST_MS,
    ]
    .prop_map(Timestamp::from_millis)
}

/// A time whose every period is followed by another.
fn early_timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        1_500_000_000_000..2_500_000_000_000_i64,
        0..=LATEST_BEFORE_LAST_YEAR_MS
    ]
    .prop_map(Timestamp::from_millis)
}

fn add_consumption() -> impl Strategy<Value = AddConsumption> {
    let event = select(&[ConsumptionEvent::Add, ConsumptionEvent::OfflineSync]);
    (subject(), units(), setting(), event).prop_map(|(subject, units, setting, event)| {
        AddConsumption {
            subject,
            feature: None,
            units,
            setting,
            event,
        }
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let holder = prop_oneof![
        text().prop_map(Holder::LicenseKey),
        text().prop_map(Holder::Username)
    ];
    (text(), holder, option::of(natural()), text()).prop_map(
        |(product, holder, license_id, hardware_id)| Subject {
            product,
            holder,
            license_id,
            hardware_id,
        },
    )
}

/// Any text that a field may hold, control characters included.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 1..40).prop_map(String::from_iter)
}

fn field() -> impl Strategy<Value = &'static str> {
    select(&[
        "license_key",
        "username",
        "product",
        "hardware_id",
        "license_id",
        "consumptions",
        "max_overages",
        "allow_overages",
        "event",
        "feature",
        "sdk_ver",
        "unknown",
    ])
}

/// A body that is right but for up to three fields, which may be right as well.
fn strange_body() -> impl Strategy<Value = Map<String, Value>> {
    vec((field(), strange_value()), 0..=3).prop_map(|strange| {
        let right = ["license_key", "product", "hardware_id"].map(|name| (name, json!("x")));
        right
            .into_iter()
            .chain(strange)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

fn strange_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-20..20_i32).prop_map(|number| json!(f64::from(number))),
        strange_text().prop_map(Value::from),
        vec(strange_text(), 0..3).prop_map(Value::from),
        Just(Value::Null),
        Just(json!({})),
    ]
}

fn strange_text() -> impl Strategy<Value = String> {
    let known = select(&[
        "",
        "0",
        "007",
        "-1",
        "+1",
        " 1",
        "1.0",
        "true",
        "false",
        "consumption_add",
        "offline_floating_consumptions_sync",
        "9223372036854775807",
        "9223372036854775808",
    ]);
    prop_oneof![known.prop_map(str::to_owned), text()]
}

/// Mostly whole parameters, so that some headers are complete.
fn authorization_piece() -> impl Strategy<Value = String> {
    let whole = select(&[
        r#"algorithm="hmac-sha256","#,
        r#"headers="date", "#,
        r#"Headers="Date","#,
        r#"signature="c2ln","#,
        r#"apikey="k""#,
        r#"apiKey="é""#,
    ]);
    let broken = select(&["apikey", "=", "\"", ",", " ", "Bearer ", "Beareré", "\u{0}"]);
    prop_oneof![9 => whole, 1 => broken].prop_map(str::to_owned)
}

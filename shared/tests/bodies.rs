//! What is on the wire: how a request is read and what its refusal says, and how an answer is written.
//!
//! The vectors say which bodies conform; here are the messages, the forms that the vectors leave out
//! (feature bodies, queries, duplicate keys), and the exact bytes of answers, which are signed.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tally_shared::{
    limits::{Limits, OverageSetting, Standing},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::{
        AddConsumption, ApiError, CheckLicense, ConsumptionEvent, Counter, ErrorCode,
        FeatureCounter, Holder, LicenseBody, Subject, check_license::is_over,
    },
};

const COUNTER: &str = r#"{"id":7,"max_consumptions":100,"total_consumptions":-3,"allow_unlimited_consumptions":false,"allow_negative_consumptions":true,"allow_overages":true,"max_overages":50,"reset_consumption":true,"consumption_period":"monthly"}"#;
const FEATURE: &str = r#"{"id":8,"code":"render","name":"Render","feature_type":"consumption","max_consumption":100,"total_consumptions":-3,"allow_unlimited_consumptions":false,"allow_negative_consumptions":true,"allow_overages":true,"max_overages":50,"reset_consumption":true,"consumption_period":"monthly"}"#;

mod add_consumption {
    use super::*;

    #[test]
    fn an_unknown_field_is_named() {
        check("unknown", json!(1), "`unknown` is not a known field");
        check(
            "Consumptions",
            json!(1),
            "`Consumptions` is not a known field",
        );
        check("", json!(1), "`` is not a known field");
    }

    #[test]
    fn a_hostile_field_name_is_cut_at_64_characters() {
        let message = format!("`{}` is not a known field", "é".repeat(64));
        check(&"é".repeat(65), json!(1), &message);
    }

    #[test]
    fn a_field_of_another_type_is_named_with_what_was_expected() {
        check("license_key", json!(5), "`license_key` must be a string");
        check("product", json!(null), "`product` must be a string");
        check(
            "hardware_id",
            json!(["h"]),
            "`hardware_id` must be a string",
        );
        check(
            "consumptions",
            json!("2"),
            "`consumptions` must be a 64-bit integer",
        );
        check(
            "license_id",
            json!(1.5),
            "`license_id` must be an integer of at least 0",
        );
        check(
            "max_overages",
            json!({}),
            "`max_overages` must be an integer of at least 0",
        );
        check(
            "allow_overages",
            json!(2),
            "`allow_overages` must be true or false",
        );
        check(
            "event",
            json!("consumption_add"),
            "`event` must be an array of strings",
        );
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_was_expected() {
        check(
            "license_key",
            json!(""),
            "`license_key` must be a non-empty string",
        );
        check(
            "product",
            json!("p".repeat(1025)),
            "`product` must be at most 1024 bytes",
        );
        check(
            "hardware_id",
            json!("é".repeat(513)),
            "`hardware_id` must be at most 1024 bytes",
        );
        check(
            "consumptions",
            json!(u64::MAX),
            "`consumptions` must be a 64-bit integer",
        );
        check(
            "license_id",
            json!(-1),
            "`license_id` must be an integer of at least 0",
        );
        check(
            "license_id",
            json!("+1"),
            "`license_id` must be an integer of at least 0",
        );
        check(
            "max_overages",
            json!(""),
            "`max_overages` must be an integer of at least 0",
        );
        check(
            "allow_overages",
            json!("True"),
            "`allow_overages` must be true or false",
        );
        check(
            "event",
            json!([]),
            "`event` must be an array of at least one string",
        );
        check(
            "event",
            json!(["other"]),
            r#"`event` must be "consumption_add" or "offline_floating_consumptions_sync""#,
        );
        check(
            "event",
            json!(["consumption_add", "offline_floating_consumptions_sync"]),
            "the items of `event` exclude each other",
        );
    }

    #[test]
    fn a_licence_is_named_by_its_key_or_its_user_and_not_by_both() {
        check(
            "username",
            json!("u"),
            "`license_key` and `username` exclude each other",
        );
    }

    #[test]
    fn all_that_is_missing_is_listed() {
        check_missing(
            "{}",
            "missing: license_key or username, product, hardware_id",
        );
        check_missing(r#"{"username":"u"}"#, "missing: product, hardware_id");
        check_missing(
            r#"{"license_key":"k","product":"p"}"#,
            "missing: hardware_id",
        );
        check_missing(
            r#"{"unknown":1,"product":"p"}"#,
            "missing: license_key or username, hardware_id",
        );
    }

    #[test]
    fn a_field_that_appears_twice_is_named_even_where_both_agree() {
        check_read(
            br#"{"license_key":"k","product":"p","hardware_id":"h","consumptions":1,"consumptions":1}"#,
            &refused(ErrorCode::ValidationError, "`consumptions` appears more than once"),
        );
        check_read(
            br#"{"license_key":"k","product":"p","hardware_id":"h","x":1,"\u0078":2}"#,
            &refused(ErrorCode::ValidationError, "`x` appears more than once"),
        );
    }

    #[test]
    fn what_is_json_and_not_an_object_is_told_apart_from_what_is_not_json() {
        let not_an_object = refused(ErrorCode::ValidationError, "the body must be a JSON object");
        check_read(b"[]", &not_an_object);
        check_read(b"[{}]", &not_an_object);
        check_read(b"null", &not_an_object);
        check_read(b"-1", &not_an_object);
        check_read(b"1.5", &not_an_object);
        check_read(b"true", &not_an_object);
        check_read(br#""x""#, &not_an_object);
        check_not_json(b"");
        check_not_json(b"{");
        check_not_json(b"{}}");
        check_not_json(b"[1,]");
        check_not_json(b"{\"product\":NaN}");
        check_not_json(b"\xff");
    }

    #[test]
    fn a_body_nested_beyond_reason_is_refused_and_does_not_exhaust_the_stack() {
        check_not_json(format!(r#"{{"x":{}"#, "[".repeat(60_000)).as_bytes());
        check_not_json("[".repeat(60_000).as_bytes());
    }

    #[test]
    fn every_field_is_read() {
        check_read(
            br#"{"username":"u","product":"p","hardware_id":"h","license_id":"7","consumptions":-2,"max_overages":"10","allow_overages":"true","event":["offline_floating_consumptions_sync"]}"#,
            &Ok(AddConsumption {
                subject: Subject {
                    product: "p".to_owned(),
                    holder: Holder::Username("u".to_owned()),
                    license_id: Some(7),
                    hardware_id: "h".to_owned(),
                },
                feature: None,
                units: Units::new(-2),
                setting: OverageSetting {
                    allow_overages: Some(true),
                    max_overages: Some(10),
                },
                event: ConsumptionEvent::OfflineSync,
            }),
        );
    }

    #[test]
    fn what_is_left_out_is_one_unit_added_now_without_a_setting() {
        check_read(
            br#"{"license_key":"k","product":"p","hardware_id":"h"}"#,
            &Ok(plain()),
        );
    }

    #[test]
    fn what_sdks_send_besides_has_no_meaning() {
        check_read(
            br#"{"license_key":"k","product":"p","hardware_id":"h","bundle_code":null,"sdk_ver":1,"app_ver":[],"ignore_events":true}"#,
            &Ok(plain()),
        );
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        check_units("2.0", Some(2));
        check_units("-2.0", Some(-2));
        check_units("-0.0", Some(0));
        check_units("1e3", Some(1_000));
        check_units("0.5", None);
        check_units("1e-1", None);
    }

    #[test]
    fn a_float_that_may_have_been_rounded_is_refused() {
        check_units("1000000000000000.0", Some(1_000_000_000_000_000));
        check_units("-1000000000000000.0", Some(-1_000_000_000_000_000));
        check_units("999999999999999.5", None);
        check_units("1000000000000001.0", None);
        check_units("9007199254740991.0", None);
        check_units("9007199254740992.0", None);
        check_units("9007199254740993.0", None);
        check_units("-9007199254740993.0", None);
        check_units("4503599627370497.5", None);
        check_units("1e18", None);
        check_units("9223372036854775807.0", None);
    }

    #[test]
    fn an_integer_is_exact_to_the_last_of_its_64_bits() {
        check_units("9007199254740993", Some(9_007_199_254_740_993));
        check_units("9223372036854775807", Some(i64::MAX));
        check_units("-9223372036854775808", Some(i64::MIN));
        check_units("9223372036854775808", None);
        check_units("-9223372036854775809", None);
    }

    #[test]
    fn a_request_is_written_in_one_order_with_only_what_it_says() {
        let full = AddConsumption {
            subject: Subject {
                license_id: Some(7),
                ..Subject::by_key("p", "k", "h")
            },
            setting: OverageSetting {
                allow_overages: Some(false),
                max_overages: Some(10),
            },
            event: ConsumptionEvent::OfflineSync,
            ..plain()
        };
        check_written(
            &plain(),
            r#"{"license_key":"k","product":"p","hardware_id":"h","consumptions":1,"event":["consumption_add"]}"#,
        );
        check_written(
            &full,
            r#"{"license_key":"k","product":"p","hardware_id":"h","license_id":7,"consumptions":1,"max_overages":10,"allow_overages":false,"event":["offline_floating_consumptions_sync"]}"#,
        );
        assert_eq!(full.path(), "/api/v4/add_consumption");
    }

    fn plain() -> AddConsumption {
        AddConsumption {
            subject: Subject::by_key("p", "k", "h"),
            feature: None,
            units: Units::new(1),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        }
    }

    /// Puts a field into a body that is right without it.
    #[track_caller]
    fn check(field: &str, value: serde_json::Value, message: &str) {
        let mut body = json!({"license_key": "k", "product": "p", "hardware_id": "h"});
        body[field] = value;
        check_read(
            body.to_string().as_bytes(),
            &refused(ErrorCode::ValidationError, message),
        );
    }

    #[track_caller]
    fn check_missing(body: &str, message: &str) {
        check_read(
            body.as_bytes(),
            &refused(ErrorCode::MissingParameters, message),
        );
    }

    #[track_caller]
    fn check_not_json(body: &[u8]) {
        let code = AddConsumption::from_json(body).map_err(|error| error.code);
        assert_eq!(code, Err(ErrorCode::InvalidJson));
    }

    #[track_caller]
    fn check_read(body: &[u8], expected: &Result<AddConsumption, ApiError>) {
        assert_eq!(AddConsumption::from_json(body), *expected);
    }

    #[track_caller]
    fn check_units(number: &str, expected: Option<i64>) {
        let body = format!(
            r#"{{"license_key":"k","product":"p","hardware_id":"h","consumptions":{number}}}"#
        );
        let read = AddConsumption::from_json(body.as_bytes());
        assert_eq!(read.ok().map(|request| request.units.get()), expected);
    }
}

mod add_feature_consumption {
    use super::*;

    #[test]
    fn a_feature_is_read_with_its_units() {
        check_read(
            r#"{"license_key":"k","product":"p","hardware_id":"h","feature":"render","consumptions":5}"#,
            &Ok(request()),
        );
    }

    #[test]
    fn overage_settings_do_not_belong_to_a_feature() {
        check(
            "max_overages",
            json!(1),
            "`max_overages` is not a known field",
        );
        check(
            "allow_overages",
            json!(true),
            "`allow_overages` is not a known field",
        );
    }

    #[test]
    fn a_feature_must_be_a_text() {
        check("feature", json!(""), "`feature` must be a non-empty string");
        check("feature", json!(null), "`feature` must be a string");
        check("feature", json!(5), "`feature` must be a string");
    }

    #[test]
    fn a_missing_feature_is_listed_with_all_else_that_is() {
        check_read(
            r#"{"license_key":"k","product":"p","hardware_id":"h"}"#,
            &refused(ErrorCode::MissingParameters, "missing: feature"),
        );
        check_read(
            "{}",
            &refused(
                ErrorCode::MissingParameters,
                "missing: license_key or username, product, hardware_id, feature",
            ),
        );
    }

    #[test]
    fn what_sdks_send_besides_has_no_meaning() {
        check_read(
            r#"{"license_key":"k","product":"p","hardware_id":"h","feature":"render","consumptions":5,"bundle_code":"b","sdk_ver":"s","app_ver":"a","ignore_events":1,"event":["consumption_add"]}"#,
            &Ok(request()),
        );
    }

    #[test]
    fn a_request_is_written_with_its_feature_to_its_own_path() {
        check_written(
            &request(),
            r#"{"license_key":"k","product":"p","hardware_id":"h","feature":"render","consumptions":5,"event":["consumption_add"]}"#,
        );
        assert_eq!(request().path(), "/api/v4/add_feature_consumption");
    }

    fn request() -> AddConsumption {
        AddConsumption {
            subject: Subject::by_key("p", "k", "h"),
            feature: Some("render".to_owned()),
            units: Units::new(5),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        }
    }

    /// Puts a field into a body that is right without it.
    #[track_caller]
    fn check(field: &str, value: serde_json::Value, message: &str) {
        let mut body =
            json!({"license_key": "k", "product": "p", "hardware_id": "h", "feature": "f"});
        body[field] = value;
        check_read(
            &body.to_string(),
            &refused(ErrorCode::ValidationError, message),
        );
    }

    #[track_caller]
    fn check_read(body: &str, expected: &Result<AddConsumption, ApiError>) {
        assert_eq!(
            AddConsumption::feature_from_json(body.as_bytes()),
            *expected
        );
    }
}

mod check_license {
    use super::*;

    #[test]
    fn a_licence_id_comes_as_text() {
        let subject = Subject {
            license_id: Some(7),
            ..subject()
        };
        check(&[("license_id", "7")], &Ok(subject));
    }

    #[test]
    fn what_sdks_send_besides_has_no_meaning() {
        check(
            &[
                ("bundle_code", "b"),
                ("include_expired_features", "true"),
                ("env", "linux"),
                ("sdk_ver", "Python 4.0.0"),
                ("app_ver", ""),
            ],
            &Ok(subject()),
        );
    }

    #[test]
    fn the_parameter_that_is_wrong_is_named() {
        check_refused(
            ("license_id", "seven"),
            "`license_id` must be an integer of at least 0",
        );
        check_refused(
            ("license_id", ""),
            "`license_id` must be an integer of at least 0",
        );
        check_refused(
            ("license_id", "-7"),
            "`license_id` must be an integer of at least 0",
        );
        check_refused(("unknown", "1"), "`unknown` is not a known field");
        check_refused(("consumptions", "1"), "`consumptions` is not a known field");
        check_refused(("product", "q"), "`product` appears more than once");
        check_refused(
            ("username", "u"),
            "`license_key` and `username` exclude each other",
        );
        check_refused(("username", ""), "`username` must be a non-empty string");
    }

    #[test]
    fn all_that_is_missing_is_listed() {
        let nothing: [(String, String); 0] = [];
        assert_eq!(
            CheckLicense::from_query(nothing),
            refused(
                ErrorCode::MissingParameters,
                "missing: license_key or username, product, hardware_id",
            )
        );
    }

    #[test]
    fn a_query_is_written_in_one_order_with_only_what_it_says() {
        let subject = Subject {
            license_id: Some(7),
            holder: Holder::Username("u".to_owned()),
            ..subject()
        };
        assert_eq!(
            CheckLicense { subject }.to_query(),
            [
                ("username", "u".to_owned()),
                ("product", "p".to_owned()),
                ("hardware_id", "h".to_owned()),
                ("license_id", "7".to_owned()),
            ]
        );
    }

    fn subject() -> Subject {
        Subject::by_key("p", "k", "h")
    }

    #[track_caller]
    fn check_refused(parameter: (&str, &str), message: &str) {
        check(&[parameter], &refused(ErrorCode::ValidationError, message));
    }

    /// Adds parameters to a query that is right without them.
    #[track_caller]
    fn check(parameters: &[(&str, &str)], expected: &Result<Subject, ApiError>) {
        let query = [("license_key", "k"), ("product", "p"), ("hardware_id", "h")]
            .iter()
            .chain(parameters)
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let read = CheckLicense::from_query(query).map(|request| request.subject);
        assert_eq!(read, *expected);
    }
}

mod answers {
    use super::*;

    #[test]
    fn a_counter_is_written_in_the_order_of_the_contract() {
        check_both_ways(&counter(), COUNTER);
    }

    #[test]
    fn a_counter_without_a_period_says_null() {
        let standing = Standing {
            reset: None,
            ..standing()
        };
        check_both_ways(
            &Counter::new(7, &standing, Total::new(-3)),
            &COUNTER.replace(
                r#""reset_consumption":true,"consumption_period":"monthly""#,
                r#""reset_consumption":false,"consumption_period":null"#,
            ),
        );
    }

    #[test]
    fn a_period_has_the_name_of_the_contract() {
        check_both_ways(&Period::ALL, r#"["daily","weekly","monthly","annually"]"#);
        assert_eq!(
            Period::ALL.map(Period::as_str),
            ["daily", "weekly", "monthly", "annually"]
        );
    }

    #[test]
    fn a_counter_gives_back_the_standing_that_it_was_made_of() {
        assert_eq!(counter().standing(as_of()), standing());
        assert_eq!(feature().standing(as_of()), standing());
    }

    #[test]
    fn a_period_without_a_reset_does_not_reset() {
        let counter = Counter {
            reset_consumption: false,
            ..counter()
        };
        let feature = FeatureCounter {
            reset_consumption: false,
            ..feature()
        };
        assert_eq!(counter.standing(as_of()).reset, None);
        assert_eq!(feature.standing(as_of()).reset, None);
    }

    #[test]
    fn a_counter_of_a_newer_server_is_understood() {
        let newer = COUNTER.replace(
            r#"{"id""#,
            r#"{"pool":{"id":1,"total_consumptions":9},"id""#,
        );
        assert_eq!(read::<Counter>(&newer), counter());
    }

    #[test]
    fn a_feature_is_written_with_its_singular_limit() {
        check_both_ways(&feature(), FEATURE);
    }

    #[test]
    fn a_feature_that_is_not_consumed_needs_no_counter() {
        let bare = read::<FeatureCounter>(r#"{"id":8,"code":"x","feature_type":"activation"}"#);
        assert_eq!(bare.name, "");
        assert_eq!(bare.total_consumptions, Total::ZERO);
        assert_eq!(bare.standing(as_of()).reset, None);
    }

    #[test]
    fn a_feature_that_is_consumed_needs_its_limit_and_its_total() {
        for left_out in ["max_consumption", "total_consumptions"] {
            let text = FEATURE.replace(&format!("\"{left_out}\""), "\"x\"");
            assert!(
                serde_json::from_str::<FeatureCounter>(&text).is_err(),
                "{left_out}"
            );
        }
    }

    #[test]
    fn a_licence_is_written_with_its_counter_first_and_unknown_fields_last() {
        check_both_ways(&license(), &license_json());
    }

    #[test]
    fn a_licence_of_a_newer_server_keeps_what_it_does_not_know() {
        let pool = r#","pool":{"z":[1,{"a":null}],"total_consumptions":9.5},"a":"b"}"#;
        let newer = format!("{}{pool}", license_json().trim_end_matches('}'));
        let license = read::<LicenseBody>(&newer);
        assert_eq!(license.counter, counter());
        assert_eq!(license.other["pool"]["total_consumptions"], json!(9.5));
        assert_eq!(written(&license), newer);
    }

    #[test]
    fn a_licence_needs_no_more_than_its_counter_its_type_and_its_state() {
        let license = read::<LicenseBody>(&format!(
            r#"{},"license_type":"consumption","license_active":true,"license_enabled":true}}"#,
            COUNTER.trim_end_matches('}')
        ));
        let bare = LicenseBody {
            is_expired: false,
            validity_period: None,
            allow_grace_period: false,
            grace_period: 0,
            product_features: Vec::new(),
            license_signature: String::new(),
            ..self::license()
        };
        assert_eq!(license, bare);
    }

    #[test]
    fn a_validity_period_may_be_a_bare_date() {
        let bare = license_json().replace("2030-01-01T00:00:00.000Z", "2030-01-01");
        assert_eq!(read::<LicenseBody>(&bare), license());
    }

    #[test]
    fn a_licence_is_over_at_its_end_and_later_where_it_has_a_grace_period() {
        let end = "2030-01-01T00:00:00Z";
        check_over(Some(end), None, "2029-12-31T23:59:59.999Z", false);
        check_over(Some(end), None, end, true);
        check_over(Some(end), Some(0), end, true);
        check_over(Some(end), Some(24), end, false);
        check_over(Some(end), Some(24), "2030-01-01T23:59:59.999Z", false);
        check_over(Some(end), Some(24), "2030-01-02T00:00:00Z", true);
        check_over(Some(end), Some(u32::MAX), "9998-01-01", false);
        check_over(None, None, "9999-12-31", false);
        check_over(None, Some(24), "9999-12-31", false);
    }

    #[test]
    fn a_grace_period_that_is_not_allowed_does_not_count() {
        let hour_after = Timestamp::parse("2030-01-01T01:00:00Z").unwrap();
        let without = LicenseBody {
            allow_grace_period: false,
            ..license()
        };
        assert!(!license().is_over(hour_after));
        assert!(without.is_over(hour_after));
    }

    fn as_of() -> Timestamp {
        Timestamp::parse("2026-08-23T12:00:00Z").unwrap()
    }

    fn standing() -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: 100,
                allow_unlimited_consumptions: false,
                allow_negative_consumptions: true,
                allow_overages: true,
                max_overages: 50,
            },
            reset: Some(Period::Monthly),
            total: Total::new(-3),
            as_of: as_of(),
        }
    }

    fn counter() -> Counter {
        Counter::new(7, &standing(), Total::new(-3))
    }

    fn feature() -> FeatureCounter {
        read::<FeatureCounter>(
            r#"{"id":8,"code":"render","name":"Render","feature_type":"consumption",
            "max_consumption":0,"total_consumptions":0}"#,
        )
        .with(&standing(), Total::new(-3))
    }

    fn license() -> LicenseBody {
        LicenseBody {
            counter: counter(),
            license_type: "consumption".to_owned(),
            license_active: true,
            license_enabled: true,
            is_expired: false,
            validity_period: Timestamp::parse("2030-01-01"),
            allow_grace_period: true,
            grace_period: 24,
            product_features: vec![feature()],
            license_signature: "c2ln".to_owned(),
            other: serde_json::Map::new(),
        }
    }

    fn license_json() -> String {
        let counter = COUNTER.trim_end_matches('}');
        format!(
            r#"{counter},"license_type":"consumption","license_active":true,"license_enabled":true,"is_expired":false,"validity_period":"2030-01-01T00:00:00.000Z","allow_grace_period":true,"grace_period":24,"product_features":[{FEATURE}],"license_signature":"c2ln"}}"#
        )
    }

    #[track_caller]
    fn check_both_ways<T>(value: &T, json: &str)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        assert_eq!(written(value), json);
        assert_eq!(read::<T>(json), *value);
    }

    #[track_caller]
    fn check_over(end: Option<&str>, grace_hours: Option<u32>, now: &str, expected: bool) {
        let end = end.map(|end| Timestamp::parse(end).unwrap());
        let now = Timestamp::parse(now).unwrap();
        assert_eq!(is_over(end, grace_hours, now), expected);
    }

    #[track_caller]
    fn read<T: DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    fn written(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }
}

fn refused<T>(code: ErrorCode, message: &str) -> Result<T, ApiError> {
    Err(ApiError::new(code, message))
}

#[track_caller]
fn check_written(request: &AddConsumption, expected: &str) {
    assert_eq!(String::from_utf8(request.to_json()).unwrap(), expected);
}

#[test]
fn a_server_that_says_null_is_understood_as_one_that_says_nothing() {
    let text = r#"{"id":1,"max_consumptions":10,"total_consumptions":2,
        "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
        "allow_overages":false,"max_overages":0,"reset_consumption":false,
        "consumption_period":null,"license_type":"consumption","license_active":true,
        "license_enabled":true,"grace_period":null,"license_signature":null,
        "product_features":[{"id":2,"code":"f","feature_type":"activation","name":null,
        "max_consumption":null}]}"#;
    let license: LicenseBody = serde_json::from_str(text).unwrap();
    assert_eq!(
        (
            license.grace_period,
            license.product_features[0].max_consumption
        ),
        (0, 0)
    );
}

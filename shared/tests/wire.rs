//! What requests and answers look like, to the byte, and what a mistake is answered with.

use serde_json::json;
use tally_shared::{
    time::Timestamp,
    wire::{
        AddConsumption, ApiError, CheckLicense, Counter, ErrorCode, FeatureCounter, LicenseBody,
    },
};

#[track_caller]
fn check_refused(parsed: Result<AddConsumption, ApiError>, code: ErrorCode, message: &str) {
    let error = parsed.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (code, message));
}

fn body(extra: &str) -> Result<AddConsumption, ApiError> {
    let text = format!(r#"{{"license_key":"k","product":"p","hardware_id":"h"{extra}}}"#);
    AddConsumption::from_json(text.as_bytes())
}

fn query(pairs: &[(&str, &str)]) -> Result<CheckLicense, ApiError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    CheckLicense::from_query(pairs.iter().map(owned))
}

#[test]
fn a_mistake_is_answered_with_the_name_of_its_field() {
    use ErrorCode::{InvalidJson, MissingParameters, ValidationError};
    check_refused(
        body(r#","extra":1"#),
        ValidationError,
        "`extra` is not a known field",
    );
    check_refused(
        body(r#","consumptions":1.5"#),
        ValidationError,
        "`consumptions` must be a 64-bit integer",
    );
    check_refused(
        body(r#","consumptions":1,"consumptions":2"#),
        ValidationError,
        "`consumptions` appears more than once",
    );
    check_refused(
        body(r#","username":"u""#),
        ValidationError,
        "`license_key` and `username` exclude each other",
    );
    check_refused(
        AddConsumption::from_json(b"{}"),
        MissingParameters,
        "missing: license_key or username, product, hardware_id",
    );
    assert_eq!(
        AddConsumption::from_json(b"{").unwrap_err().code,
        InvalidJson
    );
    let nested = "[".repeat(100_000);
    assert_eq!(
        AddConsumption::from_json(nested.as_bytes())
            .unwrap_err()
            .code,
        InvalidJson
    );
}

#[test]
fn a_features_request_has_a_feature_and_no_overage_setting() {
    let text = br#"{"license_key":"k","product":"p","hardware_id":"h","feature":"f"}"#;
    let request = AddConsumption::feature_from_json(text).unwrap();
    assert_eq!(request.feature.as_deref(), Some("f"));
    check_refused(
        AddConsumption::feature_from_json(
            br#"{"license_key":"k","product":"p","hardware_id":"h"}"#,
        ),
        ErrorCode::MissingParameters,
        "missing: feature",
    );
    let text =
        br#"{"license_key":"k","product":"p","hardware_id":"h","feature":"f","max_overages":1}"#;
    check_refused(
        AddConsumption::feature_from_json(text),
        ErrorCode::ValidationError,
        "`max_overages` is not a known field",
    );
}

#[test]
fn what_published_sdks_send_besides_is_accepted() {
    let sdk = r#","sdk_ver":"x","app_ver":"1","bundle_code":"b","ignore_events":true"#;
    assert!(body(sdk).is_ok());
    let checked = query(&[
        ("username", "u"),
        ("product", "p"),
        ("hardware_id", "h"),
        ("license_id", "7"),
        ("include_expired_features", "false"),
    ]);
    assert_eq!(checked.unwrap().subject.license_id, Some(7));
    assert_eq!(
        query(&[("username", "u")]).unwrap_err().code,
        ErrorCode::MissingParameters
    );
}

#[test]
fn a_request_without_units_adds_one() {
    assert_eq!(body("").unwrap().units.get(), 1);
}

#[test]
fn the_counter_has_the_contracts_keys_in_the_contracts_order() {
    let text = concat!(
        r#"{"id":1,"max_consumptions":10,"total_consumptions":2,"#,
        r#""allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"#,
        r#""allow_overages":true,"max_overages":3,"reset_consumption":true,"#,
        r#""consumption_period":"monthly"}"#
    );
    let counter: Counter = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&counter).unwrap(), text);
}

#[test]
fn a_newer_servers_answer_is_understood_and_passed_on_whole() {
    let newer = json!({
        "id": 1, "max_consumptions": 10, "total_consumptions": 2,
        "allow_unlimited_consumptions": false, "allow_negative_consumptions": false,
        "allow_overages": false, "max_overages": 0, "reset_consumption": false,
        "consumption_period": null, "license_type": "consumption", "license_active": true,
        "license_enabled": true, "pool": {"size": 3},
        "product_features": [{"id": 2, "code": "f", "feature_type": "activation"}],
    });
    let counter: Counter = serde_json::from_value(newer.clone()).unwrap();
    assert_eq!(counter.max_consumptions, 10);
    let license: LicenseBody = serde_json::from_value(newer).unwrap();
    let passed_on = serde_json::to_value(&license).unwrap();
    assert_eq!(passed_on["pool"], json!({"size": 3}));
    let text = serde_json::to_string(&license).unwrap();
    assert!(
        text.starts_with(r#"{"id":1,"max_consumptions":10,"#),
        "{text}"
    );
}

#[test]
fn a_features_counter_has_its_limit_in_the_singular() {
    let text = concat!(
        r#"{"id":2,"code":"f","name":"F","feature_type":"consumption","max_consumption":10,"#,
        r#""total_consumptions":1,"allow_unlimited_consumptions":false,"#,
        r#""allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,"#,
        r#""reset_consumption":false,"consumption_period":null}"#
    );
    let feature: FeatureCounter = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&feature).unwrap(), text);
}

#[test]
fn a_licence_is_over_when_its_grace_is() {
    use tally_shared::wire::check_license::is_over;
    let end = Timestamp::parse("2030-01-01").unwrap();
    assert!(!is_over(Some(end), None, end.plus_millis(-1)));
    assert!(is_over(Some(end), None, end));
    assert!(!is_over(Some(end), Some(2), end.plus_millis(7_199_999)));
    assert!(is_over(Some(end), Some(2), end.plus_millis(7_200_000)));
    assert!(!is_over(None, Some(0), Timestamp::from_millis(i64::MAX)));
}

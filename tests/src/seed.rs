//! Seed files: one product, one key pair, and licences as a test wants them.

use serde_json::{Value, json};

/// The key pair of every seed.
pub const API_KEY: &str = "test-api-key";
/// Its shared key.
pub const SHARED_KEY: &str = "test-shared-key";
/// The product of every seed.
pub const PRODUCT: &str = "inspect";
/// The device of every licence.
pub const DEVICE: &str = "device-1";
/// The key of [`license`].
pub const KEY: &str = "AAAA-BBBB-CCCC-DDDD";
/// The user of [`user_license`].
pub const USER: &str = "field@example.com";

/// A seed with these licences.
pub fn seed(licenses: &[Value]) -> Value {
    json!({
        "api_keys": [{"api_key": API_KEY, "shared_key": SHARED_KEY}],
        "products": [{"code": PRODUCT}],
        "licenses": licenses,
    })
}

/// A key-based licence with a limit, changed as `with` says.
pub fn license(max_consumptions: i64, with: Value) -> Value {
    let base = json!({
        "id": 1, "product": PRODUCT, "license_key": KEY,
        "max_consumptions": max_consumptions,
        "devices": [{"hardware_id": DEVICE}],
    });
    merged(base, with)
}

/// A user-based licence with a limit, changed as `with` says.
pub fn user_license(max_consumptions: i64, with: Value) -> Value {
    let base = json!({
        "id": 2, "product": PRODUCT, "username": USER,
        "max_consumptions": max_consumptions,
        "devices": [{"hardware_id": DEVICE}],
    });
    merged(base, with)
}

/// The key of [`numbered_license`].
pub fn numbered_key(number: usize) -> String {
    format!("AAAA-BBBB-CCCC-{number:04}")
}

/// One of many key-based licences without a limit; its number is its id.
pub fn numbered_license(number: usize) -> Value {
    let with = json!({
        "id": number, "license_key": numbered_key(number), "allow_unlimited_consumptions": true,
    });
    license(0, with)
}

/// One object with the fields of another on top; `null` removes a field.
pub fn merged(mut base: Value, with: Value) -> Value {
    if let (Some(base), Value::Object(with)) = (base.as_object_mut(), with) {
        for (key, value) in with {
            if value.is_null() {
                base.remove(&key);
            } else {
                base.insert(key, value);
            }
        }
    }
    base
}

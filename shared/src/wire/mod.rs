//! The License API v4 on the wire: paths, headers, bodies and error codes.
//!
//! Requests are read strictly and refused with the name of the offending field; answers are read
//! leniently (a newer server may send more) and written in one stable key order, because the
//! signature covers their exact bytes.

pub mod add_consumption;
pub mod body;
pub mod check_license;
pub mod error;
pub mod pool;

pub use add_consumption::{AddConsumption, ConsumptionEvent, Counter, FeatureCounter};
pub use check_license::{CheckLicense, LicenseBody};
pub use error::{ApiError, ErrorCode};
pub use pool::{InPool, PoolCounter};

use std::fmt;

use serde::{Deserialize, Serialize};

/// `POST`: adds units to a licence.
pub const ADD_CONSUMPTION: &str = "/api/v4/add_consumption";
/// `POST`: adds units to a feature of a licence.
pub const ADD_FEATURE_CONSUMPTION: &str = "/api/v4/add_feature_consumption";
/// `GET`: reads a licence without changing it.
pub const CHECK_LICENSE: &str = "/api/v4/check_license";

/// The header with the RSA signature over an answer's exact bytes.
pub const LICENSE_SIGNATURE: &str = "LicenseSignature";
/// The header that lets a request be retried without being counted twice (IETF httpapi draft).
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// `true` on an answer that is the stored answer of an earlier request under the same key.
pub const IDEMPOTENCY_REPLAYED: &str = "Idempotency-Replayed";

/// The longest request body that is read, in bytes. An aggregated request needs less than 1 KiB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest `Idempotency-Key` that is accepted, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// How a request names the licence: by its key, or by the user who holds it.
///
/// A licence key is a secret that opens the licence: it prints masked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// `license_key`, for key-based products.
    LicenseKey(String),
    /// `username`, for user-based products.
    Username(String),
}

impl Holder {
    /// The name of the field that carries it.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::LicenseKey(_) => "license_key",
            Self::Username(_) => "username",
        }
    }

    /// The key or the user name.
    pub fn value(&self) -> &str {
        match self {
            Self::LicenseKey(value) | Self::Username(value) => value,
        }
    }

    /// What may be shown to anybody: of a key only its end, which is enough to tell it from others.
    pub fn masked(&self) -> String {
        match self {
            Self::LicenseKey(key) => {
                // Of a short key, its end would be most of it.
                let shown = if key.chars().count() >= 12 { 4 } else { 0 };
                let from = key.char_indices().rev().nth(shown.max(1) - 1);
                let end = from.filter(|_| shown > 0).and_then(|(at, _)| key.get(at..));
                format!("…{}", end.unwrap_or_default())
            }
            Self::Username(name) => name.clone(),
        }
    }

    /// A text of somebody else's, such as the server's, in which a licence key may stand, with it masked.
    pub fn mask_in(&self, text: &str) -> String {
        match self {
            Self::LicenseKey(key) if !key.is_empty() => text.replace(key, &self.masked()),
            _ => text.to_owned(),
        }
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field(), self.masked())
    }
}

/// Which licence, on which device, a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The product's short code.
    pub product: String,
    /// Who holds the licence.
    pub holder: Holder,
    /// The licence, where a user holds several for one product.
    pub license_id: Option<i64>,
    /// The device.
    pub hardware_id: String,
}

//! `GET /api/v4/check_license`: the whole licence, read without changing it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{ApiError, Counter, FeatureCounter, Subject, body::Fields};
use crate::time::Timestamp;

/// A request to read a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLicense {
    /// Which licence and device.
    pub subject: Subject,
}

/// The answer: those fields that Tally knows, and whatever else the server sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LicenseBody {
    /// How the licence stands; every field of the `add_consumption` answer, `id` first.
    #[serde(flatten)]
    pub counter: Counter,
    /// `consumption`, or another type that cannot be consumed.
    pub license_type: String,
    /// Whether the licence has an active device.
    pub license_active: bool,
    /// Whether the vendor has it enabled.
    pub license_enabled: bool,
    /// Whether the validity period is over.
    #[serde(default, deserialize_with = "null_as_default")]
    pub is_expired: bool,
    /// The end of the validity period; `None` where it has none.
    #[serde(default)]
    pub validity_period: Option<Timestamp>,
    /// Whether the licence goes on for a while after that.
    #[serde(default, deserialize_with = "null_as_default")]
    pub allow_grace_period: bool,
    /// For how many hours.
    #[serde(default, deserialize_with = "null_as_default")]
    pub grace_period: u32,
    /// The licence's features.
    #[serde(default, deserialize_with = "null_as_default")]
    pub product_features: Vec<FeatureCounter>,
    /// The older signature, over hardware id, holder and validity period.
    #[serde(default, deserialize_with = "null_as_default")]
    pub license_signature: String,
    /// Fields that only a newer server or another client knows; passed on as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A server that has nothing to say may leave a field out or say `null`.
pub(super) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The `license_type` of a licence that can be consumed.
pub const LICENSE_TYPE_CONSUMPTION: &str = "consumption";

/// The query parameters of the contract, and those that published SDKs send besides.
const KNOWN: [&str; 10] = [
    "license_key",
    "username",
    "product",
    "hardware_id",
    "license_id",
    "bundle_code",
    "include_expired_features",
    "env",
    "sdk_ver",
    "app_ver",
];

impl CheckLicense {
    /// Reads the query.
    ///
    /// # Errors
    ///
    /// `missing_parameters` or `validation_error`, with the parameter that is wrong.
    pub fn from_query(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ApiError> {
        let mut fields = Fields::from_query(pairs)?;
        fields.require(&["product", "hardware_id"])?;
        fields.only(&[&KNOWN])?;
        Ok(Self {
            subject: fields.subject()?,
        })
    }

    /// The query parameters.
    pub fn to_query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![
            (
                self.subject.holder.field(),
                self.subject.holder.value().to_owned(),
            ),
            ("product", self.subject.product.clone()),
            ("hardware_id", self.subject.hardware_id.clone()),
        ];
        if let Some(license_id) = self.subject.license_id {
            query.push(("license_id", license_id.to_string()));
        }
        query
    }
}

/// Whether a validity period is over at `now`, the grace period included where the licence has one.
pub fn is_over(
    validity_period: Option<Timestamp>,
    grace_hours: Option<u32>,
    now: Timestamp,
) -> bool {
    const HOUR_MS: i64 = 3_600_000;
    let grace_ms = i64::from(grace_hours.unwrap_or(0)) * HOUR_MS;
    validity_period.is_some_and(|end| now >= end.plus_millis(grace_ms))
}

impl LicenseBody {
    /// Whether the licence may no longer be consumed at `now` because it has expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let grace = self.allow_grace_period.then_some(self.grace_period);
        is_over(self.validity_period, grace, now)
    }
}

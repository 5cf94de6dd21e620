//! `GET /api/v4/check_license`: the whole licence, read without changing it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{ApiError, Counter, FeatureCounter, PoolCounter, Subject, body::Fields};
use crate::{period::Period, time::Timestamp, units::Total};

/// A request to read a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLicense {
    /// Which licence and device.
    pub subject: Subject,
}

/// The answer: those fields that Tally knows, and whatever else the server sends.
///
/// A licence of type consumption must come with its limit and its total: without them it would pass for one of which
/// nothing is used. One of another type has neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LicenseFields")]
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

/// A licence's fields as they come.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
struct LicenseFields {
    #[serde(flatten)]
    counter: CounterFields,
    license_type: String,
    license_active: bool,
    license_enabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    is_expired: bool,
    validity_period: Option<Timestamp>,
    #[serde(default, deserialize_with = "null_as_default")]
    allow_grace_period: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    grace_period: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    product_features: Vec<FeatureCounter>,
    #[serde(default, deserialize_with = "null_as_default")]
    license_signature: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A licence's counter as it comes.
#[derive(Deserialize)]
struct CounterFields {
    id: i64,
    max_consumptions: Option<i64>,
    total_consumptions: Option<Total>,
    allow_unlimited_consumptions: Option<bool>,
    allow_negative_consumptions: Option<bool>,
    allow_overages: Option<bool>,
    max_overages: Option<i64>,
    reset_consumption: Option<bool>,
    consumption_period: Option<Period>,
}

impl TryFrom<LicenseFields> for LicenseBody {
    type Error = String;

    fn try_from(fields: LicenseFields) -> Result<Self, Self::Error> {
        let counter = &fields.counter;
        if fields.license_type == LICENSE_TYPE_CONSUMPTION
            && let Some(missing) = counter.missing()
        {
            return Err(format!("a licence that is consumed needs `{missing}`"));
        }
        Ok(Self {
            counter: Counter {
                id: counter.id,
                max_consumptions: counter.max_consumptions.unwrap_or_default(),
                total_consumptions: counter.total_consumptions.unwrap_or_default(),
                allow_unlimited_consumptions: counter
                    .allow_unlimited_consumptions
                    .unwrap_or_default(),
                allow_negative_consumptions: counter
                    .allow_negative_consumptions
                    .unwrap_or_default(),
                allow_overages: counter.allow_overages.unwrap_or_default(),
                max_overages: counter.max_overages.unwrap_or_default(),
                reset_consumption: counter.reset_consumption.unwrap_or_default(),
                consumption_period: counter.consumption_period,
            },
            license_type: fields.license_type,
            license_active: fields.license_active,
            license_enabled: fields.license_enabled,
            is_expired: fields.is_expired,
            validity_period: fields.validity_period,
            allow_grace_period: fields.allow_grace_period,
            grace_period: fields.grace_period,
            product_features: fields.product_features,
            license_signature: fields.license_signature,
            other: fields.other,
        })
    }
}

impl CounterFields {
    /// The first field of a consumption licence that is not there.
    fn missing(&self) -> Option<&'static str> {
        let needed = [
            ("max_consumptions", self.max_consumptions.is_some()),
            ("total_consumptions", self.total_consumptions.is_some()),
            (
                "allow_unlimited_consumptions",
                self.allow_unlimited_consumptions.is_some(),
            ),
            (
                "allow_negative_consumptions",
                self.allow_negative_consumptions.is_some(),
            ),
            ("allow_overages", self.allow_overages.is_some()),
            ("max_overages", self.max_overages.is_some()),
            ("reset_consumption", self.reset_consumption.is_some()),
        ];
        needed
            .iter()
            .find(|(_, is_there)| !is_there)
            .map(|(name, _)| *name)
    }
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
    /// The pool that the licence draws from, where it does. One that cannot be read limits nothing that can be known.
    pub fn pool(&self) -> Option<PoolCounter> {
        PoolCounter::of_value(self.other.get("pool"))
    }

    /// Tells how the pool stands; what else was said of it stays.
    pub fn set_pool(&mut self, pool: &PoolCounter) {
        let Ok(Value::Object(told)) = serde_json::to_value(pool) else {
            return;
        };
        if let Some(Value::Object(known)) = self.other.get_mut("pool") {
            known.extend(told);
        } else {
            self.other.insert("pool".to_owned(), Value::Object(told));
        }
    }

    /// Number of devices that are activated for the licence; `None` where the server does not say.
    pub fn times_activated(&self) -> Option<u64> {
        self.other.get("times_activated").and_then(Value::as_u64)
    }

    /// Whether the licence may no longer be consumed at `now` because it has expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let grace = self.allow_grace_period.then_some(self.grace_period);
        is_over(self.validity_period, grace, now)
    }
}

//! `POST /api/v4/add_consumption` and `POST /api/v4/add_feature_consumption`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    ApiError, Holder, Subject,
    body::{Fields, expected, invalid},
};
use crate::{
    limits::{Limits, OverageSetting, Request, Standing},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
};

/// Which event the server's activity log records for a request.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ConsumptionEvent {
    /// Consumed while the server could be reached.
    #[default]
    #[serde(rename = "consumption_add")]
    Add,
    /// Consumed while it could not, and replayed.
    #[serde(rename = "offline_floating_consumptions_sync")]
    OfflineSync,
}

impl ConsumptionEvent {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "consumption_add",
            Self::OfflineSync => "offline_floating_consumptions_sync",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Add, Self::OfflineSync]
            .into_iter()
            .find(|event| event.as_str() == name)
    }
}

/// A request to add units, to a licence or (with `feature`) to one of its features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddConsumption {
    /// Which licence and device.
    pub subject: Subject,
    /// Which feature; `None` for the licence itself.
    pub feature: Option<String>,
    /// `consumptions`: units to add.
    pub units: Units,
    /// `max_overages` and `allow_overages`. Always empty for a feature.
    pub setting: OverageSetting,
    /// `event`: what the activity log records.
    pub event: ConsumptionEvent,
}

/// Fields that every request may carry. The last four are sent by published SDKs and mean nothing here.
const COMMON: [&str; 10] = [
    "license_key",
    "username",
    "product",
    "hardware_id",
    "license_id",
    "consumptions",
    "bundle_code",
    "sdk_ver",
    "app_ver",
    "ignore_events",
];

impl AddConsumption {
    /// Reads the body of `add_consumption`.
    ///
    /// # Errors
    ///
    /// `invalid_json`, `missing_parameters` or `validation_error`, with the field that is wrong.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::from_json(body)?;
        fields.require(&["product", "hardware_id"])?;
        fields.only(&[&COMMON, &["max_overages", "allow_overages", "event"]])?;
        Ok(Self {
            subject: fields.subject()?,
            feature: None,
            units: units(&fields)?,
            setting: OverageSetting {
                max_overages: fields.natural("max_overages")?,
                allow_overages: fields.boolean("allow_overages")?,
            },
            event: event(&fields)?,
        })
    }

    /// Reads the body of `add_feature_consumption`.
    ///
    /// # Errors
    ///
    /// As [`Self::from_json`].
    pub fn feature_from_json(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::from_json(body)?;
        fields.require(&["product", "hardware_id", "feature"])?;
        fields.only(&[&COMMON, &["feature", "event"]])?;
        Ok(Self {
            subject: fields.subject()?,
            feature: Some(fields.required_text("feature")?),
            units: units(&fields)?,
            setting: OverageSetting::default(),
            event: event(&fields)?,
        })
    }

    /// The path that this request is posted to.
    pub const fn path(&self) -> &'static str {
        if self.feature.is_some() {
            super::ADD_FEATURE_CONSUMPTION
        } else {
            super::ADD_CONSUMPTION
        }
    }

    /// The part that bears on the limit.
    pub const fn request(&self) -> Request {
        Request {
            units: self.units,
            setting: self.setting,
        }
    }

    /// The body, in a stable key order. The same request gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut body = serde_json::Map::new();
        body.insert(
            self.subject.holder.field().into(),
            self.subject.holder.value().into(),
        );
        body.insert("product".into(), self.subject.product.clone().into());
        body.insert(
            "hardware_id".into(),
            self.subject.hardware_id.clone().into(),
        );
        if let Some(license_id) = self.subject.license_id {
            body.insert("license_id".into(), license_id.into());
        }
        if let Some(feature) = &self.feature {
            body.insert("feature".into(), feature.clone().into());
        }
        body.insert("consumptions".into(), self.units.get().into());
        if let Some(max_overages) = self.setting.max_overages {
            body.insert("max_overages".into(), max_overages.into());
        }
        if let Some(allow_overages) = self.setting.allow_overages {
            body.insert("allow_overages".into(), allow_overages.into());
        }
        body.insert("event".into(), json!([self.event.as_str()]));
        Value::Object(body).to_string().into_bytes()
    }
}

fn units(fields: &Fields<'_>) -> Result<Units, ApiError> {
    Ok(Units::new(fields.integer("consumptions")?.unwrap_or(1)))
}

fn event(fields: &Fields<'_>) -> Result<ConsumptionEvent, ApiError> {
    let Some(value) = fields.get("event") else {
        return Ok(ConsumptionEvent::default());
    };
    let Value::Array(names) = value else {
        return Err(expected("event", "an array of strings"));
    };
    let mut found = None;
    for name in names {
        let event = name
            .as_str()
            .and_then(ConsumptionEvent::from_name)
            .ok_or_else(|| {
                expected(
                    "event",
                    "\"consumption_add\" or \"offline_floating_consumptions_sync\"",
                )
            })?;
        if found.is_some_and(|earlier| earlier != event) {
            return Err(invalid("the items of `event` exclude each other"));
        }
        found = Some(event);
    }
    found.ok_or_else(|| expected("event", "an array of at least one string"))
}

/// The answer of `add_consumption`: how the licence stands. Keys in the contract's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counter {
    /// The server's id of the licence.
    pub id: i64,
    /// The limit without overage.
    pub max_consumptions: i64,
    /// The total after the request.
    pub total_consumptions: Total,
    /// No limit.
    pub allow_unlimited_consumptions: bool,
    /// Whether the total may be lowered.
    pub allow_negative_consumptions: bool,
    /// Whether the limit may be passed.
    pub allow_overages: bool,
    /// By how much; 0 without bound.
    pub max_overages: i64,
    /// Whether the total returns to zero.
    pub reset_consumption: bool,
    /// How often it does.
    pub consumption_period: Option<Period>,
}

/// A feature as answers carry it: `add_feature_consumption`, and `product_features` of `check_license`.
///
/// One that can be consumed must come with its limit and its total: without them it would pass for one of
/// which nothing is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FeatureFields")]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeatureCounter {
    /// The server's id of the feature.
    pub id: i64,
    /// What requests call it.
    pub code: String,
    /// For people.
    pub name: String,
    /// `consumption`, or another type that cannot be consumed.
    pub feature_type: String,
    /// The limit without overage (singular on the wire, unlike a licence's).
    pub max_consumption: i64,
    /// The total after the request.
    pub total_consumptions: Total,
    /// No limit.
    pub allow_unlimited_consumptions: bool,
    /// Whether the total may be lowered.
    pub allow_negative_consumptions: bool,
    /// Whether the limit may be passed.
    pub allow_overages: bool,
    /// By how much; 0 without bound.
    pub max_overages: i64,
    /// Whether the total returns to zero.
    pub reset_consumption: bool,
    /// How often it does.
    pub consumption_period: Option<Period>,
}

/// A feature's fields as they come: a server says nothing, or `null`, of what a feature has not.
#[derive(Deserialize)]
struct FeatureFields {
    id: i64,
    code: String,
    name: Option<String>,
    feature_type: String,
    max_consumption: Option<i64>,
    total_consumptions: Option<Total>,
    allow_unlimited_consumptions: Option<bool>,
    allow_negative_consumptions: Option<bool>,
    allow_overages: Option<bool>,
    max_overages: Option<i64>,
    reset_consumption: Option<bool>,
    consumption_period: Option<Period>,
}

impl TryFrom<FeatureFields> for FeatureCounter {
    type Error = &'static str;

    fn try_from(fields: FeatureFields) -> Result<Self, Self::Error> {
        let is_counted = fields.max_consumption.is_some() && fields.total_consumptions.is_some();
        if fields.feature_type == FEATURE_TYPE_CONSUMPTION && !is_counted {
            return Err(
                "a feature that is consumed needs `max_consumption` and `total_consumptions`",
            );
        }
        Ok(Self {
            id: fields.id,
            code: fields.code,
            name: fields.name.unwrap_or_default(),
            feature_type: fields.feature_type,
            max_consumption: fields.max_consumption.unwrap_or_default(),
            total_consumptions: fields.total_consumptions.unwrap_or_default(),
            allow_unlimited_consumptions: fields.allow_unlimited_consumptions.unwrap_or_default(),
            allow_negative_consumptions: fields.allow_negative_consumptions.unwrap_or_default(),
            allow_overages: fields.allow_overages.unwrap_or_default(),
            max_overages: fields.max_overages.unwrap_or_default(),
            reset_consumption: fields.reset_consumption.unwrap_or_default(),
            consumption_period: fields.consumption_period,
        })
    }
}

/// The `feature_type` of a feature that can be consumed.
pub const FEATURE_TYPE_CONSUMPTION: &str = "consumption";

impl Counter {
    /// The answer for a licence that stands so.
    pub fn new(id: i64, standing: &Standing, total: Total) -> Self {
        Self {
            id,
            max_consumptions: standing.limits.max_consumptions,
            total_consumptions: total,
            allow_unlimited_consumptions: standing.limits.allow_unlimited_consumptions,
            allow_negative_consumptions: standing.limits.allow_negative_consumptions,
            allow_overages: standing.limits.allow_overages,
            max_overages: standing.limits.max_overages,
            reset_consumption: standing.reset.is_some(),
            consumption_period: standing.reset,
        }
    }

    /// How the licence stands by this answer, which was right at `as_of`.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: self.max_consumptions,
                allow_unlimited_consumptions: self.allow_unlimited_consumptions,
                allow_negative_consumptions: self.allow_negative_consumptions,
                allow_overages: self.allow_overages,
                max_overages: self.max_overages,
            },
            reset: self.consumption_period.filter(|_| self.reset_consumption),
            total: self.total_consumptions,
            as_of,
        }
    }
}

impl FeatureCounter {
    /// This feature with another standing.
    #[must_use]
    pub fn with(&self, standing: &Standing, total: Total) -> Self {
        Self {
            id: self.id,
            code: self.code.clone(),
            name: self.name.clone(),
            feature_type: self.feature_type.clone(),
            max_consumption: standing.limits.max_consumptions,
            total_consumptions: total,
            allow_unlimited_consumptions: standing.limits.allow_unlimited_consumptions,
            allow_negative_consumptions: standing.limits.allow_negative_consumptions,
            allow_overages: standing.limits.allow_overages,
            max_overages: standing.limits.max_overages,
            reset_consumption: standing.reset.is_some(),
            consumption_period: standing.reset,
        }
    }

    /// How the feature stands by this answer, which was right at `as_of`.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: self.max_consumption,
                allow_unlimited_consumptions: self.allow_unlimited_consumptions,
                allow_negative_consumptions: self.allow_negative_consumptions,
                allow_overages: self.allow_overages,
                max_overages: self.max_overages,
            },
            reset: self.consumption_period.filter(|_| self.reset_consumption),
            total: self.total_consumptions,
            as_of,
        }
    }
}

impl Subject {
    /// The licence by its key on a device.
    pub fn by_key(product: &str, license_key: &str, hardware_id: &str) -> Self {
        Self {
            product: product.to_owned(),
            holder: Holder::LicenseKey(license_key.to_owned()),
            license_id: None,
            hardware_id: hardware_id.to_owned(),
        }
    }
}

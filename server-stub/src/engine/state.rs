//! Licences, their features and devices, in the shape of the seed file.
//!
//! The same shape is stored, shown by `/stub/v1/licenses`, and accepted back by it. What makes one
//! consistent is checked in [`crate::seed`].

use super::pool::Pool;
use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::{Grant, Standing},
    period::Period,
    time::Timestamp,
    units::Total,
    wire::{
        Counter, FeatureCounter, Holder,
        add_consumption::FEATURE_TYPE_CONSUMPTION,
        check_license::{LICENSE_TYPE_CONSUMPTION, is_over},
    },
};

/// A licence. Fields as in the contract; what is left out of the JSON has a harmless default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
pub struct License {
    /// The server's id; 0 asks for the next free one.
    #[serde(default)]
    pub id: i64,
    /// The short code of its product.
    pub product: String,
    /// The key, for key-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_key: Option<String>,
    /// The user, for user-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// `consumption`, or another type.
    #[serde(default = "consumption_license")]
    pub license_type: String,
    /// Whether the vendor has it enabled.
    #[serde(default = "yes")]
    pub license_enabled: bool,
    /// Whether it is active.
    #[serde(default = "yes")]
    pub license_active: bool,
    /// When it ends; `None` where it does not.
    #[serde(default)]
    pub validity_period: Option<Timestamp>,
    /// Whether it goes on for a while after that.
    #[serde(default)]
    pub allow_grace_period: bool,
    /// For how many hours.
    #[serde(default)]
    pub grace_period: u32,
    /// The limit without overage.
    #[serde(default)]
    pub max_consumptions: i64,
    /// What has been consumed in the current period.
    #[serde(default)]
    pub total_consumptions: Total,
    /// No limit.
    #[serde(default)]
    pub allow_unlimited_consumptions: bool,
    /// Whether the total may be lowered.
    #[serde(default)]
    pub allow_negative_consumptions: bool,
    /// Whether the limit may be passed.
    #[serde(default)]
    pub allow_overages: bool,
    /// By how much; 0 without bound.
    #[serde(default)]
    pub max_overages: i64,
    /// Whether the total returns to zero.
    #[serde(default)]
    pub reset_consumption: bool,
    /// How often it does.
    #[serde(default)]
    pub consumption_period: Option<Period>,
    /// The pool that its consumptions are drawn from besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// The devices it was activated on.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Its features.
    #[serde(default)]
    pub features: Vec<Feature>,
}

/// A device of a licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What requests call it.
    pub hardware_id: String,
    /// Whether it may consume.
    #[serde(default)]
    pub state: DeviceState,
}

/// Whether a device may consume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It may.
    #[default]
    Active,
    /// It was deactivated: to requests, it is not there.
    Inactive,
    /// It was blocked by the vendor.
    Blacklisted,
}

/// A feature of a licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
pub struct Feature {
    /// The server's id; 0 asks for the next free one.
    #[serde(default)]
    pub id: i64,
    /// What requests call it.
    pub code: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// `consumption`, or another type.
    #[serde(default = "consumption_feature")]
    pub feature_type: String,
    /// The limit without overage.
    #[serde(default)]
    pub max_consumption: i64,
    /// What has been consumed in the current period.
    #[serde(default)]
    pub total_consumptions: Total,
    /// No limit.
    #[serde(default)]
    pub allow_unlimited_consumptions: bool,
    /// Whether the total may be lowered.
    #[serde(default)]
    pub allow_negative_consumptions: bool,
    /// Whether the limit may be passed.
    #[serde(default)]
    pub allow_overages: bool,
    /// By how much; 0 without bound.
    #[serde(default)]
    pub max_overages: i64,
    /// Whether the total returns to zero.
    #[serde(default)]
    pub reset_consumption: bool,
    /// How often it does.
    #[serde(default)]
    pub consumption_period: Option<Period>,
}

impl License {
    /// Who holds it: by its key, or by its user.
    pub fn holder(&self) -> Option<Holder> {
        match (&self.license_key, &self.username) {
            (Some(key), None) => Some(Holder::LicenseKey(key.clone())),
            (None, Some(username)) => Some(Holder::Username(username.clone())),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    /// Whether it is in use: active, with an active device.
    pub fn is_active(&self) -> bool {
        self.license_active && self.active_devices() > 0
    }

    /// Number of its active devices.
    pub fn active_devices(&self) -> usize {
        let active = |device: &&Device| device.state == DeviceState::Active;
        self.devices.iter().filter(active).count()
    }

    /// Whether it can no longer be used at `now`, the grace period included.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let grace_hours = self.allow_grace_period.then_some(self.grace_period);
        is_over(self.validity_period, grace_hours, now)
    }

    /// Whether units can be added to it.
    pub fn is_consumption(&self) -> bool {
        self.license_type == LICENSE_TYPE_CONSUMPTION
    }

    /// The state of a device, where the licence has it.
    pub fn device(&self, hardware_id: &str) -> Option<DeviceState> {
        let found = self.devices.iter().find(|it| it.hardware_id == hardware_id);
        found.map(|device| device.state)
    }

    /// The feature of that code, where units can be added to it.
    pub fn consumption_feature(&self, code: &str) -> Option<&Feature> {
        self.features
            .iter()
            .find(|feature| feature.code == code && feature.is_consumption())
    }

    /// Brings every total from `as_of`, when it was right, to `now`: zero where a period has turned.
    pub fn carry(&mut self, as_of: Timestamp, now: Timestamp) {
        self.total_consumptions = self.standing(as_of).total_at(now);
        if let Some(pool) = &mut self.pool {
            pool.total_consumptions = pool.standing(as_of).total_at(now);
        }
        for feature in &mut self.features {
            feature.total_consumptions = feature.standing(as_of).total_at(now);
        }
    }

    /// How it stands, its total being right at `as_of`.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        self.counter().standing(as_of)
    }

    /// Takes over what was granted.
    pub(crate) fn settle(&mut self, grant: &Grant) {
        self.total_consumptions = grant.total;
        self.allow_overages = grant.limits.allow_overages;
        self.max_overages = grant.limits.max_overages;
    }

    /// As answers carry it.
    pub fn counter(&self) -> Counter {
        Counter {
            id: self.id,
            max_consumptions: self.max_consumptions,
            total_consumptions: self.total_consumptions,
            allow_unlimited_consumptions: self.allow_unlimited_consumptions,
            allow_negative_consumptions: self.allow_negative_consumptions,
            allow_overages: self.allow_overages,
            max_overages: self.max_overages,
            reset_consumption: self.reset_consumption,
            consumption_period: self.consumption_period,
        }
    }
}

impl Feature {
    /// Whether units can be added to it.
    pub fn is_consumption(&self) -> bool {
        self.feature_type == FEATURE_TYPE_CONSUMPTION
    }

    /// How it stands, its total being right at `as_of`.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        self.counter().standing(as_of)
    }

    /// As answers carry it.
    pub fn counter(&self) -> FeatureCounter {
        FeatureCounter {
            id: self.id,
            code: self.code.clone(),
            name: self.name.clone(),
            feature_type: self.feature_type.clone(),
            max_consumption: self.max_consumption,
            total_consumptions: self.total_consumptions,
            allow_unlimited_consumptions: self.allow_unlimited_consumptions,
            allow_negative_consumptions: self.allow_negative_consumptions,
            allow_overages: self.allow_overages,
            max_overages: self.max_overages,
            reset_consumption: self.reset_consumption,
            consumption_period: self.consumption_period,
        }
    }
}

fn yes() -> bool {
    true
}

fn consumption_license() -> String {
    LICENSE_TYPE_CONSUMPTION.to_owned()
}

fn consumption_feature() -> String {
    FEATURE_TYPE_CONSUMPTION.to_owned()
}

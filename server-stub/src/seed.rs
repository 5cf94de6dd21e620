//! What a stub starts with: key pairs, products and licences, in the contract's field names.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::{Limits, Standing},
    period::Period,
    time::Timestamp,
    units::Total,
    wire::{
        Counter, FeatureCounter, Holder, LicenseBody,
        add_consumption::FEATURE_TYPE_CONSUMPTION,
        check_license::{LICENSE_TYPE_CONSUMPTION, is_over},
    },
};

/// A seed file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Who may call.
    pub api_keys: Vec<ApiKey>,
    /// What can be licensed.
    pub products: Vec<Product>,
    /// The licences.
    pub licenses: Vec<License>,
}

/// A key pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Which key pair a request claims.
    pub api_key: String,
    /// What signs it.
    pub shared_key: String,
    /// What it may do.
    #[serde(default)]
    pub state: KeyState,
}

/// What a key pair may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Everything.
    #[default]
    Active,
    /// Nothing any more.
    Revoked,
    /// Only `check_license`.
    ReadOnly,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its short code.
    pub code: String,
}

/// A licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
pub struct License {
    /// Its id.
    pub id: i64,
    /// Its product.
    pub product: String,
    /// Its key, for key-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_key: Option<String>,
    /// Who holds it, for user-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// `consumption`, or a type that cannot be consumed.
    #[serde(default = "consumption")]
    pub license_type: String,
    /// Whether the vendor has it enabled.
    #[serde(default = "yes")]
    pub license_enabled: bool,
    /// Whether it is active.
    #[serde(default = "yes")]
    pub license_active: bool,
    /// When it ends.
    #[serde(default)]
    pub validity_period: Option<Timestamp>,
    /// Whether it goes on for a while after that.
    #[serde(default)]
    pub allow_grace_period: bool,
    /// For how many hours.
    #[serde(default)]
    pub grace_period: u32,
    /// The limit of a period.
    #[serde(default)]
    pub max_consumptions: i64,
    /// The total of the period.
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
    /// How often.
    #[serde(default)]
    pub consumption_period: Option<Period>,
    /// Its devices.
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
    /// Its hardware id.
    pub hardware_id: String,
    /// What it may do.
    #[serde(default)]
    pub state: DeviceState,
}

/// What a device may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Consume.
    #[default]
    Active,
    /// Nothing: it counts as not found.
    Inactive,
    /// Nothing, and it is told so.
    Blacklisted,
}

/// A feature of a licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the contract's fields")]
pub struct Feature {
    /// Its id; 0 for one that is made up from the licence's.
    #[serde(default)]
    pub id: i64,
    /// What requests call it.
    pub code: String,
    /// For people; its code where it has none.
    #[serde(default)]
    pub name: String,
    /// `consumption`, or a type that cannot be consumed.
    #[serde(default = "feature_consumption")]
    pub feature_type: String,
    /// The limit of a period.
    #[serde(default)]
    pub max_consumption: i64,
    /// The total of the period.
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
    /// How often.
    #[serde(default)]
    pub consumption_period: Option<Period>,
}

/// A seed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Not the JSON of a seed.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Two licences have one id.
    #[error("licence {0} appears twice")]
    DuplicateId(i64),
    /// A licence cannot be as it says.
    #[error("licence {id}: {why}")]
    License {
        /// Which.
        id: i64,
        /// Why not.
        why: String,
    },
}

impl Seed {
    /// Reads a seed file's text.
    ///
    /// # Errors
    ///
    /// [`SeedError`], which says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, SeedError> {
        let seed: Self = serde_json::from_str(text)?;
        let mut ids = BTreeSet::new();
        for license in &seed.licenses {
            if !ids.insert(license.id) {
                return Err(SeedError::DuplicateId(license.id));
            }
            license.check()?;
        }
        Ok(seed)
    }
}

impl License {
    /// Refuses what no licence can be.
    ///
    /// # Errors
    ///
    /// [`SeedError::License`].
    pub fn check(&self) -> Result<(), SeedError> {
        let wrong = |why: &str| {
            Err(SeedError::License {
                id: self.id,
                why: why.to_owned(),
            })
        };
        if self.license_key.is_some() == self.username.is_some() {
            return wrong("give exactly one of `license_key` and `username`");
        }
        if self.reset_consumption && self.consumption_period.is_none() {
            return wrong("`reset_consumption` needs a `consumption_period`");
        }
        if self.max_overages < 0 || self.features.iter().any(|feature| feature.max_overages < 0) {
            return wrong("`max_overages` must be at least 0");
        }
        Ok(())
    }

    /// Who holds it.
    pub fn holder(&self) -> Holder {
        match (&self.license_key, &self.username) {
            (Some(key), _) => Holder::LicenseKey(key.clone()),
            (None, name) => Holder::Username(name.clone().unwrap_or_default()),
        }
    }

    /// How it stands, where its totals were right at `as_of`.
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

    /// Sets totals of an earlier period to zero.
    pub fn turn_periods(&mut self, as_of: Timestamp, now: Timestamp) {
        self.total_consumptions = self.standing(as_of).total_at(now);
        for feature in &mut self.features {
            feature.total_consumptions = feature.standing(as_of).total_at(now);
        }
    }

    /// Whether it may no longer be consumed at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        is_over(
            self.validity_period,
            self.allow_grace_period.then_some(self.grace_period),
            now,
        )
    }

    /// The answer of `add_consumption`.
    pub fn counter(&self, now: Timestamp) -> Counter {
        Counter::new(self.id, &self.standing(now), self.total_consumptions)
    }

    /// The answer of `check_license`, without its signature.
    pub fn body(&self, now: Timestamp) -> LicenseBody {
        LicenseBody {
            counter: self.counter(now),
            license_type: self.license_type.clone(),
            license_active: self.license_active,
            license_enabled: self.license_enabled,
            is_expired: is_over(self.validity_period, None, now),
            validity_period: self.validity_period,
            allow_grace_period: self.allow_grace_period,
            grace_period: self.grace_period,
            product_features: self
                .features
                .iter()
                .map(|feature| feature.counter(self.id))
                .collect(),
            license_signature: String::new(),
            other: serde_json::Map::new(),
        }
    }
}

impl Feature {
    /// How it stands, where its total was right at `as_of`.
    pub fn standing(&self, as_of: Timestamp) -> Standing {
        self.counter(0).standing(as_of)
    }

    /// The answer of `add_feature_consumption`.
    pub fn counter(&self, license_id: i64) -> FeatureCounter {
        FeatureCounter {
            id: if self.id == 0 { license_id } else { self.id },
            code: self.code.clone(),
            name: if self.name.is_empty() {
                self.code.clone()
            } else {
                self.name.clone()
            },
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

fn consumption() -> String {
    LICENSE_TYPE_CONSUMPTION.to_owned()
}

fn feature_consumption() -> String {
    FEATURE_TYPE_CONSUMPTION.to_owned()
}

const fn yes() -> bool {
    true
}

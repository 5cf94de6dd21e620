//! The order in which a request is checked, where several things are wrong with it (contract, "Limits,
//! as the server applies them").
//!
//! [`read`] is JSON and shape. [`answer`] reads from top to bottom: product, licence, then
//! [`LICENSE_CHECKS`], then negative and limit, which are [`apply::add`]'s. Headers and signature come
//! before all of it, and the idempotency key is looked up between the two.

use tally_shared::{
    signature::Signer,
    time::Timestamp,
    wire::{
        AddConsumption, ApiError, CheckLicense, ErrorCode, LicenseBody, Subject,
        check_license::is_over,
    },
};

use super::{endpoint::Endpoint, error::Failure, incoming::Incoming};
use crate::{
    engine::{
        activity::Activity,
        answer::Answer,
        apply,
        state::{DeviceState, Feature, License},
    },
    store::Tx,
};

/// A check of a licence that was found.
type Check = fn(&License, &Asked, Timestamp) -> Result<(), ApiError>;

/// The checks of a licence, in order.
const LICENSE_CHECKS: [Check; 6] = [
    is_enabled,
    is_active,
    is_not_expired,
    is_of_the_type,
    is_on_an_active_device,
    has_the_feature,
];

/// A request whose shape is right.
pub(super) enum Asked {
    Add(AddConsumption),
    Check(CheckLicense),
}

/// Checks an authenticated request whose shape is right, makes its change and answers it, with the row of the activity
/// log where there is one. A refusal changes nothing.
pub(super) fn answer(
    tx: &Tx<'_>,
    asked: &Asked,
    signer: &Signer,
    now: Timestamp,
) -> Result<(Answer, Option<Activity>), Failure> {
    let license = find(tx, asked.subject(), now)?;
    for check in LICENSE_CHECKS {
        check(&license, asked, now)?;
    }
    match asked {
        Asked::Add(add) => {
            let granted = apply::add(license, add, now)?;
            tx.put_license(&granted.license, now)?;
            let activity = tx.add_activity(granted.activity)?;
            Ok((Answer::signed(&granted.counter, signer)?, Some(activity)))
        }
        Asked::Check(check) => {
            let body = whole_license(&license, &check.subject, signer, now)?;
            Ok((Answer::signed(&body, signer)?, None))
        }
    }
}

/// Reads a request strictly.
pub(super) fn read(incoming: &Incoming) -> Result<Asked, ApiError> {
    match incoming.endpoint {
        Endpoint::AddConsumption => AddConsumption::from_json(incoming.body()?).map(Asked::Add),
        Endpoint::AddFeatureConsumption => {
            AddConsumption::feature_from_json(incoming.body()?).map(Asked::Add)
        }
        Endpoint::CheckLicense => {
            CheckLicense::from_query(incoming.parameters()?).map(Asked::Check)
        }
    }
}

fn find(tx: &Tx<'_>, subject: &Subject, now: Timestamp) -> Result<License, Failure> {
    if !tx.has_product(&subject.product)? {
        let message = format!("there is no product `{}`", subject.product);
        return Err(ApiError::new(ErrorCode::UnknownProduct, message).into());
    }
    let found = tx.find_license(subject, now)?;
    found.ok_or_else(|| {
        let message = format!(
            "there is no such licence for this {} and product `{}`",
            subject.holder.field(),
            subject.product
        );
        ApiError::new(ErrorCode::LicenseNotFound, message).into()
    })
}

fn is_enabled(license: &License, _: &Asked, _: Timestamp) -> Result<(), ApiError> {
    require(
        license.license_enabled,
        ErrorCode::LicenseNotEnabled,
        || "the licence was disabled by its vendor".to_owned(),
    )
}

fn is_active(license: &License, _: &Asked, _: Timestamp) -> Result<(), ApiError> {
    require(license.is_active(), ErrorCode::LicenseNotActive, || {
        "the licence is not active, or has no active device".to_owned()
    })
}

fn is_not_expired(license: &License, _: &Asked, now: Timestamp) -> Result<(), ApiError> {
    require(!license.is_over(now), ErrorCode::LicenseExpired, || {
        let end = license.validity_period.unwrap_or_default();
        format!("the licence was valid until {end}")
    })
}

/// Only `add_consumption` needs a licence of type consumption: a licence of any type may have features
/// that are consumed, and may be read.
fn is_of_the_type(license: &License, asked: &Asked, _: Timestamp) -> Result<(), ApiError> {
    let fits = match asked {
        Asked::Add(add) => add.feature.is_some() || license.is_consumption(),
        Asked::Check(_) => true,
    };
    require(fits, ErrorCode::LicenseNotConsumption, || {
        format!("the licence is of type `{}`", license.license_type)
    })
}

/// An inactive device is treated as one that the licence never had.
fn is_on_an_active_device(license: &License, asked: &Asked, _: Timestamp) -> Result<(), ApiError> {
    let hardware_id = &asked.subject().hardware_id;
    match license.device(hardware_id) {
        Some(DeviceState::Active) => Ok(()),
        Some(DeviceState::Blacklisted) => Err(ApiError::new(
            ErrorCode::Blacklisted,
            format!("the device `{hardware_id}` is blacklisted"),
        )),
        Some(DeviceState::Inactive) | None => Err(ApiError::new(
            ErrorCode::DeviceNotFound,
            format!("the licence has no active device `{hardware_id}`"),
        )),
    }
}

fn has_the_feature(license: &License, asked: &Asked, _: Timestamp) -> Result<(), ApiError> {
    let Some(code) = asked.feature() else {
        return Ok(());
    };
    let found = license.consumption_feature(code);
    found.map(drop).ok_or_else(|| apply::unsupported(code))
}

fn require(holds: bool, code: ErrorCode, message: impl FnOnce() -> String) -> Result<(), ApiError> {
    if holds {
        return Ok(());
    }
    Err(ApiError::new(code, message()))
}

/// `is_expired` says that the validity period is over; while a grace period lasts, the licence can
/// still be used.
fn whole_license(
    license: &License,
    subject: &Subject,
    signer: &Signer,
    now: Timestamp,
) -> Result<LicenseBody, Failure> {
    let license_signature = signer
        .sign_license(subject, license.validity_period)
        .map_err(crate::engine::answer::AnswerError::from)?;
    let mut other = serde_json::Map::new();
    other.insert(
        "times_activated".to_owned(),
        license.active_devices().into(),
    );
    if let Some(pool) = &license.pool {
        let pool = serde_json::to_value(pool).map_err(crate::engine::answer::AnswerError::from)?;
        other.insert("pool".to_owned(), pool);
    }
    Ok(LicenseBody {
        counter: license.counter(),
        license_type: license.license_type.clone(),
        license_active: license.license_active,
        license_enabled: license.license_enabled,
        is_expired: is_over(license.validity_period, None, now),
        validity_period: license.validity_period,
        allow_grace_period: license.allow_grace_period,
        grace_period: license.grace_period,
        product_features: license.features.iter().map(Feature::counter).collect(),
        license_signature,
        other,
    })
}

impl Asked {
    const fn subject(&self) -> &Subject {
        match self {
            Self::Add(add) => &add.subject,
            Self::Check(check) => &check.subject,
        }
    }

    fn feature(&self) -> Option<&str> {
        match self {
            Self::Add(add) => add.feature.as_deref(),
            Self::Check(_) => None,
        }
    }
}

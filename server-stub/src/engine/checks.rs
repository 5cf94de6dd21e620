//! The order of checks between a request's shape and its limit (contract, "Limits").

use rusqlite::Connection;
use tally_shared::{
    time::Timestamp,
    wire::{
        AddConsumption, ApiError, ErrorCode, Subject, add_consumption::FEATURE_TYPE_CONSUMPTION,
        check_license::LICENSE_TYPE_CONSUMPTION,
    },
};

use super::{EngineError, store};
use crate::seed::{DeviceState, Feature, License};

/// Finds the licence that a request means, with its current totals, or the first thing that is wrong.
/// `adding` is the request to add units, if it is one.
pub(super) fn find(
    connection: &Connection,
    now: Timestamp,
    subject: &Subject,
    adding: Option<&AddConsumption>,
) -> Result<Result<License, ApiError>, EngineError> {
    let refuse = |code: ErrorCode, why: &str| Ok(Err(ApiError::new(code, why)));
    if !store::has_product(connection, &subject.product)? {
        return refuse(ErrorCode::UnknownProduct, "the product was not found");
    }
    let Some(license) = store::find_license(connection, now, subject)? else {
        let why = format!("no licence for this {}", subject.holder.field());
        return refuse(ErrorCode::LicenseNotFound, &why);
    };
    let wrong = of_license(&license, now)
        .or_else(|| adding.and_then(|request| of_type(&license, request)))
        .or_else(|| of_device(&license, &subject.hardware_id));
    Ok(match wrong {
        Some(error) => Err(error),
        None => Ok(license),
    })
}

/// The consumption feature of that code.
pub(super) fn feature<'a>(
    license: &'a mut License,
    code: &str,
) -> Result<&'a mut Feature, ApiError> {
    license
        .features
        .iter_mut()
        .find(|feature| feature.code == code && feature.feature_type == FEATURE_TYPE_CONSUMPTION)
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::UnsupportedProductFeature,
                format!("the licence has no consumption feature {code:?}"),
            )
        })
}

/// Enabled, active, expired.
fn of_license(license: &License, now: Timestamp) -> Option<ApiError> {
    if !license.license_enabled {
        return Some(ApiError::new(
            ErrorCode::LicenseNotEnabled,
            "the licence is disabled",
        ));
    }
    // A blacklisted device is told so, and not that the licence is inactive.
    let has_device = license
        .devices
        .iter()
        .any(|device| device.state != DeviceState::Inactive);
    if !license.license_active || !has_device {
        return Some(ApiError::new(
            ErrorCode::LicenseNotActive,
            "the licence is not active",
        ));
    }
    license
        .is_over(now)
        .then(|| ApiError::new(ErrorCode::LicenseExpired, "the validity period is over"))
}

/// A licence's own units need a licence of type consumption; a feature's do not.
fn of_type(license: &License, request: &AddConsumption) -> Option<ApiError> {
    let fits = request.feature.is_some() || license.license_type == LICENSE_TYPE_CONSUMPTION;
    (!fits).then(|| {
        ApiError::new(
            ErrorCode::LicenseNotConsumption,
            "the licence is not of type consumption",
        )
    })
}

/// Blacklisted before not found.
fn of_device(license: &License, hardware_id: &str) -> Option<ApiError> {
    let device = license
        .devices
        .iter()
        .find(|device| device.hardware_id == hardware_id);
    match device.map(|device| device.state) {
        Some(DeviceState::Active) => None,
        Some(DeviceState::Blacklisted) => Some(ApiError::new(
            ErrorCode::Blacklisted,
            "the device is blacklisted",
        )),
        Some(DeviceState::Inactive) | None => Some(ApiError::new(
            ErrorCode::DeviceNotFound,
            format!("no active device {hardware_id:?}"),
        )),
    }
}

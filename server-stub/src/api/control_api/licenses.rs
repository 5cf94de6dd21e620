//! `/stub/v1/licenses`: read, and replaced as a whole.

use axum::{
    body::Bytes,
    extract::{Path, State},
};
use tally_shared::wire::{ApiError, ErrorCode};

use super::{Answered, Stub, invalid, read};
use crate::{
    api::{error::Failure, reply, state::Shared},
    engine::state::License,
    seed::complete_licenses,
};

pub(super) async fn list(State(stub): Stub) -> Answered {
    let licenses = stub.blocking(|stub| {
        let now = stub.clock.now();
        Ok(stub.store().begin()?.licenses(now)?)
    });
    Ok(reply::json(&licenses.await?))
}

pub(super) async fn show(State(stub): Stub, Path(id): Path<String>) -> Answered {
    let id = license_id(&id)?;
    let found = stub.blocking(move |stub| {
        let now = stub.clock.now();
        Ok(stub.store().begin()?.license(id, now)?)
    });
    let found = found.await?.ok_or_else(|| {
        let message = format!("there is no licence with id {id}");
        ApiError::new(ErrorCode::NotFound, message)
    })?;
    Ok(reply::json(&found))
}

pub(super) async fn put(State(stub): Stub, Path(id): Path<String>, body: Bytes) -> Answered {
    let id = license_id(&id)?;
    let mut license: License = read(&body)?;
    if license.id != 0 && license.id != id {
        return Err(invalid(format!("`id` is {} and the path says {id}", license.id)).into());
    }
    license.id = id;
    let stored = stub.blocking(move |stub| replace(stub, license)).await?;
    Ok(reply::json(&stored))
}

/// Adds the licence, or puts it in the place of the one with its id; a feature without an id keeps that
/// of the feature whose code it has.
fn replace(stub: &Shared, mut license: License) -> Result<License, Failure> {
    let mut store = stub.store();
    let now = stub.clock.now();
    let tx = store.begin()?;
    let mut all = tx.licenses(now)?;
    let earlier = all.iter().position(|other| other.id == license.id);
    if let Some(earlier) = earlier.map(|index| all.remove(index)) {
        for feature in license
            .features
            .iter_mut()
            .filter(|feature| feature.id == 0)
        {
            let same = earlier.features.iter().find(|old| old.code == feature.code);
            feature.id = same.map_or(0, |old| old.id);
        }
    }
    let products = tx.products()?;
    let products: Vec<&str> = products.iter().map(String::as_str).collect();
    all.insert(0, license);
    complete_licenses(&mut all, &products).map_err(|mistake| invalid(mistake.to_string()))?;
    let license = all.swap_remove(0);
    tx.put_license(&license, now)?;
    tx.commit()?;
    Ok(license)
}

fn license_id(text: &str) -> Result<i64, ApiError> {
    let id = text.parse().ok().filter(|id| *id >= 1);
    id.ok_or_else(|| invalid(format!("{text:?} is not a licence id")))
}

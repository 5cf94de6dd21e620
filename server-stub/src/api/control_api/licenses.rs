//! `/stub/v1/licenses`: read, replaced as a whole, edited field by field, and removed.

use axum::{
    body::Bytes,
    extract::{Path, State},
};
use serde_json::{Map, Value};
use tally_shared::wire::ApiError;

use super::{Answered, Stub, read};
use crate::{
    api::reply,
    control::{self, invalid},
    engine::state::License,
};

pub(super) async fn list(State(stub): Stub) -> Answered {
    Ok(reply::json(&control::licenses(&stub).await?))
}

pub(super) async fn show(State(stub): Stub, Path(id): Path<String>) -> Answered {
    let license = control::license(&stub, license_id(&id)?).await?;
    Ok(reply::json(&license))
}

pub(super) async fn put(State(stub): Stub, Path(id): Path<String>, body: Bytes) -> Answered {
    let id = license_id(&id)?;
    let mut license: License = read(&body)?;
    if license.id != 0 && license.id != id {
        return Err(invalid(format!("`id` is {} and the path says {id}", license.id)).into());
    }
    license.id = id;
    Ok(reply::json(&control::put_license(&stub, license).await?))
}

pub(super) async fn patch(State(stub): Stub, Path(id): Path<String>, body: Bytes) -> Answered {
    let id = license_id(&id)?;
    let fields: Map<String, Value> = read(&body)?;
    Ok(reply::json(
        &control::patch_license(&stub, id, fields).await?,
    ))
}

pub(super) async fn remove(State(stub): Stub, Path(id): Path<String>) -> Answered {
    let license = control::remove_license(&stub, license_id(&id)?).await?;
    Ok(reply::json(&license))
}

fn license_id(text: &str) -> Result<i64, ApiError> {
    let id = text.parse().ok().filter(|id| *id >= 1);
    id.ok_or_else(|| invalid(format!("{text:?} is not a licence id")))
}

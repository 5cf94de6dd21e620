//! `/stub/v1/api_keys`: who may call the License API, added, changed and removed while the stub runs.

use axum::{
    body::Bytes,
    extract::{Path, State},
};

use super::{Answered, Stub, read};
use crate::{
    api::reply,
    control::{self, ApiKeyEdit},
};

pub(super) async fn list(State(stub): Stub) -> Answered {
    Ok(reply::json(&control::api_keys(&stub).await?))
}

pub(super) async fn show(State(stub): Stub, Path(name): Path<String>) -> Answered {
    Ok(reply::json(&control::api_key(&stub, &name).await?))
}

pub(super) async fn put(State(stub): Stub, Path(name): Path<String>, body: Bytes) -> Answered {
    let edit: ApiKeyEdit = read(&body)?;
    Ok(reply::json(&control::put_api_key(&stub, name, edit).await?))
}

pub(super) async fn remove(State(stub): Stub, Path(name): Path<String>) -> Answered {
    Ok(reply::json(&control::remove_api_key(&stub, name).await?))
}

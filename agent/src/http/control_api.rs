//! The agent's own API: state, drills, and what the command line needs.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Query, State, rejection::BytesRejection},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tally_shared::wire::{ErrorCode, Holder, Subject};

use super::{
    Api,
    answer::{Refused, Result, plain},
    look_up::look_up,
};
use crate::{
    core::{Core, event::Event, link::NetworkMode, report::Status},
    ledger::reader::{self, Page},
};

/// How long `POST /v1/sync` waits for things to settle.
const SYNC_WAIT_MAX: Duration = Duration::from_mins(1);

/// The body of `POST /v1/licenses`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddLicense {
    /// The product.
    pub product: String,
    /// The key, for key-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_key: Option<String>,
    /// The user, for user-based products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The licence, where a user holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_id: Option<i64>,
    /// The device.
    pub hardware_id: String,
}

/// The body of `PUT /v1/network`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNetwork {
    /// Whether the agent may use the network.
    pub mode: NetworkMode,
}

/// What `POST /v1/sync` answers.
#[derive(Debug, Serialize)]
pub struct SyncResult {
    /// Whether nothing is left to send but what is held.
    pub synced: bool,
    /// Everything at a glance, afterwards.
    pub status: Status,
}

type Body = std::result::Result<Bytes, BytesRejection>;

pub(super) async fn status(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?)
}

pub(super) async fn licenses(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?.licenses)
}

pub(super) async fn add_license(State(api): State<Api>, body: Body) -> Result<Response> {
    let request: AddLicense = read(&body?)?;
    let holder = match (request.license_key, request.username) {
        (Some(key), None) => Holder::LicenseKey(key),
        (None, Some(username)) => Holder::Username(username),
        _ => {
            return Err(Refused::new(
                ErrorCode::ValidationError,
                "give exactly one of `license_key` and `username`",
            ));
        }
    };
    let subject = Subject {
        product: request.product,
        holder,
        license_id: request.license_id,
        hardware_id: request.hardware_id,
    };
    look_up(&api, &subject).await?;
    let (product, value) = (subject.product, subject.holder.value().to_owned());
    let mut licenses = current_status(&api).await?.licenses;
    licenses.retain(|license| license.product == product && license.holder_value == value);
    plain(&licenses)
}

pub(super) async fn events(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response> {
    let path = api.ledger_path.clone();
    plain(&blocking(move || reader::rows(&path, page)).await??)
}

pub(super) async fn batches(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response> {
    let path = api.ledger_path.clone();
    let limit = page.limit.unwrap_or(reader::PAGE_MAX);
    plain(&blocking(move || reader::batches(&path, limit)).await??)
}

/// Tries everything now, and answers when nothing more is under way or due.
pub(super) async fn sync(State(api): State<Api>) -> Result<Response> {
    let mut pulse = api.ledger.pulse();
    let facts = pulse.borrow().facts;
    api.ledger.tell(Event::Nudge).await;
    let calm = pulse.wait_for(|pulse| pulse.facts > facts && !pulse.working);
    // After the longest wait the state is told as it is.
    let _ = tokio::time::timeout(SYNC_WAIT_MAX, calm).await;
    let status = current_status(&api).await?;
    plain(&SyncResult {
        synced: status.synced,
        status,
    })
}

pub(super) async fn set_network(State(api): State<Api>, body: Body) -> Result<Response> {
    let SetNetwork { mode } = read(&body?)?;
    api.ledger.tell(Event::SetNetwork(mode)).await;
    plain(&current_status(&api).await?.connection)
}

pub(super) async fn reload_apps(State(api): State<Api>) -> Result<Response> {
    blocking(move || api.apps.reload())
        .await?
        .map_err(|error| {
            Refused::new(
                ErrorCode::InternalError,
                format!("cannot read the applications: {error}"),
            )
        })?;
    plain(&serde_json::json!({}))
}

pub(super) async fn health(State(api): State<Api>) -> Result<Response> {
    // Answers only while the writer does.
    api.ledger.ask(|_, _| ()).await?;
    plain(&serde_json::json!({"status": "ok"}))
}

async fn current_status(api: &Api) -> Result<Status> {
    Ok(api.ledger.ask(Core::status).await?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::ValidationError
        } else {
            ErrorCode::InvalidJson
        };
        Refused::new(code, error.to_string())
    })
}

//! The agent's own API: state, drills, and what the command line needs.

use std::time::Duration;

use axum::{
    extract::{Path, Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tally_shared::wire::{ErrorCode, Holder, Subject};

use super::{
    Api,
    answer::{Refused, Result, plain},
    body::Posted,
    chart,
    look_up::look_up,
};
use crate::{
    core::{
        Core, Decision, book::BatchNo, event::Event, link::NetworkMode, refusal::Refusal,
        report::Status,
    },
    ledger::{
        explain,
        reader::{self, Page},
        storage::Storage,
        usage::{self, Question, Usage},
    },
};

/// A reason is a sentence or two, not a file.
const REASON_BYTES_MAX: usize = 2000;

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

/// The body of `POST /v1/batches/{batch}/resolve`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// What is decided.
    pub decision: Decision,
    /// Why; it stands in the ledger. Needed to waive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `POST /v1/batches/{batch}/resolve` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Resolved {
    /// The place in the ledger of the row that says so.
    pub seq: i64,
}

/// What `GET /v1/status` answers.
#[derive(Debug, Serialize)]
pub struct FullStatus {
    /// What the core knows.
    #[serde(flatten)]
    pub status: Status,
    /// The licence server's address.
    pub server: String,
    /// Whether the ledger can be written.
    pub storage: Storage,
    /// What to do where it cannot.
    pub storage_advice: Option<&'static str>,
    /// How many requests came with a wrong key since the start.
    pub wrong_keys: u64,
}

/// What `POST /v1/sync` answers.
#[derive(Debug, Serialize)]
pub struct SyncResult {
    /// Whether nothing is left to send but what is held.
    pub synced: bool,
    /// Everything at a glance, afterwards.
    pub status: FullStatus,
}

pub(super) async fn status(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?)
}

pub(super) async fn licenses(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?.status.licenses)
}

pub(super) async fn add_license(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let request: AddLicense = read(&body)?;
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
    let mut licenses = current_status(&api).await?.status.licenses;
    licenses.retain(|license| license.product == product && license.holder_value == value);
    plain(&licenses)
}

pub(super) async fn events(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response> {
    let path = api.ledger_path.clone();
    plain(&blocking(move || reader::rows(&path, &page)).await??)
}

pub(super) async fn batches(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response> {
    let path = api.ledger_path.clone();
    let limit = page.limit.unwrap_or(reader::PAGE_MAX);
    plain(&blocking(move || reader::batches(&path, limit)).await??)
}

/// Why a consumption was granted.
pub(super) async fn explain_row(State(api): State<Api>, Path(seq): Path<i64>) -> Result<Response> {
    let path = api.ledger_path.clone();
    let explained = blocking(move || explain::explain(&path, seq)).await??;
    let none = "there is no such row: the number is beyond the newest, or the row was folded";
    plain(&explained.ok_or_else(|| Refused::new(ErrorCode::NotFound, none))?)
}

/// What was refused of late, and why.
pub(super) async fn refusals(State(api): State<Api>) -> Result<Response> {
    let kept = api.ledger.ask(|core, _| core.refusals().cloned().collect());
    let kept: Vec<Refusal> = kept.await?;
    let path = api.ledger_path.clone();
    plain(&blocking(move || reader::refusals(&path, &kept)).await??)
}

/// What was consumed of a licence over time.
pub(super) async fn usage(
    State(api): State<Api>,
    Query(question): Query<Question>,
) -> Result<Response> {
    plain(&read_usage(&api, question).await?)
}

/// The same, drawn.
pub(super) async fn usage_chart(
    State(api): State<Api>,
    Query(question): Query<Question>,
) -> Result<Response> {
    let drawn = chart::draw(&read_usage(&api, question).await?);
    Ok(([(CONTENT_TYPE, "image/svg+xml")], drawn).into_response())
}

async fn read_usage(api: &Api, question: Question) -> Result<Usage> {
    let wanted = question.clone();
    let found = api.ledger.ask(move |core, now| {
        let licenses = core.status(now).licenses.into_iter();
        let mut found = licenses.filter(|license| {
            license.product == wanted.product
                && license.holder_value == wanted.license
                && license.feature == wanted.feature
                && wanted.id.is_none_or(|id| license.id == id)
        });
        found.next().map(|license| (now.time, license.period))
    });
    let (now, period) = found.await?.ok_or_else(|| {
        Refused::new(
            ErrorCode::NotFound,
            "no such licence or feature is known here",
        )
    })?;
    let path = api.ledger_path.clone();
    Ok(blocking(move || usage::usage(&path, &question, now, period)).await??)
}

/// Decides what became of a held batch.
pub(super) async fn resolve(
    State(api): State<Api>,
    Path(batch): Path<i64>,
    Posted(body): Posted,
) -> Result<Response> {
    let Resolve { decision, reason } = read(&body)?;
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    if decision == Decision::Waive && reason.is_none() {
        return Err(Refused::new(
            ErrorCode::ValidationError,
            "`reason` is needed to waive a batch: it stands in the ledger",
        ));
    }
    let length = reason.as_ref().map_or(0, String::len);
    if length > REASON_BYTES_MAX {
        return Err(Refused::new(
            ErrorCode::ValidationError,
            format!("`reason` has {length} bytes; at most {REASON_BYTES_MAX} are kept"),
        ));
    }
    let seq = api.ledger.resolve(BatchNo(batch), decision, reason).await?;
    plain(&Resolved { seq: seq.0 })
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
        synced: status.status.synced,
        status,
    })
}

pub(super) async fn set_network(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let SetNetwork { mode } = read(&body)?;
    api.ledger.tell(Event::SetNetwork(mode)).await;
    plain(&current_status(&api).await?.status.connection)
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
    let _slot = api.slots.take()?;
    // Answers only while the writer does.
    api.ledger.ask(|_, _| ()).await?;
    plain(&serde_json::json!({"status": "ok"}))
}

pub(super) async fn current_status(api: &Api) -> Result<FullStatus> {
    let status = api.ledger.ask(Core::status).await?;
    let storage = api.ledger.pulse().borrow().storage;
    Ok(FullStatus {
        status,
        server: api.client.shown_url(),
        storage,
        storage_advice: (storage != Storage::Ok).then(|| storage.advice()),
        wrong_keys: api.strangers.met(),
    })
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

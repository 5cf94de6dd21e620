//! The agent's own API: state, drills, and what the command line needs.

use std::time::Duration;

use axum::{
    extract::{Path, Query, State},
    http::header::{CONTENT_TYPE, HeaderName},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tally_shared::wire::ErrorCode;

use super::{
    Api,
    answer::{Refused, Result, plain},
    body::Posted,
    chart,
};
use crate::{
    core::{
        Core, Decision, DeviceIs,
        book::{BatchNo, Seq},
        event::Event,
        link::NetworkMode,
        refusal::Refusal,
        report::Status,
    },
    ledger::{
        engine::Resolution,
        explain,
        reader::{self, BatchPage, Page},
        storage::Storage,
        usage::{self, Question, Usage},
    },
};

/// How many of the newest rows were looked through, where there are more.
pub(crate) const SEARCHED: HeaderName = HeaderName::from_static("tally-searched");

/// A reason is a sentence or two, not a file.
const REASON_BYTES_MAX: usize = 2000;

/// How long `POST /v1/sync` waits for things to settle.
const SYNC_WAIT_MAX: Duration = Duration::from_mins(1);

/// The body of `PUT /v1/network`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetNetwork {
    /// Whether the agent may use the network.
    pub mode: NetworkMode,
}

/// The body of `POST /v1/batches/{batch}/resolve`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resolve {
    /// What is decided.
    pub decision: Decision,
    /// Why; it stands in the ledger. Needed to waive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `POST /v1/server/moved`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerMoved {
    /// Why; it stands in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `POST /v1/findings/{finding}/seen`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Seen {
    /// What was found out; it stands in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `POST /v1/device`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// Whether the original of the copy lives on (`new`) or is gone (`moved`).
    pub device: DeviceIs,
    /// Why; it stands in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `POST /v1/batches/{batch}/resolve`, `POST /v1/server/moved`, `POST /v1/device` and
/// `POST /v1/findings/{finding}/seen` answer.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resolved {
    /// The place in the ledger of the row that says so.
    pub seq: i64,
}

/// What `GET /v1/status` answers.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// How often the ledger was written back since the agent started: it had been deleted or moved away.
    pub written_back: u64,
    /// The file system that the data directory is on, where a ledger is not safe on it.
    pub risky_file_system: Option<RiskyFileSystem>,
    /// How many requests came with a wrong key since the start.
    pub wrong_keys: u64,
}

/// A file system that a ledger should not be on.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RiskyFileSystem {
    /// Its name, such as `NFS` or `tmpfs`.
    pub name: &'static str,
    /// Why.
    pub risk: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// What `POST /v1/sync` answers.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncResult {
    /// Whether nothing is left to send but what is held.
    pub synced: bool,
    /// Everything at a glance, afterwards.
    pub status: FullStatus,
}

/// Everything at a glance.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/status", operation_id = "read_status", tag = "state",
    responses((status = 200, description = "The state", body = FullStatus)),
))]
pub(super) async fn status(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?)
}

/// The ledger's rows, oldest first; the newest ones unless `after` is given.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "ledger", params(Page),
    responses((status = 200, description = "The rows", body = Vec<reader::LogRow>, headers(
        ("Tally-Searched" = i64, description = "Only where older rows may be wanted as well and were not looked at: \
            how many of the newest rows were looked through"),
    ))),
))]
pub(super) async fn events(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response> {
    let path = api.ledger_path.clone();
    let found = blocking(move || reader::rows(&path, &page)).await??;
    let mut answer = plain(&found.rows)?;
    if let Some(searched) = found.searched {
        answer.headers_mut().insert(SEARCHED, searched.into());
    }
    Ok(answer)
}

/// The newest batches, newest first.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/batches", operation_id = "list_batches", tag = "ledger", params(BatchPage),
    responses((status = 200, description = "The batches", body = Vec<reader::BatchRow>)),
))]
pub(super) async fn batches(
    State(api): State<Api>,
    Query(page): Query<BatchPage>,
) -> Result<Response> {
    let path = api.ledger_path.clone();
    plain(&blocking(move || reader::batches(&path, page)).await??)
}

/// Why a consumption was granted.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/events/{seq}", operation_id = "explain_event", tag = "ledger",
    params(("seq" = i64, Path, description = "The place of the row")),
    responses((status = 200, description = "The row, and what it was judged by", body = explain::Explained)),
))]
pub(super) async fn explain_row(State(api): State<Api>, Path(seq): Path<i64>) -> Result<Response> {
    let path = api.ledger_path.clone();
    let explained = blocking(move || explain::explain(&path, seq)).await??;
    let none = "there is no such row: the number is beyond the newest, or the row was folded";
    plain(&explained.ok_or_else(|| Refused::new(ErrorCode::NotFound, none))?)
}

/// What was refused of late, and why.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/refusals", operation_id = "list_refusals", tag = "ledger",
    responses((status = 200, description = "The refusals since the agent started, oldest first", body = Vec<reader::RefusalRow>)),
))]
pub(super) async fn refusals(State(api): State<Api>) -> Result<Response> {
    let kept = api.ledger.ask(|core, _| core.refusals().cloned().collect());
    let kept: Vec<Refusal> = kept.await?;
    let path = api.ledger_path.clone();
    plain(&blocking(move || reader::refusals(&path, &kept)).await??)
}

/// What was consumed of a licence over time.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/usage", operation_id = "read_usage", tag = "state", params(Question),
    responses((status = 200, description = "What was consumed", body = Usage)),
))]
pub(super) async fn usage(
    State(api): State<Api>,
    Query(question): Query<Question>,
) -> Result<Response> {
    plain(&read_usage(&api, question).await?)
}

/// How the chart is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Chart {
    /// How wide it is shown, in pixels of a page.
    width: Option<i64>,
}

/// The same, drawn.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/usage.svg", operation_id = "draw_usage", tag = "state",
    params(Question, ("width" = Option<i64>, Query, description = "How wide it is shown, in pixels of a page")),
    responses((status = 200, description = "A drawing", body = String, content_type = "image/svg+xml")),
))]
pub(super) async fn usage_chart(
    State(api): State<Api>,
    Query(question): Query<Question>,
    Query(Chart { width }): Query<Chart>,
) -> Result<Response> {
    let drawn = chart::draw(&read_usage(&api, question).await?, width);
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
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/batches/{batch}/resolve", operation_id = "resolve_batch", tag = "ledger",
    params(("batch" = i64, Path, description = "The number of the batch")),
    request_body(content = Resolve, example = json!({"decision": "applied", "reason": "the activity log shows it"})),
    responses((status = 200, description = "It is decided", body = Resolved)),
))]
pub(super) async fn resolve(
    State(api): State<Api>,
    Path(batch): Path<i64>,
    Posted(body): Posted,
) -> Result<Response> {
    let Resolve { decision, reason } = read(&body)?;
    let reason = check_reason(reason)?;
    if decision == Decision::Waive && reason.is_none() {
        return Err(Refused::new(
            ErrorCode::ValidationError,
            "`reason` is needed to waive a batch: it stands in the ledger",
        ));
    }
    let resolution = Resolution::Batch(BatchNo(batch), decision);
    let seq = api.ledger.resolve(resolution, reason).await?;
    plain(&Resolved { seq: seq.0 })
}

/// Says that the licence server which is used now is the one that what is owed was recorded for, under
/// another address.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/server/moved", operation_id = "server_moved", tag = "ledger",
    request_body(content = ServerMoved, example = json!({"reason": "the vendor's new address"})),
    responses((status = 200, description = "What is owed is sent to it from here on", body = Resolved)),
))]
pub(super) async fn server_moved(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let ServerMoved { reason } = read(&body)?;
    let reason = check_reason(reason)?;
    let seq = api.ledger.resolve(Resolution::ServerMoved, reason).await?;
    plain(&Resolved { seq: seq.0 })
}

/// Says that somebody has seen a finding: it is shown no more, and stays in the ledger.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/findings/{finding}/seen", operation_id = "see_finding", tag = "ledger",
    params(("finding" = i64, Path, description = "The place of the finding in the ledger")),
    request_body(content = Seen, example = json!({"reason": "the vendor took the second request off"})),
    responses((status = 200, description = "It is shown no more", body = Resolved)),
))]
pub(super) async fn see_finding(
    State(api): State<Api>,
    Path(finding): Path<i64>,
    Posted(body): Posted,
) -> Result<Response> {
    let Seen { reason } = read(&body)?;
    let reason = check_reason(reason)?;
    let seen = Resolution::Finding(Seq(finding));
    let seq = api.ledger.resolve(seen, reason).await?;
    plain(&Resolved { seq: seq.0 })
}

/// Says what this device is, where its ledger is a copy: a new one, whose original lives on, or the original, moved or put
/// back.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/device", operation_id = "device_is", tag = "ledger",
    request_body(content = Device, example = json!({"device": "moved", "reason": "the disk is in another machine now"})),
    responses((status = 200, description = "It is so from here on", body = Resolved)),
))]
pub(super) async fn device_is(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let Device { device, reason } = read(&body)?;
    let reason = check_reason(reason)?;
    let seq = api
        .ledger
        .resolve(Resolution::Device(device), reason)
        .await?;
    plain(&Resolved { seq: seq.0 })
}

/// A reason that says something, and is not too long.
pub(super) fn check_reason(reason: Option<String>) -> Result<Option<String>> {
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    let length = reason.as_ref().map_or(0, String::len);
    if length > REASON_BYTES_MAX {
        return Err(Refused::new(
            ErrorCode::ValidationError,
            format!("`reason` has {length} bytes; at most {REASON_BYTES_MAX} are kept"),
        ));
    }
    Ok(reason)
}

/// Tries everything now, and answers when nothing more is under way or due.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/sync", tag = "state",
    responses((status = 200, description = "When nothing more is under way, or after a minute", body = SyncResult)),
))]
pub(super) async fn sync(State(api): State<Api>) -> Result<Response> {
    let mut pulse = api.ledger.pulse();
    let facts = pulse.borrow().facts;
    api.ledger.tell(Event::Nudge).await;
    api.waiting.wake();
    let calm = pulse.wait_for(|pulse| pulse.facts > facts && !pulse.working);
    // After the longest wait the state is told as it is.
    let _ = tokio::time::timeout(SYNC_WAIT_MAX, calm).await;
    let status = current_status(&api).await?;
    plain(&SyncResult {
        synced: status.status.synced,
        status,
    })
}

/// Switches the network for a drill.
#[cfg_attr(feature = "openapi", utoipa::path(
    put, path = "/v1/network", tag = "state",
    request_body(content = SetNetwork, example = json!({"mode": "offline"})),
    responses((status = 200, description = "The connection", body = crate::core::report::Connection)),
))]
pub(super) async fn set_network(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let SetNetwork { mode } = read(&body)?;
    api.ledger.tell(Event::SetNetwork(mode)).await;
    api.waiting.wake();
    plain(&current_status(&api).await?.status.connection)
}

/// Whether the agent can take work.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/healthz", tag = "state", security(()),
    responses((status = 200, description = "It can", body = serde_json::Value, example = json!({"status": "ok"}))),
))]
pub(super) async fn health(State(api): State<Api>) -> Result<Response> {
    let _slot = api.slots.take_for(&api.keyless)?;
    // Answers only while the writer does.
    api.ledger.ask(|_, _| ()).await?;
    plain(&serde_json::json!({"status": "ok"}))
}

pub(super) async fn current_status(api: &Api) -> Result<FullStatus> {
    let status = api.ledger.ask(Core::status).await?;
    let pulse = *api.ledger.pulse().borrow();
    let storage = pulse.storage;
    Ok(FullStatus {
        status,
        server: api.client.shown_url(),
        storage,
        written_back: pulse.written_back,
        risky_file_system: api.risky.map(|risky| RiskyFileSystem {
            name: risky.name,
            risk: risky.risk(),
            advice: risky.advice(),
        }),
        storage_advice: (storage != Storage::Ok).then(|| storage.advice()),
        wrong_keys: api.strangers.met(),
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::ValidationError
        } else {
            ErrorCode::InvalidJson
        };
        Refused::new(code, error.to_string())
    })
}

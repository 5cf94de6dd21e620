//! Which licences are known here: adding, reading anew, taking in, and forgetting them.

use std::time::Duration;

use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tally_shared::{
    time::Timestamp,
    wire::{ApiError, ErrorCode, Holder, Subject},
};

use super::{
    Api,
    answer::{Refused, plain},
    body::Posted,
    control_api::{check_reason, current_status, read},
    look_up::{Asked, TOLD_OF_ANOTHER, ask_for, look_up},
};
use crate::{
    core::{
        Core,
        book::{License, LicenseNo},
        event::Event,
        report::LicenseStatus,
    },
    ledger::engine::lock,
};

type Result<T, E = Refused> = std::result::Result<T, E>;

/// How long names that wait are left alone after the server was not reached; then twice that, and so on.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// But no longer than this, so that a device that meets the network for some minutes gets them.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// How long names that the server refuses are left alone.
const RETRY_REFUSED: Duration = Duration::from_mins(15);

/// How a licence is named: the body of `POST /v1/licenses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// The body of `POST /v1/licenses/import`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportLicense {
    /// How it is named.
    pub license: AddLicense,
    /// The server's answer to `check_license` for it, as it came, to the byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The header `LicenseSignature` of that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Have it wait for the next contact, and do not ask the server now.
    #[serde(default)]
    pub later: bool,
}

/// What `POST /v1/licenses/import` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Imported {
    /// What came of it.
    pub outcome: ImportOutcome,
    /// Why it waits, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The place in the ledger of the row that says so, where it was taken in by a signed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
}

/// What importing a licence comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// It was known on this device already; what is known stays as it is.
    Known,
    /// The server was asked, and it is known.
    Added,
    /// It is known by the signed answer.
    Imported,
    /// Its name is kept: the server is asked at the next contact.
    Waiting,
}

/// Which licence: the query of `/v1/license`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct Named {
    /// The product.
    pub product: String,
    /// The licence: its key, or its user.
    pub license: String,
    /// The server's id of the licence, where a user holds several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Why, for the ledger, where it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything known of a licence. Fields are added, never changed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LicenseDetail {
    /// The server's id of the licence.
    pub id: i64,
    /// The product.
    pub product: String,
    /// `license_key` or `username`.
    pub holder: &'static str,
    /// The key or the user.
    pub holder_value: String,
    /// `consumption`, or another type that cannot be consumed.
    pub license_type: String,
    /// Whether the vendor has it enabled.
    pub license_enabled: bool,
    /// Whether it has an active device.
    pub license_active: bool,
    /// The end of its validity period; `null` where it has none.
    pub validity_period: Option<Timestamp>,
    /// For how many hours it goes on after that.
    pub grace_hours: u32,
    /// Why the server refuses the whole licence, if it does.
    pub refused: Option<&'static str>,
    /// The devices that it is known with.
    pub devices: Vec<DeviceDetail>,
    /// The keys and users that open it, by device. Empty where none does any more: the server no longer knows it by a
    /// name that this agent knows.
    pub names: Vec<NameDetail>,
    /// Its own counter, then those of its features.
    pub counters: Vec<LicenseStatus>,
}

/// A device of a licence.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceDetail {
    /// Its id.
    pub hardware_id: String,
    /// Why the server refuses it, if it does.
    pub refused: Option<&'static str>,
}

/// A key or a user that opens a licence on a device.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NameDetail {
    /// `license_key` or `username`.
    pub holder: &'static str,
    /// The key or the user.
    pub holder_value: String,
    /// The device.
    pub hardware_id: String,
    /// Whether requests under this name that give no `license_id` are for this licence.
    pub is_default: bool,
}

/// What `DELETE /v1/license` answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forgotten {
    /// The place in the ledger of the row that says so; `null` where only its name waited.
    pub seq: Option<i64>,
}

impl From<Subject> for AddLicense {
    fn from(subject: Subject) -> Self {
        let (license_key, username) = match subject.holder {
            Holder::LicenseKey(key) => (Some(key), None),
            Holder::Username(name) => (None, Some(name)),
        };
        Self {
            product: subject.product,
            license_key,
            username,
            license_id: subject.license_id,
            hardware_id: subject.hardware_id,
        }
    }
}

impl TryFrom<AddLicense> for Subject {
    type Error = ApiError;

    fn try_from(named: AddLicense) -> Result<Self, ApiError> {
        let holder = match (named.license_key, named.username) {
            (Some(key), None) => Holder::LicenseKey(key),
            (None, Some(username)) => Holder::Username(username),
            _ => {
                return Err(ApiError::new(
                    ErrorCode::ValidationError,
                    "give exactly one of `license_key` and `username`",
                ));
            }
        };
        Ok(Self {
            product: named.product,
            holder,
            license_id: named.license_id,
            hardware_id: named.hardware_id,
        })
    }
}

impl AddLicense {
    /// Whether this is the name of it, on whatever device.
    fn is(&self, named: &Named) -> bool {
        let holder = self.license_key.as_ref().or(self.username.as_ref());
        self.product == named.product
            && holder == Some(&named.license)
            && (named.id.is_none() || self.license_id.is_none() || self.license_id == named.id)
    }
}

/// The licences, each with its counters.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/licenses", operation_id = "list_licenses", tag = "licences",
    responses((status = 200, description = "Each licence and feature", body = Vec<LicenseStatus>)),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Response> {
    plain(&current_status(&api).await?.status.licenses)
}

/// Reads a licence's limits from the server and makes it known on a device.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/licenses", operation_id = "add_license", tag = "licences", request_body = AddLicense,
    responses((status = 200, description = "The licence and its features", body = Vec<LicenseStatus>)),
))]
pub(super) async fn add(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let subject = Subject::try_from(read::<AddLicense>(&body)?)?;
    look_up(&api, &subject).await?;
    let (product, value) = (subject.product, subject.holder.value().to_owned());
    let mut licenses = current_status(&api).await?.status.licenses;
    licenses.retain(|license| license.product == product && license.holder_value == value);
    plain(&licenses)
}

/// The names of licences that wait to be read from the server.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/licenses/waiting", operation_id = "list_waiting_licenses", tag = "licences",
    responses((status = 200, description = "Oldest first", body = Vec<crate::waiting::WaitingLicense>)),
))]
pub(super) async fn waiting(State(api): State<Api>) -> Result<Response> {
    plain(&api.waiting.list())
}

/// Makes a licence known: by an answer that the server signed, by asking the server, or at the next contact.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/licenses/import", operation_id = "import_license", tag = "licences", request_body = ImportLicense,
    responses((status = 200, description = "What came of it", body = Imported)),
))]
pub(super) async fn import(State(api): State<Api>, Posted(body): Posted) -> Result<Response> {
    let import: ImportLicense = read(&body)?;
    let subject = Subject::try_from(import.license)?;
    let imported = match (import.answer, import.signature) {
        (Some(answer), Some(signature)) => take_in(&api, &subject, answer, &signature).await?,
        (None, None) => by_name(&api, &subject, import.later).await?,
        _ => {
            return Err(Refused::new(
                ErrorCode::ValidationError,
                "give `answer` and `signature` together: an answer without a signature proves nothing",
            ));
        }
    };
    plain(&imported)
}

async fn take_in(
    api: &Api,
    subject: &Subject,
    answer: String,
    signature: &str,
) -> Result<Imported> {
    let found = api.client.verify_saved(subject, answer, signature);
    let found = found.map_err(|why| Refused::new(ErrorCode::ValidationError, why.to_string()))?;
    let seq = api.ledger.take_in(found).await?;
    Ok(Imported {
        outcome: match seq {
            Some(_) => ImportOutcome::Imported,
            None => ImportOutcome::Known,
        },
        why: None,
        seq: seq.map(|seq| seq.0),
    })
}

async fn by_name(api: &Api, subject: &Subject, later: bool) -> Result<Imported> {
    let imported = |outcome, why| Imported {
        outcome,
        why,
        seq: None,
    };
    let asked = subject.clone();
    let is_known = api.ledger.ask(move |core, _| {
        let license = core.book().find(&asked);
        license.is_some_and(|license| license.devices.contains_key(&asked.hardware_id))
    });
    if is_known.await? {
        return Ok(imported(ImportOutcome::Known, None));
    }
    let why = if later {
        "it was asked to wait".to_owned()
    } else {
        match ask_for(api, subject).await? {
            Asked::Known => return Ok(imported(ImportOutcome::Added, None)),
            Asked::Refused(code, message) => return Err(Refused::new(code, message)),
            Asked::Another => TOLD_OF_ANOTHER.to_owned(),
            Asked::NotTold(why) => why,
        }
    };
    let now = lock(&api.clock).corrected(api.clocks.mono());
    api.waiting.add(subject, now).map_err(not_written)?;
    Ok(imported(ImportOutcome::Waiting, Some(why)))
}

/// Everything known of one licence.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/license", operation_id = "show_license", tag = "licences", params(Named),
    responses((status = 200, description = "The licence", body = LicenseDetail)),
))]
pub(super) async fn show(State(api): State<Api>, Query(named): Query<Named>) -> Result<Response> {
    let no = find(&api, &named).await?;
    let detail = api.ledger.ask(move |core, now| {
        let license = core.book().license(no)?;
        let mut counters = core.status(now).licenses;
        counters.retain(|counter| is_of(counter, license));
        Some(detail(core, license, counters))
    });
    plain(&detail.await?.ok_or_else(not_known)?)
}

/// Reads a licence from the server now.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/license/refresh", operation_id = "refresh_license", tag = "licences", params(Named),
    responses((status = 200, description = "The licence, as the server describes it", body = LicenseDetail)),
))]
pub(super) async fn refresh(
    State(api): State<Api>,
    Query(named): Query<Named>,
) -> Result<Response> {
    let no = find(&api, &named).await?;
    let subjects = api.ledger.ask(move |core, _| subjects(core, no)).await?;
    for subject in subjects {
        match ask_for(&api, &subject).await? {
            Asked::Known => {}
            Asked::Refused(code, message) => {
                let refused = Event::Refused {
                    license: no,
                    hardware_id: subject.hardware_id,
                    code,
                };
                api.ledger.tell(refused).await;
                return Err(Refused::new(code, message));
            }
            Asked::Another => return Err(not_read(TOLD_OF_ANOTHER)),
            Asked::NotTold(why) => return Err(not_read(&why)),
        }
    }
    show(State(api), Query(named)).await
}

/// Forgets a licence of which nothing is owed.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/v1/license", operation_id = "forget_license", tag = "licences", params(Named),
    responses((status = 200, description = "It is forgotten", body = Forgotten)),
))]
pub(super) async fn remove(State(api): State<Api>, Query(named): Query<Named>) -> Result<Response> {
    let reason = check_reason(named.reason.clone())?;
    let seq = match find(&api, &named).await {
        Ok(no) => api.ledger.forget(no, reason).await?,
        Err(error) => {
            let waited = api.waiting.remove(|waiting| waiting.is(&named));
            if waited.map_err(not_written)? == 0 {
                return Err(error);
            }
            return plain(&Forgotten { seq: None });
        }
    };
    api.waiting
        .remove(|waiting| waiting.is(&named))
        .map_err(not_written)?;
    plain(&Forgotten {
        seq: seq.map(|seq| seq.0),
    })
}

/// Reads the names that wait, when the server can be reached, until the agent stops.
pub(crate) async fn read_waiting(api: Api) {
    let mut pause = RETRY_MIN;
    loop {
        let names = api.waiting.list();
        let is_idle = names.is_empty();
        let mut is_told = true;
        for waiting in names {
            is_told = read_one(&api, waiting.license).await;
            if !is_told {
                break;
            }
        }
        let wait = if is_told { RETRY_REFUSED } else { pause };
        pause = if is_told {
            RETRY_MIN
        } else {
            pause.saturating_mul(2).min(RETRY_MAX)
        };
        tokio::select! {
            // Devices that were set up together do not come together.
            () = tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)), if !is_idle => {}
            () = api.waiting.woken() => {}
            () = api.stopping.cancelled() => return,
        }
    }
}

/// Whether the server said anything of it.
async fn read_one(api: &Api, license: AddLicense) -> bool {
    let asked = match Subject::try_from(license.clone()) {
        Ok(subject) => ask_for(api, &subject).await,
        Err(_) => return true,
    };
    match asked {
        Ok(Asked::Known) => {
            if let Err(error) = api.waiting.remove(|waiting| *waiting == license) {
                tracing::warn!(%error, "cannot note that a licence waits no longer");
            }
            true
        }
        Ok(Asked::Refused(code, _)) => {
            api.waiting.refuse(&license, code.as_str());
            true
        }
        Ok(Asked::Another) => {
            let code = ErrorCode::LicenseNotFound.as_str();
            api.waiting.refuse(&license, code);
            true
        }
        Ok(Asked::NotTold(_)) | Err(_) => false,
    }
}

async fn find(api: &Api, named: &Named) -> Result<LicenseNo> {
    let named = named.clone();
    let found = api.ledger.ask(move |core, _| {
        let book = core.book();
        let mut licenses = book.licenses().filter(|license| {
            let mut opened_by = book.names_of(license.no);
            license.product == named.product
                && (license.holder.value() == named.license
                    || opened_by.any(|(name, _)| name.holder.value() == named.license))
                && named.id.is_none_or(|id| license.server_id() == id)
                && !book.is_forgotten(license)
                && book.first_of(license).no == license.no
        });
        let first = licenses.next().map(|license| license.no);
        (first, licenses.next().is_some())
    });
    match found.await? {
        (Some(no), false) => Ok(no),
        (Some(_), true) => Err(Refused::new(
            ErrorCode::ValidationError,
            "this name is of several licences of the product: name one by `id`",
        )),
        (None, _) => Err(not_known()),
    }
}

/// How the server is asked about a licence: for a device that it accepts, and for each that it does not.
fn subjects(core: &Core, no: LicenseNo) -> Vec<Subject> {
    let Some(license) = core.book().license(no) else {
        return Vec::new();
    };
    let accepted = license.devices.iter().filter(|(_, code)| code.is_none());
    let refused = license.devices.iter().filter(|(_, code)| code.is_some());
    let devices = accepted.take(1).chain(refused);
    devices
        .map(|(device, _)| core.book().subject_of(license, device))
        .collect()
}

fn is_of(counter: &LicenseStatus, license: &License) -> bool {
    counter.id == license.server_id()
        && counter.product == license.product
        && counter.holder_value == license.holder.value()
}

fn detail(core: &Core, license: &License, counters: Vec<LicenseStatus>) -> LicenseDetail {
    let body = &license.body;
    LicenseDetail {
        id: license.server_id(),
        product: license.product.clone(),
        holder: license.holder.field(),
        holder_value: license.holder.value().to_owned(),
        license_type: body.license_type.clone(),
        license_enabled: body.license_enabled,
        license_active: body.license_active,
        validity_period: body.validity_period,
        grace_hours: if body.allow_grace_period {
            body.grace_period
        } else {
            0
        },
        refused: license.blocked.map(ErrorCode::as_str),
        devices: license
            .devices
            .iter()
            .map(|(hardware_id, refused)| DeviceDetail {
                hardware_id: hardware_id.clone(),
                refused: refused.map(ErrorCode::as_str),
            })
            .collect(),
        names: core
            .book()
            .names_of(license.no)
            .map(|(name, is_default)| NameDetail {
                holder: name.holder.field(),
                holder_value: name.holder.value().to_owned(),
                hardware_id: name.hardware_id.clone(),
                is_default,
            })
            .collect(),
        counters,
    }
}

fn not_read(why: &str) -> Refused {
    let message = format!("the licence was not read, and stays as it was known: {why}");
    Refused::new(ErrorCode::Unavailable, message)
}

fn not_known() -> Refused {
    Refused::new(
        ErrorCode::NotFound,
        "no such licence is known here; `tally license list` shows those that are",
    )
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_written(error: std::io::Error) -> Refused {
    let message = format!("the name of the licence cannot be kept: {error}");
    Refused::new(ErrorCode::StorageUnavailable, message)
}

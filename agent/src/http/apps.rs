//! Making and revoking key pairs of applications, by the agent that serves them: its user owns the files, and a revoked
//! key is refused from the moment on that is answered.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{header::AUTHORIZATION, request::Parts},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tally_shared::wire::ErrorCode;

use super::{
    Api,
    answer::{Refused, Result, plain},
    body::Posted,
    control_api::{blocking, read},
};
use crate::apps::{AppsError, KeyPair, rights::Rights};

/// The body of `POST /v1/apps`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddApp {
    /// What people call it; every row carries it.
    pub name: String,
    /// What it may do; everything, where nothing is said.
    #[serde(default)]
    pub rights: Rights,
    /// Whether answers to it are signed, as published SDKs want.
    #[serde(default = "signed")]
    pub sign_answers: bool,
}

const fn signed() -> bool {
    true
}

/// What `POST /v1/apps` answers.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppKeys {
    /// What people call it.
    pub name: String,
    /// Which key pair a request claims.
    pub api_key: String,
    /// What signs it. It is shown once, and stands in a file that the agent's user alone can read.
    pub shared_key: String,
    /// What it may do.
    pub rights: Rights,
}

/// What `DELETE /v1/apps/{name}` answers.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// The application that can no longer use the agent.
    pub name: String,
}

impl From<KeyPair> for AppKeys {
    fn from(keys: KeyPair) -> Self {
        Self {
            name: keys.name,
            api_key: keys.api_key,
            shared_key: keys.shared_key.expose().to_owned(),
            rights: keys.rights,
        }
    }
}

impl From<AppsError> for Refused {
    fn from(error: AppsError) -> Self {
        let code = match &error {
            AppsError::Name(_) | AppsError::Exists(_) => ErrorCode::ValidationError,
            AppsError::NotFound(_) => ErrorCode::NotFound,
            AppsError::Random(_) | AppsError::NotPrivate(_) | AppsError::File { .. } => {
                ErrorCode::InternalError
            }
        };
        Self::new(code, format!("{:#}", anyhow::Error::from(error)))
    }
}

/// Proof of the admin token. A browser that was let in is not enough: a key lasts longer than its session.
pub(super) struct ByToken;

impl FromRequestParts<Api> for ByToken {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self> {
        // What it holds was checked before.
        if parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self);
        }
        Err(Refused::new(
            ErrorCode::Unauthorized,
            "applications are made and revoked with the admin token, as `tally app` does",
        ))
    }
}

/// Makes a key pair for an application.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/apps", operation_id = "add_app", tag = "state",
    request_body(content = AddApp, example = json!({"name": "inspector", "rights": {"product": "inspect"}})),
    responses((status = 200, description = "It may call from here on", body = AppKeys)),
))]
pub(super) async fn add(
    State(api): State<Api>,
    _by: ByToken,
    Posted(body): Posted,
) -> Result<Response> {
    let AddApp {
        name,
        rights,
        sign_answers,
    } = read(&body)?;
    let keys = blocking(move || api.apps.add(&name, rights, sign_answers)).await??;
    plain(&AppKeys::from(keys))
}

/// Takes an application's key pair away.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/v1/apps/{name}", operation_id = "revoke_app", tag = "state",
    params(("name" = String, Path, description = "The name of the application")),
    responses((status = 200, description = "It can no longer use the agent", body = Revoked)),
))]
pub(super) async fn revoke(
    State(api): State<Api>,
    _by: ByToken,
    Path(name): Path<String>,
) -> Result<Response> {
    let revoked = name.clone();
    blocking(move || api.apps.revoke(&name)).await??;
    plain(&Revoked { name: revoked })
}

/// Reads the applications' key pairs again.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/apps/reload", tag = "state",
    responses((status = 200, description = "They are in force", body = serde_json::Value)),
))]
pub(super) async fn reload_apps(State(api): State<Api>) -> Result<Response> {
    blocking(move || api.apps.reload()).await??;
    plain(&serde_json::json!({}))
}

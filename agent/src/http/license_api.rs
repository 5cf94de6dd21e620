//! The License API, as the licence server speaks it.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::{
    http::{HeaderValue, Method, request::Parts},
    response::Response,
};
use hyper::body::Incoming;
use tally_shared::wire::{
    ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, AddConsumption, ApiError, CHECK_LICENSE,
    CheckLicense, ErrorCode, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX, LicenseBody, Subject,
};

use super::{
    Api,
    answer::{Refused, Result, apart, cannot_sign, licensed, method_not_allowed},
    auth::caller,
    body,
    connection::Connection,
    guard::Decisive,
    look_up::look_up_again,
};
use crate::{
    apps::App,
    core::{Standings, chain::Hash, report::LicenseView},
    ledger::{
        answers::{Answer, RequestKey},
        engine::RecordError,
    },
};

/// What may be asked.
#[derive(Clone, Copy)]
pub(super) enum Call {
    AddConsumption,
    AddFeatureConsumption,
    CheckLicense,
}

impl Call {
    /// What a path asks for, if it is one of the License API.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            ADD_CONSUMPTION => Some(Self::AddConsumption),
            ADD_FEATURE_CONSUMPTION => Some(Self::AddFeatureConsumption),
            CHECK_LICENSE => Some(Self::CheckLicense),
            _ => None,
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::AddConsumption | Self::AddFeatureConsumption => Method::POST,
            Self::CheckLicense => Method::GET,
        }
    }

    /// Answers it.
    pub(super) async fn answer(
        self,
        api: &Api,
        connection: &Connection,
        head: &Parts,
        decisive: &Decisive<'_>,
        body: Incoming,
    ) -> Result<Response> {
        if head.method != self.method() {
            return Err(method_not_allowed().await);
        }
        let consumes = !matches!(self, Self::CheckLicense);
        let app = caller(api, connection, decisive, consumes).await?;
        if !consumes {
            return check_license(api, &app, head.uri.query().unwrap_or_default()).await;
        }
        let body = body::read(body, &api.limits()).await?;
        let request = match self {
            Self::AddFeatureConsumption => AddConsumption::feature_from_json(&body)?,
            _ => AddConsumption::from_json(&body)?,
        };
        consume(api, &app, decisive.idempotency_key, &body, request).await
    }
}

async fn check_license(api: &Api, app: &App, query: &str) -> Result<Response> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| Refused::new(ErrorCode::ValidationError, error.to_string()))?;
    let CheckLicense { subject } = CheckLicense::from_query(pairs)?;
    app.rights().may_use(&subject)?;
    let _slot = api.slots.take_for(app.under_way())?;
    let view = if let Some(view) = view(api, &subject).await? {
        view
    } else {
        look_up_again(api, &subject).await?;
        view(api, &subject).await?.ok_or(RecordError::Unknown)?
    };
    let body = license_body(api, view, subject).await?;
    let body = serde_json::to_string(&body)
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))?;
    let answer = Answer {
        status: 200,
        body,
        replayed: false,
    };
    licensed(answer, false, app, &api.signer).await
}

async fn consume(
    api: &Api,
    app: &App,
    key: Option<&HeaderValue>,
    body: &[u8],
    request: AddConsumption,
) -> Result<Response> {
    app.rights().may_use(&request.subject)?;
    let key = request_key(key, &request, body)?;
    let _slot = api.slots.take_for(app.under_way())?;
    if let Some(key) = &key {
        app.bind(key, api.clocks.mono())?;
    }
    crate::fail_point!("http.before-record");
    let no = app.no(&api.ledger).await?;
    let request = Arc::new(request);
    let record = |key: Option<RequestKey>| api.ledger.record(no, Arc::clone(&request), key);
    let mut answer = record(key.clone()).await;
    crate::fail_point!("http.after-record");
    let is_unknown = answer == Err(RecordError::Unknown);
    if is_unknown {
        look_up_again(api, &request.subject).await?;
        answer = record(key.clone()).await;
    }
    // From here on the ledger knows what the key was used for. Where it does not, the key stays bound.
    if let (Some(key), Ok(_) | Err(RecordError::KeyReused)) = (&key, &answer) {
        app.release(key);
    }
    let feature = request.feature.as_deref().filter(|_| is_unknown);
    let answer = answer.map_err(|error| still_unknown(error, feature))?;
    licensed(answer, key.is_some(), app, &api.signer).await
}

/// The server described the licence, so what is still unknown is the feature.
fn still_unknown(error: RecordError, feature: Option<&str>) -> Refused {
    match (error, feature) {
        (RecordError::Unknown, Some(feature)) => Refused::new(
            ErrorCode::UnsupportedProductFeature,
            format!("this licence has no consumption feature {feature:?}"),
        ),
        (error, _) => error.into(),
    }
}

fn request_key(
    value: Option<&HeaderValue>,
    request: &AddConsumption,
    body: &[u8],
) -> Result<Option<RequestKey>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    let Some(key) = key else {
        let message = format!(
            "`{IDEMPOTENCY_KEY}` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters"
        );
        return Err(ApiError::new(ErrorCode::ValidationError, message).into());
    };
    let mut context = Context::new(&SHA256);
    context.update(request.path().as_bytes());
    context.update(&[0]);
    context.update(body);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    Ok(Some(RequestKey {
        key: key.to_owned(),
        fingerprint: Hash(fingerprint),
    }))
}

/// A licence that is known with this device; refused as the server refuses it.
async fn view(api: &Api, subject: &Subject) -> Result<Option<LicenseView>> {
    let asked = subject.clone();
    let found = api.ledger.ask(move |core, now| {
        let license = core.book().find(&asked)?;
        let device = license.devices.get(&asked.hardware_id);
        let refused = license.blocked.or_else(|| device.copied().flatten());
        let is_asked_again = refused.is_some_and(|code| core.may_be_another(&asked, code));
        (!is_asked_again).then(|| (core.view(now, license), refused))
    });
    let Some((view, refused)) = found.await? else {
        return Ok(None);
    };
    let device = view.license.devices.get(&subject.hardware_id);
    match (refused, device) {
        (Some(code), _) => Err(Refused::new(
            code,
            "the licence server refuses this licence",
        )),
        (None, None) => Ok(None),
        (None, Some(_)) => Ok(Some(view)),
    }
}

/// The server's description, with everything pending counted, and signed by this agent.
async fn license_body(api: &Api, view: LicenseView, subject: Subject) -> Result<LicenseBody> {
    let mut body = view.license.body;
    for standing in view.standings {
        match standing {
            Standings::License(own) => {
                body.counter = own.counter;
                if let Some(pool) = &own.pool {
                    body.set_pool(pool);
                }
            }
            Standings::Feature(feature) => {
                let known = body.product_features.iter_mut();
                for slot in known.filter(|known| known.code == feature.counter.code) {
                    slot.clone_from(&feature.counter);
                }
            }
        }
    }
    let validity = body.validity_period;
    let signature = apart(&api.signer, move |signer| {
        signer.sign_license(&subject, validity)
    });
    body.license_signature = signature.await?.map_err(|error| cannot_sign(&error))?;
    Ok(body)
}

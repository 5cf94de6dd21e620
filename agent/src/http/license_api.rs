//! The License API, as the licence server speaks it.

use aws_lc_rs::digest::{Context, SHA256};
use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use tally_shared::wire::{
    AddConsumption, ApiError, CheckLicense, ErrorCode, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX,
    LicenseBody, Subject,
};

use super::{
    Api,
    answer::{Refused, Result, signed},
    auth::Caller,
    body::Posted,
    look_up::look_up,
};
use crate::{
    apps::App,
    core::{Standings, chain::Hash, report::LicenseView},
    ledger::{
        answers::{Answer, RequestKey},
        engine::RecordError,
    },
};

pub(super) async fn add_consumption(
    State(api): State<Api>,
    Caller(app): Caller,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response> {
    let request = AddConsumption::from_json(&body)?;
    consume(&api, &app, &headers, &body, request).await
}

pub(super) async fn add_feature_consumption(
    State(api): State<Api>,
    Caller(app): Caller,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Result<Response> {
    let request = AddConsumption::feature_from_json(&body)?;
    consume(&api, &app, &headers, &body, request).await
}

pub(super) async fn check_license(
    State(api): State<Api>,
    Caller(app): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query.as_deref().unwrap_or(""))
            .map_err(|error| Refused::new(ErrorCode::ValidationError, error.to_string()))?;
    let CheckLicense { subject } = CheckLicense::from_query(pairs)?;
    app.rights().may_use(&subject)?;
    let _slot = api.slots.take()?;
    let view = if let Some(view) = view(&api, &subject).await? {
        view
    } else {
        look_up(&api, &subject).await?;
        view(&api, &subject).await?.ok_or(RecordError::Unknown)?
    };
    let body = license_body(&api, &view, &subject)?;
    let body = serde_json::to_string(&body)
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))?;
    signed(
        &Answer {
            status: 200,
            body,
            replayed: false,
        },
        &api.signer,
    )
}

async fn consume(
    api: &Api,
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
    request: AddConsumption,
) -> Result<Response> {
    app.rights().may_use(&request.subject)?;
    let key = request_key(headers, &request, body)?;
    let _slot = api.slots.take()?;
    if let Some(key) = &key {
        app.bind(key, api.clocks.mono())?;
    }
    crate::fail_point!("http.before-record");
    let no = app.no(&api.ledger).await?;
    let answer = match api.ledger.record(no, request.clone(), key.clone()).await {
        Err(RecordError::Unknown) => {
            look_up(api, &request.subject).await?;
            let unknown_feature = request.feature.clone();
            let answer = api.ledger.record(no, request, key.clone()).await;
            answer.map_err(|error| (error, unknown_feature))
        }
        answer => answer.map_err(|error| (error, None)),
    };
    // From here on the ledger knows what the key was used for. Where it does not, the key stays bound.
    if let (Some(key), Ok(_) | Err((RecordError::KeyReused, _))) = (&key, &answer) {
        app.release(key);
    }
    let answer = answer.map_err(|(error, feature)| still_unknown(error, feature.as_deref()))?;
    signed(&answer, &api.signer)
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
    headers: &HeaderMap,
    request: &AddConsumption,
    body: &[u8],
) -> Result<Option<RequestKey>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
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
        Some(core.view(now, license))
    });
    let Some(view) = found.await? else {
        return Ok(None);
    };
    let device = view.license.devices.get(&subject.hardware_id);
    let refused = view.license.blocked.or_else(|| device.copied().flatten());
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
fn license_body(api: &Api, view: &LicenseView, subject: &Subject) -> Result<LicenseBody> {
    let mut body = view.license.body.clone();
    for standing in &view.standings {
        match standing {
            Standings::License(counter) => body.counter = *counter,
            Standings::Feature(feature) => {
                let known = body.product_features.iter_mut();
                for slot in known.filter(|known| known.code == feature.code) {
                    slot.clone_from(feature);
                }
            }
        }
    }
    body.license_signature = api
        .signer
        .sign_license(subject, body.validity_period)
        .map_err(|error| Refused::new(ErrorCode::InternalError, error.to_string()))?;
    Ok(body)
}

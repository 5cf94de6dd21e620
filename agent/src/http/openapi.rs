//! `GET /openapi.json`: what can be asked of the agent, for programs that are made from it.
//!
//! The document is made from the code in builds with the feature `openapi`; a test compares it with the file
//! that every build serves.

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};

/// The document, as it is served.
pub const FILE: &str = include_str!("../../../docs/openapi.json");

pub(super) async fn file() -> Response {
    ([(CONTENT_TYPE, "application/json")], FILE).into_response()
}

#[cfg(feature = "openapi")]
pub use self::described::document;

#[cfg(feature = "openapi")]
mod described {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use tally_shared::wire::{Counter, FeatureCounter, LicenseBody, error::ErrorBody};
    use utoipa::{OpenApi, ToSchema};

    use crate::{
        http::{admin, apps, control_api, licenses, metrics, stream},
        ledger::usage::Span,
    };

    /// The agent's HTTP interfaces
    ///
    /// The License API v4, as the licence server speaks it, for applications with a key pair of `tally app add`;
    /// and the agent's own API under `/v1`, for whoever has the admin token. Errors of both have one form.
    /// Fields are added, never changed: ignore those that you do not know.
    #[derive(OpenApi)]
    #[openapi(
        info(title = "Tally agent"),
        paths(
            add_consumption,
            add_feature_consumption,
            check_license,
            control_api::status,
            control_api::events,
            control_api::explain_row,
            control_api::refusals,
            control_api::batches,
            control_api::resolve,
            control_api::server_moved,
            control_api::see_finding,
            control_api::device_is,
            control_api::usage,
            control_api::usage_chart,
            control_api::sync,
            control_api::set_network,
            apps::add,
            apps::revoke,
            apps::reload_apps,
            control_api::health,
            licenses::list,
            licenses::add,
            licenses::waiting,
            licenses::import,
            licenses::show,
            licenses::refresh,
            licenses::remove,
            admin::make_link,
            metrics::metrics,
            stream::stream,
            openapi
        ),
        components(schemas(ErrorBody, Span)),
        security(("admin_token" = [])),
        tags(
            (name = "License API", description = "For applications"),
            (name = "licences", description = "Which licences are known here"),
            (name = "ledger", description = "What was recorded, and what became of it"),
            (name = "state", description = "How the agent is, and drills"),
        )
    )]
    struct Agent;

    /// The body of `add_consumption`. Exactly one of `license_key` and `username` is needed.
    #[derive(ToSchema)]
    #[expect(dead_code, reason = "describes what shared/wire reads")]
    struct AddConsumption {
        /// The key, for key-based products.
        license_key: Option<String>,
        /// The user, for user-based products.
        username: Option<String>,
        /// The product's short code.
        product: String,
        /// The device.
        hardware_id: String,
        /// The licence, where a user holds several for one product.
        license_id: Option<i64>,
        /// Units to add; 1 where it is not given, negative ones where the licence allows it.
        consumptions: Option<i64>,
        /// Sets by how much the limit may be passed; 0 is without bound.
        max_overages: Option<i64>,
        /// Sets whether the limit may be passed.
        allow_overages: Option<bool>,
        /// What the activity log records: `consumption_add` or `offline_floating_consumptions_sync`.
        event: Option<Vec<String>>,
    }

    /// The body of `add_feature_consumption`. Exactly one of `license_key` and `username` is needed.
    #[derive(ToSchema)]
    #[expect(dead_code, reason = "describes what shared/wire reads")]
    struct AddFeatureConsumption {
        /// The feature's code.
        feature: String,
        /// The key, for key-based products.
        license_key: Option<String>,
        /// The user, for user-based products.
        username: Option<String>,
        /// The product's short code.
        product: String,
        /// The device.
        hardware_id: String,
        /// The licence, where a user holds several for one product.
        license_id: Option<i64>,
        /// Units to add; 1 where it is not given.
        consumptions: Option<i64>,
        /// What the activity log records: `consumption_add` or `offline_floating_consumptions_sync`.
        event: Option<Vec<String>>,
    }

    /// Adds units to a licence.
    #[utoipa::path(
        post, path = "/api/v4/add_consumption", tag = "License API", security(("license_api" = [])),
        params(("Idempotency-Key" = Option<String>, Header, description = "Lets the request be retried without being counted twice")),
        request_body(content = AddConsumption, example = json!({
            "license_key": "AAAA-BBBB-CCCC-DDDD", "product": "inspect", "hardware_id": "device-1", "consumptions": 5})),
        responses((status = 200, description = "Granted: how the licence stands", body = Counter, headers(
            ("LicenseSignature" = String, description = "The agent's RSA signature over the body"),
            ("Idempotency-Replayed" = bool, description = "Whether it is the answer of an earlier request"))))
    )]
    #[expect(dead_code, reason = "describes `license_api`, which is not routed")]
    fn add_consumption() {}

    /// Adds units to a feature of a licence.
    #[utoipa::path(
        post, path = "/api/v4/add_feature_consumption", tag = "License API", security(("license_api" = [])),
        params(("Idempotency-Key" = Option<String>, Header, description = "Lets the request be retried without being counted twice")),
        request_body(content = AddFeatureConsumption, example = json!({
            "license_key": "AAAA-BBBB-CCCC-DDDD", "product": "inspect", "hardware_id": "device-1", "feature": "scans"})),
        responses((status = 200, description = "Granted: how the feature stands", body = FeatureCounter, headers(
            ("LicenseSignature" = String, description = "The agent's RSA signature over the body"),
            ("Idempotency-Replayed" = bool, description = "Whether it is the answer of an earlier request"))))
    )]
    #[expect(dead_code, reason = "describes `license_api`, which is not routed")]
    fn add_feature_consumption() {}

    /// Reads a licence without changing it.
    #[utoipa::path(
        get, path = "/api/v4/check_license", tag = "License API", security(("license_api" = [])),
        params(
            ("product" = String, Query, description = "The product's short code"),
            ("license_key" = Option<String>, Query, description = "The key, for key-based products"),
            ("username" = Option<String>, Query, description = "The user, for user-based products"),
            ("license_id" = Option<i64>, Query, description = "The licence, where a user holds several"),
            ("hardware_id" = String, Query, description = "The device")),
        responses((status = 200, description = "The licence, with everything pending counted", body = LicenseBody, headers(
            ("LicenseSignature" = String, description = "The agent's RSA signature over the body"))))
    )]
    #[expect(dead_code, reason = "describes `license_api`, which is not routed")]
    fn check_license() {}

    /// This document.
    #[utoipa::path(
        get, path = "/openapi.json", tag = "state", security(()),
        responses((status = 200, description = "OpenAPI 3.1", body = Value))
    )]
    #[expect(dead_code, reason = "describes `file`")]
    fn openapi() {}

    /// The document, as the code has it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written as JSON.
    pub fn document() -> serde_json::Result<String> {
        let mut document = serde_json::to_value(Agent::openapi())?;
        document["components"]["securitySchemes"] = json!({
            "admin_token": {"type": "http", "scheme": "bearer",
                "description": "The content of the file admin_token in the data directory"},
            "license_api": {"type": "apiKey", "in": "header", "name": "Authorization",
                "description": "algorithm=\"hmac-sha256\",headers=\"date\",signature=\"…\",apikey=\"…\": \
                    the Base64 HMAC-SHA-256, by the shared key, of `licenseSpring\\ndate: ` and the value of the \
                    header Date, which comes along"},
        });
        document["components"]["responses"]["Refused"] = json!({
            "description": "Refused, or failed; `Retry-After` says when another try makes sense, where it does",
            "content": {"application/json": {
                "schema": {"$ref": "#/components/schemas/ErrorBody"},
                "example": {"status": 400, "code": "license_not_enough_consumptions",
                    "message": "100 of 100 are used; 5 more do not fit"},
            }},
        });
        let paths = document["paths"].as_object_mut().into_iter().flatten();
        for operation in paths.filter_map(|(_, path)| path.as_object_mut()).flatten() {
            operation.1["responses"]["default"] = json!({"$ref": "#/components/responses/Refused"});
        }
        // Whatever order code and macros have, the file has one.
        let sorted: BTreeMap<String, Value> = serde_json::from_value(document)?;
        Ok(serde_json::to_string_pretty(&sorted)? + "\n")
    }
}

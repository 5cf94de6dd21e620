//! `docs/openapi.json` is what the code says, has every route, and real answers conform to it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Method, blocking::Client};
use serde_json::{Value, json};
use tally_tests::{Result, agent::Agent, seed};

use crate::{renews, world};

/// Pages and what they load: for browsers, not for programs.
const PAGES: [&str; 6] = [
    "/",
    "/open",
    "/dashboard.css",
    "/dashboard.js",
    "/icon.svg",
    "/v1/{*rest}",
];

/// Methods that say nothing of their own.
const IMPLIED: &str = "HEAD";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

fn document() -> Value {
    serde_json::from_str(&fs::read_to_string(file()).unwrap()).unwrap()
}

#[test]
fn the_document_is_what_the_code_says() -> Result {
    let said = tally_agent::http::openapi::document()?;
    if renews() {
        fs::write(file(), &said)?;
    }
    let written = fs::read_to_string(file())?;
    let what = "docs/openapi.json is not what the code says; tests/interfaces/main.rs tells how to renew it";
    assert!(written == said, "{what}");
    Ok(())
}

/// The paths that the sources route, as they stand there.
fn routed() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/http");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for rest in text.split(".route(").skip(1) {
            let path = rest.split('"').nth(1).unwrap_or_default();
            if path.starts_with('/') {
                found.insert(path.to_owned());
            }
        }
    }
    for path in PAGES {
        found.remove(path);
    }
    found
}

#[test]
fn every_route_is_in_the_document() {
    let document = document();
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let missing: Vec<_> = routed().difference(&described).cloned().collect();
    assert!(missing.is_empty(), "not in docs/openapi.json: {missing:?}");
}

/// The methods that a path has, by its own word.
fn allowed(agent: &Agent, path: &str) -> Result<BTreeSet<String>> {
    let url = format!(
        "{}{}",
        agent.url()?,
        path.replace("{seq}", "1").replace("{batch}", "1")
    );
    let request = Client::new().request(Method::TRACE, url);
    let answer = request.bearer_auth(agent.admin_token()?).send()?;
    assert_eq!(answer.status().as_u16(), 405, "{path}");
    let allow = answer.headers().get("allow").map(|allow| allow.to_str());
    let allow = allow.transpose()?.unwrap_or_default().to_lowercase();
    let methods = allow
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let implied = IMPLIED.to_lowercase();
    Ok(methods
        .filter(|name| *name != implied)
        .map(str::to_owned)
        .collect())
}

#[test]
fn every_path_has_the_methods_that_the_document_says() -> Result {
    let (_stub, agent) = world()?;
    for path in routed() {
        let document = document();
        let described: BTreeSet<String> = document["paths"][&path]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(allowed(&agent, &path)?, described, "{path}");
    }
    Ok(())
}

/// Whether an answer is as the document says.
#[track_caller]
fn check(method: &str, path: &str, status: &str, answer: &Value) {
    let document = document();
    let mut response = &document["paths"][path][method]["responses"][status];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.trim_start_matches('#')).unwrap();
    }
    let mut schema = response["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{method} {path} {status} has no schema");
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(
        errors.is_empty(),
        "{method} {path}: {errors:#?} in {answer:#}"
    );
}

fn ask(agent: &Agent, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let request = Client::new().request(method, format!("{}{path}", agent.url()?));
    let request = request.bearer_auth(agent.admin_token()?);
    let request = match body {
        Some(body) => request
            .header("content-type", "application/json")
            .body(body.to_string()),
        None => request,
    };
    Ok(serde_json::from_str(&request.send()?.text()?)?)
}

#[test]
fn what_is_read_conforms_to_the_document() -> Result {
    let (_stub, agent) = world()?;
    let read = |path: &str| ask(&agent, Method::GET, path, None);
    let licence = format!("product={}&license={}", seed::PRODUCT, seed::KEY);
    for path in [
        "/v1/status",
        "/v1/licenses",
        "/v1/licenses/waiting",
        "/v1/events",
        "/v1/refusals",
        "/v1/batches",
        "/healthz",
        "/openapi.json",
    ] {
        check("get", path, "200", &read(path)?);
    }
    check("get", "/v1/events/{seq}", "200", &read("/v1/events/1")?);
    check(
        "get",
        "/v1/license",
        "200",
        &read(&format!("/v1/license?{licence}"))?,
    );
    check(
        "get",
        "/v1/usage",
        "200",
        &read(&format!("/v1/usage?{licence}"))?,
    );
    check(
        "get",
        "/v1/events/{seq}",
        "default",
        &read("/v1/events/999")?,
    );
    Ok(())
}

#[test]
fn what_is_ordered_conforms_to_the_document() -> Result {
    let (_stub, agent) = world()?;
    let named =
        json!({"product": seed::PRODUCT, "license_key": seed::KEY, "hardware_id": "device-2"});
    let import = json!({"license": named});
    let orders = [
        (Method::PUT, "/v1/network", json!({"mode": "offline"})),
        (Method::POST, "/v1/licenses/import", import),
        (Method::POST, "/v1/dashboard", json!({})),
        (Method::POST, "/v1/apps/reload", json!({})),
        (Method::POST, "/v1/apps", json!({"name": "till"})),
        (Method::PUT, "/v1/network", json!({"mode": "online"})),
        (Method::POST, "/v1/sync", json!({})),
    ];
    for (method, path, body) in orders {
        let name = method.as_str().to_lowercase();
        check(&name, path, "200", &ask(&agent, method, path, Some(body))?);
    }
    let licence = format!(
        "/v1/license?product={}&license={}",
        seed::PRODUCT,
        seed::KEY
    );
    let refresh = licence.replace("license?", "license/refresh?");
    check(
        "post",
        "/v1/license/refresh",
        "200",
        &ask(&agent, Method::POST, &refresh, None)?,
    );
    check(
        "delete",
        "/v1/license",
        "200",
        &ask(&agent, Method::DELETE, &licence, None)?,
    );
    let revoked = ask(&agent, Method::DELETE, "/v1/apps/till", None)?;
    check("delete", "/v1/apps/{name}", "200", &revoked);
    let unknown = ask(
        &agent,
        Method::POST,
        "/v1/batches/99/resolve",
        Some(json!({"decision": "applied"})),
    )?;
    check("post", "/v1/batches/{batch}/resolve", "default", &unknown);
    let moved = ask(&agent, Method::POST, "/v1/server/moved", Some(json!({})))?;
    check("post", "/v1/server/moved", "default", &moved);
    Ok(())
}

#[test]
fn the_license_api_conforms_to_the_document() -> Result {
    let (_stub, agent) = world()?;
    let app = agent.app("other")?;
    let path = "/api/v4/add_consumption";
    check("post", path, "200", &app.add(1)?.json()?);
    check("post", path, "default", &app.add(1000)?.json()?);
    let feature = json!({"username": seed::USER, "product": seed::PRODUCT, "hardware_id": seed::DEVICE,
        "feature": "scans"});
    let path = "/api/v4/add_feature_consumption";
    check("post", path, "200", &app.post(path, &feature)?.json()?);
    let path = "/api/v4/check_license";
    let query = [
        ("username", seed::USER),
        ("product", seed::PRODUCT),
        ("hardware_id", seed::DEVICE),
    ];
    check("get", path, "200", &app.get(path, &query)?.json()?);
    Ok(())
}

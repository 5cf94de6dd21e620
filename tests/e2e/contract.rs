//! Every error of the contract through real HTTP, from the stub and from the agent: the same answer.

use reqwest::Method;
use serde_json::{Value, json};
use tally_shared::{auth, signature::Verifier, time::Timestamp};
use tally_tests::{
    Result,
    client::{Client, Reply, by_key},
    seed,
    stub::{Keys, Stub},
};

use crate::{agent, stub};

const ADD: &str = "/api/v4/add_consumption";

fn licenses() -> Vec<Value> {
    let other = |id: i64, with: Value| {
        let own = json!({"id": id, "license_key": format!("KEY-{id}")});
        seed::license(10, seed::merged(own, with))
    };
    vec![
        seed::license(
            10,
            json!({"devices": [
            {"hardware_id": seed::DEVICE},
            {"hardware_id": "gone", "state": "inactive"},
            {"hardware_id": "black", "state": "blacklisted"},
        ], "features": [{"id": 9, "code": "scan", "max_consumption": 1}]}),
        ),
        other(3, json!({"license_enabled": false})),
        other(4, json!({"license_active": false})),
        other(5, json!({"validity_period": "2020-01-01T00:00:00.000Z"})),
        other(6, json!({"license_type": "perpetual"})),
        other(7, json!({"devices": []})),
    ]
}

/// The two servers that speak the contract, and an application of each.
struct Servers {
    stub: Stub,
    _agent: tally_tests::agent::Agent,
    direct: Client,
    local: Client,
}

fn servers() -> Result<Servers> {
    let stub = stub(&licenses(), Keys::Kept)?;
    let agent = agent(&stub)?;
    let (direct, local) = (stub.client()?, agent.app("inspector")?);
    Ok(Servers {
        stub,
        _agent: agent,
        direct,
        local,
    })
}

impl Servers {
    /// Both answer with this code and its status, in the contract's form.
    #[track_caller]
    fn check(&self, code: &str, ask: impl Fn(&Client) -> Result<Reply>) -> Result {
        for client in [&self.direct, &self.local] {
            let reply = ask(client)?;
            let body = reply.json()?;
            assert_eq!(body["code"], code, "{}", reply.text);
            assert_eq!(body["status"], reply.status);
            assert!(
                body["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty())
            );
            assert_eq!(body.as_object().map(serde_json::Map::len), Some(3));
        }
        Ok(())
    }

    #[track_caller]
    fn check_body(&self, code: &str, with: &Value) -> Result {
        let body = seed::merged(by_key(1), with.clone());
        self.check(code, |client| client.post(ADD, &body))
    }
}

#[test]
fn a_licence_or_device_that_cannot_be_used() -> Result {
    let servers = servers()?;
    servers.check_body("unknown_product", &json!({"product": "nothing"}))?;
    servers.check_body("license_not_found", &json!({"license_key": "nobody's"}))?;
    servers.check_body("license_not_found", &json!({"license_id": 99}))?;
    servers.check_body("license_not_enabled", &json!({"license_key": "KEY-3"}))?;
    servers.check_body("license_not_active", &json!({"license_key": "KEY-4"}))?;
    servers.check_body("license_not_active", &json!({"license_key": "KEY-7"}))?;
    servers.check_body("license_expired", &json!({"license_key": "KEY-5"}))?;
    servers.check_body("license_not_consumption", &json!({"license_key": "KEY-6"}))?;
    servers.check_body("device_not_found", &json!({"hardware_id": "nowhere"}))?;
    servers.check_body("device_not_found", &json!({"hardware_id": "gone"}))?;
    servers.check_body("blacklisted", &json!({"hardware_id": "black"}))?;
    servers.check_body(
        "negative_consumptions_not_allowed",
        &json!({"consumptions": -1}),
    )?;
    servers.check_body(
        "license_not_enough_consumptions",
        &json!({"consumptions": 11}),
    )?;
    assert_eq!(servers.stub.total(1)?, 0);
    Ok(())
}

#[test]
fn a_feature_that_cannot_be_used() -> Result {
    let servers = servers()?;
    let feature = |code: &'static str, units: i64| {
        move |client: &Client| {
            let body = seed::merged(by_key(units), json!({"feature": code}));
            client.post("/api/v4/add_feature_consumption", &body)
        }
    };
    servers.check("unsupported_product_feature", feature("nothing", 1))?;
    servers.check("feature_not_enough_consumptions", feature("scan", 2))?;
    servers.check("negative_consumptions_not_allowed", feature("scan", -1))
}

#[test]
fn a_body_that_does_not_conform() -> Result {
    let servers = servers()?;
    servers.check_body("validation_error", &json!({"consumptions": "1"}))?;
    servers.check_body("validation_error", &json!({"extra": 1}))?;
    servers.check_body("validation_error", &json!({"username": "u"}))?;
    servers.check_body(
        "validation_error",
        &json!({"consumptions": 9_223_372_036_854_775_808_u64}),
    )?;
    servers.check_body("missing_parameters", &json!({"product": null}))?;
    servers.check("invalid_json", |client| {
        client.post_with(ADD, "{".to_owned(), &[])
    })?;
    servers.check("validation_error", |client| {
        client.post_with(ADD, "[]".to_owned(), &[])
    })?;
    let long = format!("{{\"product\": \"{}\"}}", "x".repeat(70_000));
    servers.check("validation_error", |client| {
        client.post_with(ADD, long.clone(), &[])
    })?;
    servers.check("not_found", |client| {
        client.post("/api/v4/nothing", &json!({}))
    })?;
    servers.check("missing_parameters", |client| {
        client.get("/api/v4/check_license", &[])
    })?;
    assert_eq!(servers.stub.total(1)?, 0);
    Ok(())
}

#[test]
fn headers_that_prove_nothing() -> Result {
    let servers = servers()?;
    let now = Timestamp::from_system_time(std::time::SystemTime::now()).to_http_date();
    let old = "Tue, 07 Jun 2011 20:51:35 GMT";
    let unknown = auth::authorization("nobody", "s", &now);
    let raw = |mut headers: Vec<(&'static str, String)>| {
        headers.push(("content-type", "application/json".to_owned()));
        move |client: &Client| {
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            client.raw(Method::POST, ADD, &headers, "{}")
        }
    };
    let both = |date: &str, header: &str| {
        raw(vec![
            ("date", date.to_owned()),
            ("authorization", header.to_owned()),
        ])
    };
    servers.check(
        "missing_headers",
        raw(vec![("authorization", unknown.clone())]),
    )?;
    servers.check("missing_headers", raw(vec![("date", now.clone())]))?;
    servers.check("date_header_diff", both(old, &unknown))?;
    servers.check("date_header_diff", both("now", &unknown))?;
    servers.check("authorization_invalid_headers", both(&now, "rubbish"))?;
    servers.check("hmac_required", both(&now, "Bearer token"))?;
    servers.check(
        "hmac_required",
        both(&now, &unknown.replace("sha256", "md5")),
    )?;
    servers.check(
        "authorization_missing_params",
        both(&now, r#"algorithm="hmac-sha256""#),
    )?;
    servers.check("invalid_api_key", both(&now, &unknown))?;
    let key = seed::API_KEY;
    let forged = auth::authorization(key, "another", &now);
    let reply = servers.direct.raw(
        Method::POST,
        ADD,
        &[("date", &now), ("authorization", &forged)],
        "{}",
    )?;
    assert_eq!(reply.code().as_deref(), Some("signature_mismatch"));
    Ok(())
}

#[test]
fn key_pairs_that_may_not() -> Result {
    let mut seed = seed::seed(&licenses());
    seed["api_keys"] = json!([
        {"api_key": "gone", "shared_key": "s", "state": "revoked"},
        {"api_key": "reads", "shared_key": "s", "state": "read_only"},
    ]);
    let stub = Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)?;
    let code = |key: &str| -> Result<Option<String>> {
        Ok(Client::new(stub.url(), key, "s")?.add(1)?.code())
    };
    assert_eq!(code("gone")?.as_deref(), Some("revoked_api_key"));
    assert_eq!(code("reads")?.as_deref(), Some("read_only_api_key"));
    let query = [
        ("license_key", seed::KEY),
        ("product", seed::PRODUCT),
        ("hardware_id", seed::DEVICE),
    ];
    assert_eq!(
        Client::new(stub.url(), "reads", "s")?
            .get("/api/v4/check_license", &query)?
            .status,
        200
    );
    Ok(())
}

#[test]
fn answers_are_signed_over_their_exact_bytes() -> Result {
    let stub = stub(&licenses(), Keys::Kept)?;
    let agent = agent(&stub)?;
    let keys = agent.json(&["app", "add", "inspector"])?;
    let path = keys["public_key"].as_str().unwrap_or_default();
    let verifiers = [
        Verifier::from_pem(&stub.public_key()?)?,
        Verifier::from_pem(&std::fs::read_to_string(path)?)?,
    ];
    let local = Client::new(
        agent.url()?,
        keys["api_key"].as_str().unwrap_or_default(),
        keys["shared_key"].as_str().unwrap_or_default(),
    )?;
    for (client, verifier) in [stub.client()?, local].iter().zip(&verifiers) {
        let added = client.add(1)?;
        let query = [
            ("license_key", seed::KEY),
            ("product", seed::PRODUCT),
            ("hardware_id", seed::DEVICE),
        ];
        let checked = client.get("/api/v4/check_license", &query)?;
        for reply in [&added, &checked] {
            let signature = reply.header("LicenseSignature").unwrap_or_default();
            assert!(
                verifier.verify(reply.text.as_bytes(), signature),
                "{}",
                reply.text
            );
        }
        let signature = checked.json()?["license_signature"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let text = format!("{}#{}#", seed::DEVICE, seed::KEY).to_lowercase();
        assert!(verifier.verify(text.as_bytes(), &signature));
        assert!(
            added
                .text
                .starts_with(r#"{"id":1,"max_consumptions":10,"total_consumptions":"#)
        );
    }
    Ok(())
}

#[test]
fn pages_of_other_sites_and_foreign_host_names_are_refused() -> Result {
    let stub = stub(&licenses(), Keys::Kept)?;
    let agent = agent(&stub)?;
    let client = agent.app("inspector")?;
    let token = format!("Bearer {}", agent.admin_token()?);
    let status = |headers: &[(&str, &str)]| -> Result<u16> {
        let headers = [&[("authorization", token.as_str())], headers].concat();
        Ok(client.raw(Method::GET, "/v1/status", &headers, "")?.status)
    };
    assert_eq!(status(&[])?, 200);
    assert_eq!(status(&[("host", "evil.example")])?, 403);
    assert_eq!(status(&[("origin", "https://evil.example")])?, 403);
    assert_eq!(status(&[("origin", "null")])?, 403);
    Ok(())
}

//! The world of these tests: a stub with one seed, and a client that signs as an application does.

use std::{future::Future, net::SocketAddr, path::Path, time::Duration};

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tally_server_stub::{RunningStub, Seed, Stub, StubConfig};
use tally_shared::{auth, signature::Verifier, time::Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) const ADD: &str = "/api/v4/add_consumption";
pub(crate) const ADD_FEATURE: &str = "/api/v4/add_feature_consumption";
pub(crate) const CHECK: &str = "/api/v4/check_license";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) stub: RunningStub,
    http: reqwest::Client,
    api_key: &'static str,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) fn seed() -> Value {
    let device = json!([{"hardware_id": "hw-1"}]);
    json!({
        "api_keys": [
            {"api_key": "key", "shared_key": "secret"},
            {"api_key": "other", "shared_key": "secret"},
            {"api_key": "revoked", "shared_key": "secret", "state": "revoked"},
            {"api_key": "reader", "shared_key": "secret", "state": "read_only"},
        ],
        "products": [{"code": "demo"}, {"code": "empty"}],
        "licenses": [
            {"id": 1, "product": "demo", "license_key": "MAIN", "max_consumptions": 10,
             "devices": [
                {"hardware_id": "hw-1", "state": "active"},
                {"hardware_id": "hw-off", "state": "inactive"},
                {"hardware_id": "hw-bad", "state": "blacklisted"}],
             "features": [
                {"code": "export", "name": "Export", "max_consumption": 5},
                {"code": "dark-mode", "feature_type": "activation"}]},
            {"id": 2, "product": "demo", "license_key": "DAILY", "max_consumptions": 10,
             "reset_consumption": true, "consumption_period": "daily", "devices": device,
             "features": [{"code": "export", "max_consumption": 5,
                           "reset_consumption": true, "consumption_period": "monthly"}]},
            {"id": 3, "product": "demo", "license_key": "GRACE", "max_consumptions": 10,
             "validity_period": "2030-01-01", "allow_grace_period": true, "grace_period": 24,
             "devices": device},
            {"id": 4, "product": "demo", "username": "ann", "max_consumptions": 10, "devices": device},
            {"id": 5, "product": "demo", "username": "ann", "max_consumptions": 50, "devices": device},
            {"id": 6, "product": "demo", "license_key": "PERPETUAL", "license_type": "perpetual",
             "devices": device, "features": [{"code": "export", "max_consumption": 5}]},
        ],
    })
}

pub(crate) fn config(data_dir: Option<&Path>) -> StubConfig {
    StubConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        control: None,
        allowed_hosts: Vec::new(),
        data_dir: data_dir.map(Path::to_owned),
        seed: serde_json::from_value::<Seed>(seed()).unwrap(),
        idempotency: true,
    }
}

impl World {
    /// A stub in memory.
    pub(crate) async fn start() -> Self {
        Self::with(config(None)).await
    }

    pub(crate) async fn with(config: StubConfig) -> Self {
        Self {
            stub: Stub::start(config).await.unwrap(),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            api_key: "key",
        }
    }

    /// The same stub, called by the owner of another API key.
    pub(crate) fn calling_as(mut self, api_key: &'static str) -> Self {
        self.api_key = api_key;
        self
    }

    /// Adds to the licence MAIN; `fields` replace those of the plain request, or remove them by null.
    pub(crate) async fn add(&self, fields: Value) -> Reply {
        self.post(ADD, &body(fields)).await
    }

    /// As [`Self::add`], under an idempotency key.
    pub(crate) async fn add_keyed(&self, key: &str, fields: Value) -> Reply {
        let request = self.signed(Method::POST, ADD).await;
        let request = request.header("Idempotency-Key", key);
        send(request.body(body(fields).to_string())).await
    }

    pub(crate) async fn add_feature(&self, fields: Value) -> Reply {
        self.post(ADD_FEATURE, &body(fields)).await
    }

    pub(crate) async fn check(&self, license_key: &str) -> Reply {
        let path = format!("{CHECK}?license_key={license_key}&product=demo&hardware_id=hw-1");
        send(self.signed(Method::GET, &path).await).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.signed(Method::POST, path).await.body(body.to_string())).await
    }

    /// A request with the headers of an application whose clock is right.
    pub(crate) async fn signed(&self, method: Method, path: &str) -> RequestBuilder {
        let (date, authorization) = self.credentials().await;
        self.unsigned(method, path)
            .header("Date", date)
            .header("Authorization", authorization)
    }

    /// Adds one unit; the status, or `None` where no answer came.
    pub(crate) async fn try_add(&self) -> Option<u16> {
        let request = self.signed(Method::POST, ADD).await;
        let answer = request.body(body(json!({})).to_string()).send().await;
        Some(answer.ok()?.status().as_u16())
    }

    /// Adds under an idempotency key where no answer is to come.
    pub(crate) async fn add_keyed_unanswered(&self, key: &str) {
        let request = self.signed(Method::POST, ADD).await;
        let request = request.header("Idempotency-Key", key);
        let answer = request.body(body(json!({})).to_string()).send().await;
        assert!(answer.is_err(), "{answer:?}");
    }

    /// Reads a licence with other parameters than [`Self::check`]'s.
    pub(crate) async fn check_with(&self, query: &str) -> Reply {
        let path = format!("{CHECK}?product=demo&{query}");
        send(self.signed(Method::GET, &path).await).await
    }

    pub(crate) async fn order(&self, method: Method, path: &str) -> Reply {
        send(self.unsigned(method, path)).await
    }

    /// Waits until a licence's total is this.
    pub(crate) async fn reaches(&self, id: i64, total: i64) {
        within(async { while self.total(id).await != total {} }).await;
    }

    pub(crate) fn unsigned(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("/api/") {
            self.stub.url()
        } else {
            self.stub.control_url()
        };
        self.http.request(method, format!("{url}{path}"))
    }

    /// A `Date` header by the stub's clock, and its `Authorization`.
    pub(crate) async fn credentials(&self) -> (String, String) {
        let clock = self.get("/stub/v1/clock").await;
        let now = Timestamp::parse(clock["now"].as_str().unwrap()).unwrap();
        let date = now.to_http_date();
        let authorization = auth::authorization(self.api_key, "secret", &date);
        (date, authorization)
    }

    /// Reads the control surface.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = send(self.unsigned(Method::GET, path)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }

    /// Writes to the control surface.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        send(self.unsigned(Method::PUT, path).body(body.to_string())).await
    }

    pub(crate) async fn order_faults(&self, faults: Value) {
        let reply = self.put("/stub/v1/faults", &faults).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    pub(crate) async fn set_clock(&self, now: &str) {
        let reply = self.put("/stub/v1/clock", &json!({ "now": now })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// Changes fields of a licence.
    pub(crate) async fn change_license(&self, id: i64, fields: Value) {
        let path = format!("/stub/v1/licenses/{id}");
        let license = merged(self.get(&path).await, fields);
        let reply = self.put(&path, &license).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// The current total of a licence.
    pub(crate) async fn total(&self, id: i64) -> i64 {
        let license = self.get(&format!("/stub/v1/licenses/{id}")).await;
        license["total_consumptions"].as_i64().unwrap()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::from_pem(self.stub.public_key()).unwrap()
    }

    /// Adds one unit through a bare socket, and reads whatever comes until the connection ends.
    pub(crate) async fn add_raw(&self) -> String {
        let (date, authorization) = self.credentials().await;
        let body = body(json!({}));
        let length = body.to_string().len();
        let request = format!(
            "POST {ADD} HTTP/1.1\r\nHost: stub\r\nDate: {date}\r\nAuthorization: {authorization}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        within(async {
            let mut stream = TcpStream::connect(self.stub.addr()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            String::from_utf8(read).unwrap()
        })
        .await
    }

    /// Waits until so many requests are in the log.
    pub(crate) async fn seen(&self, count: usize) {
        within(async {
            while self
                .get("/stub/v1/requests")
                .await
                .as_array()
                .unwrap()
                .len()
                < count
            {}
        })
        .await;
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The total in an answer.
    #[track_caller]
    pub(crate) fn total(&self) -> i64 {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["total_consumptions"].as_i64().unwrap()
    }

    /// The code of a refusal, whose body and status must be the contract's.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["status", "code", "message"], "{body}");
        assert_eq!(body["status"], self.status, "{body}");
        assert!(self.header("date").is_some(), "every answer has a date");
        body["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

/// The plain request, with some fields replaced, or removed by null.
pub(crate) fn body(fields: Value) -> Value {
    let plain = json!({"license_key": "MAIN", "product": "demo", "hardware_id": "hw-1"});
    merged(plain, fields)
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

fn merged(mut whole: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("not an object: {fields}");
    };
    for (name, value) in fields {
        whole[name] = value;
    }
    whole
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    whole
}

//! An application that signs its requests, over plain HTTP.

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use tally_shared::{auth, time::Timestamp};

use crate::seed;

/// An application's connection to an agent, or to a stub.
#[derive(Clone)]
pub struct Client {
    http: reqwest::blocking::Client,
    url: String,
    api_key: String,
    shared_key: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body, to the byte.
    pub text: String,
}

impl Client {
    /// Connects with a key pair.
    ///
    /// # Errors
    ///
    /// Where the HTTP client cannot be made.
    pub fn new(url: &str, api_key: &str, shared_key: &str) -> crate::Result<Self> {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            api_key: api_key.to_owned(),
            shared_key: shared_key.to_owned(),
        })
    }

    /// The same application, where the agent listens after a restart.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// Posts a body, signed.
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn post(&self, path: &str, body: &Value) -> crate::Result<Reply> {
        self.post_with(path, body.to_string(), &[])
    }

    /// Posts any text, signed, with further headers.
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn post_with(
        &self,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> crate::Result<Reply> {
        let request = self.signed(Method::POST, path).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        reply(request)
    }

    /// Reads, signed.
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> crate::Result<Reply> {
        reply(self.signed(Method::GET, path).query(query))
    }

    /// Asks, signed, with further headers.
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn get_with(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> crate::Result<Reply> {
        let request = self.signed(Method::GET, path).query(query);
        reply(headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        }))
    }

    /// Sends anything, with headers as they are.
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> crate::Result<Reply> {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        reply(request.body(body.to_owned()))
    }

    /// Adds units to the licence of [`seed::license`].
    ///
    /// # Errors
    ///
    /// Where no answer came.
    pub fn add(&self, units: i64) -> crate::Result<Reply> {
        self.post("/api/v4/add_consumption", &by_key(units))
    }

    fn signed(&self, method: Method, path: &str) -> reqwest::blocking::RequestBuilder {
        let date = Timestamp::from_system_time(std::time::SystemTime::now()).to_http_date();
        let authorization = auth::authorization(&self.api_key, &self.shared_key, &date);
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .header("date", date)
            .header("authorization", authorization)
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// Where it is not.
    pub fn json(&self) -> crate::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {}", self.text))
    }

    /// The error code, where it is an error.
    pub fn code(&self) -> Option<String> {
        let body = self.json().ok()?;
        body.get("code")?.as_str().map(str::to_owned)
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request for units of the licence of [`seed::license`].
pub fn by_key(units: i64) -> Value {
    json!({
        "license_key": seed::KEY, "product": seed::PRODUCT, "hardware_id": seed::DEVICE,
        "consumptions": units,
    })
}

/// A request for units of the licence of [`seed::user_license`].
pub fn by_user(units: i64) -> Value {
    json!({
        "username": seed::USER, "product": seed::PRODUCT, "hardware_id": seed::DEVICE,
        "consumptions": units,
    })
}

fn reply(request: reqwest::blocking::RequestBuilder) -> crate::Result<Reply> {
    let response = request.send()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Reply {
        status,
        headers,
        text: response.text()?,
    })
}

//! One exchange with the licence server.
//!
//! It signs with the corrected clock, reads at most what an answer may need, corrects the clock by the
//! answer's `Date`, and sorts what happened by one question: was the request sent?

use std::{
    error::Error as _,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::{
    Certificate, Identity, Method, Url,
    header::{
        AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE, HeaderMap, PRAGMA, RETRY_AFTER,
    },
    redirect,
};
use tally_shared::{
    auth,
    signature::Verifier,
    time::Timestamp,
    wire::{
        AddConsumption, CHECK_LICENSE, CheckLicense, ErrorCode, IDEMPOTENCY_KEY,
        IDEMPOTENCY_REPLAYED, LICENSE_SIGNATURE, Subject,
    },
};
use uuid::Uuid;

use crate::{
    core::{
        chain,
        clock::Dated,
        command::Key,
        event::KeyEcho,
        outcome::{self, Exchange, LicenseFound, LookUpOutcome, RawAnswer, SendOutcome},
    },
    deps::Clocks,
    ledger::engine::{SharedClock, lock},
    secret::Secret,
    sync::spelling,
};

/// The longest answer that is read: a licence with many features stays far below.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server is, and how to prove who we are.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its address; paths of the contract are appended to it.
    pub url: Url,
    /// The API key.
    pub api_key: Secret,
    /// The shared key that signs.
    pub shared_key: Secret,
    /// How long an exchange may take.
    pub request_timeout: Duration,
    /// Verifies the server's answers, where configured.
    pub verifier: Option<Verifier>,
    /// What is particular about TLS.
    pub tls: ServerTls,
}

impl ServerConfig {
    /// Its name for the [core](crate::core::Core::new).
    pub fn name(&self) -> String {
        let path = self.url.path().trim_end_matches('/');
        let address = self.url.origin().ascii_serialization() + path;
        if is_loopback(&self.url) {
            return format!("loopback {address}");
        }
        address
    }

    /// What stands for the server and the credentials together, for the [core](crate::core::Core::new).
    pub fn peer(&self, key: &chain::Key) -> String {
        key.peer(&self.name(), self.api_key.expose())
    }
}

/// How the server is known, and who the agent is to it.
#[derive(Clone, Default)]
pub struct ServerTls {
    /// The only authorities that are trusted; the platform's where there are none.
    pub authorities: Vec<Certificate>,
    /// A certificate of the agent's own, with its key.
    pub identity: Option<Identity>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS library or its roots are not usable.
    #[error("cannot set up the HTTP client")]
    Build(#[source] reqwest::Error),
}

/// An answer on file that is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// There is nothing to prove it with.
    #[error(
        "this agent has no public key of the licence server, so an answer on file proves nothing: start it \
         with --server-public-key"
    )]
    NoKey,
    /// The server did not sign it.
    #[error("the answer is not believed: {0}")]
    NotSigned(String),
    /// It is about something else.
    #[error(
        "the answer is not believed: the server signed it for another licence or another device"
    )]
    OfAnother,
}

/// A connection to the licence server.
pub struct Client {
    /// An exchange ends with what it began with.
    line: RwLock<Arc<Line>>,
    clock: SharedClock,
    clocks: Arc<dyn Clocks>,
}

/// What exchanges are made with.
struct Line {
    http: reqwest::Client,
    config: ServerConfig,
    peer: String,
}

/// An answer's head, where it matters beyond the outcome.
struct Exchanged {
    exchange: Exchange,
    key: KeyEcho,
}

impl Client {
    /// Makes a client; `peer` stands for its server and credentials together.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn new(
        config: ServerConfig,
        peer: String,
        clock: SharedClock,
        clocks: Arc<dyn Clocks>,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            line: RwLock::new(Arc::new(Line::new(config, peer)?)),
            clock,
            clocks,
        })
    }

    /// Uses other credentials, certificates and times from the next exchange on. The address must be the same:
    /// what is known of licences is known from that server.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; then it goes on as before.
    pub fn set(&self, config: ServerConfig, peer: String) -> Result<(), ClientError> {
        let line = Arc::new(Line::new(config, peer)?);
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = line;
        Ok(())
    }

    fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The server's address, for people.
    pub fn shown_url(&self) -> String {
        shown(&self.line().config.url)
    }

    /// Posts a batch; with `Idempotency-Key` only where there is a key. To a server that keeps none, the header would only tell
    /// gateways that they may send the request twice.
    pub async fn send(&self, request: &AddConsumption, key: Option<Key>) -> (SendOutcome, KeyEcho) {
        let line = self.line();
        if key.as_ref().is_some_and(|key| key.peer != line.peer) {
            let why = "the credentials were changed meanwhile".to_owned();
            return (SendOutcome::Unreached(why), KeyEcho::NoAnswer);
        }
        let key = key.map(|key| key.id);
        let post = line
            .http
            .request(Method::POST, line.url(request.path()))
            .header(CONTENT_TYPE, "application/json")
            .body(request.to_json());
        let Exchanged { exchange, key } = self.exchange(&line, post, key, false).await;
        let verifier = line.config.verifier.as_ref();
        let mut outcome = outcome::of_send(exchange, request.feature.is_some(), verifier);
        if let SendOutcome::RefusedRequest(_, message) = &mut outcome {
            // The server may name the key that it was asked about.
            *message = request.subject.holder.mask_in(message);
        }
        let key = match &outcome {
            SendOutcome::Unknown(..) | SendOutcome::Unreached(_) => KeyEcho::NoAnswer,
            _ => key,
        };
        (outcome, key)
    }

    /// Reads a licence: from the server itself, not from a cache on the way (each in a spelling of its own). A key of its own, never the same twice, tells whether
    /// the server sends keys back, and so keeps them, before the first batch depends on it.
    pub async fn look_up(&self, subject: &Subject) -> (LookUpOutcome, KeyEcho) {
        let query = CheckLicense {
            subject: subject.clone(),
        }
        .to_query();
        let line = self.line();
        let mut url = line.url(CHECK_LICENSE);
        spelling::set_query(&mut url, query, &mut rand::rng());
        let get = line
            .http
            .request(Method::GET, url)
            .header(CACHE_CONTROL, "no-cache, no-store")
            .header(PRAGMA, "no-cache");
        let key = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let Exchanged { exchange, key } = self.exchange(&line, get, Some(key), true).await;
        let verifier = line.config.verifier.as_ref();
        let outcome = outcome::of_look_up(exchange, subject, verifier);
        let key = match &outcome {
            LookUpOutcome::Found(_) => key,
            _ => KeyEcho::NoAnswer,
        };
        (outcome, key)
    }

    /// Reads an answer of [`Self::look_up`] that somebody kept, with its header `LicenseSignature`.
    ///
    /// # Errors
    ///
    /// [`Unproven`]: only what the server's key has signed, for this licence and device, is believed.
    pub fn verify_saved(
        &self,
        subject: &Subject,
        answer: String,
        signature: &str,
    ) -> Result<LicenseFound, Unproven> {
        let line = self.line();
        let verifier = line.config.verifier.as_ref().ok_or(Unproven::NoKey)?;
        let exchange = Exchange::Answer(RawAnswer {
            status: 200,
            signature: Some(signature.to_owned()),
            retry_after: None,
            is_fresh: false,
            body: answer.into_bytes(),
        });
        let found = match outcome::of_look_up(exchange, subject, Some(verifier)) {
            LookUpOutcome::Found(found) => *found,
            LookUpOutcome::Invalid(why, _) => return Err(Unproven::NotSigned(why)),
            _ => {
                return Err(Unproven::NotSigned(
                    "not an answer about a licence".to_owned(),
                ));
            }
        };
        let body = &found.body;
        let is_named = subject.license_id.is_none_or(|id| id == body.counter.id);
        let own = verifier.verify_license(subject, body.validity_period, &body.license_signature);
        if own && is_named {
            Ok(found)
        } else {
            Err(Unproven::OfAnother)
        }
    }

    async fn exchange(
        &self,
        line: &Line,
        request: reqwest::RequestBuilder,
        key: Option<Uuid>,
        is_reading: bool,
    ) -> Exchanged {
        let key = key.map(|key| key.to_string());
        let started = self.clocks.reading().mono;
        let date = lock(&self.clock).corrected(started).to_http_date();
        let ServerConfig {
            api_key,
            shared_key,
            ..
        } = &line.config;
        let authorization = auth::authorization(api_key.expose(), shared_key.expose(), &date);
        let mut request = request
            .header(DATE, date)
            .header(AUTHORIZATION, authorization);
        if let Some(key) = &key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let response = match request.send().await {
            Ok(response) => response,
            // The URL of a look-up holds the licence key, which belongs into no message.
            Err(error) => return Exchanged::failed(&error.without_url()),
        };
        let headers = response.headers().clone();
        let status = response.status().as_u16();
        let body = match read_body(response).await {
            Ok(body) => body,
            Err(why) => {
                return Exchanged {
                    exchange: Exchange::NoAnswer(why),
                    key: KeyEcho::NoAnswer,
                };
            }
        };
        let mut answer = RawAnswer {
            status,
            signature: text(&headers, LICENSE_SIGNATURE),
            retry_after: self.retry_after(&headers),
            is_fresh: true,
            body,
        };
        if is_to_another(&headers, key.as_deref()) {
            let why = "the answer names the key of another request".to_owned();
            return Exchanged {
                exchange: Exchange::NoAnswer(why),
                key: KeyEcho::NoAnswer,
            };
        }
        if answer.is_contractual() {
            answer.is_fresh = self.hear_time(&headers, &answer, started, is_reading);
        }
        Exchanged {
            key: echo(&headers, key.as_deref()),
            exchange: Exchange::Answer(answer),
        }
    }

    /// Takes what the answer says of its time. Returns whether it was made after the question.
    fn hear_time(
        &self,
        headers: &HeaderMap,
        answer: &RawAnswer,
        started: Duration,
        is_reading: bool,
    ) -> bool {
        let date = text(headers, DATE.as_str()).and_then(|date| Timestamp::from_http_date(&date));
        let age = text(headers, AGE.as_str()).and_then(|age| age.trim().parse().ok());
        let mono = self.clocks.reading().mono;
        let dated = Dated {
            date,
            age: age.unwrap_or(0),
            is_reading,
            // Only a server that complains about our date may contradict it by more than its own window.
            is_accepted: !answer.refuses(ErrorCode::DateHeaderDiff),
        };
        let told = lock(&self.clock).hear(dated, mono.saturating_sub(started), mono);
        if told.is_moved {
            tracing::info!(?date, "corrected the clock by the server's date");
        }
        if !told.is_fresh {
            tracing::debug!(
                ?date,
                ?age,
                "a cache answered for the server: the answer decides nothing"
            );
        }
        told.is_fresh
    }

    /// `Retry-After` in either of its forms (RFC 9110).
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let value = text(headers, RETRY_AFTER.as_str())?;
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = Timestamp::from_http_date(&value)?;
        let now = lock(&self.clock).corrected(self.clocks.reading().mono);
        Some(until.saturating_since(now))
    }
}

impl Line {
    fn new(config: ServerConfig, peer: String) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.request_timeout)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("tally/", env!("CARGO_PKG_VERSION")));
        let ServerTls {
            authorities,
            identity,
        } = config.tls.clone();
        if !authorities.is_empty() {
            builder = builder.tls_certs_only(authorities);
        }
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        if is_loopback(&config.url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(ClientError::Build)?;
        Ok(Self { http, config, peer })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.config.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }
}

impl Exchanged {
    /// Only an error of connecting proves that nothing was sent.
    fn failed(error: &reqwest::Error) -> Self {
        let why = chain(error);
        let exchange = if error.is_connect() || error.is_builder() {
            Exchange::NotSent(why)
        } else {
            Exchange::NoAnswer(why)
        };
        Self {
            exchange,
            key: KeyEcho::NoAnswer,
        }
    }
}

/// A URL as it may be shown: without the credentials that it may have.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails for URLs that can have none.
    let _ = url.set_username("").and(url.set_password(None));
    url.to_string()
}

/// Whether a URL leads to this device, where no proxy belongs in between.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let address = host.trim_start_matches('[').trim_end_matches(']');
            address
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| chain(&error.without_url()))?
    {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whether an answer names a key, and not that of this request: something in between is out of step.
fn is_to_another(headers: &HeaderMap, key: Option<&str>) -> bool {
    let echoed = text(headers, IDEMPOTENCY_KEY);
    key.is_some() && echoed.is_some() && echoed.as_deref() != key
}

fn echo(headers: &HeaderMap, key: Option<&str>) -> KeyEcho {
    let echoed = text(headers, IDEMPOTENCY_KEY);
    if key.is_none() || echoed.as_deref() != key {
        return KeyEcho::Absent;
    }
    match text(headers, IDEMPOTENCY_REPLAYED).as_deref() {
        Some("true") => KeyEcho::Replayed,
        Some("false") => KeyEcho::New,
        _ => KeyEcho::Echoed,
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// An error with its causes: reqwest's own text does not say why.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

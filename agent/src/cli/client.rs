//! Talking to the agent that runs on a data directory, over its socket.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde::{Serialize, de::DeserializeOwned};
use tally_shared::{
    auth,
    time::Timestamp,
    wire::{AddConsumption, IDEMPOTENCY_KEY, error::ErrorBody},
};

use super::{doctor::holders::holders, socket::Socket};
use crate::{
    admin_token,
    apps::KeyPair,
    config::paths::DataDir,
    http::SEARCHED,
    ledger::reader::{Found, Page},
    owner,
    secret::Secret,
};

/// The agent of a data directory. Root reads its token with the rights of the folder's owner, and talks to no socket of
/// anybody else.
pub(super) struct Agent {
    _socket: Socket,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    token: Secret,
}

/// What the agent answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
    headers: HeaderMap,
}

impl Agent {
    /// Finds the agent that runs on a data directory, if one does.
    pub(super) fn running(data_dir: &DataDir) -> anyhow::Result<Option<Self>> {
        match Socket::find(data_dir)? {
            // One stays behind when an agent is killed.
            Some(socket) if socket.is_listening() => Self::connect_to(socket, data_dir).map(Some),
            _ => Ok(None),
        }
    }

    /// Finds the agent. It may have gone away all the same.
    pub(super) fn connect(data_dir: &DataDir) -> anyhow::Result<Self> {
        let Some(socket) = Socket::find(data_dir)? else {
            if let Some(process) = holders(data_dir).first() {
                bail!(
                    "the folder {} was deleted or moved under the agent that runs, process {process}: start no other; it \
                     writes the ledger back within seconds, and can then be stopped (SIGTERM, not SIGKILL) and started again",
                    data_dir.path().display()
                );
            }
            bail!(
                "no agent runs on {}; start one with `tally run`, or name its folder with --data-dir",
                data_dir.path().display()
            );
        };
        Self::connect_to(socket, data_dir)
    }

    fn connect_to(socket: Socket, data_dir: &DataDir) -> anyhow::Result<Self> {
        let token = as_owner(data_dir, |dir| admin_token::read(&dir.admin_token()))?;
        let http = reqwest::Client::builder()
            .unix_socket(socket.path())
            .no_proxy()
            .build()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            _socket: socket,
            http,
            runtime,
            token,
        })
    }

    /// Reads.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        accepted(&self.send(self.control(Method::GET, path))?)
    }

    /// Reads rows of the ledger.
    pub(super) fn rows(&self, page: &Page) -> anyhow::Result<Found> {
        let path = format!("/v1/events?{}", serde_urlencoded::to_string(page)?);
        let reply = self.send(self.control(Method::GET, &path))?;
        let searched = reply.headers.get(SEARCHED);
        Ok(Found {
            rows: accepted(&reply)?,
            searched: searched.and_then(|rows| rows.to_str().ok()?.parse().ok()),
        })
    }

    /// Asks for something to be done.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self.control(method, path).body(serde_json::to_vec(body)?);
        accepted(&self.send(request.header("content-type", "application/json"))?)
    }

    /// As [`Self::ask`], where a refusal is one result among others.
    pub(super) fn try_ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<Result<T, String>> {
        let request = self.control(method, path).body(serde_json::to_vec(body)?);
        let reply = self.send(request.header("content-type", "application/json"))?;
        if reply.status.is_client_error() {
            return Ok(Err(refusal(&reply)));
        }
        accepted(&reply).map(Ok)
    }

    /// Consumes, as an application.
    pub(super) fn consume(
        &self,
        keys: &KeyPair,
        request: &AddConsumption,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let date = Timestamp::from_system_time(std::time::SystemTime::now()).to_http_date();
        let authorization = auth::authorization(&keys.api_key, keys.shared_key.expose(), &date);
        let mut post = self
            .request(Method::POST, request.path())
            .header("date", date)
            .header("authorization", authorization)
            .header("content-type", "application/json")
            .body(request.to_json());
        if let Some(key) = idempotency_key {
            post = post.header(IDEMPOTENCY_KEY, key);
        }
        self.send(post)
    }

    fn control(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).bearer_auth(self.token.expose())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://localhost{path}"))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
        self.runtime.block_on(async {
            let response = request
                .send()
                .await
                .context("the agent does not answer; start it again with `tally run`")?;
            let status = response.status();
            let headers = response.headers().clone();
            let body = response
                .text()
                .await
                .context("the agent's answer broke off")?;
            Ok(Reply {
                status,
                body,
                headers,
            })
        })
    }
}

/// Does something on a data directory as its owner.
pub(super) fn as_owner<T, E: Into<anyhow::Error>>(
    data_dir: &DataDir,
    work: impl FnOnce(&DataDir) -> Result<T, E>,
) -> anyhow::Result<T> {
    let path = data_dir.path();
    let work = |reached: &Path| {
        let done = work(&DataDir::new(reached.to_owned()));
        (done, reached.to_owned())
    };
    let (done, reached) = owner::as_owner_of(path, work)
        .with_context(|| format!("cannot act as the owner of {}", path.display()))?;
    done.map_err(|error| {
        let error: anyhow::Error = error.into();
        if reached == path {
            return error;
        }
        // People know the folder by its name.
        let name = reached.display().to_string();
        anyhow!(format!("{error:#}").replace(&name, &path.display().to_string()))
    })
}

fn accepted<T: DeserializeOwned>(reply: &Reply) -> anyhow::Result<T> {
    if reply.status.is_success() {
        return serde_json::from_str(&reply.body).context("the agent's answer is not understood");
    }
    bail!(refusal(reply));
}

/// A refusal, as one line.
pub(super) fn refusal(reply: &Reply) -> String {
    match serde_json::from_str::<ErrorBody>(&reply.body) {
        // A refusal that the server made says its code already.
        Ok(error) if error.message.starts_with(&format!("{}: ", error.code)) => error.message,
        Ok(error) => format!("{}: {}", error.code, error.message),
        Err(_) => format!("the agent answered {}: {}", reply.status, reply.body),
    }
}

//! A stub in a process of its own, and its control surface.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Process, Program},
    seed,
};

/// Whether a stub keeps idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// It does, as our stub and an agent.
    Kept,
    /// It does not, as the production service.
    NotKept,
}

/// A running stub.
pub struct Stub {
    process: Process,
    _folder: TempDir,
    control: reqwest::blocking::Client,
}

impl Stub {
    /// Starts a stub of this program with a seed.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn start(program: impl Into<Program>, seed: &Value, keys: Keys) -> crate::Result<Self> {
        let folder = TempDir::new()?;
        let file: PathBuf = folder.path().join("seed.json");
        std::fs::write(&file, seed.to_string())?;
        let mut command = program.into().command();
        command
            .args(["run", "--listen", "127.0.0.1:0", "--seed"])
            .arg(&file);
        if keys == Keys::NotKept {
            command.arg("--no-idempotency");
        }
        let process = Process::start(&mut command, &folder.path().join("stub.log"))?;
        let control = reqwest::blocking::Client::builder().no_proxy().build()?;
        Ok(Self {
            process,
            _folder: folder,
            control,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        self.process.url()
    }

    /// An application that talks to it without an agent.
    ///
    /// # Errors
    ///
    /// Where the HTTP client cannot be made.
    pub fn client(&self) -> crate::Result<Client> {
        Client::new(self.url(), seed::API_KEY, seed::SHARED_KEY)
    }

    /// Puts faults in force; an empty list ends them.
    ///
    /// # Errors
    ///
    /// Where the stub does not take them.
    pub fn faults(&self, faults: &Value) -> crate::Result {
        self.put("faults", faults).map(|_| ())
    }

    /// Puts the network between it and its clients into a state.
    ///
    /// # Errors
    ///
    /// Where the stub does not take it.
    pub fn network(&self, state: &Value) -> crate::Result {
        self.put("network", state).map(|_| ())
    }

    /// How often each fault fired.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn fired(&self) -> crate::Result<Vec<u64>> {
        let faults = self.get("faults")?;
        let states = faults.as_array().cloned().unwrap_or_default();
        Ok(states
            .iter()
            .filter_map(|state| state.get("fired")?.as_u64())
            .collect())
    }

    /// Sets its clock forward.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn advance(&self, seconds: i64) -> crate::Result {
        self.put("clock", &json!({"advance_seconds": seconds}))
            .map(|_| ())
    }

    /// Sets its clock.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn set_clock(&self, now: &str) -> crate::Result {
        self.put("clock", &json!({"now": now})).map(|_| ())
    }

    /// The total of a licence.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn total(&self, license: i64) -> crate::Result<i64> {
        let license = self.get(&format!("licenses/{license}"))?;
        Ok(license
            .get("total_consumptions")
            .and_then(Value::as_i64)
            .unwrap_or_default())
    }

    /// A licence, as its vendor sees it.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn license(&self, license: i64) -> crate::Result<Value> {
        self.get(&format!("licenses/{license}"))
    }

    /// The totals of all licences, added up.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn total_of_all(&self) -> crate::Result<i64> {
        let licenses = self.get("licenses")?;
        let totals = licenses.as_array().into_iter().flatten();
        Ok(totals
            .filter_map(|license| license.get("total_consumptions")?.as_i64())
            .sum())
    }

    /// Changes fields of a licence, as its vendor might.
    ///
    /// # Errors
    ///
    /// Where the stub does not take it.
    pub fn edit(&self, license: i64, with: Value) -> crate::Result {
        let path = format!("licenses/{license}");
        let edited = seed::merged(self.get(&path)?, with);
        self.put(&path, &edited).map(|_| ())
    }

    /// Changes fields of a licence, and leaves the others to whoever changes them meanwhile.
    ///
    /// # Errors
    ///
    /// Where the stub does not take it.
    pub fn patch(&self, license: i64, fields: &Value) -> crate::Result {
        let url = format!("{}/stub/v1/licenses/{license}", self.url());
        taken(self.control.patch(url), fields).map(|_| ())
    }

    /// Adds a licence of this id, as its vendor might.
    ///
    /// # Errors
    ///
    /// Where the stub does not take it.
    pub fn give(&self, license: i64, with: &Value) -> crate::Result {
        self.put(&format!("licenses/{license}"), with).map(|_| ())
    }

    /// The activity log of a licence: events with their units.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn activity(&self, license: i64) -> crate::Result<Vec<(String, i64)>> {
        let log = self.get(&format!("activity?license_id={license}"))?;
        let entry = |entry: &Value| {
            let event = entry.get("event")?.as_str()?.to_owned();
            Some((event, entry.get("units")?.as_i64()?))
        };
        Ok(log
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(entry)
            .collect())
    }

    /// The paths of the requests that it got since they were last forgotten.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn requests(&self) -> crate::Result<Vec<Value>> {
        Ok(self
            .get("requests")?
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Forgets the requests that it got.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn forget_requests(&self) -> crate::Result {
        let url = format!("{}/stub/v1/requests", self.url());
        self.control.delete(url).send()?.error_for_status()?;
        Ok(())
    }

    /// The public key that verifies its answers.
    ///
    /// # Errors
    ///
    /// Where the stub does not answer.
    pub fn public_key(&self) -> crate::Result<String> {
        let url = format!("{}/stub/v1/public_key", self.url());
        Ok(self.control.get(url).send()?.error_for_status()?.text()?)
    }

    fn get(&self, path: &str) -> crate::Result<Value> {
        let url = format!("{}/stub/v1/{path}", self.url());
        let text = self.control.get(url).send()?.error_for_status()?.text()?;
        Ok(serde_json::from_str(&text)?)
    }

    fn put(&self, path: &str, body: &Value) -> crate::Result<Value> {
        let url = format!("{}/stub/v1/{path}", self.url());
        taken(self.control.put(url), body)
    }
}

fn taken(request: reqwest::blocking::RequestBuilder, body: &Value) -> crate::Result<Value> {
    let response = request.body(body.to_string()).send()?;
    let (status, text) = (response.status(), response.text()?);
    anyhow::ensure!(status.is_success(), "the stub answered {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

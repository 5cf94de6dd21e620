//! An agent under test: a process of its own, its applications, and what it says of itself.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use fs_err as fs;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tally_shared::{
    auth,
    time::Timestamp,
    wire::{ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, Holder},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{
    agent_error::{AgentError, cannot_spawn},
    file::{AgentSpec, Consume},
    folder,
    placeholder::{Template, Values},
};
use crate::{engine::state::License, seed::ApiKey};

/// How long an agent may take until it is ready: it may have to be linked from a cold disk.
const READY_WAIT: Duration = Duration::from_mins(1);
/// How long an agent may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// How long an agent may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How much of an agent's log is shown.
const LOG_LINES: usize = 12;

/// An agent.
pub(super) struct Agent {
    pub(super) spec: AgentSpec,
    command: Template,
    app_command: Template,
    values: Values,
    folder: PathBuf,
    http: reqwest::Client,
    process: Option<Child>,
    url: String,
    apps: BTreeMap<String, KeyPair>,
}

/// What an agent needs beside its own place in the file.
pub(super) struct Setting {
    /// The command that runs it.
    pub(super) agent_command: Template,
    /// The command that makes a key pair for an application.
    pub(super) app_command: Template,
    /// What the placeholders of both stand for.
    pub(super) values: Values,
    /// Where it may write.
    pub(super) folder: PathBuf,
}

/// The key pair of an application, as `tally app add --json` prints it.
#[derive(Clone, Deserialize)]
struct KeyPair {
    api_key: String,
    shared_key: String,
}

/// What became of one consumption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was granted.
    Granted,
    /// It was refused, with this code.
    Refused(String),
    /// No answer came.
    None,
}

impl Agent {
    /// An agent that does not run yet.
    pub(super) fn new(spec: AgentSpec, setting: Setting) -> Result<Self, AgentError> {
        folder::create_private(&setting.folder.join("data")).map_err(|source| {
            AgentError::Folder {
                name: spec.name.clone(),
                source,
            }
        })?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_WAIT)
            .build()
            .map_err(AgentError::Client)?;
        Ok(Self {
            spec,
            command: setting.agent_command,
            app_command: setting.app_command,
            values: setting.values,
            folder: setting.folder,
            http,
            process: None,
            url: String::new(),
            apps: BTreeMap::new(),
        })
    }

    /// Whether it was started, and neither stopped nor killed.
    pub(super) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it, and waits until it is ready.
    pub(super) async fn start(&mut self) -> Result<(), AgentError> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(|source| AgentError::Folder {
                name: self.name(),
                source,
            })?;
        let mut words = self.command.filled(&self.values);
        words.extend(self.spec.args.iter().cloned());
        let mut command = self.prepared(&words);
        command.stdout(Stdio::piped()).stderr(log.into_parts().0);
        let mut child = command
            .spawn()
            .map_err(|source| cannot_spawn(&words, source))?;
        let stdout = child.stdout.take();
        let mut lines =
            BufReader::new(stdout.ok_or_else(|| self.not_ready("it has no output"))?).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.trim().strip_prefix("ready ") {
                    return Some(url.to_owned());
                }
            }
            None
        };
        match tokio::time::timeout(READY_WAIT, ready).await {
            Ok(Some(url)) => self.url = url,
            Ok(None) => {
                let ended = child.wait().await;
                let status = ended.map_or_else(|error| error.to_string(), |it| it.to_string());
                return Err(self.not_ready(&format!("it ended with {status}")));
            }
            Err(_) => return Err(self.not_ready("it printed no line `ready http://ADDR:PORT`")),
        }
        // Read to the end, so that an agent that prints more is never blocked; ends with the agent.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.process = Some(child);
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(&mut self) -> Result<(), AgentError> {
        let Some(mut child) = self.process.take() else {
            return Ok(());
        };
        ask_to_stop(&mut child);
        let ended = tokio::time::timeout(STOP_WAIT, child.wait()).await;
        ended
            .map(drop)
            .map_err(|_| AgentError::NotStopped { name: self.name() })
    }

    /// Kills it, as a power cut would.
    pub(super) async fn kill(&mut self) -> Result<(), AgentError> {
        let Some(mut child) = self.process.take() else {
            return Err(AgentError::NotRunning { name: self.name() });
        };
        // It may have ended by itself; then it is gone all the same.
        let _ = child.kill().await;
        Ok(())
    }

    /// Gives it another key pair at the server, from its next start on.
    pub(super) fn set_key_pair(&mut self, pair: ApiKey) {
        self.values.insert("api_key", pair.api_key);
        self.values.insert("shared_key", pair.shared_key);
    }

    /// The values of it that programs of the timeline may have.
    pub(super) fn place(&self) -> [(&'static str, String); 3] {
        [
            ("agent_url", self.url.clone()),
            ("agent_program", self.command.program().to_owned()),
            ("data_dir", self.data_dir().display().to_string()),
        ]
    }

    /// Copies its data folder to the side.
    pub(super) fn save(&self) -> Result<(), AgentError> {
        self.copied(&self.data_dir(), &self.folder.join("saved"))
    }

    /// Puts its data folder back as it was saved.
    pub(super) fn put_back(&self) -> Result<(), AgentError> {
        self.copied(&self.folder.join("saved"), &self.data_dir())
    }

    /// Gets a copy of another agent's data folder, and what the runner knows of its applications.
    pub(super) fn copy_of(&mut self, other: &Self) -> Result<(), AgentError> {
        other.require_stopped()?;
        self.copied(&other.data_dir(), &self.data_dir())?;
        self.apps.clone_from(&other.apps);
        Ok(())
    }

    fn copied(&self, from: &Path, to: &Path) -> Result<(), AgentError> {
        self.require_stopped()?;
        folder::copy(from, to).map_err(|source| AgentError::Folder {
            name: self.name(),
            source,
        })
    }

    /// A ledger that is written to while it is copied would be torn.
    fn require_stopped(&self) -> Result<(), AgentError> {
        if self.process.is_some() {
            return Err(AgentError::Running { name: self.name() });
        }
        Ok(())
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Makes a licence known to it.
    pub(super) async fn add_license(&self, license: &License) -> Result<(), AgentError> {
        let mut body = json!({"product": license.product, "hardware_id": self.spec.hardware_id});
        match license.holder() {
            Some(Holder::LicenseKey(key)) => body["license_key"] = key.into(),
            Some(Holder::Username(user)) => {
                body["username"] = user.into();
                body["license_id"] = license.id.into();
            }
            None => {}
        }
        self.ask(Method::POST, "/v1/licenses", Some(&body))
            .await
            .map(drop)
    }

    /// What it says of itself.
    pub(super) async fn status(&self) -> Result<Value, AgentError> {
        self.ask(Method::GET, "/v1/status", None).await
    }

    /// Makes it send what it owes.
    pub(super) async fn sync(&self) -> Result<(), AgentError> {
        self.ask(Method::POST, "/v1/sync", Some(&json!({})))
            .await
            .map(drop)
    }

    /// Puts its own network switch.
    pub(super) async fn set_network(&self, mode: &str) -> Result<(), AgentError> {
        let body = json!({ "mode": mode });
        self.ask(Method::PUT, "/v1/network", Some(&body))
            .await
            .map(drop)
    }

    /// An application consumes once.
    pub(super) async fn consume(
        &mut self,
        order: &Consume,
        license: &License,
    ) -> Result<Answer, AgentError> {
        if self.process.is_none() {
            return Ok(Answer::None);
        }
        let keys = self.app(&order.app).await?;
        let hardware_id = order.hardware_id.as_ref();
        let hardware_id = hardware_id.unwrap_or(&self.spec.hardware_id);
        let mut body = json!({"product": license.product, "hardware_id": hardware_id,
                              "consumptions": order.units});
        if let Some(holder) = license.holder() {
            body[holder.field()] = holder.value().into();
        }
        if !order.without_id {
            body["license_id"] = license.id.into();
        }
        if let Some(feature) = &order.feature {
            body["feature"] = feature.as_str().into();
        }
        if let Some(allow) = order.allow_overages {
            body["allow_overages"] = allow.into();
        }
        if let Some(most) = order.max_overages {
            body["max_overages"] = most.into();
        }
        let path = if order.feature.is_some() {
            ADD_FEATURE_CONSUMPTION
        } else {
            ADD_CONSUMPTION
        };
        let date = Timestamp::from_system_time(SystemTime::now()).to_http_date();
        let authorization = auth::authorization(&keys.api_key, &keys.shared_key, &date);
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .header("Date", date)
            .header("Authorization", authorization)
            .header("content-type", "application/json")
            .body(body.to_string());
        let Ok(response) = request.send().await else {
            return Ok(Answer::None);
        };
        let status = response.status();
        let Ok(text) = response.text().await else {
            return Ok(Answer::None);
        };
        if status.is_success() {
            return Ok(Answer::Granted);
        }
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let code = body.get("code").and_then(Value::as_str);
        Ok(Answer::Refused(
            code.map_or_else(|| status.to_string(), str::to_owned),
        ))
    }

    /// The last lines that it logged.
    pub(super) fn log_tail(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines
            .iter()
            .skip(from)
            .map(|line| (*line).to_owned())
            .collect()
    }

    async fn app(&mut self, name: &str) -> Result<KeyPair, AgentError> {
        if let Some(keys) = self.apps.get(name) {
            return Ok(keys.clone());
        }
        let mut values = self.values.clone();
        values.insert("app", name.to_owned());
        let words = self.app_command.filled(&values);
        let output = self.prepared(&words).output().await;
        let output = output.map_err(|source| cannot_spawn(&words, source))?;
        let keys = serde_json::from_slice(&output.stdout).map_err(|error| AgentError::App {
            command: words.join(" "),
            why: match String::from_utf8_lossy(&output.stderr).trim() {
                "" => error.to_string(),
                said => said.to_owned(),
            },
        });
        let keys: KeyPair = keys?;
        self.apps.insert(name.to_owned(), keys.clone());
        Ok(keys)
    }

    async fn ask(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<Value, AgentError> {
        if self.process.is_none() {
            return Err(AgentError::NotRunning { name: self.name() });
        }
        let failed = |source| AgentError::Http {
            name: self.name(),
            path,
            source,
        };
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        // Made anew with its folder; an agent that asks for none has none.
        if let Ok(token) = fs::read_to_string(self.data_dir().join("admin_token")) {
            request = request.bearer_auth(token.trim());
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        if !status.is_success() {
            return Err(AgentError::Refused {
                name: self.name(),
                path,
                status: status.as_u16(),
                body: text,
            });
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// A command in the agent's surroundings; it does not outlive this program.
    fn prepared(&self, words: &[String]) -> Command {
        let value = |name| self.values.get(name).map_or("", String::as_str);
        let mut command = Command::new(words.first().map_or("", String::as_str));
        command
            .args(words.iter().skip(1))
            .env("TALLY_SERVER_API_KEY", value("api_key"))
            .env("TALLY_SERVER_SHARED_KEY", value("shared_key"))
            .env("TALLY_SERVER_URL", value("server_url"))
            .env("TALLY_DATA_DIR", value("data_dir"))
            .env("TALLY_LISTEN", "127.0.0.1:0")
            // The settings of whoever runs the scenario are not the scenario's.
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    fn name(&self) -> String {
        self.spec.name.clone()
    }

    fn not_ready(&self, why: &str) -> AgentError {
        let said = self.log_tail();
        let said = said
            .last()
            .map_or(String::new(), |line| format!("; it said: {line}"));
        AgentError::NotReady {
            name: self.name(),
            why: format!("{why}{said}"),
        }
    }
}

#[cfg(unix)]
fn ask_to_stop(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself; then nothing has to be done.
        let _ = kill_process(pid, Signal::TERM);
    }
}

#[cfg(not(unix))]
fn ask_to_stop(child: &mut Child) {
    // There is no signal to ask with; it may have ended by itself.
    let _ = child.start_kill();
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("spec", &self.spec)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

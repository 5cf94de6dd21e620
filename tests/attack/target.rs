//! What is attacked: an agent with a licence, an application with a key pair, and the proof afterwards.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::Context as _;
use serde_json::{Value, json};
use tally_shared::{auth, time::Timestamp};
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    client::{Client, by_key},
    seed,
    stub::{Keys, Stub},
};
use tempfile::NamedTempFile;

use crate::raw::{Answer, Raw};

pub(crate) const ADD: &str = "/api/v4/add_consumption";

/// How much an agent may grow under attack, in MiB. Its buffers are bounded by its connections.
const GROWTH_MAX: u64 = 64;

/// An agent under attack.
pub(crate) struct Target {
    pub(crate) stub: Stub,
    pub(crate) agent: Agent,
    pub(crate) app: Client,
    pub(crate) api_key: String,
    pub(crate) shared_key: String,
    pub(crate) token: String,
    address: SocketAddr,
    recorded: i64,
    memory: u64,
    _config: NamedTempFile,
}

impl Target {
    /// As it is shipped.
    pub(crate) fn start() -> Result<Self> {
        Self::with_config("")
    }

    /// With a config file of this text.
    pub(crate) fn with_config(text: &str) -> Result<Self> {
        assert!(
            !text.contains("listen_public"),
            "this harness speaks no TLS"
        );
        let config = NamedTempFile::new()?;
        std::fs::write(config.path(), text)?;
        let licenses = [seed::license(1_000_000, json!({}))];
        let stub = Stub::start(
            env!("CARGO_BIN_EXE_stub-under-test"),
            &seed::seed(&licenses),
            Keys::Kept,
        )?;
        let flags = vec!["--config".to_owned(), config.path().display().to_string()];
        let program = env!("CARGO_BIN_EXE_tally-under-test");
        let agent = Agent::start(program, stub.url(), &Setup { flags })?;
        agent.add_license()?;
        let keys = agent.json(&["app", "add", "victim"])?;
        let text = |name: &str| -> Result<String> {
            let value = keys.get(name).and_then(Value::as_str);
            Ok(value.context("a key pair")?.to_owned())
        };
        let (api_key, shared_key) = (text("api_key")?, text("shared_key")?);
        let app = Client::new(agent.url()?, &api_key, &shared_key)?;
        let address = agent.url()?.trim_start_matches("http://").parse()?;
        let token = agent.admin_token()?;
        let mut target = Self {
            memory: 0,
            recorded: 0,
            stub,
            app,
            api_key,
            shared_key,
            token,
            address,
            agent,
            _config: config,
        };
        target.grant(1)?;
        target.memory = target.resident()?;
        Ok(target)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request that must be granted.
    pub(crate) fn grant(&mut self, units: i64) -> Result {
        let reply = self.app.add(units)?;
        anyhow::ensure!(reply.status == 200, "{}", reply.text);
        self.recorded += units;
        Ok(())
    }

    /// Units that were granted in another way.
    pub(crate) const fn count(&mut self, units: i64) {
        self.recorded += units;
    }

    /// The agent still answers, recorded what was granted and nothing else, and has not grown.
    #[track_caller]
    pub(crate) fn check_unharmed(&mut self) -> Result {
        self.grant(1)?;
        let health = self.app.raw(reqwest::Method::GET, "/healthz", &[], "")?;
        assert_eq!(health.text, r#"{"status":"ok"}"#);
        assert_eq!(self.agent.sums(0)?.recorded, self.recorded);
        let grown = self.resident()?.saturating_sub(self.memory);
        assert!(grown <= GROWTH_MAX, "the agent grew by {grown} MiB");
        let said = self.agent.said()?;
        assert!(!said.contains("panicked"), "{said}");
        Ok(())
    }

    /// Its resident memory in MiB; zero where the system does not tell.
    pub(crate) fn resident(&mut self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.agent.process_id()?);
        let Ok(status) = std::fs::read_to_string(path) else {
            return Ok(0);
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next());
        Ok(kib.context("VmRSS")?.parse::<u64>()? / 1024)
    }

    /// The headers that sign a request, now.
    pub(crate) fn signature(&self) -> String {
        let date = Timestamp::from_system_time(SystemTime::now()).to_http_date();
        let authorization = auth::authorization(&self.api_key, &self.shared_key, &date);
        format!("Date: {date}\r\nAuthorization: {authorization}\r\n")
    }

    /// A whole signed request to consume one unit, with further header lines.
    pub(crate) fn consume(&self, headers: &str) -> Vec<u8> {
        self.consume_with(headers, by_key(1).to_string().as_bytes())
    }

    /// A whole signed request with any body.
    pub(crate) fn consume_with(&self, headers: &str, body: &[u8]) -> Vec<u8> {
        let has = |name: &str| headers.to_ascii_lowercase().contains(name);
        let host = format!("Host: {}\r\n", self.address);
        let host = if has("host:") { "" } else { &host };
        let kind = "Content-Type: application/json\r\n";
        let kind = if has("content-type:") { "" } else { kind };
        let mut request = format!(
            "POST {ADD} HTTP/1.1\r\n{host}{kind}{}Content-Length: {}\r\n{headers}\r\n",
            self.signature(),
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// A request without a body, with the admin token or without.
    pub(crate) fn control(&self, line: &str, headers: &str, with_token: bool) -> Vec<u8> {
        let has_host = headers.to_ascii_lowercase().contains("host:");
        let host = format!("Host: {}\r\n", self.address);
        let host = if has_host { "" } else { &host };
        let token = format!("Authorization: Bearer {}\r\n", self.token);
        let token = if with_token { token.as_str() } else { "" };
        format!("{line} HTTP/1.1\r\n{host}{token}{headers}\r\n").into_bytes()
    }

    /// Sends bytes on a connection of their own, and reads the answer.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<Option<Answer>> {
        let mut raw = Raw::connect(self.address)?;
        // An agent that closes early has refused; its answer is read all the same.
        let _ = raw.send(bytes);
        raw.answer()
    }

    /// Sends bytes, to which there must be an answer.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Result<Answer> {
        self.send(bytes)?.context("no answer")
    }

    /// The bytes are refused with this code, in the contract's form.
    #[track_caller]
    pub(crate) fn check_refused(&self, bytes: &[u8], code: &str) -> Result {
        let answer = self.ask(bytes)?;
        let sent = String::from_utf8_lossy(bytes);
        assert_eq!(answer.code().as_deref(), Some(code), "{sent}\n{answer:?}");
        Ok(())
    }
}

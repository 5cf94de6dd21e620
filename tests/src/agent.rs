//! An agent in a process of its own, and its command line.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tally_agent::file_system;
use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Process, Program},
    seed, wait,
};

/// The variable that tells the agent under test to kill itself: `point:n`, a named point of its code and
/// which time of coming there it is.
pub const KILL_AT: &str = "TALLY_KILL_AT";

/// The variable that tells the agent under test to panic once, at a named point of its code.
pub const PANIC_AT: &str = "TALLY_PANIC_AT";

/// An agent on a data directory of its own. It can be stopped and started again.
pub struct Agent {
    program: Program,
    folder: TempDir,
    server_url: String,
    flags: Vec<String>,
    keys: (String, String),
    process: Option<Process>,
}

/// How an agent of a test is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Further flags of `tally run`; the intervals are short unless they, or a config file, say otherwise.
    pub flags: Vec<String>,
}

impl Agent {
    /// Starts an agent of this program that uses a server.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn start(
        program: impl Into<Program>,
        server_url: &str,
        setup: &Setup,
    ) -> crate::Result<Self> {
        Self::start_as(
            program,
            server_url,
            setup,
            (seed::API_KEY, seed::SHARED_KEY),
        )
    }

    /// As [`Self::start`], with other credentials for the server.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn start_as(
        program: impl Into<Program>,
        server_url: &str,
        setup: &Setup,
        keys: (&str, &str),
    ) -> crate::Result<Self> {
        Self::start_on(scratch()?, program.into(), server_url, setup, keys)
    }

    /// As [`Self::start`], with its data directory inside of a folder: on a disk to measure.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn start_in(
        folder: &Path,
        program: impl Into<Program>,
        server_url: &str,
        setup: &Setup,
    ) -> crate::Result<Self> {
        let keys = (seed::API_KEY, seed::SHARED_KEY);
        Self::start_on(
            TempDir::new_in(folder)?,
            program.into(),
            server_url,
            setup,
            keys,
        )
    }

    fn start_on(
        folder: TempDir,
        program: Program,
        server_url: &str,
        setup: &Setup,
        keys: (&str, &str),
    ) -> crate::Result<Self> {
        let mut agent = Self {
            program,
            folder,
            server_url: server_url.to_owned(),
            flags: setup.flags.clone(),
            keys: (keys.0.to_owned(), keys.1.to_owned()),
            process: None,
        };
        agent.restart()?;
        Ok(agent)
    }

    /// An agent on a copy of this one's data directory, which `copy` makes. It is not started yet.
    ///
    /// # Errors
    ///
    /// What `copy` says.
    pub fn copied(&self, copy: impl FnOnce(&Path, &Path) -> crate::Result) -> crate::Result<Self> {
        let copied = Self {
            program: self.program.clone(),
            folder: scratch()?,
            server_url: self.server_url.clone(),
            flags: self.flags.clone(),
            keys: self.keys.clone(),
            process: None,
        };
        copy(&self.data_dir(), &copied.data_dir())?;
        Ok(copied)
    }

    /// Starts it again, on the same data directory.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn restart(&mut self) -> crate::Result {
        // The old one must be gone before the new one takes its lock.
        self.process = None;
        self.process = Some(Process::start(&mut self.run_command(), &self.log())?);
        Ok(())
    }

    /// Starts it again with further variables.
    ///
    /// # Errors
    ///
    /// Where it cannot start.
    pub fn restart_with(&mut self, variables: &[(&str, &str)]) -> crate::Result {
        let ended = self.spawn(variables)?.ready()?;
        anyhow::ensure!(ended.is_none(), "the agent ended: {}", self.said()?);
        Ok(())
    }

    /// Starts it again with further variables, and waits for nothing: for a test that kills it.
    ///
    /// # Errors
    ///
    /// Where the system cannot.
    pub fn spawn(&mut self, variables: &[(&str, &str)]) -> crate::Result<&mut Process> {
        self.process = None;
        let mut command = self.run_command();
        command.envs(variables.iter().copied());
        let process = Process::spawn(&mut command, &self.log())?;
        Ok(self.process.insert(process))
    }

    /// Where what it says on stderr goes.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    /// Gives it other credentials for the server, from the next start on.
    pub fn set_server_keys(&mut self, api_key: &str, shared_key: &str) {
        self.keys = (api_key.to_owned(), shared_key.to_owned());
    }

    /// `tally run` on this agent's data directory.
    pub fn run_command(&self) -> Command {
        let given = |flag: &str| self.flags.iter().any(|other| other == flag);
        let mut command = self.command(&["run", "--listen", "127.0.0.1:0"]);
        command.args(["--server-url", &self.server_url]);
        for (flag, value) in [("--sync-interval", "50ms"), ("--settle-wait", "200ms")] {
            if !given(flag) && !given("--config") {
                command.args([flag, value]);
            }
        }
        command.args(&self.flags);
        command
    }

    /// Any command of `tally` on this agent's data directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program.command();
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.data_dir())
            .env("TALLY_SERVER_API_KEY", &self.keys.0)
            .env("TALLY_SERVER_SHARED_KEY", &self.keys.1)
            // The settings of whoever runs the tests are not the tests'.
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove(KILL_AT)
            .env_remove(PANIC_AT)
            .env_remove("TALLY_LOG");
        command
    }

    /// Runs a command of `tally` to its end.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn tally(&self, args: &[&str]) -> crate::Result<Output> {
        Ok(self.command(args).output()?)
    }

    /// Runs a command of `tally` that must succeed and print JSON.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn json(&self, args: &[&str]) -> crate::Result<Value> {
        let output = self.tally(&[args, &["--json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "tally {args:?} ended with {}: {said}",
            output.status
        );
        serde_json::from_slice(&output.stdout).with_context(|| format!("tally {args:?}"))
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn url(&self) -> crate::Result<&str> {
        Ok(self
            .process
            .as_ref()
            .context("the agent does not run")?
            .url())
    }

    /// What opens its control API.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn admin_token(&self) -> crate::Result<String> {
        let text = std::fs::read_to_string(self.data_dir().join("admin_token"))?;
        Ok(text.trim().to_owned())
    }

    /// What Prometheus reads.
    ///
    /// # Errors
    ///
    /// Where it does not say.
    pub fn metrics(&self) -> crate::Result<String> {
        let client = reqwest::blocking::Client::builder().no_proxy().build()?;
        let request = client.get(format!("{}/metrics", self.url()?));
        let answer = request.bearer_auth(self.admin_token()?).send()?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(answer.text()?)
    }

    /// The number of its process.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn process_id(&self) -> crate::Result<u32> {
        Ok(self
            .process
            .as_ref()
            .context("the agent does not run")?
            .id())
    }

    /// An application with a key pair of its own.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn app(&self, name: &str) -> crate::Result<Client> {
        self.app_with(name, &[])
    }

    /// An application that may do only what these flags of `tally app add` say.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn app_with(&self, name: &str, flags: &[&str]) -> crate::Result<Client> {
        let keys = self.json(&[["app", "add", name].as_slice(), flags].concat())?;
        let text = |key: &str| keys.get(key).and_then(Value::as_str).context("a key pair");
        Client::new(self.url()?, text("api_key")?, text("shared_key")?)
    }

    /// Makes the licence of [`seed::license`] known.
    ///
    /// # Errors
    ///
    /// Where the agent refuses.
    pub fn add_license(&self) -> crate::Result<Value> {
        let license = [
            "license",
            "add",
            "--product",
            seed::PRODUCT,
            "--license-key",
            seed::KEY,
        ];
        self.json(&[license.as_slice(), &["--hardware-id", seed::DEVICE]].concat())
    }

    /// Makes the licence of [`seed::user_license`] known.
    ///
    /// # Errors
    ///
    /// Where the agent refuses.
    pub fn add_user_license(&self) -> crate::Result<Value> {
        let license = [
            "license",
            "add",
            "--product",
            seed::PRODUCT,
            "--username",
            seed::USER,
        ];
        self.json(&[license.as_slice(), &["--hardware-id", seed::DEVICE]].concat())
    }

    /// Switches the network for a drill.
    ///
    /// # Errors
    ///
    /// Where the agent refuses.
    pub fn network(&self, mode: &str) -> crate::Result {
        self.json(&["network", mode]).map(|_| ())
    }

    /// The state of a licence: where its units are.
    ///
    /// # Errors
    ///
    /// Where the agent does not answer, or conservation does not hold.
    pub fn sums(&self, license: usize) -> crate::Result<Sums> {
        let status = self.json(&["status"])?;
        let found = status.pointer(&format!("/licenses/{license}/conservation"));
        let sums = Sums::read(found.context("a licence")?);
        let parts = sums.settled + sums.pending + sums.in_flight + sums.unknown + sums.held;
        ensure!(
            sums.recorded == parts,
            "conservation does not hold: {sums:?}"
        );
        Ok(sums)
    }

    /// The state of all licences together.
    ///
    /// # Errors
    ///
    /// Where the agent does not answer.
    pub fn sums_of_all(&self) -> crate::Result<Sums> {
        let status = self.json(&["status"])?;
        let licenses = status.get("licenses").and_then(Value::as_array);
        let all = licenses.context("licences")?.iter();
        Ok(all
            .filter_map(|license| license.get("conservation"))
            .map(Sums::read)
            .fold(Sums::default(), Sums::plus))
    }

    /// Waits until the server has counted everything that was recorded for a licence.
    ///
    /// # Errors
    ///
    /// Where it does not come to that.
    pub fn wait_settled(&self, license: usize) -> crate::Result<Sums> {
        let settled = |sums: &Sums| sums.recorded == sums.settled;
        wait::until("everything to be settled", || self.sums(license), settled)
    }

    /// Kills it, as a power cut would.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn kill(&mut self) -> crate::Result<ExitStatus> {
        self.process
            .take()
            .context("the agent does not run")?
            .kill()
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    ///
    /// Where it does not stop.
    pub fn terminate(&mut self) -> crate::Result<ExitStatus> {
        self.process
            .take()
            .context("the agent does not run")?
            .terminate()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// Where it does not run, or still does after this time.
    pub fn ended_within(&mut self, patience: Duration) -> crate::Result<ExitStatus> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.ended_within(patience)
    }

    /// Asks it to read its settings again.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn hang_up(&self) -> crate::Result {
        let process = self.process.as_ref();
        process.context("the agent does not run")?.hang_up()
    }

    /// What it said on stderr.
    ///
    /// # Errors
    ///
    /// Where its log cannot be read.
    pub fn said(&self) -> crate::Result<String> {
        Ok(std::fs::read_to_string(self.log())?)
    }
}

/// A folder on a disk: on another file system, an agent says so.
fn scratch() -> std::io::Result<TempDir> {
    match file_system::risky(&std::env::temp_dir()) {
        None => TempDir::new(),
        Some(_) => TempDir::new_in("/var/tmp").or_else(|_| TempDir::new()),
    }
}

/// Where the units of a licence are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Granted to applications, ever.
    pub recorded: i64,
    /// Counted by the server.
    pub settled: i64,
    /// Not sent yet.
    pub pending: i64,
    /// Sent, and not answered yet.
    pub in_flight: i64,
    /// Sent, and the answer was lost.
    pub unknown: i64,
    /// Waiting for something to change.
    pub held: i64,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self {
            recorded: self.recorded + other.recorded,
            settled: self.settled + other.settled,
            pending: self.pending + other.pending,
            in_flight: self.in_flight + other.in_flight,
            unknown: self.unknown + other.unknown,
            held: self.held + other.held,
        }
    }

    fn read(value: &Value) -> Self {
        let part = |name: &str| value.get(name).and_then(Value::as_i64).unwrap_or_default();
        Self {
            recorded: part("recorded"),
            settled: part("settled"),
            pending: part("pending"),
            in_flight: part("in_flight"),
            unknown: part("unknown"),
            held: part("held"),
        }
    }
}

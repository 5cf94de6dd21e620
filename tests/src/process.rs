//! A program that prints `ready http://…` when it is, and is stopped when it is dropped.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// How long a program may take to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A program, and the arguments that come before all others.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

/// A running program.
pub struct Process {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Program {
    /// A program in one of its roles.
    pub fn in_role(path: PathBuf, role: &str) -> Self {
        Self {
            path,
            arguments: vec![role.to_owned()],
        }
    }

    /// A command of it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        command
    }
}

impl From<&str> for Program {
    fn from(path: &str) -> Self {
        Self {
            path: PathBuf::from(path),
            arguments: Vec::new(),
        }
    }
}

impl Process {
    /// Starts a program and waits for its readiness line. What it says on stderr goes into `log`.
    ///
    /// # Errors
    ///
    /// Where it ends before it is ready; with what it said.
    pub fn start(command: &mut Command, log: &Path) -> crate::Result<Self> {
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(url) = line.trim().strip_prefix("ready ") else {
            let status = child.wait()?;
            let mut said = String::new();
            std::fs::File::open(log)?.read_to_string(&mut said)?;
            bail!("{command:?} ended with {status} before it was ready: {said}");
        };
        Ok(Self {
            child,
            url: url.to_owned(),
            log: log.to_owned(),
        })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it said on stderr so far.
    ///
    /// # Errors
    ///
    /// Where its log cannot be read.
    pub fn said(&self) -> crate::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Where the system cannot.
    pub fn kill(&mut self) -> crate::Result {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    ///
    /// Where it does not stop in time.
    pub fn terminate(&mut self) -> crate::Result<ExitStatus> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        anyhow::ensure!(sent.success(), "cannot signal process {id}");
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("process {id} did not stop within {STOP_MAX:?} of SIGTERM")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

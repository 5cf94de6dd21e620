//! A program that prints `ready http://…` when it is, and is stopped when it is dropped.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// How long a program may take to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A program, and the arguments that come before all others.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

/// A running program.
pub struct Process {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
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
        let mut process = Self::spawn(command, log)?;
        if let Some(status) = process.ready()? {
            let said = process.said()?;
            bail!("{command:?} ended with {status} before it was ready: {said}");
        }
        Ok(process)
    }

    /// Starts a program and waits for nothing.
    ///
    /// # Errors
    ///
    /// Where the system cannot.
    pub fn spawn(command: &mut Command, log: &Path) -> crate::Result<Self> {
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
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self {
            child,
            stdout,
            url: String::new(),
            log: log.to_owned(),
        })
    }

    /// Waits for its readiness line, or says how it ended without one.
    ///
    /// # Errors
    ///
    /// Where its output cannot be read.
    pub fn ready(&mut self) -> crate::Result<Option<ExitStatus>> {
        let mut line = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_line(&mut line)?;
        }
        match line.trim().strip_prefix("ready ") {
            Some(url) => url.clone_into(&mut self.url),
            None => return Ok(Some(self.child.wait()?)),
        }
        Ok(None)
    }

    /// Where it listens, once it is ready.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
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
    pub fn kill(&mut self) -> crate::Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits until it has ended, however it does.
    ///
    /// # Errors
    ///
    /// Where it still runs after this time.
    pub fn ended_within(&mut self, patience: Duration) -> crate::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
        bail!("process {} still runs after {patience:?}", self.child.id())
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    ///
    /// Where it does not stop in time.
    pub fn terminate(&mut self) -> crate::Result<ExitStatus> {
        self.signal("-TERM")?;
        self.ended_within(STOP_MAX).context("after SIGTERM")
    }

    /// Asks it to read its settings again (SIGHUP).
    ///
    /// # Errors
    ///
    /// Where it cannot be asked.
    pub fn hang_up(&self) -> crate::Result {
        self.signal("-HUP")
    }

    fn signal(&self, signal: &str) -> crate::Result {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        anyhow::ensure!(sent.success(), "cannot signal process {id}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

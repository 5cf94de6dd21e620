//! An agent of a user of its own, as a service has one, and root beside it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    client::Client,
    process::Process,
    seed,
    stub::{Keys, Stub},
};

/// Nobody: a user that owns nothing but what a test gives it.
pub(crate) const USER: u32 = 65534;

/// An agent that runs, or will, as [`USER`]; a licence is known to it.
pub(crate) struct Service {
    pub(crate) agent: Agent,
    _stub: Stub,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

/// Whether this test may act as several users; only root can.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Why an agent does not start.
pub(crate) fn refusal(command: &mut Command) -> Result<String> {
    let log = tempfile::NamedTempFile::new()?;
    let Err(error) = Process::start(command, log.path()) else {
        anyhow::bail!("it started");
    };
    Ok(format!("{error:#}"))
}

/// Gives a file or a folder, and all in it, to a user.
pub(crate) fn give(path: &Path, user: u32) -> Result {
    chown(path, Some(user), Some(user)).with_context(|| path.display().to_string())?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

impl Service {
    /// It does not run yet.
    pub(crate) fn new() -> Result<Self> {
        let seed = seed::seed(&[seed::license(1_000, json!({}))]);
        let stub = Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)?;
        let program = env!("CARGO_BIN_EXE_tally-under-test");
        let mut agent = Agent::start(program, stub.url(), &Setup::default())?;
        agent.add_license()?;
        agent.terminate()?;
        let data_dir = agent.data_dir();
        give(&data_dir, USER)?;
        let parent = data_dir.parent().context("a folder above")?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
        // The one of the build may be where another user cannot look.
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::copy(program, folder.path().join("tally"))?;
        Ok(Self {
            agent,
            _stub: stub,
            folder,
            process: None,
        })
    }

    /// Where a test may put what this user shall find.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.agent.data_dir().join(name)
    }

    /// `tally run`, as the service's user.
    pub(crate) fn run_command(&self) -> Command {
        let given = self.agent.run_command();
        let mut command = Command::new(self.folder.path().join("tally"));
        command.args(given.get_args()).uid(USER).gid(USER);
        for (name, value) in given.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("HOME", "/nonexistent").current_dir("/");
        command
    }

    /// Starts it, as the service's user.
    pub(crate) fn start(&mut self) -> Result {
        let mut command = self.run_command();
        self.start_by(&mut command)
    }

    /// Starts it by a command that a test has changed.
    pub(crate) fn start_by(&mut self, command: &mut Command) -> Result {
        self.process = None;
        self.process = Some(Process::start(command, &self.agent.log())?);
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result {
        let mut process = self.process.take().context("it does not run")?;
        process.terminate()?;
        Ok(())
    }

    pub(crate) fn url(&self) -> Result<&str> {
        Ok(self.process.as_ref().context("it does not run")?.url())
    }

    /// A command of root's on the service's data directory.
    pub(crate) fn root<I: AsRef<OsStr>>(&self, args: &[I]) -> Result<Output> {
        let mut command = self.agent.command(&[]);
        command.args(args);
        Ok(command.output()?)
    }

    /// `tally app add`, by root: the keys.
    pub(crate) fn add_app(&self, name: &str) -> Result<Value> {
        self.agent.json(&["app", "add", name])
    }

    /// An application of the running service, by its keys.
    pub(crate) fn client(&self, keys: &Value) -> Result<Client> {
        let text = |name: &str| keys[name].as_str().context("a key pair");
        Client::new(self.url()?, text("api_key")?, text("shared_key")?)
    }
}

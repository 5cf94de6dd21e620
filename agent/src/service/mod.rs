//! Having the system start the agent: what is written and run for it, step by step, and how it stands.
//!
//! [`systemd`], [`launchd`] and [`windows`] say what to do, in the terms of each; nothing here starts an agent
//! unless [`Target::start`] says so. The steps are data, so that they can be shown before they are taken.

pub mod launchd;
mod place;
pub mod systemd;
pub mod windows;

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

use self::place::Place;

/// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The device's; it runs whoever is logged in.
    System,
    /// One user's.
    User,
}

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose service it is.
    pub scope: Scope,
    /// The program that asks, which becomes the service's.
    pub program: PathBuf,
    /// Another data directory than the service's own.
    pub data_dir: Option<PathBuf>,
    /// The root of another system than the one that runs.
    pub root: Option<PathBuf>,
    /// Whether it is started too.
    pub start: bool,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a file that everybody may read.
    Write {
        /// The file.
        path: PathBuf,
        /// All of it.
        content: String,
    },
    /// As [`Step::Write`], where there is no such file: it is the administrator's from then on.
    WriteOnce {
        /// The file.
        path: PathBuf,
        /// All of it.
        content: String,
    },
    /// Removes a file.
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// Runs a program of the service manager's.
    Run {
        /// Its name and its arguments.
        command: Vec<String>,
    },
}

/// What to do, and what there is to say when it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// A line each.
    pub notes: Vec<String>,
}

/// How the service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// The service manager.
    pub manager: &'static str,
    /// Whose service it is.
    pub scope: Scope,
    /// Whether there is such a service.
    pub installed: bool,
    /// Whether it starts by itself.
    pub enabled: bool,
    /// Whether it runs.
    pub running: bool,
    /// How the service manager says so.
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
    /// What it is defined by.
    pub file: Option<PathBuf>,
    /// Where its data is.
    pub data_dir: PathBuf,
}

/// Why a service cannot be installed, removed or looked at. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no service manager to talk to.
    #[error(
        "{manager} does not answer ({reason}). Start `tally run` by whatever starts programs here{otherwise}"
    )]
    NoManager {
        /// Which.
        manager: &'static str,
        /// What it or the system says.
        reason: String,
        /// What else can be done.
        otherwise: &'static str,
    },
    /// Only an administrator may.
    #[error(
        "this takes the rights of root: sudo tally service {command}; or give --user for a service of your own"
    )]
    NotRoot {
        /// What was asked for.
        command: &'static str,
    },
    /// The service could not see the program.
    #[error(
        "the service sees nothing below {folder}, where {program} is: \
         sudo install -m 755 '{program}' /usr/local/bin/tally && sudo /usr/local/bin/tally service install"
    )]
    Hidden {
        /// The program.
        program: PathBuf,
        /// What the service is kept out of.
        folder: &'static str,
    },
    /// It would not start.
    #[error(
        "the service cannot start without {path}: \
         sudo install -D -m 600 /dev/stdin {path}"
    )]
    NoCredential {
        /// The credential's file.
        path: PathBuf,
    },
    /// The service's data directory is part of its definition.
    #[error("the service keeps its data in {wanted}: leave --data-dir and TALLY_DATA_DIR away")]
    DataDir {
        /// Where.
        wanted: &'static str,
    },
    /// A package has installed it.
    #[error("{file} belongs to a package: remove that, or `sudo systemctl disable --now tally`")]
    Packaged {
        /// The unit.
        file: PathBuf,
    },
    /// There is no such thing here.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The user's folders are not known.
    #[error("no home folder is known for this user")]
    NoHome,
    /// The service manager would read it as something else.
    #[error(
        "{path} has control characters in it, or is not UTF-8: the service manager would read lines of its own; \
         use another path"
    )]
    Unwritable {
        /// The path.
        path: PathBuf,
    },
    /// It may lead out of the image.
    #[error("{path} is a link: nothing is written or removed through one in the image of a device")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A file cannot be written or removed.
    #[error("cannot change {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program of the service manager's failed.
    #[error("`{command}` failed: {reason}")]
    Failed {
        /// The program, with its arguments.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// The service manager of this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
    /// Windows.
    Windows,
}

impl Manager {
    /// The one that this program was built for.
    pub const fn of_this_system() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else if cfg!(windows) {
            Self::Windows
        } else {
            Self::Systemd
        }
    }

    /// What installs the service. It may be installed already.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn install(self, target: &Target) -> Result<Plan, ServiceError> {
        target.check()?;
        let plan = match self {
            Self::Systemd => systemd::install(target),
            Self::Launchd => launchd::install(target),
            Self::Windows => windows::install(target),
        };
        plan.and_then(|plan| plan.checked(target))
    }

    /// What stops and removes the service. The data directory and the settings stay.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn uninstall(self, target: &Target) -> Result<Plan, ServiceError> {
        target.check()?;
        let plan = match self {
            Self::Systemd => systemd::uninstall(target),
            Self::Launchd => launchd::uninstall(target),
            Self::Windows => windows::uninstall(target),
        };
        plan.and_then(|plan| plan.checked(target))
    }

    /// How it stands.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn state(self, target: &Target) -> Result<State, ServiceError> {
        match self {
            Self::Systemd => systemd::state(target),
            Self::Launchd => launchd::state(target),
            Self::Windows => windows::state(target),
        }
    }
}

impl Target {
    /// Refuses paths that the service manager would read as something else.
    fn check(&self) -> Result<(), ServiceError> {
        let given = [&self.data_dir, &self.root].into_iter().flatten();
        given
            .chain([&self.program])
            .try_for_each(|path| place::check_name(path))
    }
}

impl Plan {
    /// The same, where each of its files can be written or removed: half of it is never done.
    fn checked(self, target: &Target) -> Result<Self, ServiceError> {
        let root = target.root.as_deref();
        self.steps.iter().try_for_each(|step| match step {
            Step::Write { path, .. } | Step::WriteOnce { path, .. } | Step::Remove { path } => {
                Place { root, path }.check()
            }
            Step::Run { .. } => Ok(()),
        })?;
        Ok(self)
    }
}

impl Step {
    /// Does it, in the system that runs or in the image with this root. Returns what was done, or `None` where nothing was
    /// left to do.
    ///
    /// # Errors
    ///
    /// [`ServiceError::File`], [`ServiceError::Link`] or [`ServiceError::Failed`].
    pub fn take(&self, root: Option<&Path>) -> Result<Option<String>, ServiceError> {
        match self {
            Self::Write { path, content } if Place { root, path }.has(content) => Ok(None),
            Self::WriteOnce { path, .. } if Place { root, path }.is_taken() => Ok(None),
            Self::Write { path, content } | Self::WriteOnce { path, content } => {
                Place { root, path }.write(content)?;
                Ok(Some(format!("wrote {}", path.display())))
            }
            Self::Remove { path } => {
                let was_there = Place { root, path }.remove()?;
                Ok(was_there.then(|| format!("removed {}", path.display())))
            }
            Self::Run { command } => {
                run(command)?;
                Ok(Some(format!("ran {}", command.join(" "))))
            }
        }
    }

    /// What it would do, in full.
    pub fn describe(&self) -> String {
        let place = |path| Place { root: None, path };
        match self {
            Self::Write { path, content } if place(path).has(content) => {
                format!("{} is as it should be", path.display())
            }
            Self::WriteOnce { path, .. } if place(path).is_taken() => {
                format!("{} stays as it is", path.display())
            }
            Self::Write { path, content } | Self::WriteOnce { path, content } => {
                format!("would write {}:\n{content}", path.display())
            }
            Self::Remove { path } => format!("would remove {}", path.display()),
            Self::Run { command } => format!("would run {}", command.join(" ")),
        }
    }
}

/// A command line, as words.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Runs a program to its end. Returns what it printed.
fn run(command: &[String]) -> Result<String, ServiceError> {
    let failed = |reason: String| ServiceError::Failed {
        command: command.join(" "),
        reason,
    };
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| failed("it has no name".to_owned()))?;
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Windows' tools say on stdout what went wrong.
    let said = [&output.stderr, &output.stdout].map(|said| String::from_utf8_lossy(said));
    let said = said
        .iter()
        .flat_map(|said| said.lines())
        .map(|line| line.trim().trim_end_matches('.'));
    let said: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
    Err(failed(if said.is_empty() {
        output.status.to_string()
    } else {
        said.join("; ")
    }))
}

/// Whether this user may do everything.
#[cfg(unix)]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user may do everything.
#[cfg(not(unix))]
pub const fn is_root() -> bool {
    // The service manager says so itself.
    true
}

/// The id of this user, for launchd's names.
#[cfg(unix)]
fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
const fn user_id() -> u32 {
    0
}

//! Where files lie: the platform's folders, and the names inside the data directory.

use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use super::ConfigError;
use crate::ledger;

/// The data directory: as given, or the platform's; absolute, since its paths are shown to people.
///
/// # Errors
///
/// [`ConfigError::NoDataDir`] where the platform names none.
pub fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let path = given.or_else(|| project_dirs().map(|dirs| dirs.data_local_dir().to_owned()));
    path.and_then(|path| std::path::absolute(path).ok())
        .ok_or(ConfigError::NoDataDir)
}

/// The platform's place for the config file.
pub fn default_config_file() -> Option<PathBuf> {
    project_dirs().map(|dirs| dirs.config_dir().join("tally.toml"))
}

fn project_dirs() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "tally")
}

/// The names inside a data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The names inside this folder.
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.0.join(ledger::FILE_NAME)
    }

    /// Space for what must be written on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    /// The lock that one running agent holds.
    pub fn lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// The Unix socket that serves the same as the TCP port.
    pub fn socket(&self) -> PathBuf {
        self.0.join("tally.sock")
    }

    /// The private key that signs local answers.
    pub fn private_key(&self) -> PathBuf {
        self.0.join("private_key.pem")
    }

    /// Its public key, for applications to verify with.
    pub fn public_key(&self) -> PathBuf {
        self.0.join("public_key.pem")
    }

    /// The applications' key pairs, a file each.
    pub fn apps(&self) -> PathBuf {
        self.0.join("apps")
    }

    /// What opens the control API.
    pub fn admin_token(&self) -> PathBuf {
        self.0.join("admin_token")
    }

    /// The key of the ledger's chain.
    pub fn chain_key(&self) -> PathBuf {
        self.0.join("chain_key")
    }

    /// How far the ledger had come, outside of it.
    pub fn mark(&self) -> PathBuf {
        self.0.join("ledger.mark")
    }

    /// The names of licences that wait to be read from the server.
    pub fn waiting(&self) -> PathBuf {
        self.0.join("waiting_licenses.json")
    }

    /// The id of this device, where it had to be made up.
    pub fn hardware_id(&self) -> PathBuf {
        self.0.join("hardware_id")
    }
}

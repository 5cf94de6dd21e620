//! The applications that may use the agent: a key pair each, in a file that only its owner can read.
//!
//! Files, not ledger rows, so that `tally app add` works whether or not the agent runs, and so that a
//! backup of the ledger carries no secrets.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tally_shared::auth::SharedKey;
use tokio::sync::OnceCell;

use crate::{
    config::paths::DataDir,
    core::book::AppNo,
    ledger::{engine::RecordError, writer::Ledger},
    private_file,
    secret::Secret,
};

/// The application that is made on first run, and that `tally record` uses.
pub const DEFAULT_APP: &str = "default";

/// The longest name of an application.
const NAME_BYTES_MAX: usize = 64;

/// An application's key pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyPair {
    /// What people call it; every row carries it.
    pub name: String,
    /// Which key pair a request claims.
    pub api_key: String,
    /// What signs it.
    pub shared_key: Secret,
    /// Whether answers to it are signed, as published SDKs want. A signature takes the processor longer
    /// than all else of a request.
    #[serde(default = "signed")]
    pub sign_answers: bool,
}

const fn signed() -> bool {
    true
}

/// An application that may use the agent.
#[derive(Debug)]
pub struct App {
    /// Its key pair.
    pub keys: KeyPair,
    /// What its requests are verified with.
    pub shared_key: SharedKey,
    no: OnceCell<AppNo>,
}

/// All of them, by API key.
pub struct Apps {
    folder: PathBuf,
    by_key: RwLock<HashMap<String, Arc<App>>>,
}

/// Why applications cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// The name cannot be a file's.
    #[error(
        "{0:?} is not a name for an application; \
         use up to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
    )]
    Name(String),
    /// There is one of that name.
    #[error("there is an application {0:?} already; choose another name, or revoke it first")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no application {0:?}; `tally app list` shows all")]
    NotFound(String),
    /// The system's random generator failed.
    #[error("the system has no random bits to make a key of")]
    Random,
    /// A file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Apps {
    /// Reads all key pairs.
    ///
    /// # Errors
    ///
    /// [`AppsError::File`].
    pub fn open(data_dir: &DataDir) -> Result<Self, AppsError> {
        let apps = Self {
            folder: data_dir.apps(),
            by_key: RwLock::default(),
        };
        apps.reload()?;
        Ok(apps)
    }

    /// Reads all key pairs again: one may have been added or revoked.
    ///
    /// # Errors
    ///
    /// [`AppsError::File`]; then those that were known stay.
    pub fn reload(&self) -> Result<(), AppsError> {
        let found = list_in(&self.folder)?;
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        *by_key = found
            .into_iter()
            .map(|keys| {
                let known = by_key.get(&keys.api_key).cloned();
                let app = known.unwrap_or_else(|| {
                    Arc::new(App {
                        keys: keys.clone(),
                        shared_key: SharedKey::new(keys.shared_key.expose()),
                        no: OnceCell::new(),
                    })
                });
                (keys.api_key, app)
            })
            .collect();
        Ok(())
    }

    /// The application with that API key.
    pub fn find(&self, api_key: &str) -> Option<Arc<App>> {
        let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        by_key.get(api_key).cloned()
    }
}

impl App {
    /// Its number in the ledger.
    ///
    /// # Errors
    ///
    /// Where the ledger cannot give it one.
    pub async fn no(&self, ledger: &Ledger) -> Result<AppNo, RecordError> {
        self.no
            .get_or_try_init(|| ledger.app(&self.keys.name))
            .await
            .copied()
    }
}

/// Makes a key pair and its file.
///
/// # Errors
///
/// [`AppsError`].
pub fn add(data_dir: &DataDir, name: &str, sign_answers: bool) -> Result<KeyPair, AppsError> {
    let path = file_of(data_dir, name)?;
    let keys = KeyPair {
        name: name.to_owned(),
        api_key: random_text::<18>()?,
        shared_key: Secret::new(random_text::<32>()?),
        sign_answers,
    };
    let failed = |source| AppsError::File {
        path: path.clone(),
        source,
    };
    private_file::create_folder(&data_dir.apps()).map_err(failed)?;
    let content = serde_json::to_string_pretty(&keys).map_err(|error| failed(error.into()))?;
    private_file::create(&path, content.as_bytes()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => AppsError::Exists(name.to_owned()),
        _ => failed(source),
    })?;
    Ok(keys)
}

/// Makes the default application, where there is none.
///
/// # Errors
///
/// [`AppsError`].
pub fn ensure_default(data_dir: &DataDir) -> Result<(), AppsError> {
    match add(data_dir, DEFAULT_APP, true) {
        Ok(_) | Err(AppsError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads one key pair.
///
/// # Errors
///
/// [`AppsError`].
pub fn read(data_dir: &DataDir, name: &str) -> Result<KeyPair, AppsError> {
    let path = file_of(data_dir, name)?;
    match read_file(&path) {
        Err(AppsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(AppsError::NotFound(name.to_owned()))
        }
        other => other,
    }
}

/// Removes a key pair.
///
/// # Errors
///
/// [`AppsError`].
pub fn revoke(data_dir: &DataDir, name: &str) -> Result<(), AppsError> {
    let path = file_of(data_dir, name)?;
    std::fs::remove_file(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AppsError::NotFound(name.to_owned()),
        _ => AppsError::File { path, source },
    })
}

/// All key pairs, by name.
///
/// # Errors
///
/// [`AppsError::File`].
pub fn list(data_dir: &DataDir) -> Result<Vec<KeyPair>, AppsError> {
    list_in(&data_dir.apps())
}

fn list_in(folder: &PathBuf) -> Result<Vec<KeyPair>, AppsError> {
    let failed = |source| AppsError::File {
        path: folder.clone(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(read_file(&path)?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn read_file(path: &PathBuf) -> Result<KeyPair, AppsError> {
    let failed = |source| AppsError::File {
        path: path.clone(),
        source,
    };
    let content = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&content).map_err(|error| failed(error.into()))
}

fn file_of(data_dir: &DataDir, name: &str) -> Result<PathBuf, AppsError> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let usable = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(letters);
    if !usable {
        return Err(AppsError::Name(name.to_owned()));
    }
    Ok(data_dir.apps().join(format!("{name}.json")))
}

fn random_text<const BYTES: usize>() -> Result<String, AppsError> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| AppsError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

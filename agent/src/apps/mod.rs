//! The applications that may use the agent: a key pair each, in a file that only its owner can read.
//!
//! Files, not ledger rows, so that `tally app add` works whether or not the agent runs, and so that a
//! backup of the ledger carries no secrets.

mod bindings;
mod pace;
pub mod rights;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicUsize},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tally_shared::{
    auth::{Authorization, SharedKey},
    wire::{ApiError, ErrorCode},
};
use tokio::sync::OnceCell;

use self::{bindings::Bindings, pace::Pace, rights::Rights};
use crate::{
    config::paths::DataDir,
    core::book::AppNo,
    ledger::{answers::RequestKey, engine::RecordError, writer::Ledger},
    private_file,
    secret::{NoRandom, Secret},
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
    /// What it may do.
    #[serde(default)]
    pub rights: Rights,
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
    keys: KeyPair,
    key: SharedKey,
    /// The last `Date` that a request was signed with, and its signature: who asks often sends the same for a second.
    proven: Mutex<Option<(String, Secret)>>,
    no: OnceCell<AppNo>,
    pace: Option<Pace>,
    bindings: Bindings,
    under_way: AtomicUsize,
}

/// All of them, by API key.
pub struct Apps {
    folder: PathBuf,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<String, Arc<App>>,
    revoked: HashSet<String>,
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
    #[error(transparent)]
    Random(#[from] NoRandom),
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
            known: RwLock::default(),
        };
        apps.reload()?;
        Ok(apps)
    }

    /// Reads all key pairs again: one may have been added or revoked. One whose file cannot be read may
    /// not call, and keeps no other from being revoked.
    ///
    /// # Errors
    ///
    /// [`AppsError::File`] where the folder cannot be read; then those that were known stay.
    pub fn reload(&self) -> Result<(), AppsError> {
        let mut found = Vec::new();
        for path in files_in(&self.folder)? {
            match read_file(&path) {
                Ok(keys) => found.push(keys),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!("an application cannot call: {error:#}");
                }
            }
        }
        let revoked = files_in(&revoked_in(&self.folder))?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_key = found
            .into_iter()
            .map(|keys| {
                let api_key = keys.api_key.clone();
                let app = known.by_key.get(&api_key).filter(|app| app.is_same(&keys));
                (
                    api_key,
                    app.cloned().unwrap_or_else(|| Arc::new(App::new(keys))),
                )
            })
            .collect();
        known.revoked = revoked
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        Ok(())
    }

    /// The application with that API key.
    ///
    /// # Errors
    ///
    /// `revoked_api_key` or `invalid_api_key`.
    pub fn find(&self, api_key: &str) -> Result<Arc<App>, ApiError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(app) = known.by_key.get(api_key) {
            return Ok(Arc::clone(app));
        }
        Err(if known.revoked.contains(api_key) {
            ApiError::new(ErrorCode::RevokedApiKey, "this API key was revoked")
        } else {
            ApiError::new(
                ErrorCode::InvalidApiKey,
                "no application has this API key; `tally app add NAME` makes one",
            )
        })
    }
}

impl App {
    fn new(keys: KeyPair) -> Self {
        Self {
            key: SharedKey::new(keys.shared_key.expose()),
            proven: Mutex::default(),
            no: OnceCell::new(),
            pace: keys.rights.max_per_minute.map(Pace::new),
            bindings: Bindings::default(),
            under_way: AtomicUsize::new(0),
            keys,
        }
    }

    fn is_same(&self, keys: &KeyPair) -> bool {
        let own = &self.keys;
        own.name == keys.name
            && own.rights == keys.rights
            && own.sign_answers == keys.sign_answers
            && own.shared_key.expose() == keys.shared_key.expose()
    }

    /// Refuses a signature that is not this application's for that `Date`; in constant time.
    ///
    /// # Errors
    ///
    /// `signature_mismatch`.
    pub fn verify(&self, authorization: &Authorization<'_>, date: &str) -> Result<(), ApiError> {
        let signature = authorization.signature();
        // A panic cannot leave it half-changed.
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = proven()
            .as_ref()
            .is_some_and(|(known, right)| known == date && right.is(signature));
        if !is_known {
            authorization.verify(&self.key, date)?;
            *proven() = Some((date.to_owned(), Secret::new(signature.to_owned())));
        }
        Ok(())
    }

    /// What it may do.
    pub const fn rights(&self) -> &Rights {
        &self.keys.rights
    }

    /// Whether answers to it are signed.
    pub const fn signs_answers(&self) -> bool {
        self.keys.sign_answers
    }

    /// Counts a request to consume at this time on the monotonic clock.
    ///
    /// # Errors
    ///
    /// How long to wait, where there were too many within a minute.
    pub fn keep_pace(&self, now: Duration) -> Result<(), Duration> {
        self.pace.as_ref().map_or(Ok(()), |pace| pace.take(now))
    }

    /// How many of its requests are being answered.
    pub const fn under_way(&self) -> &AtomicUsize {
        &self.under_way
    }

    /// Binds an `Idempotency-Key` to its request.
    ///
    /// # Errors
    ///
    /// [`RecordError::KeyReused`] where it came with another one.
    pub fn bind(&self, key: &RequestKey, now: Duration) -> Result<(), RecordError> {
        if self.bindings.bind(key, now) {
            return Ok(());
        }
        Err(RecordError::KeyReused)
    }

    /// Takes note that the ledger remembers the key.
    pub fn release(&self, key: &RequestKey) {
        self.bindings.release(key);
    }

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
pub fn add(
    data_dir: &DataDir,
    name: &str,
    rights: Rights,
    sign_answers: bool,
) -> Result<KeyPair, AppsError> {
    let path = file_of(data_dir, name)?;
    let keys = KeyPair {
        name: name.to_owned(),
        api_key: Secret::random::<18>()?.expose().to_owned(),
        shared_key: Secret::random::<32>()?,
        rights,
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
    match add(data_dir, DEFAULT_APP, Rights::default(), true) {
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

/// Takes a key pair away. Its API key is remembered as revoked, so that its application is told so.
///
/// # Errors
///
/// [`AppsError`].
pub fn revoke(data_dir: &DataDir, name: &str) -> Result<(), AppsError> {
    let path = file_of(data_dir, name)?;
    // A file that cannot be read is taken away all the same.
    let api_key = read_file(&path).ok().map(|keys| keys.api_key);
    std::fs::remove_file(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AppsError::NotFound(name.to_owned()),
        _ => AppsError::File {
            path: path.clone(),
            source,
        },
    })?;
    let Some(api_key) = api_key.filter(|key| is_file_name(key)) else {
        return Ok(());
    };
    let folder = revoked_in(&data_dir.apps());
    let note = folder.join(format!("{api_key}.json"));
    let failed = |source| AppsError::File {
        path: note.clone(),
        source,
    };
    private_file::create_folder(&folder).map_err(failed)?;
    let content = serde_json::json!({ "name": name }).to_string();
    private_file::replace(&note, content.as_bytes()).map_err(failed)
}

/// All key pairs, by name.
///
/// # Errors
///
/// [`AppsError::File`].
pub fn list(data_dir: &DataDir) -> Result<Vec<KeyPair>, AppsError> {
    list_in(&data_dir.apps())
}

fn list_in(folder: &Path) -> Result<Vec<KeyPair>, AppsError> {
    let files = files_in(folder)?;
    let mut found = files.iter().map(read_file).collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, AppsError> {
    let failed = |source| AppsError::File {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    Ok(files)
}

/// Those that were taken away: a file each, named by its API key.
fn revoked_in(folder: &Path) -> PathBuf {
    folder.join("revoked")
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
    if !is_file_name(name) {
        return Err(AppsError::Name(name.to_owned()));
    }
    Ok(data_dir.apps().join(format!("{name}.json")))
}

fn is_file_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(letters)
}

#[cfg(test)]
mod tests {
    use tally_shared::auth::authorization;

    use super::*;

    fn code(apps: &Apps, api_key: &str) -> Option<ErrorCode> {
        apps.find(api_key).err().map(|error| error.code)
    }

    #[test]
    fn what_is_revoked_is_told_so_and_a_broken_file_keeps_nobody_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let one = add(&data_dir, "one", Rights::default(), true).unwrap();
        let two = add(&data_dir, "two", Rights::default(), true).unwrap();
        let apps = Apps::open(&data_dir).unwrap();
        assert!(apps.find(&one.api_key).is_ok());

        revoke(&data_dir, "one").unwrap();
        std::fs::write(data_dir.apps().join("broken.json"), "{").unwrap();
        apps.reload().unwrap();
        assert_eq!(code(&apps, &one.api_key), Some(ErrorCode::RevokedApiKey));
        assert_eq!(code(&apps, "nobody"), Some(ErrorCode::InvalidApiKey));
        assert!(apps.find(&two.api_key).is_ok());
        assert!(add(&data_dir, "one", Rights::default(), true).is_ok());
        assert!(matches!(
            add(&data_dir, "two", Rights::default(), true),
            Err(AppsError::Exists(_))
        ));
    }

    #[test]
    fn a_signature_is_of_its_own_date_and_key_whatever_was_proven_before() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let keys = add(&data_dir, "one", Rights::default(), true).unwrap();
        let apps = Apps::open(&data_dir).unwrap();
        let signed =
            |keys: &KeyPair, date| authorization(&keys.api_key, keys.shared_key.expose(), date);
        let accepts = |header: &str, date| {
            let app = apps.find(&keys.api_key).unwrap();
            app.verify(&Authorization::parse(header).unwrap(), date)
                .is_ok()
        };
        let (one, other) = (
            "Tue, 07 Jun 2011 20:51:35 GMT",
            "Tue, 07 Jun 2011 20:51:36 GMT",
        );
        for date in [one, one, other, one] {
            for claimed in [one, other, date] {
                let accepted = accepts(&signed(&keys, date), claimed);
                assert_eq!(accepted, claimed == date, "{date} as {claimed}");
            }
        }

        let mut changed = keys.clone();
        changed.shared_key = Secret::random::<32>().unwrap();
        let content = serde_json::to_vec(&changed).unwrap();
        std::fs::write(data_dir.apps().join("one.json"), content).unwrap();
        apps.reload().unwrap();
        assert!(!accepts(&signed(&keys, one), one));
        assert!(accepts(&signed(&changed, one), one));
    }

    #[test]
    fn rights_that_change_in_the_file_are_in_force_after_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let mut keys = add(&data_dir, "one", Rights::default(), true).unwrap();
        let apps = Apps::open(&data_dir).unwrap();
        let before = apps.find(&keys.api_key).unwrap();
        apps.reload().unwrap();
        assert!(Arc::ptr_eq(&before, &apps.find(&keys.api_key).unwrap()));
        keys.rights.read_only = true;
        let text = serde_json::to_vec(&keys).unwrap();
        std::fs::write(data_dir.apps().join("one.json"), text).unwrap();
        apps.reload().unwrap();
        assert!(apps.find(&keys.api_key).unwrap().rights().read_only);
    }
}

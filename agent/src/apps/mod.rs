//! The applications that may use the agent: a key pair each, in a file that only its owner can read.
//!
//! Files, not ledger rows, so that `tally app add` works whether or not the agent runs, and so that a
//! backup of the ledger carries no secrets.

mod bindings;
mod files;
mod pace;
pub mod rights;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, atomic::AtomicUsize},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tally_shared::{
    auth::{Authorization, SharedKey},
    wire::{ApiError, ErrorCode},
};
use tokio::sync::OnceCell;

use self::{bindings::Bindings, files::NAME_BYTES_MAX, pace::Pace, rights::Rights};
use crate::{
    config::paths::DataDir,
    core::book::AppNo,
    ledger::{answers::RequestKey, engine::RecordError, writer::Ledger},
    private_file::NotPrivate,
    secret::{NoRandom, Secret},
};

pub use self::files::{add, ensure_default, list, read, revoke};

/// The application that is made on first run, and that `tally record` uses.
pub const DEFAULT_APP: &str = "default";

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
    data_dir: DataDir,
    known: RwLock<Known>,
    /// Held from the look at the files until what was found is known: a key pair that is made meanwhile is not forgotten.
    changing: Mutex<()>,
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
    /// Others can read a key pair, or own it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
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
    /// Reads all key pairs. Where they cannot be read, nobody may call, and all else goes on.
    pub fn open(data_dir: &DataDir) -> Self {
        let apps = Self {
            data_dir: data_dir.clone(),
            known: RwLock::default(),
            changing: Mutex::default(),
        };
        if let Err(error) = apps.reload() {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(error, "no application can call");
        }
        apps
    }

    /// Reads all key pairs again: one may have been added or revoked. One whose file cannot be read may
    /// not call. No part that cannot be read keeps another from being revoked.
    ///
    /// # Errors
    ///
    /// [`AppsError`] where the folder cannot be read; then those that were known and are not revoked stay.
    pub fn reload(&self) -> Result<(), AppsError> {
        let _changing = self.change();
        let found = files::list(&self.data_dir);
        let revoked = files::revoked(&self.data_dir).unwrap_or_else(|error| {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(
                error,
                "the keys that were revoked earlier are not remembered"
            );
            Vec::new()
        });
        let mut known = self.write();
        known.revoked.extend(revoked);
        let (found, unread) = match found {
            Ok(found) => found,
            Err(error) => {
                known.drop_revoked();
                return Err(error);
            }
        };
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
        known.drop_revoked();
        drop(known);
        for error in unread {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "an application cannot call");
        }
        Ok(())
    }

    /// Makes a key pair, which may call from here on.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub fn add(&self, name: &str, rights: Rights, signs: bool) -> Result<KeyPair, AppsError> {
        let _changing = self.change();
        let keys = files::add(&self.data_dir, name, rights, signs)?;
        let app = Arc::new(App::new(keys.clone()));
        self.write().by_key.insert(keys.api_key.clone(), app);
        Ok(keys)
    }

    /// Takes a key pair away. From here on nobody is let in by it, whatever becomes of its file.
    ///
    /// # Errors
    ///
    /// [`AppsError`]: there is none of that name, or its file stays, and must be removed before the next start.
    pub fn revoke(&self, name: &str) -> Result<(), AppsError> {
        let was_known = self.write().forget(name);
        match files::revoke(&self.data_dir, name) {
            Err(AppsError::NotFound(_)) if was_known => Ok(()),
            other => other,
        }
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
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

impl Known {
    /// Whether there was one of that name.
    fn forget(&mut self, name: &str) -> bool {
        let of_name = self.by_key.extract_if(|_, app| app.keys.name == name);
        let keys: Vec<String> = of_name.map(|(api_key, _)| api_key).collect();
        let was_known = !keys.is_empty();
        self.revoked.extend(keys);
        was_known
    }

    fn drop_revoked(&mut self) {
        let revoked = &self.revoked;
        self.by_key.retain(|api_key, _| !revoked.contains(api_key));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let apps = Apps::open(&data_dir);
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
        let apps = Apps::open(&data_dir);
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
    fn a_key_pair_that_is_made_during_a_reload_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let apps = Apps::open(&data_dir);
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !has_ended.load(Ordering::Relaxed) {
                    apps.reload().unwrap();
                }
            });
            let add_one = |no: u32| apps.add(&format!("app-{no}"), Rights::default(), true);
            let made: Result<Vec<KeyPair>, AppsError> = (0..200).map(add_one).collect();
            has_ended.store(true, Ordering::Relaxed);
            for keys in made.unwrap() {
                assert_eq!(code(&apps, &keys.api_key), None, "{}", keys.name);
            }
        });
    }

    #[test]
    fn rights_that_change_in_the_file_are_in_force_after_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let mut keys = add(&data_dir, "one", Rights::default(), true).unwrap();
        let apps = Apps::open(&data_dir);
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

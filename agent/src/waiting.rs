//! Names of licences that could not be read from the server yet: they are read at the next contact. The
//! names alone are kept, in a file beside the ledger; limits come from the server.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tally_shared::{time::Timestamp, wire::Subject};
use tokio::sync::Notify;

use crate::{http::AddLicense, private_file};

/// So many may wait; reading more takes a device hours, and a file of megabytes with each change.
const WAITING_MAX: usize = 10_000;

/// A licence that waits to be read. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingLicense {
    /// How it is named.
    pub license: AddLicense,
    /// Since when it waits, by the corrected clock.
    pub since: Timestamp,
    /// The server's code, where it was asked and refuses the licence.
    pub refused: Option<String>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use {path}, the names of licences that wait to be read; mend it, or remove it and import them \
     again"
)]
pub struct WaitingError {
    path: PathBuf,
    source: io::Error,
}

/// The list, and its file.
pub struct WaitingList {
    path: PathBuf,
    list: Mutex<Vec<WaitingLicense>>,
    changed: Notify,
}

impl WaitingList {
    /// Reads the list; there need be no file.
    ///
    /// # Errors
    ///
    /// [`WaitingError`].
    pub fn open(path: PathBuf) -> Result<Self, WaitingError> {
        let list = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        match list {
            Ok(list) => Ok(Self {
                path,
                list: Mutex::new(list),
                changed: Notify::new(),
            }),
            Err(source) => Err(WaitingError { path, source }),
        }
    }

    /// Those that wait, oldest first.
    pub fn list(&self) -> Vec<WaitingLicense> {
        self.lock().clone()
    }

    /// Has one more wait, unless it does already.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written, or too many wait.
    pub fn add(&self, subject: &Subject, now: Timestamp) -> io::Result<()> {
        let license = AddLicense::from(subject.clone());
        let mut list = self.lock();
        if list.iter().any(|waiting| waiting.license == license) {
            return Ok(());
        }
        if list.len() >= WAITING_MAX {
            return Err(io::Error::other(format!(
                "{WAITING_MAX} licences wait already"
            )));
        }
        let mut longer = list.clone();
        longer.push(WaitingLicense {
            license,
            since: now,
            refused: None,
        });
        self.replace(&mut list, longer)?;
        self.wake();
        Ok(())
    }

    /// Takes out those that `which` says, and tells how many that were.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written; then all of them stay.
    pub fn remove(&self, which: impl Fn(&AddLicense) -> bool) -> io::Result<usize> {
        let mut list = self.lock();
        let mut kept = list.clone();
        kept.retain(|waiting| !which(&waiting.license));
        let removed = list.len() - kept.len();
        if removed > 0 {
            self.replace(&mut list, kept)?;
        }
        Ok(removed)
    }

    /// Notes that the server refuses one. It is asked again now and then.
    pub fn refuse(&self, license: &AddLicense, code: &str) {
        // Not written: the next start asks again.
        let mut list = self.lock();
        let found = list.iter_mut().find(|waiting| &waiting.license == license);
        if let Some(waiting) = found {
            waiting.refused = Some(code.to_owned());
        }
    }

    /// Has whoever reads them try now.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Completes when there is a reason to try at once.
    pub async fn woken(&self) {
        self.changed.notified().await;
    }

    fn replace(
        &self,
        list: &mut MutexGuard<'_, Vec<WaitingLicense>>,
        with: Vec<WaitingLicense>,
    ) -> io::Result<()> {
        private_file::replace(&self.path, &serde_json::to_vec(&with)?)?;
        **list = with;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WaitingLicense>> {
        // A panic cannot leave the list half-changed: it is replaced whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outlive_a_restart_and_leave_when_they_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting.json");
        let subject = Subject::by_key("inspect", "AAAA-BBBB", "device-1");
        let list = WaitingList::open(path.clone()).unwrap();
        list.add(&subject, Timestamp::default()).unwrap();
        list.add(&subject, Timestamp::default()).unwrap();
        let list = WaitingList::open(path.clone()).unwrap();
        assert_eq!(list.list().len(), 1);
        let license = AddLicense::from(subject);
        assert_eq!(list.remove(|waiting| *waiting == license).unwrap(), 1);
        assert!(WaitingList::open(path).unwrap().list().is_empty());
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_kept_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting.json");
        std::fs::write(&path, "rubbish").unwrap();
        let error = WaitingList::open(path.clone()).err().unwrap().to_string();
        assert!(error.contains("waiting.json"), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "rubbish");
    }
}

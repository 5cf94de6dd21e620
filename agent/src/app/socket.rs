//! The Unix socket in the data directory, and its name there.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
};

use super::AppError;
use crate::config::paths::DataDir;

/// A socket that is listened on.
pub(super) struct Socket {
    pub(super) listener: tokio::net::UnixListener,
    pub(super) name: Name,
}

/// The name of a socket, and the socket that it led to at first.
pub(super) struct Name {
    path: PathBuf,
    made: Option<(u64, u64)>,
}

impl Socket {
    /// Takes the name. A socket that a crash left behind is removed: the lock says that nobody serves it.
    pub(super) fn bind(data_dir: &DataDir) -> Result<Self, AppError> {
        let path = data_dir.socket();
        let failed = |source| AppError::Socket {
            path: path.clone(),
            source,
        };
        let found = fs::symlink_metadata(&path);
        if found.is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(&path).map_err(failed)?;
        }
        let listener = tokio::net::UnixListener::bind(&path).map_err(failed)?;
        let name = Name {
            made: id(&path),
            path,
        };
        Ok(Self { listener, name })
    }
}

impl Name {
    /// Removes the name, unless it leads to the socket of another agent by now.
    pub(super) fn remove(&self) {
        if id(&self.path) != self.made {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

fn id(path: &PathBuf) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

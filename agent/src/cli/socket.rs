//! The socket of the agent that runs on a data directory. The folder's owner may have put something else there; root must
//! not be led to the socket of another program by it.

use std::path::PathBuf;

use anyhow::ensure;

use crate::config::paths::DataDir;

/// A socket that was looked at. What was looked at is what is connected to, wherever its name leads by then.
pub(super) struct Socket {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    opened: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Socket {
    /// Finds it, where there is one.
    pub(super) fn find(data_dir: &DataDir) -> anyhow::Result<Option<Self>> {
        use rustix::{
            fs::{FileType, Mode, OFlags, fstat, open},
            io::Errno,
        };
        let path = data_dir.socket();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match open(&path, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                let error = anyhow::Error::from(std::io::Error::from(error));
                return Err(error.context(format!("cannot use {}", path.display())));
            }
        };
        let found = fstat(&opened)?;
        let user = crate::owner::user_of(data_dir.path());
        ensure!(
            FileType::from_raw_mode(found.st_mode) == FileType::Socket
                && [0, user].contains(&found.st_uid),
            "{} is not the socket of an agent that runs on that folder",
            path.display()
        );
        Ok(Some(Self { path, opened }))
    }

    /// A name for it that is no longer than a socket's may be.
    pub(super) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        let through = PathBuf::from(format!("/proc/self/fd/{}", self.opened.as_raw_fd()));
        // Where /proc is not mounted, the name must do.
        if through.exists() {
            through
        } else {
            self.path.clone()
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Socket {
    /// Finds it, where there is one.
    pub(super) fn find(data_dir: &DataDir) -> anyhow::Result<Option<Self>> {
        let path = data_dir.socket();
        let is_there = std::fs::symlink_metadata(&path).is_ok();
        ensure!(
            !path.is_symlink(),
            "{} is not the socket of an agent that runs on that folder",
            path.display()
        );
        Ok(is_there.then_some(Self { path }))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Socket {
    /// Whether anybody takes connections.
    #[cfg(unix)]
    pub(super) fn is_listening(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.path()).is_ok()
    }

    /// Whether anybody takes connections, as far as it can be told.
    #[cfg(not(unix))]
    pub(super) fn is_listening(&self) -> bool {
        self.path().exists()
    }
}

//! Acting as the owner of a folder. Root's commands on the data directory of a service that has a user of its own
//! must not make files that this user cannot read, and must not follow its links to where only root may go.

use std::{io, path::Path};

/// Does `work` with the rights of the folder's owner, where this is root and the folder is another user's. What is
/// made then is that user's. It gets the name by which it reaches the folder: the folders above may be root's alone, as
/// those of systemd's dynamic users are. The threads that it starts, and waits for, have the same rights.
///
/// # Errors
///
/// Where root may not act as another user, as in some containers. Nothing was done then.
#[cfg(target_os = "linux")]
pub fn as_owner_of<T>(folder: &Path, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
    let Some((opened, owner)) = linux::others(folder) else {
        return Ok(work(folder));
    };
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
    let _back = linux::Acting::start(owner)?;
    Ok(work(Path::new(&through)))
}

/// Does `work`. Other systems' services run as root, or as whoever runs the command.
///
/// # Errors
///
/// None.
#[cfg(not(target_os = "linux"))]
pub fn as_owner_of<T>(folder: &Path, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
    Ok(work(folder))
}

/// Gives the folder's owner what root has made in it. A file that has another name elsewhere is not given away, and no link
/// is followed.
///
/// # Errors
///
/// What the system says.
#[cfg(unix)]
pub fn hand_over(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    let owner = std::fs::metadata(folder)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = std::fs::symlink_metadata(&path)?;
        let is_ours = found.uid() == 0 && (found.is_dir() || found.is_file() && found.nlink() == 1);
        if is_ours {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
        // What was root's is the owner's now, and so must be what lies in it.
        if is_ours && found.is_dir() {
            hand_over(&path)?;
        }
    }
    Ok(())
}

/// Other systems have no such owners.
///
/// # Errors
///
/// None.
#[cfg(not(unix))]
pub fn hand_over(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// The user whose files may lie in a folder, besides root's: the folder's owner where root looks, and oneself else.
#[cfg(unix)]
pub fn user_of(folder: &Path) -> u32 {
    let own = rustix::process::geteuid().as_raw();
    if own != 0 {
        return own;
    }
    let found = std::fs::metadata(folder);
    found.map_or(own, |found| std::os::unix::fs::MetadataExt::uid(&found))
}

/// Other systems have no such numbers.
#[cfg(not(unix))]
pub const fn user_of(_folder: &Path) -> u32 {
    0
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

    use rustix::{
        process::{Gid, Uid, geteuid, getgroups},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };

    /// A folder, with its owner and group, where this is root and they are others.
    pub(super) fn others(folder: &Path) -> Option<(File, (Uid, Gid))> {
        if !geteuid().is_root() {
            return None;
        }
        let opened = File::open(folder).ok()?;
        let found = opened.metadata().ok()?;
        let ids = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        (!ids.0.is_root()).then_some((opened, ids))
    }

    /// This thread has another user's rights; root's come back when it is dropped.
    pub(super) struct Acting {
        groups: Vec<Gid>,
        group: Gid,
    }

    impl Acting {
        pub(super) fn start((user, group): (Uid, Gid)) -> io::Result<Self> {
            let before = Self {
                groups: getgroups()?,
                group: rustix::process::getegid(),
            };
            set_thread_groups(&[])?;
            set_thread_res_gid(None, Some(group), None)?;
            set_thread_res_uid(None, Some(user), None)?;
            Ok(before)
        }
    }

    impl Drop for Acting {
        fn drop(&mut self) {
            // The real user is still root. Where this failed, less would be allowed from here on, not more.
            let _ = set_thread_res_uid(None, Some(Uid::ROOT), None);
            let _ = set_thread_res_gid(None, Some(self.group), None);
            let _ = set_thread_groups(&self.groups);
        }
    }
}

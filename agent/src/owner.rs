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

/// Gives the folder's owner what root has made in it, where it is another user's. A file that has another name elsewhere
/// is not given away, and no link is followed, whatever its owner puts in the place of what is looked at.
///
/// # Errors
///
/// What the system says.
#[cfg(target_os = "linux")]
pub fn hand_over(folder: &Path) -> io::Result<()> {
    match linux::others(folder) {
        Some((opened, owner)) => linux::hand_over(&opened, owner),
        None => Ok(()),
    }
}

/// Other systems' services run as root, or as whoever runs the command.
///
/// # Errors
///
/// None.
#[cfg(not(target_os = "linux"))]
pub fn hand_over(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Refuses a folder of another user's in which a link stands, where root is about to read or write the files in it with
/// its own rights.
///
/// # Errors
///
/// That it is a link, or what the system says.
#[cfg(target_os = "linux")]
pub fn refuse_links(folder: &Path) -> io::Result<()> {
    if linux::others(folder).is_none() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            let path = entry.path().display().to_string();
            return Err(io::Error::other(format!(
                "{path} is a link, and root follows none in a folder of another user's: remove it"
            )));
        }
    }
    Ok(())
}

/// Other systems' services run as root, or as whoever runs the command.
///
/// # Errors
///
/// None.
#[cfg(not(target_os = "linux"))]
pub fn refuse_links(_folder: &Path) -> io::Result<()> {
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
    use std::{
        fs::File,
        io,
        os::{fd::AsFd, unix::fs::MetadataExt as _},
        path::Path,
    };

    use rustix::{
        fs::{AtFlags, Dir, FileType, Mode, OFlags, chownat, fstat, openat},
        io::Errno,
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

    /// Each file is opened as what it is, looked at, and given by what was opened: its name may lead elsewhere by then.
    pub(super) fn hand_over(folder: impl AsFd, owner: (Uid, Gid)) -> io::Result<()> {
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match openat(&folder, name, flags, Mode::empty()) {
                // It is gone by now.
                Err(Errno::NOENT) => continue,
                opened => opened?,
            };
            let found = fstat(&opened)?;
            let kind = FileType::from_raw_mode(found.st_mode);
            let is_folder = kind == FileType::Directory;
            let is_file = kind == FileType::RegularFile && found.st_nlink == 1;
            if found.st_uid != 0 || !(is_folder || is_file) {
                continue;
            }
            chownat(
                &opened,
                c"",
                Some(owner.0),
                Some(owner.1),
                AtFlags::EMPTY_PATH,
            )?;
            // What was root's is the owner's now, and so must be what lies in it.
            if is_folder {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                hand_over(openat(&opened, c".", flags, Mode::empty())?, owner)?;
            }
        }
        Ok(())
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, chown, symlink},
    };

    use super::*;

    const USER: u32 = 65534;

    #[test]
    fn the_owner_gets_what_root_has_made_in_the_folder_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = |name: &str| folder.path().join(name);
        let outside = |name: &str| elsewhere.path().join(name);
        fs::create_dir_all(inside("made/below")).unwrap();
        fs::write(inside("made/below/file"), "").unwrap();
        fs::write(inside("another's"), "").unwrap();
        chown(inside("another's"), Some(USER - 1), None).unwrap();
        for name in ["linked", "named"] {
            fs::write(outside(name), "").unwrap();
        }
        fs::create_dir(outside("folder")).unwrap();
        fs::write(outside("folder/file"), "").unwrap();
        symlink(outside("linked"), inside("made/link")).unwrap();
        symlink(outside("folder"), inside("made/folder")).unwrap();
        fs::hard_link(outside("named"), inside("made/name")).unwrap();

        let owner = |path| fs::symlink_metadata(path).unwrap().uid();
        hand_over(folder.path()).unwrap();
        assert_eq!(owner(inside("made")), 0, "the folder is root's own");
        chown(folder.path(), Some(USER), Some(USER)).unwrap();
        hand_over(folder.path()).unwrap();
        for name in ["made", "made/below", "made/below/file"] {
            assert_eq!(owner(inside(name)), USER, "{name}");
        }
        assert_eq!(owner(inside("another's")), USER - 1);
        assert_eq!(owner(inside("made/name")), 0);
        for name in ["linked", "named", "folder", "folder/file"] {
            assert_eq!(owner(outside(name)), 0, "{name}");
        }
    }

    #[test]
    fn a_link_in_a_folder_of_another_user_is_refused_and_said() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        symlink("/nowhere", folder.path().join("ledger.db")).unwrap();
        refuse_links(folder.path()).unwrap();
        chown(folder.path(), Some(USER), Some(USER)).unwrap();
        let error = refuse_links(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ledger.db is a link"), "{error}");
        fs::remove_file(folder.path().join("ledger.db")).unwrap();
        refuse_links(folder.path()).unwrap();
    }
}

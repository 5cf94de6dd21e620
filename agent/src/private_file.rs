//! Files and folders that only their owner can read, created so, not changed to it afterwards; and the look at those that
//! somebody else may have made.

use std::{
    fs,
    fs::File,
    io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::secret::Secret;

/// Who may read a file with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Its owner alone.
    Owner,
    /// Its owner and its group, as for keys that several services use.
    OwnerAndGroup,
    /// Its owner, and whom an ACL names: a credential that systemd hands over. Its mode shows the ACL as rights of the
    /// group.
    OwnerAndAcl,
}

/// A file or a folder with secrets that others can read, or own.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// More can read it than should.
    #[error(
        "{path} can be read by other users of this device (its mode is {mode:o}); it holds secrets: \
         chmod {wanted:o} '{path}'"
    )]
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// As it is.
        mode: u32,
        /// As it should be.
        wanted: u32,
    },
    /// Somebody else can change it at any time.
    #[error(
        "{path} belongs to another user of this device (its owner is {owner}); it holds secrets: \
         chown {wanted} '{path}'"
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        wanted: u32,
    },
}

/// Why a file with a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not private.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Refuses a file or a folder that more can read than should, or that belongs neither to this user nor to root. One that
/// is not there is nobody's.
///
/// # Errors
///
/// [`NotPrivate`], which says how to mend it.
pub fn check(path: &Path, who: Who) -> Result<(), NotPrivate> {
    check_for(path, who, this_user())
}

/// As [`check`], for files of this user.
///
/// # Errors
///
/// [`NotPrivate`], which says how to mend it.
pub fn check_for(path: &Path, who: Who, user: u32) -> Result<(), NotPrivate> {
    match fs::metadata(path) {
        Ok(found) => judge(&found, path, who, user),
        Err(_) => Ok(()),
    }
}

/// As [`check`], of the file that was opened, whatever its name leads to by now.
///
/// # Errors
///
/// [`NotPrivate`], which says how to mend it.
pub fn check_open(file: &File, path: &Path, who: Who) -> Result<(), NotPrivate> {
    match file.metadata() {
        Ok(found) => judge(&found, path, who, this_user()),
        Err(_) => Ok(()),
    }
}

/// Reads a text with a secret. What was checked is what is read.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(path: &Path, who: Who) -> Result<Secret, ReadError> {
    let mut file = File::open(path)?;
    check_open(&file, path, who)?;
    let mut text = String::new();
    let read = file.read_to_string(&mut text);
    let text = Secret::new(text);
    read?;
    Ok(text)
}

/// Opens a file for reading that is no link, and is a file.
///
/// # Errors
///
/// What the system says.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    follow_no_link(&mut options);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

/// Has a file opened only where its name is no link, and without waiting for whoever is at the other end of a pipe.
#[cfg(unix)]
pub fn follow_no_link(options: &mut fs::OpenOptions) {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.cast_signed());
}

/// Other systems let only administrators make links.
#[cfg(not(unix))]
pub fn follow_no_link(_options: &mut fs::OpenOptions) {}

/// Whose files this process makes.
#[cfg(unix)]
pub fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(unix)]
fn judge(found: &fs::Metadata, path: &Path, who: Who, user: u32) -> Result<(), NotPrivate> {
    use std::os::unix::fs::MetadataExt as _;
    let (mode, owner) = (found.mode() & 0o777, found.uid());
    let others = match (who, found.is_dir()) {
        (Who::Owner, _) => 0o077,
        (Who::OwnerAndGroup, _) => 0o027,
        (Who::OwnerAndAcl, false) => 0o037,
        (Who::OwnerAndAcl, true) => 0o007,
    };
    if mode & others != 0 {
        let wanted = match (found.is_dir(), who) {
            (true, Who::OwnerAndAcl) => 0o750,
            (true, _) => 0o700,
            (false, Who::Owner) => 0o600,
            (false, Who::OwnerAndGroup | Who::OwnerAndAcl) => 0o640,
        };
        return Err(NotPrivate::Mode {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    // Root can change everything anyway.
    if owner != user && owner != 0 {
        return Err(NotPrivate::Owner {
            path: path.to_owned(),
            owner,
            wanted: user,
        });
    }
    Ok(())
}

/// Other systems have no such numbers.
#[cfg(not(unix))]
pub const fn this_user() -> u32 {
    0
}

/// Other systems give a file the rights of its folder, which is the user's own.
#[cfg(not(unix))]
fn judge(_: &fs::Metadata, _: &Path, _: Who, _: u32) -> Result<(), NotPrivate> {
    Ok(())
}

/// Creates a folder, and those above it, for its owner only. One that exists is left as it is.
///
/// # Errors
///
/// What the system says.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that does not exist yet, for its owner only, and waits until it is on disk.
///
/// # Errors
///
/// What the system says; `AlreadyExists` where the file is there.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    sync_folder(path)
}

/// As [`create`], but the file appears whole or not at all, under a name that may exist.
///
/// # Errors
///
/// What the system says.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    create(&temporary, content)?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Puts a file that was written under another name in its place. A link there is replaced, never followed.
///
/// # Errors
///
/// What the system says.
pub fn put(written: &Path, place: &Path) -> io::Result<()> {
    fs::rename(written, place)?;
    sync_folder(place)
}

/// Waits until the name of a file is on disk: a name in a folder is durable only when the folder is.
///
/// # Errors
///
/// What the system says.
#[cfg(unix)]
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        None => return Ok(()),
        // A name alone is in the folder in which the program runs.
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
    };
    std::fs::File::open(folder)?.sync_all()
}

/// Other systems keep names with their files.
///
/// # Errors
///
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

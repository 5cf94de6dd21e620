//! Files and folders that only their owner can read, created so, not changed to it afterwards.

use std::{
    io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Who may read a file with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Its owner alone.
    Owner,
    /// Its owner and its group, as for keys that several services use.
    OwnerAndGroup,
}

/// A file or a folder with secrets that others can read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} can be read by other users of this device (its mode is {mode:o}); it holds secrets: \
     chmod {wanted:o} '{path}'"
)]
pub struct TooOpen {
    path: PathBuf,
    mode: u32,
    wanted: u32,
}

/// Refuses a file or a folder that more can read than should. One that is not there is nobody's.
///
/// # Errors
///
/// [`TooOpen`], which says how to mend it.
#[cfg(unix)]
pub fn check(path: &Path, who: Who) -> Result<(), TooOpen> {
    let Ok(found) = std::fs::metadata(path) else {
        return Ok(());
    };
    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
    let others = match who {
        Who::Owner => 0o077,
        Who::OwnerAndGroup => 0o027,
    };
    if mode & others == 0 {
        return Ok(());
    }
    let wanted = match (found.is_dir(), who) {
        (true, _) => 0o700,
        (false, Who::Owner) => 0o600,
        (false, Who::OwnerAndGroup) => 0o640,
    };
    Err(TooOpen {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

/// Other systems give a file the rights of its folder, which is the user's own.
///
/// # Errors
///
/// None.
#[cfg(not(unix))]
pub fn check(_path: &Path, _who: Who) -> Result<(), TooOpen> {
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

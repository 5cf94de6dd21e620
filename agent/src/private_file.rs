//! Files and folders that only their owner can read, created so, not changed to it afterwards.

use std::{io, io::Write as _, path::Path};

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
    path.parent()
        .map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
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

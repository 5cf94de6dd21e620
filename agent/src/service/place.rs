//! The files of a service: written whole or not at all, and inside the image of a device without following a link out of it.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::ServiceError;

/// Where a file lies, in a system or in the image of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The root of the image; `None` for the system that runs, whose links are its administrator's.
    pub(super) root: Option<&'a Path>,
    /// The file.
    pub(super) path: &'a Path,
}

impl Place<'_> {
    /// Refuses an image in which a link stands on the way to the file, or in its place.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Link`].
    pub(super) fn check(&self) -> Result<(), ServiceError> {
        let Some(root) = self.root else {
            return Ok(());
        };
        let below = self.path.strip_prefix(root).unwrap_or(self.path);
        let mut place = root.to_owned();
        for part in below.components() {
            place.push(part);
            let is_link = fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink());
            if is_link || part == Component::ParentDir {
                return Err(ServiceError::Link { path: place });
            }
        }
        Ok(())
    }

    /// Whether the file has this content.
    pub(super) fn has(&self, content: &str) -> bool {
        fs::read_to_string(self.path).is_ok_and(|found| found == content)
    }

    /// Whether there is something.
    pub(super) fn is_taken(&self) -> bool {
        fs::symlink_metadata(self.path).is_ok()
    }

    /// Writes the file, readable for everybody whatever the caller's umask is, since the service's user is another.
    pub(super) fn write(&self, content: &str) -> Result<(), ServiceError> {
        self.check()?;
        let failed = |source| self.failed(source);
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        make_folders(folder).map_err(failed)?;
        let new = self.path.with_extension("new");
        remove(&new).map_err(failed)?;
        // What was removed may be back as a link: it is not followed.
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        let written = options.open(&new).and_then(|mut file| {
            io::Write::write_all(&mut file, content.as_bytes())?;
            open_to_all(&file, 0o644)?;
            file.sync_all()
        });
        written.map_err(failed)?;
        self.check()?;
        fs::rename(&new, self.path).map_err(failed)
    }

    /// Removes the file. Returns whether it was there.
    pub(super) fn remove(&self) -> Result<bool, ServiceError> {
        self.check()?;
        remove(self.path).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> ServiceError {
        ServiceError::File {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// Refuses a path that would add lines to what a service manager reads, or that it could not be told.
///
/// # Errors
///
/// [`ServiceError::Unwritable`].
pub(super) fn check_name(path: &Path) -> Result<(), ServiceError> {
    let is_plain = path
        .to_str()
        .is_some_and(|text| !text.contains(crate::foreign::is_active));
    if is_plain {
        return Ok(());
    }
    Err(ServiceError::Unwritable {
        path: path.to_owned(),
    })
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|folder| !folder.exists())
        .map(Path::to_owned)
        .collect();
    for folder in missing.iter().rev() {
        fs::create_dir(folder)?;
        open_to_all(&fs::File::open(folder)?, 0o755)?;
    }
    Ok(())
}

#[cfg(unix)]
fn open_to_all(file: &fs::File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn open_to_all(_file: &fs::File, _mode: u32) -> io::Result<()> {
    Ok(())
}

//! The applications' key pairs on disk: a file each in a folder of the data directory, and one for each that was revoked.
//!
//! No link is followed: the folder belongs to the agent's user, and whoever works on it may be root.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{AppsError, DEFAULT_APP, KeyPair, rights::Rights};
use crate::{
    config::paths::DataDir,
    private_file::{self, Who},
    secret::Secret,
};

/// The longest name of an application.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// A key pair is much shorter.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Makes a key pair and its file.
///
/// # Errors
///
/// [`AppsError`].
pub fn add(
    data_dir: &DataDir,
    name: &str,
    rights: Rights,
    sign_answers: bool,
) -> Result<KeyPair, AppsError> {
    let path = file_of(data_dir, name)?;
    let keys = KeyPair {
        name: name.to_owned(),
        api_key: Secret::random::<18>()?.expose().to_owned(),
        shared_key: Secret::random::<32>()?,
        rights,
        sign_answers,
    };
    let failed = |source| failed(&path, source);
    make_folder(&data_dir.apps())?;
    let content = serde_json::to_string_pretty(&keys).map_err(|error| failed(error.into()))?;
    private_file::create(&path, content.as_bytes()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => AppsError::Exists(name.to_owned()),
        _ => failed(source),
    })?;
    Ok(keys)
}

/// Makes the default application, where there is none.
///
/// # Errors
///
/// [`AppsError`].
pub fn ensure_default(data_dir: &DataDir) -> Result<(), AppsError> {
    match add(data_dir, DEFAULT_APP, Rights::default(), true) {
        Ok(_) | Err(AppsError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads one key pair.
///
/// # Errors
///
/// [`AppsError`].
pub fn read(data_dir: &DataDir, name: &str) -> Result<KeyPair, AppsError> {
    let path = file_of(data_dir, name)?;
    check_folder(&data_dir.apps())?;
    match read_file(&path) {
        Err(AppsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(AppsError::NotFound(name.to_owned()))
        }
        other => other,
    }
}

/// Takes a key pair away. Its API key is noted as revoked first, so that its application is told so. Where it cannot be
/// noted, the key pair goes all the same.
///
/// # Errors
///
/// [`AppsError`]; then its file may still be there.
pub fn revoke(data_dir: &DataDir, name: &str) -> Result<(), AppsError> {
    let path = file_of(data_dir, name)?;
    check_folder(&data_dir.apps())?;
    // A file that cannot be read is taken away all the same.
    let api_key = read_file(&path).ok().map(|keys| keys.api_key);
    if let Some(api_key) = api_key.filter(|key| is_file_name(key))
        && let Err(error) = note_revoked(data_dir, name, &api_key)
    {
        let error = anyhow::Error::from(error);
        tracing::warn!(
            app = name,
            error = format!("{error:#}"),
            "an application is revoked, and its key is not remembered"
        );
    }
    fs::remove_file(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AppsError::NotFound(name.to_owned()),
        _ => failed(&path, source),
    })
}

fn note_revoked(data_dir: &DataDir, name: &str, api_key: &str) -> Result<(), AppsError> {
    let folder = revoked_in(&data_dir.apps());
    make_folder(&folder)?;
    let note = folder.join(format!("{api_key}.json"));
    let content = serde_json::json!({ "name": name }).to_string();
    private_file::replace(&note, content.as_bytes()).map_err(|source| failed(&note, source))
}

/// All key pairs, by name, and why others cannot be read.
///
/// # Errors
///
/// [`AppsError::File`] where the folder cannot be read.
pub fn list(data_dir: &DataDir) -> Result<(Vec<KeyPair>, Vec<AppsError>), AppsError> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for path in files_in(&data_dir.apps())? {
        match read_file(&path) {
            Ok(keys) => found.push(keys),
            Err(error) => unread.push(error),
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((found, unread))
}

/// The API keys that were taken away.
pub(super) fn revoked(data_dir: &DataDir) -> Result<Vec<String>, AppsError> {
    let files = files_in(&revoked_in(&data_dir.apps()))?;
    let names = files.iter().filter_map(|path| path.file_stem()?.to_str());
    Ok(names.map(str::to_owned).collect())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, AppsError> {
    if !check_folder(folder)? {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|source| failed(folder, source))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(folder, source))?.path();
        let is_ours = path.extension().is_some_and(|name| name == "json");
        files.extend(is_ours.then_some(path));
    }
    Ok(files)
}

/// Those that were taken away: a file each, named by its API key.
fn revoked_in(folder: &Path) -> PathBuf {
    folder.join("revoked")
}

fn make_folder(folder: &Path) -> Result<(), AppsError> {
    if !check_folder(folder)? {
        private_file::create_folder(folder).map_err(|source| failed(folder, source))?;
    }
    Ok(())
}

/// Whether there is such a folder. One that is a link, or no folder, is not used.
fn check_folder(folder: &Path) -> Result<bool, AppsError> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => {
            private_file::check(folder, Who::Owner)?;
            Ok(true)
        }
        Ok(_) => Err(failed(
            folder,
            io::Error::other("it is a link or a file, where a folder should be"),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(folder, error)),
    }
}

fn read_file(path: &Path) -> Result<KeyPair, AppsError> {
    let failed = |source| failed(path, source);
    let file = private_file::open(path).map_err(failed)?;
    private_file::check_open(&file, path, Who::Owner)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut content)
        .map_err(failed)?;
    serde_json::from_slice(&content).map_err(|error| failed(error.into()))
}

fn failed(path: &Path, source: io::Error) -> AppsError {
    AppsError::File {
        path: path.to_owned(),
        source,
    }
}

fn file_of(data_dir: &DataDir, name: &str) -> Result<PathBuf, AppsError> {
    if !is_file_name(name) {
        return Err(AppsError::Name(name.to_owned()));
    }
    Ok(data_dir.apps().join(format!("{name}.json")))
}

fn is_file_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(letters)
}

//! The admin token: a secret in a file that only the agent's user can read. Whoever can read it may use
//! the control API.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    private_file,
    secret::{NoRandom, Secret},
};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be used.
    #[error("cannot use the admin token {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no token.
    #[error("the admin token {path} is empty; remove it and start `tally run` again")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A new one cannot be made.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// Reads the token.
///
/// # Errors
///
/// [`TokenError::File`] or [`TokenError::Empty`].
pub fn read(path: &Path) -> Result<Secret, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokenError::File {
        path: path.to_owned(),
        source,
    })?;
    let text = Secret::new(text);
    // An empty token would be one that everybody knows.
    match text.expose().trim() {
        "" => Err(TokenError::Empty {
            path: path.to_owned(),
        }),
        token => Ok(Secret::new(token.to_owned())),
    }
}

/// Reads the token, or makes one at the first start.
///
/// # Errors
///
/// [`TokenError`].
pub fn read_or_make(path: &Path) -> Result<Secret, TokenError> {
    match read(path) {
        Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let token = Secret::random::<32>()?;
    let content = Secret::new(format!("{}\n", token.expose()));
    private_file::create(path, content.expose().as_bytes()).map_err(|source| TokenError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin_token");
        assert!(read(&path).is_err());
        let made = read_or_make(&path).unwrap();
        assert_eq!(made.expose().len(), 43);
        assert_eq!(read_or_make(&path).unwrap().expose(), made.expose());
        #[cfg(unix)]
        {
            let permissions = std::fs::metadata(&path).unwrap().permissions();
            let bits = std::os::unix::fs::PermissionsExt::mode(&permissions);
            assert_eq!(bits & 0o777, 0o600);
        }
    }

    #[test]
    fn an_empty_file_is_no_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " \n").unwrap();
        let refused = read_or_make(file.path());
        assert!(matches!(refused, Err(TokenError::Empty { .. })));
    }
}

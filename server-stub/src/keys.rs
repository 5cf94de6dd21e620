//! The file of the private key that signs answers: made on the first start, for its owner only.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use tally_shared::signature::{KeyError, Signer};

use crate::private_file;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot read or write the key file")]
    File(#[from] io::Error),
    /// The file does not hold a key.
    #[error("{} does not hold a private key", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// A key cannot be made.
    #[error("cannot make a key")]
    Make(#[source] KeyError),
}

/// Reads the key, or makes one where there is no file.
pub(crate) fn read_or_make(path: &Path) -> Result<Signer, KeyFileError> {
    match fs::read_to_string(path) {
        Ok(text) => Signer::from_pem(&text).map_err(|source| KeyFileError::Content {
            path: path.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error.into()),
    }
}

fn make(path: &Path) -> Result<Signer, KeyFileError> {
    let signer = Signer::generate().map_err(KeyFileError::Make)?;
    let pem = signer.to_pem().map_err(KeyFileError::Make)?;
    private_file::create(path, pem.as_bytes())?;
    Ok(signer)
}

//! Server credentials in the platform's keyring: Secret Service, Keychain, or Credential Manager. Only in
//! builds with the feature `keyring`.

use crate::secret::Secret;

/// The name under which all entries stand.
#[cfg(feature = "keyring")]
const SERVICE: &str = "tally";

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// This program was built without it.
    #[error(
        "this tally was built without a keyring; build it with `--features keyring`, or keep the \
         credentials in files"
    )]
    NotBuilt,
    /// The platform's keyring does not answer, is locked, or refuses.
    #[error(
        "the platform's keyring cannot be used: {0}; unlock it, or keep the credentials in files"
    )]
    Unusable(String),
}

/// Reads an entry; `None` where there is none.
///
/// # Errors
///
/// [`KeyringError`].
#[cfg(feature = "keyring")]
pub fn read(name: &str) -> Result<Option<Secret>, KeyringError> {
    match entry(name)?.get_password() {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(keyring::v1::Error::NoEntry) => Ok(None),
        Err(error) => Err(KeyringError::Unusable(error.to_string())),
    }
}

/// Writes an entry.
///
/// # Errors
///
/// [`KeyringError`].
#[cfg(feature = "keyring")]
pub fn write(name: &str, secret: &Secret) -> Result<(), KeyringError> {
    let written = entry(name)?.set_password(secret.expose());
    written.map_err(|error| KeyringError::Unusable(error.to_string()))
}

#[cfg(feature = "keyring")]
fn entry(name: &str) -> Result<keyring::v1::Entry, KeyringError> {
    if let Err(error) = keyring::v1::Entry::store_status() {
        return Err(KeyringError::Unusable(error.to_string()));
    }
    keyring::v1::Entry::new(SERVICE, name)
        .map_err(|error| KeyringError::Unusable(error.to_string()))
}

/// Reads an entry.
///
/// # Errors
///
/// [`KeyringError::NotBuilt`].
#[cfg(not(feature = "keyring"))]
pub const fn read(_name: &str) -> Result<Option<Secret>, KeyringError> {
    Err(KeyringError::NotBuilt)
}

/// Writes an entry.
///
/// # Errors
///
/// [`KeyringError::NotBuilt`].
#[cfg(not(feature = "keyring"))]
pub const fn write(_name: &str, _secret: &Secret) -> Result<(), KeyringError> {
    Err(KeyringError::NotBuilt)
}

//! Secrets in memory: wiped when dropped, and never printed.

use std::fmt;

use aws_lc_rs::{constant_time, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// A secret text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// The system's random generator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random bits to make a key of")]
pub struct NoRandom;

impl Secret {
    /// A new one of so many random bytes, as URL-safe Base64.
    ///
    /// # Errors
    ///
    /// [`NoRandom`].
    pub fn random<const BYTES: usize>() -> Result<Self, NoRandom> {
        let mut bytes = [0; BYTES];
        rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        let secret = Self(URL_SAFE_NO_PAD.encode(bytes));
        bytes.zeroize();
        Ok(secret)
    }

    /// Takes a secret.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. It belongs into nothing that is printed or kept.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether what was given is this, in constant time: how much of a guess is right must not show.
    pub fn is(&self, given: &str) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), given.as_bytes()).is_ok()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

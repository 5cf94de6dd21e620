//! The signatures that prove where an answer comes from (contract, "Response signature").
//!
//! Both are RSA PKCS#1 v1.5 with SHA-256, in Base64: `LicenseSignature` over an answer's exact bytes,
//! and the older `license_signature` over a few lower-cased fields of a licence.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{time::Timestamp, wire::Subject};

const PRIVATE_KEY_TAG: &str = "PRIVATE KEY";
const PUBLIC_KEY_TAG: &str = "PUBLIC KEY";

/// A private key that signs answers.
pub struct Signer {
    pair: RsaKeyPair,
    random: SystemRandom,
}

/// A public key that verifies answers.
#[derive(Clone)]
pub struct Verifier {
    key_der: Vec<u8>,
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library could not make a key.
    #[error("cannot make an RSA key")]
    Generate,
    /// Not a PEM file of the wanted kind.
    #[error("not a PEM file with a block `{expected}`")]
    NotPem {
        /// The label that the block should have.
        expected: &'static str,
    },
    /// The PEM block does not hold an RSA key of 2,048 to 8,192 bits.
    #[error("the `{tag}` block is not an RSA key of 2048 to 8192 bits")]
    NotRsa {
        /// The label of the block.
        tag: &'static str,
    },
    /// The library could not sign.
    #[error("cannot sign")]
    Sign,
}

impl Signer {
    /// Makes a new key of 2,048 bits. The production service uses 4,096, which cost six times as much
    /// for each answer and protect nothing more on a device that holds the private key itself.
    ///
    /// # Errors
    ///
    /// [`KeyError::Generate`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
        Ok(Self {
            pair,
            random: SystemRandom::new(),
        })
    }

    /// Reads a private key in PKCS#8 PEM.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotPem`] or [`KeyError::NotRsa`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem_block(text, PRIVATE_KEY_TAG)?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| KeyError::NotRsa {
            tag: PRIVATE_KEY_TAG,
        })?;
        Ok(Self {
            pair,
            random: SystemRandom::new(),
        })
    }

    /// The private key in PKCS#8 PEM. It belongs into a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// [`KeyError::Generate`] where the library cannot encode it.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Generate)?;
        Ok(pem::encode(&pem::Pem::new(PRIVATE_KEY_TAG, der.as_ref())))
    }

    /// The public key in PEM (`SubjectPublicKeyInfo`), as SDKs are configured with.
    ///
    /// # Errors
    ///
    /// [`KeyError::Generate`] where the library cannot encode it.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let der: PublicKeyX509Der<'_> = self
            .pair
            .public_key()
            .as_der()
            .map_err(|_| KeyError::Generate)?;
        Ok(pem::encode(&pem::Pem::new(PUBLIC_KEY_TAG, der.as_ref())))
    }

    /// Signs bytes, in Base64.
    ///
    /// # Errors
    ///
    /// [`KeyError::Sign`].
    pub fn sign(&self, message: &[u8]) -> Result<String, KeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
            .map_err(|_| KeyError::Sign)?;
        Ok(BASE64.encode(signature))
    }

    /// Signs a licence: the older `license_signature`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Sign`].
    pub fn sign_license(
        &self,
        subject: &Subject,
        validity_period: Option<Timestamp>,
    ) -> Result<String, KeyError> {
        self.sign(license_text(subject, validity_period).as_bytes())
    }
}

impl Verifier {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotPem`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Ok(Self {
            key_der: pem_block(text, PUBLIC_KEY_TAG)?,
        })
    }

    /// Whether `signature` (Base64) is this key's for exactly these bytes.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = BASE64.decode(signature) else {
            return false;
        };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key_der)
            .verify(message, &signature)
            .is_ok()
    }

    /// Whether `signature` is this key's `license_signature` for a licence.
    #[must_use]
    pub fn verify_license(
        &self,
        subject: &Subject,
        validity_period: Option<Timestamp>,
        signature: &str,
    ) -> bool {
        self.verify(license_text(subject, validity_period).as_bytes(), signature)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

fn license_text(subject: &Subject, validity_period: Option<Timestamp>) -> String {
    let validity = validity_period
        .map(|end| end.to_string())
        .unwrap_or_default();
    format!(
        "{}#{}#{validity}",
        subject.hardware_id,
        subject.holder.value()
    )
    .to_lowercase()
}

fn pem_block(text: &str, tag: &'static str) -> Result<Vec<u8>, KeyError> {
    match pem::parse(text) {
        Ok(block) if block.tag() == tag => Ok(block.into_contents()),
        Ok(_) | Err(_) => Err(KeyError::NotPem { expected: tag }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_bytes_and_key_only() {
        let signer = Signer::generate().unwrap();
        let verifier = Verifier::from_pem(&signer.public_pem().unwrap()).unwrap();
        let signature = signer.sign(br#"{"id":1}"#).unwrap();
        assert!(verifier.verify(br#"{"id":1}"#, &signature));
        assert!(!verifier.verify(br#"{"id":2}"#, &signature));
        assert!(!verifier.verify(br#"{"id":1}"#, "not base64!"));
        let other = Signer::generate().unwrap();
        let other = Verifier::from_pem(&other.public_pem().unwrap()).unwrap();
        assert!(!other.verify(br#"{"id":1}"#, &signature));
    }

    #[test]
    fn a_key_survives_its_file_and_rubbish_is_refused() {
        let signer = Signer::generate().unwrap();
        let reread = Signer::from_pem(&signer.to_pem().unwrap()).unwrap();
        assert_eq!(signer.public_pem().unwrap(), reread.public_pem().unwrap());
        assert!(matches!(
            Signer::from_pem("rubbish"),
            Err(KeyError::NotPem { .. })
        ));
        assert!(matches!(
            Signer::from_pem(&signer.public_pem().unwrap()),
            Err(KeyError::NotPem { .. })
        ));
    }

    #[test]
    fn the_licence_signature_covers_the_lower_cased_fields() {
        let signer = Signer::generate().unwrap();
        let verifier = Verifier::from_pem(&signer.public_pem().unwrap()).unwrap();
        let subject = Subject::by_key("p", "AAAA-BBBB", "HW-1");
        let end = Timestamp::parse("2030-01-01");
        let signature = signer.sign_license(&subject, end).unwrap();
        assert!(verifier.verify_license(&subject, end, &signature));
        assert!(verifier.verify(b"hw-1#aaaa-bbbb#2030-01-01t00:00:00.000z", &signature));
        let open = signer.sign_license(&subject, None).unwrap();
        assert!(verifier.verify(b"hw-1#aaaa-bbbb#", &open));
    }
}

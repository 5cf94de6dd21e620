//! The settings of the licence server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Identity, Url};
use tally_shared::signature::Verifier;

use super::{
    ConfigError, DEFAULT_REQUEST_TIMEOUT,
    file::{self, ServerFile},
};
use crate::{
    keyring,
    private_file::{self, ReadError, Who},
    secret::Secret,
    sync::client::{ServerConfig, ServerTls, is_loopback},
};

/// What was given of it as flags or environment variables.
#[derive(Clone, Debug, Default)]
pub struct GivenServer {
    /// `--server-url`
    pub url: Option<Url>,
    /// `TALLY_SERVER_API_KEY`
    pub api_key: Option<Secret>,
    /// `TALLY_SERVER_SHARED_KEY`
    pub shared_key: Option<Secret>,
    /// `--request-timeout`
    pub request_timeout: Option<Duration>,
    /// `--server-public-key`
    pub public_key: Option<PathBuf>,
    /// `--server-ca`
    pub ca: Option<PathBuf>,
    /// `--server-client-cert`
    pub client_cert: Option<PathBuf>,
    /// `--server-client-key`
    pub client_key: Option<PathBuf>,
    /// `--insecure-server`
    pub insecure: bool,
    /// `--server-keyring`
    pub keyring: bool,
    /// `CREDENTIALS_DIRECTORY`: where systemd puts what a unit's `LoadCredential=` names.
    pub credentials: Option<PathBuf>,
}

/// Folds the layers into settings.
pub(super) fn resolve(given: GivenServer, set: ServerFile) -> Result<ServerConfig, ConfigError> {
    let url = given.url.or(set.url).ok_or(ConfigError::Missing {
        what: "licence server",
        flag: "--server-url URL",
        variable: "TALLY_SERVER_URL",
        key: "url",
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(ConfigError::ServerUrl { url });
    }
    let may_be_clear = given.insecure || set.insecure || is_loopback(&url);
    if url.scheme() == "http" && !may_be_clear {
        return Err(ConfigError::InsecureServer { url });
    }
    let identity = match (
        given.client_cert.or(set.client_cert),
        given.client_key.or(set.client_key),
    ) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(read_identity(certificate, &key)?),
        _ => return Err(ConfigError::HalfIdentity),
    };
    let credentials = given.credentials;
    let has_keyring = given.keyring || set.keyring;
    let of_service = |name: &str| {
        let folder = credentials.as_ref();
        let found = folder.map_or(Ok(None), |folder| read_credential(folder, name))?;
        match found {
            None if has_keyring => Ok(keyring::read(name)?),
            found => Ok::<_, ConfigError>(found),
        }
    };
    Ok(ServerConfig {
        url,
        api_key: credential(
            first([given.api_key, of_service("server_api_key")?, set.api_key]),
            "API key of the licence server",
            file::API_KEY_VARIABLE,
            "api_key",
        )?,
        shared_key: credential(
            first([
                given.shared_key,
                of_service("server_shared_key")?,
                set.shared_key,
            ]),
            "shared key of the licence server",
            file::SHARED_KEY_VARIABLE,
            "shared_key",
        )?,
        request_timeout: given
            .request_timeout
            .or(set.request_timeout)
            .unwrap_or(DEFAULT_REQUEST_TIMEOUT),
        verifier: given
            .public_key
            .or(set.public_key)
            .map(read_public_key)
            .transpose()?,
        tls: ServerTls {
            authorities: given
                .ca
                .or(set.ca)
                .map(read_authorities)
                .transpose()?
                .unwrap_or_default(),
            identity,
        },
    })
}

fn first(found: [Option<Secret>; 3]) -> Option<Secret> {
    found.into_iter().flatten().next()
}

/// A file of `CREDENTIALS_DIRECTORY` with one credential, which may end in a line feed. One that is not there is not given.
///
/// systemd gives the service's user an ACL on root's file, in a folder that is made in the same way.
fn read_credential(folder: &Path, name: &str) -> Result<Option<Secret>, ConfigError> {
    let path = folder.join(name);
    private_file::check(folder, Who::OwnerAndAcl)?;
    match private_file::read(&path, Who::OwnerAndAcl) {
        Ok(text) => Ok(Some(Secret::new(text.expose().trim().to_owned()))),
        Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(ReadError::Io(source)) => Err(ConfigError::Credential { path, source }),
        Err(ReadError::NotPrivate(error)) => Err(error.into()),
    }
}

fn credential(
    value: Option<Secret>,
    what: &'static str,
    variable: &'static str,
    key: &'static str,
) -> Result<Secret, ConfigError> {
    value.ok_or(ConfigError::NoCredential {
        what,
        variable,
        key,
    })
}

fn read_public_key(path: PathBuf) -> Result<Verifier, ConfigError> {
    let read = fs_err::read_to_string(&path).map_err(|error| error.to_string());
    read.and_then(|text| Verifier::from_pem(&text).map_err(|error| error.to_string()))
        .map_err(|message| ConfigError::PublicKey { path, message })
}

fn read_authorities(path: PathBuf) -> Result<Vec<Certificate>, ConfigError> {
    let read = fs_err::read(&path).map_err(|error| error.to_string());
    let found = read.and_then(|pem| {
        Certificate::from_pem_bundle(&pem).map_err(|_| "it is not a certificate in PEM".to_owned())
    });
    match found {
        // With none, the platform's would be trusted, which is not what was asked for.
        Ok(found) if found.is_empty() => Err("there is no certificate in it".to_owned()),
        found => found,
    }
    .map_err(|message| ConfigError::ServerTls { path, message })
}

fn read_identity(certificate: PathBuf, key: &Path) -> Result<Identity, ConfigError> {
    let failed = |path: &Path, message| ConfigError::ServerTls {
        path: path.to_owned(),
        message,
    };
    let secret = private_file::read(key, Who::OwnerAndGroup).map_err(|error| match error {
        ReadError::NotPrivate(error) => error.into(),
        ReadError::Io(error) => failed(key, error.to_string()),
    })?;
    let public = fs_err::read_to_string(&certificate);
    let public = public.map_err(|error| failed(&certificate, error.to_string()))?;
    let both = [secret, Secret::new(public)];
    let pem = Secret::new(
        both.iter()
            .map(Secret::expose)
            .collect::<Vec<_>>()
            .join("\n"),
    );
    Identity::from_pem(pem.expose().as_bytes()).map_err(|_| ConfigError::ServerTls {
        path: certificate,
        message: format!(
            "with {}, it is no certificate and its key in PEM",
            key.display()
        ),
    })
}

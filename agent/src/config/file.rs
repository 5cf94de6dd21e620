//! The config file. Every key is optional; an unknown one is an error, since it is most likely a
//! misspelt one.

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{ConfigError, limits::LimitsFile};
use crate::{
    core::{LateUsage, UndecidablePolicy},
    private_file::{self, Who},
    secret::Secret,
};

/// The variable for `api_key`.
pub const API_KEY_VARIABLE: &str = "TALLY_SERVER_API_KEY";
/// The variable for `shared_key`.
pub const SHARED_KEY_VARIABLE: &str = "TALLY_SERVER_SHARED_KEY";

/// What a config file may hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Where the local API listens.
    pub listen: Option<SocketAddr>,
    /// Whether other devices are served, by TLS.
    pub listen_public: bool,
    /// The certificate for it (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Host names to be served under, besides those of the certificate.
    pub public_names: Vec<String>,
    /// The folder with the ledger, the keys and the socket.
    pub data_dir: Option<PathBuf>,
    /// How long rows may wait for company.
    #[serde(deserialize_with = "duration")]
    pub sync_interval: Option<Duration>,
    /// How long a request whose outcome is unknown could still arrive.
    #[serde(deserialize_with = "duration")]
    pub settle_wait: Option<Duration>,
    /// How often a licence is read while nothing else happens.
    #[serde(deserialize_with = "duration")]
    pub refresh_interval: Option<Duration>,
    /// What to do when the total cannot tell.
    pub undecidable: Option<UndecidablePolicy>,
    /// What to do with units of a period that is over.
    pub late_usage: Option<LateUsage>,
    /// How long settled rows are kept one by one.
    #[serde(deserialize_with = "duration")]
    pub retention: Option<Duration>,
    /// How long answers under an `Idempotency-Key` are remembered.
    #[serde(deserialize_with = "duration")]
    pub idempotency_retention: Option<Duration>,
    /// The licence server.
    pub server: Option<ServerFile>,
    /// How much anybody may use of the agent. What happens beyond is in [SECURITY.md](../SECURITY.md).
    pub limits: LimitsFile,
    /// What is logged, and where to.
    pub log: LogFile,
}

/// The `[log]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    /// What is logged, such as `debug`.
    pub level: Option<String>,
    /// The file; stderr where there is none.
    pub file: Option<PathBuf>,
    /// How many days have a file of their own.
    pub days: Option<NonZeroUsize>,
}

/// The `[server]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerFile {
    /// Its address.
    #[serde(deserialize_with = "url")]
    pub url: Option<Url>,
    /// Names your account. It has no flag, since every user of the device can read those.
    pub api_key: Option<Secret>,
    /// Signs its requests. It has no flag either.
    pub shared_key: Option<Secret>,
    /// Verifies the server's answers.
    pub public_key: Option<PathBuf>,
    /// How long an exchange may take.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,
    /// The only authorities that its certificate may come from (PEM).
    pub ca: Option<PathBuf>,
    /// A certificate of this device, for a server that asks for one (PEM).
    pub client_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub client_key: Option<PathBuf>,
    /// Whether it may be spoken to in the clear.
    pub insecure: bool,
    /// Whether its credentials stand in the platform's keyring.
    pub keyring: bool,
}

impl ConfigFile {
    /// Reads a config file. One that was not asked for by name may be absent.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`] or [`ConfigError::Parse`].
    pub fn read(path: &Path, must_exist: bool) -> Result<Self, ConfigError> {
        let read = File::open(path).and_then(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok((file, text))
        });
        let (opened, text) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let file = Self::parse(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: on_one_line(&text, &error),
        })?;
        let server = file.server.as_ref();
        if server.is_some_and(|server| server.api_key.is_some() || server.shared_key.is_some()) {
            private_file::check_open(&opened, path, Who::Owner)?;
        }
        Ok(file)
    }

    /// Reads the text of a config file.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// Where it is wrong, and what; the library's own text is a drawing of several lines.
fn on_one_line(text: &str, error: &toml::de::Error) -> String {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or_default();
    format!(
        "line {}: {}",
        before.lines().count().max(1),
        error.message().trim_end().replace('\n', "; ")
    )
}

pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer).map_err(|error| {
        D::Error::custom(format!(
            "a duration is text, such as \"200ms\" or \"5m\": {error}"
        ))
    })?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        D::Error::custom(format!(
            "{text:?} is not a duration such as \"200ms\" or \"5m\": {error}"
        ))
    })
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text)
        .map(Some)
        .map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_and_a_bad_duration_are_named_with_their_place() {
        let misspelt = ConfigFile::parse("sync_intervall = \"5s\"")
            .unwrap_err()
            .to_string();
        assert!(misspelt.contains("sync_intervall"), "{misspelt}");
        let bad = ConfigFile::parse("sync_interval = \"soon\"")
            .unwrap_err()
            .to_string();
        assert!(bad.contains("soon") && bad.contains("line 1"), "{bad}");
    }

    #[test]
    fn the_settings_that_packages_ship_can_be_used_and_so_can_what_they_suggest() {
        let shipped = include_str!("../../../packaging/tally.toml");
        let file = ConfigFile::parse(shipped).unwrap();
        assert!(file.server.unwrap().url.is_some());
        let suggested: Vec<&str> = shipped
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => setting,
                _ => line,
            })
            .collect();
        let file = ConfigFile::parse(&suggested.join("\n")).unwrap();
        assert!(file.sync_interval.is_some() && file.log.level.is_some());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_said_on_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# intervals\n\nsync_interval = 5\n").unwrap();
        let error = ConfigFile::read(file.path(), true).unwrap_err().to_string();
        assert!(error.contains("line 3: a duration is text"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn a_secret_of_the_file_is_not_printed() {
        let file = ConfigFile::parse("[server]\nshared_key = \"hush\"").unwrap();
        assert!(!format!("{file:?}").contains("hush"));
    }
}

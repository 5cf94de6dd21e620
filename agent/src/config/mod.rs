//! The settings of `tally run`: flags, then `TALLY_*` environment variables, then a TOML file, then
//! defaults. Flags and variables arrive merged, by clap; the rest is a pure fold.

pub mod file;
pub mod limits;
pub mod paths;
mod server;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use reqwest::Url;

pub use self::server::GivenServer;
use self::{file::ConfigFile, limits::Limits};
use crate::{
    core::{LateUsage, Policy, UndecidablePolicy},
    http::tls::TlsFiles,
    keyring::KeyringError,
    ledger::Keeping,
    private_file::NotPrivate,
    sync::client::ServerConfig,
    telemetry::{self, LogError, LogSettings},
};

/// Where the local API listens, unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7411";
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_SETTLE_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_mins(15);
const DEFAULT_RETENTION: Duration = Duration::from_hours(90 * 24);
/// Longer than an agent trusts its server to remember a key (24 hours).
const DEFAULT_IDEMPOTENCY_RETENTION: Duration = Duration::from_hours(7 * 24);
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Two weeks: long enough for somebody to come back from a holiday.
pub(crate) const DEFAULT_LOG_DAYS: usize = 14;

/// The shortest sync interval: less would spend the server's rate limits on nothing.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The agents below this one trust it to know a key for so long; shorter, and they would count twice.
const IDEMPOTENCY_RETENTION_MIN: Duration = Duration::from_hours(24);

/// All settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens; loopback, unless there is TLS.
    pub listen: SocketAddr,
    /// How it proves who it is, where other devices are served.
    pub tls: Option<TlsFiles>,
    /// The folder with the ledger, the keys and the socket.
    pub data_dir: PathBuf,
    /// The licence server.
    pub server: ServerConfig,
    /// What decisions depend on.
    pub policy: Policy,
    /// How long the ledger keeps what is done with.
    pub keeping: Keeping,
    /// How much anybody may use of the agent.
    pub limits: Limits,
    /// What is logged, and where to.
    pub log: LogSettings,
}

/// What was given as flags or environment variables.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--listen-public`
    pub listen_public: bool,
    /// `--tls-cert`
    pub tls_cert: Option<PathBuf>,
    /// `--tls-key`
    pub tls_key: Option<PathBuf>,
    /// `--public-name`
    pub public_names: Vec<String>,
    /// `--data-dir`, already resolved: the config file may lie elsewhere.
    pub data_dir: PathBuf,
    /// What concerns the licence server.
    pub server: GivenServer,
    /// `--sync-interval`
    pub sync_interval: Option<Duration>,
    /// `--settle-wait`
    pub settle_wait: Option<Duration>,
    /// `--refresh-interval`
    pub refresh_interval: Option<Duration>,
    /// `--undecidable`
    pub undecidable: Option<UndecidablePolicy>,
    /// `--late-usage`
    pub late_usage: Option<LateUsage>,
    /// `--retention`
    pub retention: Option<Duration>,
    /// `--idempotency-retention`
    pub idempotency_retention: Option<Duration>,
    /// `TALLY_LOG`
    pub log_level: Option<String>,
    /// `--log-file`
    pub log_file: Option<PathBuf>,
}

/// Settings that cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file with a credential cannot be read.
    #[error("cannot read the credential {path}")]
    Credential {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The config file cannot be read.
    #[error("cannot read the config file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The config file is not what it should be.
    #[error("the config file {path} is not valid: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        message: String,
    },
    /// A setting without a default is missing.
    #[error(
        "no {what} is set; give {flag}, set {variable}, or put `{key}` under [server] into the config file"
    )]
    Missing {
        /// The setting.
        what: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its variable.
        variable: &'static str,
        /// Its key.
        key: &'static str,
    },
    /// A credential is missing. It has no flag, since every user of the device can read a process's
    /// arguments.
    #[error("no {what} is set; set {variable}, or put `{key}` under [server] into the config file")]
    NoCredential {
        /// The credential.
        what: &'static str,
        /// Its variable.
        variable: &'static str,
        /// Its key.
        key: &'static str,
    },
    /// The address is not this device's own.
    #[error(
        "{listen} is not a loopback address; use 127.0.0.1:PORT or [::1]:PORT, or serve other devices \
         with --listen-public --tls-cert FILE --tls-key FILE"
    )]
    NotLoopback {
        /// The address.
        listen: SocketAddr,
    },
    /// Other devices would be served in the clear.
    #[error(
        "other devices are served by TLS only: give --listen-public, --tls-cert FILE and --tls-key FILE \
         together, or none of them"
    )]
    NoTls,
    /// What is sent could be read and changed by anybody on the way.
    #[error(
        "the server's URL {url} is not https: whoever is on the way could read the keys and change the \
         answers. Use https://, or, where the network is trusted, give --insecure-server"
    )]
    InsecureServer {
        /// The URL.
        url: Url,
    },
    /// A file for TLS to the server cannot be used.
    #[error("cannot use {path} for TLS to the server: {message}")]
    ServerTls {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Half of a pair.
    #[error(
        "a certificate for the server needs its key: give --server-client-cert and --server-client-key"
    )]
    HalfIdentity,
    /// The credentials cannot be had from where they are.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Others can read a file with a secret, or own it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The server's URL is not one of HTTP.
    #[error("the server's URL {url} must begin with https:// (or http:// on this device)")]
    ServerUrl {
        /// The URL.
        url: Url,
    },
    /// An interval is too short.
    #[error("a sync interval of {given:?} is too short; use at least {least:?}")]
    SyncInterval {
        /// What was given.
        given: Duration,
        /// The shortest that is accepted.
        least: Duration,
    },
    /// Answers would be forgotten while agents below this one still repeat their requests.
    #[error(
        "an idempotency retention of {} is too short; use at least {}: for so long, agents that have this one as their \
         server repeat a request without an answer under its key",
        humantime::format_duration(*given), humantime::format_duration(*least)
    )]
    IdempotencyRetention {
        /// What was given.
        given: Duration,
        /// The shortest that is accepted.
        least: Duration,
    },
    /// What is to be logged cannot be understood.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A limit lets nothing through.
    #[error("the limit `{name}` under [limits] must be more than nothing")]
    Limit {
        /// Which.
        name: &'static str,
    },
    /// The server's public key cannot be read.
    #[error("cannot use the server's public key {path}: {message}")]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// No folder was given, and the platform names none.
    #[error("no data directory is known for this user; give --data-dir")]
    NoDataDir,
}

/// Folds the layers into settings.
///
/// # Errors
///
/// [`ConfigError`], which says what to do.
pub fn resolve(given: Given, file: ConfigFile) -> Result<Config, ConfigError> {
    let default_listen = || SocketAddr::from(([127, 0, 0, 1], 7411));
    let listen = given.listen.or(file.listen).unwrap_or_else(default_listen);
    let mut names = given.public_names;
    if names.is_empty() {
        names = file.public_names;
    }
    let is_public = given.listen_public || file.listen_public;
    let files = (
        given.tls_cert.or(file.tls_cert),
        given.tls_key.or(file.tls_key),
    );
    let tls = match (is_public, files) {
        (true, (Some(certificate), Some(key))) => Some(TlsFiles {
            certificate,
            key,
            names,
        }),
        (false, (None, None)) if listen.ip().is_loopback() => None,
        (false, (None, None)) => return Err(ConfigError::NotLoopback { listen }),
        _ => return Err(ConfigError::NoTls),
    };
    let sync_interval = given
        .sync_interval
        .or(file.sync_interval)
        .unwrap_or(DEFAULT_SYNC_INTERVAL);
    if sync_interval < SYNC_INTERVAL_MIN {
        return Err(ConfigError::SyncInterval {
            given: sync_interval,
            least: SYNC_INTERVAL_MIN,
        });
    }
    let answers = given
        .idempotency_retention
        .or(file.idempotency_retention)
        .unwrap_or(DEFAULT_IDEMPOTENCY_RETENTION);
    if answers < IDEMPOTENCY_RETENTION_MIN {
        return Err(ConfigError::IdempotencyRetention {
            given: answers,
            least: IDEMPOTENCY_RETENTION_MIN,
        });
    }
    let log = LogSettings {
        filter: given
            .log_level
            .or(file.log.level)
            .unwrap_or_else(|| telemetry::DEFAULT_FILTER.to_owned()),
        file: given.log_file.or(file.log.file),
        days: file.log.days.map_or(DEFAULT_LOG_DAYS, NonZeroUsize::get),
    };
    telemetry::check(&log.filter)?;
    let server = server::resolve(given.server, file.server.unwrap_or_default())?;
    Ok(Config {
        listen,
        tls,
        limits: file.limits.resolve()?,
        log,
        data_dir: given.data_dir,
        server,
        policy: Policy {
            sync_interval,
            settle_wait: given
                .settle_wait
                .or(file.settle_wait)
                .unwrap_or(DEFAULT_SETTLE_WAIT),
            refresh_interval: given
                .refresh_interval
                .or(file.refresh_interval)
                .unwrap_or(DEFAULT_REFRESH_INTERVAL),
            undecidable: given.undecidable.or(file.undecidable).unwrap_or_default(),
            late_usage: given.late_usage.or(file.late_usage).unwrap_or_default(),
        },
        keeping: Keeping {
            rows: given
                .retention
                .or(file.retention)
                .unwrap_or(DEFAULT_RETENTION),
            answers,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn given() -> Given {
        Given {
            server: GivenServer {
                url: Some(Url::parse("http://127.0.0.1:7412").unwrap()),
                api_key: Some(Secret::new("key".to_owned())),
                shared_key: Some(Secret::new("shared".to_owned())),
                ..GivenServer::default()
            },
            ..Given::default()
        }
    }

    #[test]
    fn what_is_given_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = ConfigFile::parse("sync_interval = \"1s\"\nsettle_wait = \"2s\"\n").unwrap();
        let given = Given {
            sync_interval: Some(Duration::from_millis(200)),
            ..given()
        };
        let config = resolve(given, file).unwrap();
        assert_eq!(config.policy.sync_interval, Duration::from_millis(200));
        assert_eq!(config.policy.settle_wait, Duration::from_secs(2));
        assert_eq!(config.policy.refresh_interval, DEFAULT_REFRESH_INTERVAL);
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
    }

    #[test]
    fn answers_are_remembered_for_as_long_as_agents_below_repeat_their_requests() {
        let file = |time: &str| {
            let file = format!("idempotency_retention = \"{time}\"\n");
            resolve(given(), ConfigFile::parse(&file).unwrap())
        };
        assert!(file("24h").is_ok());
        let refused = file("23h 59m").unwrap_err().to_string();
        assert!(refused.contains("use at least 1day"), "{refused}");
        let given = Given {
            idempotency_retention: Some(Duration::from_secs(2)),
            ..given()
        };
        let refused = resolve(given, ConfigFile::default());
        assert!(matches!(
            refused,
            Err(ConfigError::IdempotencyRetention { .. })
        ));
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        let given = Given {
            listen: Some("0.0.0.0:7411".parse().unwrap()),
            ..given()
        };
        let refused = resolve(given, ConfigFile::default());
        assert!(matches!(refused, Err(ConfigError::NotLoopback { .. })));
    }

    #[test]
    fn other_devices_are_served_by_tls_or_not_at_all() {
        let files = || (Some("cert.pem".into()), Some("key.pem".into()));
        let resolve = |listen_public, (tls_cert, tls_key)| {
            let given = Given {
                listen: Some("0.0.0.0:7411".parse().unwrap()),
                listen_public,
                tls_cert,
                tls_key,
                ..given()
            };
            super::resolve(given, ConfigFile::default())
        };
        assert!(resolve(true, files()).unwrap().tls.is_some());
        let refused = [
            resolve(true, (None, None)),
            resolve(true, (files().0, None)),
            resolve(false, files()),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(ConfigError::NoTls)));
        }
    }

    #[test]
    fn missing_credentials_name_their_variable() {
        let mut given = given();
        given.server.shared_key = None;
        let refused = resolve(given, ConfigFile::default()).unwrap_err();
        assert!(
            refused.to_string().contains("TALLY_SERVER_SHARED_KEY"),
            "{refused}"
        );
    }

    #[test]
    fn in_the_clear_only_to_this_device_or_where_asked_for() {
        let at = |url: &str, insecure| {
            let mut given = given();
            given.server.url = Some(Url::parse(url).unwrap());
            given.server.insecure = insecure;
            resolve(given, ConfigFile::default())
        };
        for url in [
            "https://example.com",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            assert!(at(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
        ] {
            let refused = at(url, false);
            assert!(
                matches!(refused, Err(ConfigError::InsecureServer { .. })),
                "{url}"
            );
            assert!(at(url, true).is_ok(), "{url}");
        }
    }
}

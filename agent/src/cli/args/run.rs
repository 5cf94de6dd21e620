//! `tally run`: everything that can be set about an agent.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use reqwest::Url;

use crate::core::{LateUsage, UndecidablePolicy};

/// The id of each is its key in the config file, by which `tally doctor` and the reference in
/// docs/configuration.md find it.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// Where applications find the agent; port 0 picks a free one [default: 127.0.0.1:7411]
    #[arg(long, env = "TALLY_LISTEN", value_name = "ADDR:PORT")]
    pub(in crate::cli) listen: Option<SocketAddr>,

    /// Serve other devices too, by TLS
    #[arg(long, env = "TALLY_LISTEN_PUBLIC")]
    pub(in crate::cli) listen_public: bool,

    /// The certificate for --listen-public, with those between it and its root (PEM); read again on change
    #[arg(long, env = "TALLY_TLS_CERT", value_name = "FILE")]
    pub(in crate::cli) tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, env = "TALLY_TLS_KEY", value_name = "FILE")]
    pub(in crate::cli) tls_key: Option<PathBuf>,

    /// A host name to be served under, besides those of the certificate; may be given more than once
    #[arg(
        long = "public-name",
        env = "TALLY_PUBLIC_NAMES",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub(in crate::cli) public_names: Vec<String>,

    /// The licence server
    #[arg(
        id = "server.url",
        long = "server-url",
        env = "TALLY_SERVER_URL",
        value_name = "URL"
    )]
    pub(in crate::cli) server_url: Option<Url>,

    /// How long consumptions wait for company before they are sent [default: 5s]
    #[arg(long, env = "TALLY_SYNC_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) sync_interval: Option<Duration>,

    /// How long a request without an answer could still arrive; "not counted" is believed after that [default: 30s]
    #[arg(long, env = "TALLY_SETTLE_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) settle_wait: Option<Duration>,

    /// How often a licence is read while nothing else happens [default: 15m]
    #[arg(long, env = "TALLY_REFRESH_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) refresh_interval: Option<Duration>,

    /// How long an exchange with the server may take [default: 30s]
    #[arg(id = "server.request_timeout", long = "request-timeout", env = "TALLY_REQUEST_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) request_timeout: Option<Duration>,

    /// What to do when the total cannot tell whether a batch was counted [default: hold]
    #[arg(long, env = "TALLY_UNDECIDABLE", value_name = "POLICY")]
    pub(in crate::cli) undecidable: Option<UndecidablePolicy>,

    /// What to do with units whose period ended before they were sent [default: report]
    #[arg(long, env = "TALLY_LATE_USAGE", value_name = "POLICY")]
    pub(in crate::cli) late_usage: Option<LateUsage>,

    /// How long settled rows are kept one by one; then they are folded into daily sums [default: 90d]
    #[arg(long, env = "TALLY_RETENTION", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) retention: Option<Duration>,

    /// How long answers under an Idempotency-Key are remembered; at least 24h [default: 7d]
    #[arg(long, env = "TALLY_IDEMPOTENCY_RETENTION", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) idempotency_retention: Option<Duration>,

    /// Verify the server's answers with this public key (PEM)
    #[arg(
        id = "server.public_key",
        long = "server-public-key",
        env = "TALLY_SERVER_PUBLIC_KEY",
        value_name = "FILE"
    )]
    pub(in crate::cli) server_public_key: Option<PathBuf>,

    /// Trust only these authorities for the server's certificate (PEM) [default: the platform's]
    #[arg(
        id = "server.ca",
        long = "server-ca",
        env = "TALLY_SERVER_CA",
        value_name = "FILE"
    )]
    pub(in crate::cli) server_ca: Option<PathBuf>,

    /// A certificate of this device, for a server that asks for one (PEM)
    #[arg(
        id = "server.client_cert",
        long = "server-client-cert",
        env = "TALLY_SERVER_CLIENT_CERT",
        value_name = "FILE"
    )]
    pub(in crate::cli) server_client_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(
        id = "server.client_key",
        long = "server-client-key",
        env = "TALLY_SERVER_CLIENT_KEY",
        value_name = "FILE"
    )]
    pub(in crate::cli) server_client_key: Option<PathBuf>,

    /// Take the server's credentials from the platform's keyring (`tally credential` puts them there)
    #[arg(
        id = "server.keyring",
        long = "server-keyring",
        env = "TALLY_SERVER_KEYRING"
    )]
    pub(in crate::cli) server_keyring: bool,

    /// Speak to a server elsewhere in the clear, where the network between is trusted
    #[arg(
        id = "server.insecure",
        long = "insecure-server",
        env = "TALLY_INSECURE_SERVER"
    )]
    pub(in crate::cli) insecure_server: bool,

    /// Log into this file, with one for each day, instead of to standard error or the journal
    #[arg(
        id = "log.file",
        long = "log-file",
        env = "TALLY_LOG_FILE",
        value_name = "FILE"
    )]
    pub(in crate::cli) log_file: Option<PathBuf>,

    /// The config file (TOML); SIGHUP has it read again
    #[arg(long, env = "TALLY_CONFIG", value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
}

//! What can be typed. No logic.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use reqwest::Url;
use tally_shared::time::Timestamp;

use crate::core::{LateUsage, UndecidablePolicy, link::NetworkMode};

/// Consume units of a licence on this device, network or not.
#[derive(Debug, Parser)]
#[command(name = "tally", version, max_term_width = 100)]
pub(super) struct Cli {
    /// The folder with the ledger, the keys and the socket; commands talk to the agent that runs on it
    #[arg(long, global = true, env = "TALLY_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent
    Run(Box<RunArgs>),
    /// Make licences known to the agent
    #[command(subcommand)]
    License(LicenseCommand),
    /// Give applications their key pairs
    #[command(subcommand)]
    App(AppCommand),
    /// Consume units, as an application would
    Record(RecordArgs),
    /// Send what is owed now, and wait until it is settled
    Sync(JsonArgs),
    /// Show whether the server is reached, and what is owed
    Status(StatusArgs),
    /// Show the ledger's rows
    Log(LogArgs),
    /// Write the ledger's rows to a file or to standard output
    Export(ExportArgs),
    /// Write a consistent copy of the ledger, while the agent runs or not
    Backup(BackupArgs),
    /// Prove the ledger against itself: the chain over its rows, and its sums
    Verify(JsonArgs),
    /// Check the data directory, and accept what was salvaged of a damaged ledger
    Doctor(DoctorArgs),
    /// Decide what became of a held batch
    Resolve(ResolveArgs),
    /// Switch the agent's network off and on, for drills
    Network(NetworkArgs),
    /// Open the agent's page in the browser
    Dashboard(DashboardArgs),
    /// Put a credential of the licence server into the platform's keyring, from standard input
    Credential(CredentialArgs),
    /// Print the completions for a shell
    #[command(after_help = "\
Examples:
  tally completions bash > ~/.local/share/bash-completion/completions/tally
  tally completions zsh > \"${fpath[1]}/_tally\"")]
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    #[command(after_help = "\
Example:
  tally man ~/.local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Times are RFC 3339, or dates (their start in UTC). Rows that were folded into daily sums are not in it.

Examples:
  tally export --since 2026-11-01 --until 2026-12-01 > november.csv
  tally export --app inspector --format jsonl --output rows.jsonl")]
pub(super) struct ExportArgs {
    /// Rows from this time on
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,

    /// Rows before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Timestamp>,

    /// Rows of this application
    #[arg(long, value_name = "NAME")]
    pub(super) app: Option<String>,

    /// Rows of this product
    #[arg(long, value_name = "CODE")]
    pub(super) product: Option<String>,

    /// Rows of this licence: its key, or its user
    #[arg(long, value_name = "KEY OR USER")]
    pub(super) license: Option<String>,

    /// How they are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub(super) format: ExportFormat,

    /// Where to; standard output where it is not given
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// How rows are exported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ExportFormat {
    /// Comma-separated values, with a line of names
    Csv,
    /// A JSON object a line, as `tally log --json` has them
    Jsonl,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The copy holds what is owed, so keep it as safe as the ledger. To restore it, stop the agent and put it in the place
of ledger.db, without ledger.db-wal and ledger.db-shm. The agent then finds that it is older than what it last wrote,
says so, and lets the server's total decide what was sent since.

Example:
  tally backup /mnt/usb/ledger-2026-11-23.db")]
pub(super) struct BackupArgs {
    /// The copy; it must not exist
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Keep it on the screen, and up to date
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder; it is made where there is none
    pub(super) folder: PathBuf,
}

/// RFC 3339, or a date.
fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| format!("{text:?} is no time such as 2026-11-23 or 2026-11-23T12:00:00Z"))
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tally credential server_shared_key < key.txt && tally run --server-keyring")]
pub(super) struct CredentialArgs {
    /// Which
    pub(super) name: Credential,
}

/// A credential of the licence server.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Credential {
    /// Names the account
    ServerApiKey,
    /// Signs its requests
    ServerSharedKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The credentials for the licence server are not flags, since every user of the device can read those:
set TALLY_SERVER_API_KEY and TALLY_SERVER_SHARED_KEY, or put them into the config file.

Example:
  TALLY_SERVER_API_KEY=… TALLY_SERVER_SHARED_KEY=… tally run --server-url https://api.licensespring.com")]
pub(super) struct RunArgs {
    /// Where applications find the agent; port 0 picks a free one [default: 127.0.0.1:7411]
    #[arg(long, env = "TALLY_LISTEN", value_name = "ADDR:PORT")]
    pub(super) listen: Option<SocketAddr>,

    /// Serve other devices too, by TLS
    #[arg(long, env = "TALLY_LISTEN_PUBLIC")]
    pub(super) listen_public: bool,

    /// The certificate for --listen-public, with those between it and its root (PEM); read again on change
    #[arg(long, env = "TALLY_TLS_CERT", value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, env = "TALLY_TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,

    /// A host name to be served under, besides those of the certificate; may be given more than once
    #[arg(
        long = "public-name",
        env = "TALLY_PUBLIC_NAMES",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub(super) public_names: Vec<String>,

    /// The licence server
    #[arg(long, env = "TALLY_SERVER_URL", value_name = "URL")]
    pub(super) server_url: Option<Url>,

    /// How long consumptions wait for company before they are sent [default: 5s]
    #[arg(long, env = "TALLY_SYNC_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) sync_interval: Option<Duration>,

    /// How long a request without an answer could still arrive; then the total is read [default: 30s]
    #[arg(long, env = "TALLY_SETTLE_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) settle_wait: Option<Duration>,

    /// How often a licence is read while nothing else happens [default: 15m]
    #[arg(long, env = "TALLY_REFRESH_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) refresh_interval: Option<Duration>,

    /// How long an exchange with the server may take [default: 30s]
    #[arg(long, env = "TALLY_REQUEST_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) request_timeout: Option<Duration>,

    /// What to do when the total cannot tell whether a batch was counted [default: hold]
    #[arg(long, env = "TALLY_UNDECIDABLE", value_name = "POLICY")]
    pub(super) undecidable: Option<UndecidablePolicy>,

    /// What to do with units whose period ended before they were sent [default: report]
    #[arg(long, env = "TALLY_LATE_USAGE", value_name = "POLICY")]
    pub(super) late_usage: Option<LateUsage>,

    /// How long settled rows are kept one by one; then they are folded into daily sums [default: 90d]
    #[arg(long, env = "TALLY_RETENTION", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) retention: Option<Duration>,

    /// How long answers under an Idempotency-Key are remembered [default: 7d]
    #[arg(long, env = "TALLY_IDEMPOTENCY_RETENTION", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) idempotency_retention: Option<Duration>,

    /// Verify the server's answers with this public key (PEM)
    #[arg(long, env = "TALLY_SERVER_PUBLIC_KEY", value_name = "FILE")]
    pub(super) server_public_key: Option<PathBuf>,

    /// Trust only these authorities for the server's certificate (PEM) [default: the platform's]
    #[arg(long, env = "TALLY_SERVER_CA", value_name = "FILE")]
    pub(super) server_ca: Option<PathBuf>,

    /// A certificate of this device, for a server that asks for one (PEM)
    #[arg(long, env = "TALLY_SERVER_CLIENT_CERT", value_name = "FILE")]
    pub(super) server_client_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, env = "TALLY_SERVER_CLIENT_KEY", value_name = "FILE")]
    pub(super) server_client_key: Option<PathBuf>,

    /// Take the server's credentials from the platform's keyring (`tally credential` puts them there)
    #[arg(long, env = "TALLY_SERVER_KEYRING")]
    pub(super) server_keyring: bool,

    /// Speak to a server elsewhere in the clear, where the network between is trusted
    #[arg(long, env = "TALLY_INSECURE_SERVER")]
    pub(super) insecure_server: bool,

    /// The config file (TOML)
    #[arg(long, env = "TALLY_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum LicenseCommand {
    /// Read a licence's limits from the server and make it known on a device
    #[command(after_help = "\
Example:
  tally license add --product inspect --license-key AAAA-BBBB-CCCC-DDDD")]
    Add(LicenseAddArgs),
    /// Show the licences that are known
    List(JsonArgs),
}

#[derive(Debug, Args)]
pub(super) struct LicenseArgs {
    /// The product's short code
    #[arg(long, value_name = "CODE")]
    pub(super) product: String,

    #[command(flatten)]
    pub(super) holder: HolderArgs,

    /// The device [default: the id of this device]
    #[arg(long, env = "TALLY_HARDWARE_ID", value_name = "ID")]
    pub(super) hardware_id: Option<String>,

    /// The licence, where a user holds several for one product
    #[arg(long, value_name = "ID")]
    pub(super) license_id: Option<i64>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct HolderArgs {
    /// The licence key, for key-based products
    #[arg(long, value_name = "KEY")]
    pub(super) license_key: Option<String>,

    /// The user, for user-based products
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LicenseAddArgs {
    #[command(flatten)]
    pub(super) license: LicenseArgs,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Make a key pair for an application
    #[command(after_help = "\
Examples:
  tally app add inspector
  tally app add kiosk --product inspect --max-per-minute 60 --expires 90d
  tally app add report --read-only")]
    Add(AppAddArgs),
    /// Show the applications
    List(JsonArgs),
    /// Take an application's key pair away, at once
    Revoke(AppNameArgs),
}

#[derive(Debug, Args)]
pub(super) struct AppAddArgs {
    #[command(flatten)]
    pub(super) app: AppNameArgs,

    /// Do not sign answers to it. Published SDKs want them signed; signing takes longer than all else
    #[arg(long)]
    pub(super) unsigned_answers: bool,

    /// Let it use this product only
    #[arg(long, value_name = "CODE")]
    pub(super) product: Option<String>,

    /// Let it use the licence with this key only
    #[arg(long, value_name = "KEY", conflicts_with = "username")]
    pub(super) license_key: Option<String>,

    /// Let it use the licences of this user only
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,

    /// Let it consume so many times within any minute at most
    #[arg(long, value_name = "N")]
    pub(super) max_per_minute: Option<NonZeroU32>,

    /// Let it read licences, and consume nothing
    #[arg(long, conflicts_with = "max_per_minute")]
    pub(super) read_only: bool,

    /// Let it call for so long only, such as 90d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) expires: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct AppNameArgs {
    /// The application
    #[arg(value_name = "NAME")]
    pub(super) name: String,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tally record --product inspect --license-key AAAA-BBBB-CCCC-DDDD --units 5")]
pub(super) struct RecordArgs {
    #[command(flatten)]
    pub(super) license: LicenseArgs,

    /// How many units; negative ones where the licence allows it
    #[arg(
        long,
        default_value_t = 1,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    pub(super) units: i64,

    /// The feature, where it is one's units
    #[arg(long, value_name = "CODE", conflicts_with_all = ["max_overages", "allow_overages"])]
    pub(super) feature: Option<String>,

    /// Set by how much the limit may be passed; 0 is without bound
    #[arg(long, value_name = "N")]
    pub(super) max_overages: Option<u32>,

    /// Set whether the limit may be passed
    #[arg(long, value_name = "true|false")]
    pub(super) allow_overages: Option<bool>,

    /// Consume as this application
    #[arg(long, default_value = crate::apps::DEFAULT_APP, value_name = "NAME")]
    pub(super) app: String,

    /// Retry safely: the same key never consumes twice
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Show at most so many rows, the newest ones unless --after is given
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,

    /// Show the rows after this one
    #[arg(long, value_name = "SEQ")]
    pub(super) after: Option<i64>,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
`tally status` shows what is held, and why. A decision is written into the ledger, and nobody can undo it.

Examples:
  tally resolve 7 --applied                the vendor's activity log shows it
  tally resolve 7 --not-applied            it does not
  tally resolve 7 --waive \"demo device\"    give the units up")]
pub(super) struct ResolveArgs {
    /// The batch
    #[arg(value_name = "BATCH")]
    pub(super) batch: i64,

    #[command(flatten)]
    pub(super) decision: DecisionArgs,

    /// Why, for the ledger; --waive carries its own
    #[arg(long, value_name = "REASON", conflicts_with = "waive")]
    pub(super) reason: Option<String>,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct DecisionArgs {
    /// The server has counted it: it is settled
    #[arg(long)]
    pub(super) applied: bool,

    /// The server has not counted it: it is sent
    #[arg(long)]
    pub(super) not_applied: bool,

    /// Send it, whatever the server did: it may be counted twice
    #[arg(long)]
    pub(super) resend: bool,

    /// Give it up, for this reason: it is never sent
    #[arg(long, value_name = "REASON")]
    pub(super) waive: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// `offline` acts as if there were no network
    pub(super) mode: NetworkMode,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
It exits with 1 where there is a problem, and says how to mend it.

Example:
  tally doctor --accept-recovery           go on without what a damaged ledger lost")]
pub(super) struct DoctorArgs {
    /// Go on with what was salvaged of a damaged ledger; no agent may run
    #[arg(long)]
    pub(super) accept_recovery: bool,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
The link works once and for one minute. Whoever opens it may do what the admin token allows.")]
pub(super) struct DashboardArgs {
    /// Print the link, and open nothing
    #[arg(long)]
    pub(super) print: bool,

    #[command(flatten)]
    pub(super) output: JsonArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct JsonArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    pub(super) json: bool,
}

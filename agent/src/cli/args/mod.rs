//! What can be typed. No logic.

mod license;
#[cfg(test)]
mod reference;
mod run;
mod service;

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tally_shared::time::Timestamp;

pub(in crate::cli) use self::{
    license::{
        LicenseAddArgs, LicenseArgs, LicenseCommand, LicenseImportArgs, LicenseNameArgs,
        LicenseRemoveArgs,
    },
    run::RunArgs,
    service::{ServiceCommand, WhoseArgs},
};
use crate::core::link::NetworkMode;

/// Consume units of a licence on this device, network or not.
#[derive(Debug, Parser)]
#[command(name = "tally", version, max_term_width = 100)]
pub(in crate::cli) struct Cli {
    /// The folder with the ledger, the keys and the socket; commands talk to the agent that runs on it
    /// [default: the platform's]
    // Behind what is a command's own.
    #[arg(
        long,
        global = true,
        env = "TALLY_DATA_DIR",
        value_name = "DIR",
        display_order = 1000
    )]
    pub(in crate::cli) data_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Run the agent
    #[command(after_help = "\
The credentials for the licence server are not flags, since every user of the device can read
those: set TALLY_SERVER_API_KEY and TALLY_SERVER_SHARED_KEY, or put them into the config file.

Example:
  export TALLY_SERVER_API_KEY=… TALLY_SERVER_SHARED_KEY=…
  tally run --server-url https://api.licensespring.com")]
    Run(Box<RunArgs>),
    /// Make licences known to the agent, look at them, forget them
    #[command(subcommand)]
    License(LicenseCommand),
    /// Give applications their key pairs
    #[command(subcommand)]
    App(AppCommand),
    /// Consume units, as an application would
    Record(RecordArgs),
    /// Send what is owed now, and wait until it is settled
    #[command(after_help = "\
Example:
  tally sync && shutdown now")]
    Sync(JsonArgs),
    /// Show whether the server is reached, and what is owed
    #[command(after_help = "\
Examples:
  tally status --watch
  tally status --json | jq .synced")]
    Status(StatusArgs),
    /// Show the ledger's rows
    #[command(after_help = "\
Examples:
  tally log --app inspector --limit 10
  tally log --state held
  tally log --refused")]
    Log(LogArgs),
    /// Show why a consumption was granted or refused: what it was judged by
    Explain(ExplainArgs),
    /// Write the ledger's rows to a file or to standard output
    Export(ExportArgs),
    /// Write a consistent copy of the ledger, while the agent runs or not
    Backup(BackupArgs),
    /// Prove the ledger against itself: the chain over its rows, and its sums
    #[command(after_help = "\
It exits with 1 where something is not as it was written. The agent may run or not.

Example:
  tally verify || tally verify --json > findings.json")]
    Verify(JsonArgs),
    /// Check settings, ledger, disk, clock, network and credentials, and say how to mend what is wrong
    #[command(after_help = "\
It exits with 1 where there is a problem, and says how to mend it. It works while the agent runs
and while it does not. Give it the flags and variables of `tally run`, and it tries what the agent
would.

Examples:
  tally doctor
  tally doctor --json > for-support.json
  tally doctor --accept-recovery           go on without what a damaged ledger lost")]
    Doctor(Box<DoctorArgs>),
    /// Decide what became of a held batch, or say that the licence server moved
    Resolve(ResolveArgs),
    /// Say what this device is, where its ledger is a copy
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Switch the agent's network off and on, for drills
    #[command(after_help = "\
Example:
  tally network offline")]
    Network(NetworkArgs),
    /// Open the agent's page in the browser
    Dashboard(DashboardArgs),
    /// Have the system start the agent: systemd, launchd, or Windows' service manager
    #[command(subcommand)]
    Service(ServiceCommand),
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
Times are RFC 3339, or dates (their start in UTC). Rows that were folded into daily sums are not in
it.

Examples:
  tally export --since 2026-11-01 --until 2026-12-01 > november.csv
  tally export --app inspector --format jsonl --output rows.jsonl")]
pub(in crate::cli) struct ExportArgs {
    /// Rows from this time on
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) since: Option<Timestamp>,

    /// Rows before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) until: Option<Timestamp>,

    /// Rows of this application
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) app: Option<String>,

    /// Rows of this product
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) product: Option<String>,

    /// Rows of this licence: its key, or its user
    #[arg(long, value_name = "KEY OR USER")]
    pub(in crate::cli) license: Option<String>,

    /// How they are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub(in crate::cli) format: ExportFormat,

    /// Where to, into a new file that is yours alone; standard output where it is not given
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,

    /// Replace the file that is there
    #[arg(long, requires = "output")]
    pub(in crate::cli) force: bool,
}

/// How rows are exported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    /// Comma-separated values, with a line of names
    Csv,
    /// A JSON object a line, as `tally log --json` has them
    Jsonl,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The copy holds what is owed, so keep it as safe as the ledger. To restore it, stop the agent and put
it in the place of ledger.db, without ledger.db-wal and ledger.db-shm. The agent then finds that it
is older than what it last wrote, says so, and lets the server's total decide what was sent since.

Example:
  tally backup /mnt/usb/ledger-2026-11-23.db")]
pub(in crate::cli) struct BackupArgs {
    /// The copy; it must not exist
    pub(in crate::cli) file: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Keep it on the screen, and up to date
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) watch: bool,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArgs {
    /// Which
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ManArgs {
    /// The folder; it is made where there is none
    pub(in crate::cli) folder: PathBuf,
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
pub(in crate::cli) struct CredentialArgs {
    /// Which
    pub(in crate::cli) name: Credential,
}

/// A credential of the licence server.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(in crate::cli) enum Credential {
    /// Names the account
    ServerApiKey,
    /// Signs its requests
    ServerSharedKey,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AppCommand {
    /// Make a key pair for an application
    #[command(after_help = "\
Examples:
  tally app add inspector
  tally app add kiosk --product inspect --max-per-minute 60 --expires 90d
  tally app add report --read-only")]
    Add(AppAddArgs),
    /// Show the applications
    #[command(after_help = "\
Example:
  tally app list")]
    List(JsonArgs),
    /// Take an application's key pair away, at once
    #[command(after_help = "\
Example:
  tally app revoke kiosk")]
    Revoke(AppNameArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AppAddArgs {
    #[command(flatten)]
    pub(in crate::cli) app: AppNameArgs,

    /// Do not sign answers to it. Published SDKs want them signed; signing takes longer than all else
    #[arg(long)]
    pub(in crate::cli) unsigned_answers: bool,

    /// Let it use this product only
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) product: Option<String>,

    /// Let it use the licence with this key only
    #[arg(long, value_name = "KEY", conflicts_with = "username")]
    pub(in crate::cli) license_key: Option<String>,

    /// Let it use the licences of this user only
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) username: Option<String>,

    /// Let it consume so many times within any minute at most
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_per_minute: Option<NonZeroU32>,

    /// Let it read licences, and consume nothing
    #[arg(long, conflicts_with = "max_per_minute")]
    pub(in crate::cli) read_only: bool,

    /// Let it call for so long only, such as 90d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) expires: Option<Duration>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AppNameArgs {
    /// The application
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tally record --product inspect --license-key AAAA-BBBB-CCCC-DDDD --units 5")]
pub(in crate::cli) struct RecordArgs {
    #[command(flatten)]
    pub(in crate::cli) license: LicenseArgs,

    /// How many units; negative ones where the licence allows it
    #[arg(
        long,
        default_value_t = 1,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    pub(in crate::cli) units: i64,

    /// The feature, where it is one's units
    #[arg(long, value_name = "CODE", conflicts_with_all = ["max_overages", "allow_overages"])]
    pub(in crate::cli) feature: Option<String>,

    /// Set by how much the limit may be passed; 0 is without bound
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_overages: Option<u32>,

    /// Set whether the limit may be passed
    #[arg(long, value_name = "true|false")]
    pub(in crate::cli) allow_overages: Option<bool>,

    /// Consume as this application
    #[arg(long, default_value = crate::apps::DEFAULT_APP, value_name = "NAME")]
    pub(in crate::cli) app: String,

    /// Retry safely: the same key never consumes twice
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) idempotency_key: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogArgs {
    /// Show at most so many rows, the newest ones unless --after is given
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) limit: u32,

    /// Show the rows after this one
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) after: Option<i64>,

    /// Only rows of this application; this and what follows look through the newest 200,000 rows
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) app: Option<String>,

    /// Only rows of this product
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) product: Option<String>,

    /// Only rows of this licence: its key, or its user
    #[arg(long, value_name = "KEY OR USER")]
    pub(in crate::cli) license: Option<String>,

    /// Only rows in this state: open, sealed, sent, unknown, held, settled or waived
    #[arg(long, value_name = "STATE", value_parser = ["open", "sealed", "sent", "unknown", "held", "settled", "waived"])]
    pub(in crate::cli) state: Option<String>,

    /// Show what was refused since the agent started instead, the newest 256
    #[arg(long, conflicts_with_all = ["after", "state", "app", "product", "license"])]
    pub(in crate::cli) refused: bool,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
`tally log` shows the rows and their numbers, `tally log --refused` what was refused since the agent
started.

Examples:
  tally explain 17
  tally explain r3")]
pub(in crate::cli) struct ExplainArgs {
    /// The row's place, or the refusal's number such as r3
    #[arg(value_name = "SEQ", value_parser = numbered)]
    pub(in crate::cli) what: Numbered,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

/// What `tally explain` is asked about.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Numbered {
    /// A row.
    Row(i64),
    /// A refusal.
    Refusal(u64),
}

fn numbered(text: &str) -> Result<Numbered, String> {
    let parsed = match text.strip_prefix('r') {
        Some(number) => number.parse().map(Numbered::Refusal).ok(),
        None => text.parse().map(Numbered::Row).ok(),
    };
    parsed.ok_or_else(|| {
        format!("{text:?} is neither the number of a row, such as 17, nor of a refusal, such as r3")
    })
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A disk, an image, a volume or a folder was copied, or put back from a backup: `tally status`
says so. What the copy owes may be owed by the original as well. To a server that keeps
idempotency keys it goes under the same keys, and is counted once; all else waits until somebody
says which of the two goes on. That is written into the ledger, and nobody can undo it.

Examples:
  tally device moved                       the original is gone: the disk was moved, or put back
  tally device new                         the original lives on: this is another device")]
pub(in crate::cli) enum DeviceCommand {
    /// The original lives on: give up here what it owes, and be a device of its own
    #[command(after_help = "\
Example:
  tally device new --reason \"made from the image of line 3\"")]
    New(DeviceArgs),
    /// The original is gone: go on in its place, with what it owed
    #[command(after_help = "\
Example:
  tally device moved --reason \"the disk is in another machine now\"")]
    Moved(DeviceArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeviceArgs {
    /// Why, for the ledger
    #[arg(long, value_name = "REASON")]
    pub(in crate::cli) reason: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
`tally status` shows what is held, and why. What was sent without an answer can be decided about once its request can no
longer arrive; what was never sent can be given up, and `tally log` names its batch. A decision is written into the
ledger, and nobody can undo it.

Examples:
  tally resolve 7 --applied                the vendor's activity log shows it
  tally resolve 7 --not-applied            it does not
  tally resolve 7 --waive \"demo device\"    give the units up
  tally resolve --server-moved             the same server, under another address
  tally resolve --finding 31               a finding was looked into")]
pub(in crate::cli) struct ResolveArgs {
    /// The batch
    #[arg(value_name = "BATCH", required_unless_present_any = ["server_moved", "finding"])]
    pub(in crate::cli) batch: Option<i64>,

    #[command(flatten)]
    pub(in crate::cli) decision: DecisionArgs,

    /// The licence server that is set now is the one that what is owed was recorded for: send it there
    #[arg(long, group = "DecisionArgs", conflicts_with = "batch")]
    pub(in crate::cli) server_moved: bool,

    /// This finding of `tally status` was looked into: show it no more
    #[arg(
        long,
        value_name = "NUMBER",
        group = "DecisionArgs",
        conflicts_with = "batch"
    )]
    pub(in crate::cli) finding: Option<i64>,

    /// Why, for the ledger; --waive carries its own
    #[arg(long, value_name = "REASON", conflicts_with = "waive")]
    pub(in crate::cli) reason: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct DecisionArgs {
    /// The server has counted it: it is settled
    #[arg(long)]
    pub(in crate::cli) applied: bool,

    /// The server has not counted it: it is sent
    #[arg(long)]
    pub(in crate::cli) not_applied: bool,

    /// Send it, whatever the server did: it may be counted twice
    #[arg(long)]
    pub(in crate::cli) resend: bool,

    /// Give it up, for this reason: it is never sent
    #[arg(long, value_name = "REASON")]
    pub(in crate::cli) waive: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NetworkArgs {
    /// `offline` acts as if there were no network
    pub(in crate::cli) mode: NetworkMode,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Go on with what was salvaged of a damaged ledger; no agent may run
    #[arg(long)]
    pub(in crate::cli) accept_recovery: bool,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,

    #[command(flatten, next_help_heading = "As for `tally run`")]
    pub(in crate::cli) settings: RunArgs,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
The link works once and for one minute. Whoever opens it may do what the admin token allows.

Examples:
  tally dashboard
  tally dashboard --print                  for a browser that is started otherwise")]
pub(in crate::cli) struct DashboardArgs {
    /// Print the link, and open nothing
    #[arg(long)]
    pub(in crate::cli) print: bool,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct JsonArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

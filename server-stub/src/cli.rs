//! The command line of `tally-stub`. One line on stdout says that it is ready; all else goes to stderr.

use std::{
    error::Error as _,
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    keys::KeyFileError,
    scenario::{self, cli::ScenarioArgs},
    seed::{Seed, SeedError},
    server::{StartError, Stub, StubConfig},
    store::OpenError,
};

/// The variable that chooses what is logged.
const LOG_VARIABLE: &str = "TALLY_LOG";

/// A licence server to test against: the License API v4, with faults on demand and a clock of its own
#[derive(Debug, Parser)]
#[command(name = "tally-stub", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C
    #[command(after_help = EXAMPLE)]
    Run(RunArgs),
    /// Run scenario files headless, and exit with 0 or 1 by what they expect
    Scenario(ScenarioArgs),
}

const EXAMPLE: &str = r#"Example:
  echo '{"api_keys": [{"api_key": "key", "shared_key": "secret"}],
         "products": [{"code": "demo"}],
         "licenses": [{"product": "demo", "license_key": "AAAA", "max_consumptions": 100,
                       "devices": [{"hardware_id": "hw-1"}]}]}' > seed.json
  tally-stub run --seed seed.json
  curl http://127.0.0.1:7412/stub/v1/licenses

The fault lab is the page at the same address: http://127.0.0.1:7412/

One line on stdout says that it is ready: `ready http://ADDR:PORT`.
Logs go to stderr; TALLY_LOG=debug (default: warn) shows more."#;

#[derive(Debug, Args)]
struct RunArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7412")]
    listen: SocketAddr,

    /// Serve the lab and the control surface here too, whatever the network's state: then a network
    /// that is gone refuses connections, as it does in the field
    #[arg(long, value_name = "ADDR:PORT")]
    control: Option<SocketAddr>,

    /// A further name under which the lab and the control surface are served, as in a container network
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Folder for the database and the signing key; without it, everything is in memory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// JSON file with API keys, products and licences. It fills a new data folder; one that holds a
    /// database already wins over it
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,

    /// Ignore the header `Idempotency-Key`, as the production service does
    #[arg(long)]
    no_idempotency: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot set up the process")]
    Process(#[from] io::Error),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs a command line; the first argument is the program's name.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = Cli::parse_from(args).command;
    start_logging();
    let ended = match command {
        Command::Run(args) => run(args).map(|()| ExitCode::SUCCESS),
        Command::Scenario(args) => run_scenarios(args),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<(), CliError> {
    let config = StubConfig {
        listen: args.listen,
        control: args.control,
        allowed_hosts: args.allow_host,
        data_dir: args.data_dir,
        seed: Seed::read(&args.seed)?,
        idempotency: !args.no_idempotency,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let stub = Stub::start(config).await?;
        writeln!(io::stdout(), "ready {}", stub.url())?;
        stop.wait().await;
        stub.shutdown().await;
        Ok(())
    })
}

fn run_scenarios(args: ScenarioArgs) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            code = scenario::cli::run(args) => Ok(code?),
            // The agents end with the scenarios that started them.
            () = stop.wait() => Ok(ExitCode::FAILURE),
        }
    })
}

/// The signals that end the process.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        // An error means that the signal cannot be waited for; then nothing but stopping is left.
        let _ = tokio::signal::ctrl_c().await;
    }
}

fn start_logging() {
    let filter = std::env::var(LOG_VARIABLE).ok();
    // An empty one would be read as everything.
    let filter = filter.filter(|filter| !filter.is_empty());
    let filter = filter.and_then(|filter| filter.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Fails only where logging was started already, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(to_stderr)
        .try_init();
}

/// One line: what failed, why, and what to do.
fn report(error: &CliError) {
    let mut line = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    // Where stderr is closed, nobody can be told.
    let _ = writeln!(io::stderr(), "{line}; {}", error.hint());
}

impl CliError {
    /// What a person can do about it.
    const fn hint(&self) -> &'static str {
        match self {
            Self::Seed(SeedError::Read(_)) => "give `--seed` a JSON file that can be read",
            Self::Seed(SeedError::Shape { .. } | SeedError::Content { .. })
            | Self::Start(StartError::Seed(_)) => {
                "correct the file; `tally-stub run --help` shows an example"
            }
            Self::Start(StartError::Listen { .. }) => {
                "give `--listen` another address, or port 0 for any free one"
            }
            Self::Start(StartError::DataDir(_) | StartError::Key(KeyFileError::File(_))) => {
                "give `--data-dir` a folder that can be written"
            }
            Self::Start(StartError::Key(_) | StartError::Open(OpenError::OtherVersion { .. })) => {
                "give `--data-dir` another folder, or delete this one to start over"
            }
            Self::Start(StartError::Open(OpenError::InUse { .. })) => {
                "stop the other one, or give `--data-dir` another folder"
            }
            Self::Start(StartError::Open(OpenError::Sqlite { .. })) => {
                "give `--data-dir` a folder that can be written, or delete the database to start over"
            }
            Self::Process(_) => "free some memory or file handles and try again",
        }
    }
}

//! The command line of `tally-stub`.

use std::{ffi::OsString, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    seed::Seed,
    server::{Stub, StubConfig},
};

/// The licence server's License API v4 for testers, with network faults on demand.
#[derive(Debug, Parser)]
#[command(name = "tally-stub", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the stub
    Run(RunArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The control surface is under /stub/v1/: faults, clock, licenses, activity, requests, public_key.

Example:
  tally-stub run --seed seed.json
  curl -X PUT http://127.0.0.1:7412/stub/v1/faults -d '[{\"action\": {\"drop\": \"after\"}, \"times\": 1}]'")]
struct RunArgs {
    /// Where it listens; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7412", value_name = "ADDR:PORT")]
    listen: SocketAddr,

    /// Where it keeps its state; in memory where it is not given
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// What it starts with (JSON); a data directory that holds a state already keeps that
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,

    /// Keep no idempotency keys, as the production service
    #[arg(long)]
    no_idempotency: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs a command line; the first argument is the program's name.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Command::Run(args) = Cli::parse_from(args).command;
    start_logging();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell where stderr is gone.
            let _ = writeln!(std::io::stderr(), "tally-stub: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let shown = args.seed.display();
    let text = std::fs::read_to_string(&args.seed)
        .with_context(|| format!("cannot read the seed file {shown}"))?;
    let seed = Seed::parse(&text).with_context(|| format!("the seed file {shown} is not valid"))?;
    let config = StubConfig {
        listen: args.listen,
        data_dir: args.data_dir,
        seed,
        keeps_keys: !args.no_idempotency,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        let stub = Stub::build(config).await?;
        let mut out = std::io::stdout();
        writeln!(out, "ready http://{}", stub.addr()).and_then(|()| out.flush())?;
        stub.run_until(shutdown).await;
        Ok(())
    })
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("TALLY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where logging was started already, as in tests.
    let _ = logging.try_init();
}

#[cfg(unix)]
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal, only the system can end the process.
            std::future::pending::<()>().await;
        }
    })
}

//! `tally run`

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use anyhow::Context as _;

use super::{
    args::RunArgs,
    manager,
    output::{self, Outcome},
    progress::Progress,
    settings::Settings,
};
use crate::{
    app::App,
    config::Config,
    deps::SystemClocks,
    reload::Reloader,
    telemetry::{self, Filter},
};

/// Where the settings come from; asked again when they are to be reloaded.
struct Sources {
    data_dir: Option<PathBuf>,
    args: RunArgs,
}

pub(super) fn run(data_dir: Option<PathBuf>, args: RunArgs) -> anyhow::Result<Outcome> {
    let sources = Sources { data_dir, args };
    #[cfg(windows)]
    return super::windows::run(move |stop| serve(sources, stop.cancelled_owned()));
    #[cfg(not(windows))]
    serve(sources, std::future::pending())
}

/// Runs the agent until a signal, or until `stop` completes.
fn serve(sources: Sources, stop: impl Future<Output = ()>) -> anyhow::Result<Outcome> {
    let config = sources.read()?;
    keep_files_private();
    let filter = telemetry::start(&config.log, &config.data_dir)?;
    // This thread is the first of those that serve; the application starts the others.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        // Before the first request can come in, so that none is lost to a signal.
        let signals = shutdown_signal()?;
        let hangups = Hangups::new()?;
        // A damaged ledger is salvaged first, which takes its time.
        let progress = Progress::start("opening the ledger");
        let app = App::build(config, Arc::new(SystemClocks::new()))?;
        drop(progress);
        let reloads = reload_on(hangups, Arc::new(sources), app.reloader(), filter);
        output::line(&format!("ready {}", app.origin()))?;
        manager::ready();
        let shutdown = async {
            tokio::select! {
                () = signals => {}
                () = stop => {}
            }
            manager::stopping();
        };
        tokio::select! {
            ended = app.run_until(shutdown) => ended?,
            never = reloads => match never {},
        }
        Ok(Outcome::Done)
    });
    // What still runs answers nobody any more.
    runtime.shutdown_background();
    result
}

impl Sources {
    fn read(&self) -> anyhow::Result<Config> {
        let mut config = Settings::read(self.data_dir.clone(), self.args.clone())?.resolve()?;
        config.limits.connections = config.limits.connections.min(files_to_spare());
        Ok(config)
    }
}

/// Reads the settings again at each SIGHUP, and takes up what can be.
async fn reload_on(
    mut hangups: Hangups,
    sources: Arc<Sources>,
    mut reloader: Reloader,
    filter: Filter,
) -> Infallible {
    loop {
        hangups.next().await;
        manager::reloading();
        if let Err(error) = reload(&sources, &mut reloader, &filter).await {
            let error = format!("{error:#}");
            tracing::error!(error, "the settings cannot be used: the old ones stay");
        }
        manager::ready();
    }
}

async fn reload(
    sources: &Arc<Sources>,
    reloader: &mut Reloader,
    filter: &Filter,
) -> anyhow::Result<()> {
    let sources = Arc::clone(sources);
    let config = tokio::task::spawn_blocking(move || sources.read()).await??;
    let changes = reloader.apply(config).await?;
    filter.set(&reloader.log().filter)?;
    let taken_up = match changes.taken_up.as_slice() {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    tracing::info!(taken_up, "read the settings again");
    if !changes.needs_restart.is_empty() {
        let settings = changes.needs_restart.join(", ");
        tracing::warn!(settings, "a changed setting needs a restart");
    }
    Ok(())
}

/// What the agent makes is its user's alone, its log included.
fn keep_files_private() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// How many connections the system has files for, after all that it gives are taken. A few are kept for
/// the ledger, the server and commands.
#[cfg(unix)]
fn files_to_spare() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const KEPT: u64 = 64;
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let spare = files.map_or(u64::MAX, |files| files.saturating_sub(KEPT).max(1));
    usize::try_from(spare).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
const fn files_to_spare() -> usize {
    usize::MAX
}

#[cfg(unix)]
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        }
    })
}

/// Requests to read the settings again: SIGHUP. Other systems have none.
struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        Ok(Self { signal })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn new() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
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

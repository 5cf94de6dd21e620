//! `tally run`

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;

use super::{
    args::RunArgs,
    output::{self, Outcome},
    progress::Progress,
    settings::Settings,
};
use crate::{app::App, deps::SystemClocks};

pub(super) fn run(data_dir: Option<PathBuf>, args: RunArgs) -> anyhow::Result<Outcome> {
    let mut config = Settings::read(data_dir, args)?.resolve()?;
    config.limits.connections = config.limits.connections.min(files_to_spare());
    // This thread is the first of those that serve; the application starts the others.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        // Before the first request can come in, so that none is lost to a signal.
        let shutdown = shutdown_signal()?;
        // A damaged ledger is salvaged first, which takes its time.
        let progress = Progress::start("opening the ledger");
        let app = App::build(config, Arc::new(SystemClocks::new()))?;
        drop(progress);
        output::line(&format!("ready {}", app.origin()))?;
        app.run_until(shutdown).await?;
        Ok(Outcome::Done)
    });
    // What still runs answers nobody any more.
    runtime.shutdown_background();
    result
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

#[cfg(not(unix))]
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal, only the system can end the process.
            std::future::pending::<()>().await;
        }
    })
}

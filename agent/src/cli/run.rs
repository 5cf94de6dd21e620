//! `tally run`

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;

use super::{
    args::RunArgs,
    output::{self, Outcome},
};
use crate::{
    app::App,
    config::{self, Given, file::ConfigFile, paths},
    deps::SystemClocks,
    secret::Secret,
};

pub(super) fn run(data_dir: Option<PathBuf>, args: RunArgs) -> anyhow::Result<Outcome> {
    let file = match (&args.config, paths::default_config_file()) {
        (Some(path), _) => ConfigFile::read(path, true)?,
        (None, Some(path)) => ConfigFile::read(&path, false)?,
        (None, None) => ConfigFile::default(),
    };
    let given = Given {
        listen: args.listen,
        data_dir: paths::data_dir(data_dir.or_else(|| file.data_dir.clone()))?,
        server_url: args.server_url,
        sync_interval: args.sync_interval,
        settle_wait: args.settle_wait,
        refresh_interval: args.refresh_interval,
        request_timeout: args.request_timeout,
        undecidable: args.undecidable,
        late_usage: args.late_usage,
        retention: args.retention,
        idempotency_retention: args.idempotency_retention,
        server_public_key: args.server_public_key,
        server_api_key: variable("TALLY_SERVER_API_KEY")?,
        server_shared_key: variable("TALLY_SERVER_SHARED_KEY")?.map(Secret::new),
    };
    let config = config::resolve(given, file)?;
    // This thread is the first of those that serve; the application starts the others.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        // Before the first request can come in, so that none is lost to a signal.
        let shutdown = shutdown_signal()?;
        let app = App::build(config, Arc::new(SystemClocks::new())).await?;
        output::line(&format!("ready http://{}", app.local_addr()?))?;
        app.run_until(shutdown).await?;
        Ok(Outcome::Done)
    });
    // What still runs answers nobody any more.
    runtime.shutdown_background();
    result
}

fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the variable {name}")),
    }
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

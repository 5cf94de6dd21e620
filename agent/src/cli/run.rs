//! `tally run`

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;

use super::{
    args::RunArgs,
    output::{self, Outcome},
};
use crate::{
    app::App,
    config::{self, Given, GivenServer, file::ConfigFile, paths},
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
        listen_public: args.listen_public,
        tls_cert: args.tls_cert,
        tls_key: args.tls_key,
        public_names: args.public_names,
        data_dir: paths::data_dir(data_dir.or_else(|| file.data_dir.clone()))?,
        server: GivenServer {
            url: args.server_url,
            api_key: variable("TALLY_SERVER_API_KEY")?.map(Secret::new),
            shared_key: variable("TALLY_SERVER_SHARED_KEY")?.map(Secret::new),
            request_timeout: args.request_timeout,
            public_key: args.server_public_key,
            ca: args.server_ca,
            client_cert: args.server_client_cert,
            client_key: args.server_client_key,
            insecure: args.insecure_server,
            keyring: args.server_keyring,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        },
        sync_interval: args.sync_interval,
        settle_wait: args.settle_wait,
        refresh_interval: args.refresh_interval,
        undecidable: args.undecidable,
        late_usage: args.late_usage,
        retention: args.retention,
        idempotency_retention: args.idempotency_retention,
    };
    let mut config = config::resolve(given, file)?;
    config.limits.connections = config.limits.connections.min(files_to_spare());
    // This thread is the first of those that serve; the application starts the others.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        // Before the first request can come in, so that none is lost to a signal.
        let shutdown = shutdown_signal()?;
        let app = App::build(config, Arc::new(SystemClocks::new()))?;
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

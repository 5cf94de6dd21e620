//! The settings of `tally run`, from where they are given: for the agent, and for `tally doctor`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::args::RunArgs;
use crate::{
    config::{
        self, Config, Given, GivenServer,
        file::{self, ConfigFile},
        paths,
    },
    secret::Secret,
    telemetry::LOG_VARIABLE,
};

/// What was given, before it is put together.
pub(super) struct Settings {
    /// Flags and variables.
    pub(super) given: Given,
    /// The config file's content.
    pub(super) file: ConfigFile,
    /// Which file that is, where there is one.
    pub(super) file_path: Option<PathBuf>,
}

impl Settings {
    /// Reads the config file and the variables.
    pub(super) fn read(data_dir: Option<PathBuf>, args: RunArgs) -> anyhow::Result<Self> {
        let is_named = args.config.is_some();
        let path = args.config.or_else(paths::default_config_file);
        let file = path.as_ref().map(|path| ConfigFile::read(path, is_named));
        let file = file.transpose()?.unwrap_or_default();
        let given = Given {
            listen: args.listen,
            listen_public: args.listen_public,
            tls_cert: args.tls_cert,
            tls_key: args.tls_key,
            public_names: args.public_names,
            data_dir: paths::data_dir(data_dir.or_else(|| file.data_dir.clone()))?,
            server: GivenServer {
                url: args.server_url,
                api_key: variable(file::API_KEY_VARIABLE)?.map(Secret::new),
                shared_key: variable(file::SHARED_KEY_VARIABLE)?.map(Secret::new),
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
            log_level: variable(LOG_VARIABLE)?,
            log_file: args.log_file,
        };
        Ok(Self {
            given,
            file,
            file_path: path.filter(|path| path.exists()),
        })
    }

    /// Puts them together, as the agent does.
    pub(super) fn resolve(self) -> anyhow::Result<Config> {
        Ok(config::resolve(self.given, self.file)?)
    }
}

/// A variable; an empty one is not set.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the variable {name}")),
    }
}

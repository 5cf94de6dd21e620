//! How scenarios are run: the commands of agents, and where files go.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use tempfile::TempDir;

use super::placeholder::{Template, TemplateError};

/// What an agent's command may have in braces.
const PLACEHOLDERS: [&str; 7] = [
    "server_url",
    "data_dir",
    "api_key",
    "shared_key",
    "public_key",
    "agent",
    "hardware_id",
];
/// What the command of an application's key pair may have besides.
const APP_PLACEHOLDERS: [&str; 8] = [
    "app",
    "server_url",
    "data_dir",
    "api_key",
    "shared_key",
    "public_key",
    "agent",
    "hardware_id",
];
/// How scenarios are run.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) agent_command: Template,
    pub(super) app_command: Template,
    keep: Option<PathBuf>,
}

/// A command line of the options that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{option}`")]
pub struct OptionError {
    option: &'static str,
    #[source]
    source: TemplateError,
}

impl Options {
    /// `agent_command` runs an agent; `app_command` makes a key pair for an application, and prints it in JSON;
    /// without it, that is what `tally app add` does. With `keep`, each scenario's files are kept there.
    ///
    /// # Errors
    ///
    /// Where a command cannot be used.
    pub fn new(
        agent_command: &str,
        app_command: Option<&str>,
        keep: Option<PathBuf>,
    ) -> Result<Self, OptionError> {
        let option = "--agent-command";
        let agent_command = Template::parse(agent_command, &PLACEHOLDERS)
            .map_err(|source| OptionError { option, source })?;
        let option = "--app-command";
        let app_command = if let Some(line) = app_command {
            Template::parse(line, &APP_PLACEHOLDERS)
        } else {
            let words = ["app", "add", "{app}", "--json", "--data-dir", "{data_dir}"];
            let program = std::iter::once(agent_command.program());
            let words = program.chain(words).map(str::to_owned).collect();
            Template::of(words, &APP_PLACEHOLDERS)
        };
        Ok(Self {
            agent_command,
            app_command: app_command.map_err(|source| OptionError { option, source })?,
            keep,
        })
    }

    /// Where a scenario's files go, and the guard that removes them.
    pub(super) fn folder_for(&self, file: &Path) -> io::Result<(PathBuf, Option<TempDir>)> {
        let Some(keep) = &self.keep else {
            let temporary = TempDir::new()?;
            return Ok((temporary.path().to_owned(), Some(temporary)));
        };
        let folder = keep.join(file.file_stem().unwrap_or_default());
        if folder.exists() {
            // A ledger of the run before would not fit the new server.
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok((folder, None))
    }
}

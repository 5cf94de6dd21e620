//! Which settings there are, and where each comes from.

use std::path::PathBuf;

use clap::{ArgMatches, CommandFactory as _, parser::ValueSource};
use serde_json::Value;

use super::Check;
use crate::{
    cli::{
        args::{Cli, RunArgs},
        settings::Settings,
    },
    config::{
        Config,
        file::{API_KEY_VARIABLE, ConfigFile, SHARED_KEY_VARIABLE},
        paths::{self, DataDir},
    },
    sync::client,
};

const NAME: &str = "settings";

/// What an agent that is started from here would have.
pub(super) struct Known {
    pub(super) data_dir: DataDir,
    /// All settings, or why there are none.
    pub(super) config: anyhow::Result<Config>,
    /// Each that is set, and where.
    set: Vec<String>,
    file: Option<PathBuf>,
}

/// Reads them as `tally run` does. Only without a folder to look at it gives up.
pub(super) fn look(
    data_dir: Option<PathBuf>,
    args: RunArgs,
    matches: &ArgMatches,
) -> anyhow::Result<Known> {
    let mut set = given(matches);
    let (data_dir, config, file) = match Settings::read(data_dir.clone(), args) {
        Ok(settings) => {
            let data_dir = settings.given.data_dir.clone();
            let file = settings.file_path.clone();
            set.extend(file.as_deref().map(in_file).unwrap_or_default());
            (data_dir, settings.resolve(), file)
        }
        Err(error) => (paths::data_dir(data_dir)?, Err(error), None),
    };
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for name in ["server_api_key", "server_shared_key"] {
        if let Some(path) = folder.as_ref().map(|folder| folder.join(name))
            && path.exists()
        {
            set.push(format!("{name} = (secret)  from {}", path.display()));
        }
    }
    Ok(Known {
        data_dir: DataDir::new(data_dir),
        config,
        set,
        file,
    })
}

/// The flags and variables that were given. The id of a flag is its key.
fn given(matches: &ArgMatches) -> Vec<String> {
    const NO_SETTINGS: [&str; 3] = ["json", "accept_recovery", "config"];
    let mut set = Vec::new();
    let mut command = Cli::command();
    command.build();
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        let flags = command.get_arguments().map(|flag| flag.get_id().as_str());
        for id in flags.filter(|id| !NO_SETTINGS.contains(id)) {
            let is_known = matches.try_contains_id(id).unwrap_or(false);
            let source = match is_known.then(|| matches.value_source(id)).flatten() {
                Some(ValueSource::CommandLine) => "a flag",
                Some(ValueSource::EnvVariable) => "the environment",
                _ => continue,
            };
            let values = matches.get_raw(id).into_iter().flatten();
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            let value = masked(id, &values.join(", "));
            set.push(format!("{id} = {value}  from {source}"));
        }
    }
    for name in [API_KEY_VARIABLE, SHARED_KEY_VARIABLE] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            set.push(format!("{name} = (secret)  from the environment"));
        }
    }
    set
}

/// The keys of the config file. It has been read before, so whatever is wrong with it was said.
fn in_file(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut set = Vec::new();
    let table = ConfigFile::parse(&text)
        .ok()
        .and_then(|_| text.parse::<toml::Table>().ok());
    collect("", &table.unwrap_or_default(), &mut set);
    set
}

fn collect(prefix: &str, table: &toml::Table, set: &mut Vec<String>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(table) => collect(&format!("{key}."), table, set),
            toml::Value::String(text) => {
                set.push(format!("{key} = {}  from the file", masked(&key, text)));
            }
            other => set.push(format!("{key} = {other}  from the file")),
        }
    }
}

/// What of a value may be shown: no credential, and none inside of a URL.
fn masked(key: &str, value: &str) -> String {
    if matches!(key, "server.api_key" | "server.shared_key") {
        return "(secret)".to_owned();
    }
    match reqwest::Url::parse(value) {
        Ok(url) if key == "server.url" => client::shown(&url),
        _ => value.to_owned(),
    }
}

pub(super) fn check(known: &Known, status: Option<&Value>) -> Check {
    let file = match &known.file {
        Some(path) => format!("the config file is {}", path.display()),
        None => "there is no config file".to_owned(),
    };
    let running = status.and_then(|status| status.get("server")?.as_str());
    let mut check = match (&known.config, running) {
        (Ok(config), Some(server)) if client::shown(&config.server.url) != server => {
            Check::problem(
                NAME,
                format!("{file}; the agent that runs uses another server: {server}"),
                "start the agent again where these are the right ones, or give this command the agent's",
            )
        }
        (Ok(_), _) => Check::fine(
            NAME,
            format!("{file}; what is not named here is the default"),
        ),
        // Its own came from a unit, or from another shell.
        (Err(_), Some(server)) => Check::fine(
            NAME,
            format!("{file}; the agent that runs has its own from elsewhere, and uses {server}"),
        ),
        (Err(error), None) => Check::problem(
            NAME,
            format!("{file}; an agent could not start so: {error:#}"),
            "set what it names as the agent will have it: in the config file, as a variable, or as a flag",
        ),
    };
    check.details.clone_from(&known.set);
    check
}

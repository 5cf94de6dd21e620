//! The tables of docs/configuration.md, made from the definitions: flags, variables, defaults and their help
//! from the command line, keys from the structs that read the config file.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory as _, FromArgMatches as _};

use super::{Cli, Command};
use crate::{
    cli::settings::Settings,
    config::{
        DEFAULT_LOG_DAYS,
        file::{API_KEY_VARIABLE, SHARED_KEY_VARIABLE},
        limits::Limits,
    },
    telemetry::{DEFAULT_FILTER, LOG_VARIABLE},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

const SOURCES: [&str; 2] = [
    include_str!("../../config/file.rs"),
    include_str!("../../config/limits.rs"),
];

/// A struct of the config file: the table it reads, and its heading.
const TABLES: [(&str, &str); 4] = [
    ("ConfigFile", ""),
    ("ServerFile", "server."),
    ("LogFile", "log."),
    ("LimitsFile", "limits."),
];

/// The fields of a struct with their doc comments, in order.
fn fields(name: &str) -> Vec<(String, String)> {
    let head = format!("pub struct {name} {{\n");
    let body = SOURCES.iter().find_map(|text| text.split_once(&head));
    let (body, _) = body.unwrap().1.split_once("\n}").unwrap();
    let mut found = Vec::new();
    let mut doc = Vec::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (field, _) = field.split_once(':').unwrap();
            found.push((field.to_owned(), doc.join(" ")));
            doc.clear();
        }
    }
    found
}

/// All that `tally run` takes.
fn flags() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command.find_subcommand("run").unwrap().clone()
}

/// What its help says, and the default that stands in it.
fn help(arg: &Arg) -> (String, Option<String>) {
    let help = arg.get_help().unwrap().to_string();
    match help.split_once(" [default: ") {
        Some((text, default)) => (
            text.to_owned(),
            Some(default.trim_end_matches(']').to_owned()),
        ),
        None => (help, None),
    }
}

/// The default of a key that has no flag.
fn default_of(key: &str) -> String {
    let limits = Limits::default();
    let time = |time| humantime::format_duration(time).to_string();
    match key {
        "limits.connections" => limits.connections.to_string(),
        "limits.requests" => limits.requests.to_string(),
        "limits.control_requests" => limits.control_requests.to_string(),
        "limits.head_time" => time(limits.head_time),
        "limits.body_time" => time(limits.body_time),
        "limits.idle_time" => time(limits.idle_time),
        "log.level" => DEFAULT_FILTER.to_owned(),
        "log.days" => DEFAULT_LOG_DAYS.to_string(),
        _ => "none".to_owned(),
    }
}

fn row(prefix: &str, (field, doc): &(String, String), flags: &clap::Command) -> String {
    let key = format!("{prefix}{field}");
    let flag = flags
        .get_arguments()
        .find(|arg| arg.get_id() == key.as_str());
    let mut ways = Vec::new();
    let (mut meaning, mut default) = (doc.trim_end_matches('.').to_owned(), default_of(&key));
    if let Some(arg) = flag {
        let (text, set) = help(arg);
        let takes_value = arg.get_action().takes_values();
        meaning = text;
        default = set.unwrap_or_else(|| if takes_value { "none" } else { "false" }.to_owned());
        ways.push(format!("`--{}`", arg.get_long().unwrap()));
        let variable = arg.get_env().unwrap().to_str().unwrap();
        ways.push(format!("`{variable}`"));
    }
    match key.as_str() {
        "server.api_key" => ways.push(format!("`{API_KEY_VARIABLE}`")),
        "server.shared_key" => ways.push(format!("`{SHARED_KEY_VARIABLE}`")),
        "log.level" => ways.push(format!("`{LOG_VARIABLE}`")),
        _ => {}
    }
    let default = match default.as_str() {
        words if words == "none" || words.contains(' ') => words.to_owned(),
        value => format!("`{value}`"),
    };
    let ways = if ways.is_empty() {
        "–".to_owned()
    } else {
        ways.join(", ")
    };
    format!(
        "| `{field}` | {ways} | {default} | {} |\n",
        meaning.replace('|', "\\|")
    )
}

fn tables() -> String {
    let flags = flags();
    let mut text = String::new();
    for (name, prefix) in TABLES {
        let is_table = |field: &str| {
            TABLES
                .iter()
                .any(|(_, prefix)| *prefix == format!("{field}."))
        };
        if !prefix.is_empty() {
            let table = prefix.trim_end_matches('.');
            let doc = fields("ConfigFile")
                .into_iter()
                .find(|(field, _)| field == table);
            let doc = doc.unwrap().1;
            write!(text, "\n`[{table}]`: {}\n\n", lower(&doc)).unwrap();
        }
        text += "| key | flag, variable | default | meaning |\n|---|---|---|---|\n";
        for field in fields(name).iter().filter(|(field, _)| !is_table(field)) {
            text += &row(prefix, field, &flags);
        }
    }
    text
}

fn lower(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_lowercase() + rest
}

/// UPDATE=1 writes it anew.
#[test]
fn the_reference_of_settings_is_made_from_their_definitions() {
    const BEGINS: &str =
        "<!-- made from the code: UPDATE=1 cargo test -p tally-agent reference -->\n";
    const ENDS: &str = "<!-- end -->";
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGINS).unwrap();
    let (found, after) = rest.split_once(ENDS).unwrap();
    let expected = format!("\n{}\n", tables());
    if std::env::var_os("UPDATE").is_some() {
        let document = format!("{before}{BEGINS}{expected}{ENDS}{after}");
        std::fs::write(DOCUMENT, document).unwrap();
    } else {
        assert_eq!(found, expected, "run it with UPDATE=1");
    }
}

#[test]
fn each_flag_of_the_agent_is_a_key_of_the_config_file() {
    const NO_SETTINGS: [&str; 3] = ["config", "help", "version"];
    let keys: Vec<String> = TABLES
        .iter()
        .flat_map(|(name, prefix)| {
            fields(name)
                .into_iter()
                .map(move |(field, _)| format!("{prefix}{field}"))
        })
        .collect();
    for arg in flags().get_arguments() {
        let id = arg.get_id().as_str();
        assert!(
            NO_SETTINGS.contains(&id) || keys.iter().any(|key| key == id),
            "{id}"
        );
    }
}

/// What the help says to be the default is what comes out where nothing is given.
#[test]
fn the_help_tells_the_defaults_that_are_in_force() {
    let resolve = |further: &[String]| {
        let base = [
            "tally",
            "run",
            "--data-dir",
            "/tmp",
            "--server-url",
            "http://127.0.0.1",
        ];
        let args = base
            .iter()
            .map(ToString::to_string)
            .chain(further.iter().cloned());
        let cli = Cli::from_arg_matches(&Cli::command().get_matches_from(args)).unwrap();
        let Command::Run(args) = cli.command else {
            unreachable!("it is `run`")
        };
        let mut settings = Settings::read(cli.data_dir, *args).unwrap();
        settings.given.server.api_key = Some(crate::secret::Secret::new("key".to_owned()));
        settings.given.server.shared_key = Some(crate::secret::Secret::new("key".to_owned()));
        format!("{:?}", settings.resolve().unwrap())
    };
    let flags = flags();
    let told = flags.get_arguments().filter_map(|arg| {
        let default = help(arg).1.filter(|default| !default.contains(' '))?;
        Some([format!("--{}", arg.get_long()?), default])
    });
    let told: Vec<String> = told.flatten().collect();
    assert!(told.len() > 10, "{told:?}");
    assert_eq!(resolve(&told), resolve(&[]));
}

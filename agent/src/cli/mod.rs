//! The command line. Data goes to stdout, talk to stderr; exit codes are 0, 1 (refused or failed) and
//! 2 (usage).

mod app;
mod args;
mod backup;
mod client;
mod credential;
mod dashboard;
mod device;
mod doctor;
mod drill;
mod explain;
mod export;
mod human;
mod license;
mod log;
mod manager;
mod manual;
mod output;
mod progress;
mod record;
mod resolve;
mod run;
mod screen;
mod service;
mod settings;
mod socket;
mod status;
mod sync;
mod verify;
#[cfg(windows)]
mod windows;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use self::{
    args::{Cli, Command},
    output::Outcome,
};
use crate::{app as agent, config::paths, telemetry};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs a command line; the first argument is the program's name.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = Cli::command().get_matches_from(args);
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli, &matches) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> anyhow::Result<Outcome> {
    if let Command::Run(args) = cli.command {
        // It starts a log of its own, once it has read where to.
        return run::run(cli.data_dir, *args);
    }
    telemetry::init();
    let cli = match cli.command {
        Command::Service(command) => return service::run(cli.data_dir, command),
        Command::Doctor(args) => return doctor::run(cli.data_dir, *args, matches),
        command => Cli { command, ..cli },
    };
    let data_dir = paths::DataDir::new(paths::data_dir(cli.data_dir)?);
    if matches!(
        cli.command,
        Command::Verify(_) | Command::Export(_) | Command::Backup(_)
    ) {
        // They use the ledger's files themselves.
        agent::refuse_links(&data_dir)?;
    }
    match cli.command {
        Command::Run(_) | Command::Service(_) | Command::Doctor(_) => Ok(Outcome::Done),
        Command::App(command) => app::run(&data_dir, command),
        Command::License(command) => license::run(&data_dir, command),
        Command::Record(args) => record::run(&data_dir, args),
        Command::Sync(args) => sync::run(&data_dir, args),
        Command::Status(args) => status::run(&data_dir, &args),
        Command::Log(args) => log::run(&data_dir, &args),
        Command::Explain(args) => explain::run(&data_dir, &args),
        Command::Verify(args) => verify::run(&data_dir, args),
        Command::Resolve(args) => resolve::run(&data_dir, args),
        Command::Device(command) => device::run(&data_dir, command),
        Command::Network(args) => drill::run(&data_dir, &args),
        Command::Dashboard(args) => dashboard::run(&data_dir, args),
        Command::Credential(args) => credential::run(&args),
        Command::Export(args) => export::run(&data_dir, &args),
        Command::Backup(args) => backup::run(&data_dir, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::pages(&args),
    }
}

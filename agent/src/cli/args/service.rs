//! `tally service`: having the system start the agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArgs;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ServiceCommand {
    /// Have the system start the agent from now on
    #[command(after_help = "\
It is not started unless --now is given, and may be installed already.

Examples:
  sudo tally service install              for the device
  tally service install --user --now      for you, while you are logged in
  tally service install --dry-run         show what would be written and run")]
    Install(InstallArgs),
    /// Stop the agent and have the system start it no more; its data stays
    #[command(after_help = "\
Examples:
  sudo tally service uninstall
  tally service uninstall --user")]
    Uninstall(UninstallArgs),
    /// Show whether the service is installed, and whether it runs
    #[command(after_help = "\
It exits with 1 where the service does not run.

Example:
  tally service status --json")]
    Status(ServiceStatusArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WhoseArgs {
    /// A service of yours, not of the device
    #[arg(long, conflicts_with = "root")]
    pub(in crate::cli) user: bool,

    /// The root folder of a device's image, not of the system that runs (systemd only)
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArgs {
    #[command(flatten)]
    pub(in crate::cli) whose: WhoseArgs,

    /// Start it too
    #[arg(long, conflicts_with = "root")]
    pub(in crate::cli) now: bool,

    /// Show what would be written and run, and do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UninstallArgs {
    #[command(flatten)]
    pub(in crate::cli) whose: WhoseArgs,

    /// Show what would be removed and run, and do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ServiceStatusArgs {
    #[command(flatten)]
    pub(in crate::cli) whose: WhoseArgs,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

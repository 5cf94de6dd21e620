//! `tally completions` and `tally man`

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{
    args::{Cli, CompletionsArgs, ManArgs},
    output::{self, Outcome},
};

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tally", &mut script);
    output::own(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

/// One page a command, each named `tally-….1`.
pub(super) fn pages(args: &ManArgs) -> anyhow::Result<Outcome> {
    let folder = &args.folder;
    let failed = || format!("cannot write manual pages into {}", folder.display());
    fs_err::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(failed)?;
    output::line(&format!("the manual pages are in {}", folder.display()))?;
    Ok(Outcome::Done)
}

//! `tally service`

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{
    args::{ServiceCommand, WhoseArgs},
    output::{self, Outcome},
};
use crate::service::{Manager, Plan, Scope, ServiceError, State, Target};

pub(super) fn run(data_dir: Option<PathBuf>, command: ServiceCommand) -> anyhow::Result<Outcome> {
    let manager = Manager::of_this_system();
    match command {
        ServiceCommand::Install(args) => {
            let target = target(data_dir, args.whose, args.now)?;
            if !args.dry_run {
                check_rights(&target, "install")?;
            }
            carry_out(
                &manager.install(&target)?,
                target.root.as_deref(),
                args.dry_run,
            )
        }
        ServiceCommand::Uninstall(args) => {
            let target = target(data_dir, args.whose, false)?;
            if !args.dry_run {
                check_rights(&target, "uninstall")?;
            }
            carry_out(
                &manager.uninstall(&target)?,
                target.root.as_deref(),
                args.dry_run,
            )
        }
        ServiceCommand::Status(args) => {
            let state = manager.state(&target(data_dir, args.whose, false)?)?;
            if args.output.json {
                output::json(&state)?;
            } else {
                output::text(&describe(&state))?;
            }
            Ok(if state.running {
                Outcome::Done
            } else {
                Outcome::Refused
            })
        }
    }
}

fn target(data_dir: Option<PathBuf>, whose: WhoseArgs, start: bool) -> anyhow::Result<Target> {
    let absolute = |path: PathBuf| std::path::absolute(path).context("the current folder is gone");
    Ok(Target {
        scope: if whose.user {
            Scope::User
        } else {
            Scope::System
        },
        program: std::env::current_exe().context("cannot find this program")?,
        data_dir: data_dir.map(absolute).transpose()?,
        root: whose.root.map(absolute).transpose()?,
        start,
    })
}

/// Said before anything is done, rather than half-way.
fn check_rights(target: &Target, command: &'static str) -> Result<(), ServiceError> {
    let is_own = target.scope == Scope::User || target.root.is_some();
    if is_own || crate::service::is_root() {
        return Ok(());
    }
    Err(ServiceError::NotRoot { command })
}

fn carry_out(plan: &Plan, root: Option<&Path>, is_dry: bool) -> anyhow::Result<Outcome> {
    for step in &plan.steps {
        if is_dry {
            output::text(&(step.describe() + "\n"))?;
        } else if let Some(done) = step.take(root)? {
            output::line(&done)?;
        }
    }
    if !is_dry {
        for note in &plan.notes {
            output::line(note)?;
        }
    }
    Ok(Outcome::Done)
}

fn describe(state: &State) -> String {
    let installed = match (&state.file, state.installed) {
        (Some(file), true) => format!("yes, by {}", file.display()),
        (None, true) => "yes".to_owned(),
        (_, false) => match state.scope {
            Scope::System => "no: sudo tally service install".to_owned(),
            Scope::User => "no: tally service install --user".to_owned(),
        },
    };
    let running = match (state.running, state.pid) {
        (true, Some(pid)) => format!("yes, process {pid}"),
        (true, None) => "yes".to_owned(),
        (false, _) => format!("no: {}", state.state),
    };
    let enabled = if state.enabled { "yes" } else { "no" };
    format!(
        "installed         {installed}\n\
         starts by itself  {enabled}\n\
         running           {running}\n\
         data              {}\n",
        state.data_dir.display()
    )
}

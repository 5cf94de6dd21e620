//! `tally doctor`

use serde::Serialize;
use serde_json::json;

use super::{
    args::DoctorArgs,
    output::{self, Outcome},
    verify,
};
use crate::{
    app,
    config::{
        file::ConfigFile,
        paths::{self, DataDir},
    },
    deps::SystemClocks,
    ledger::{
        evidence,
        health::{self, Health},
        recovery::{self, Report},
    },
};

/// One thing that was looked at.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found.
    found: String,
    /// How to mend it, where it is not right.
    fix: Option<String>,
}

impl Check {
    const fn fine(name: &'static str, found: String) -> Self {
        Self {
            name,
            ok: true,
            found,
            fix: None,
        }
    }

    fn problem(name: &'static str, found: String, fix: &str) -> Self {
        Self {
            name,
            ok: false,
            found,
            fix: Some(fix.to_owned()),
        }
    }
}

/// Only reads, unless a recovery is accepted.
pub(super) fn run(data_dir: &DataDir, args: DoctorArgs) -> anyhow::Result<Outcome> {
    if args.accept_recovery {
        return accept(data_dir, args.output.json);
    }
    let checks = checks(data_dir);
    let is_well = checks.iter().all(|check| check.ok);
    if args.output.json {
        let report = recovery::pending(data_dir.path()).ok().flatten();
        output::json(&json!({"ok": is_well, "checks": checks, "pending_recovery": report}))?;
    } else {
        output::text(&page(&checks))?;
    }
    Ok(if is_well {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

fn accept(data_dir: &DataDir, as_json: bool) -> anyhow::Result<Outcome> {
    let report = app::accept_recovery(data_dir, &SystemClocks::new())?;
    if as_json {
        output::json(&report)?;
    } else {
        output::text(&accepted(data_dir, &report))?;
    }
    Ok(Outcome::Done)
}

fn accepted(data_dir: &DataDir, report: &Report) -> String {
    let text = format!(
        "the salvaged ledger is in place; {}\nthe damaged files and the report are kept in {}\n",
        report.summary(),
        data_dir.path().join(&report.folder).display()
    );
    let held = report.held.iter().map(|held| {
        format!(
            "batch {} is held: {} units in {} rows of {} {}; decide with `tally resolve {}`\n",
            held.batch, held.units, held.rows, held.product, held.holder_value, held.batch
        )
    });
    text + &held.collect::<String>() + "start the agent with `tally run`\n"
}

fn page(checks: &[Check]) -> String {
    let lines = checks.iter().map(|check| {
        let mark = if check.ok { "ok     " } else { "PROBLEM" };
        let fix = check.fix.as_ref();
        let fix = fix.map(|fix| format!("         {fix}\n"));
        let line = format!("{mark}  {}: {}\n", check.name, check.found);
        line + &fix.unwrap_or_default()
    });
    lines.collect()
}

fn checks(data_dir: &DataDir) -> Vec<Check> {
    let mut checks = vec![folder(data_dir), credentials()];
    if data_dir.path().is_dir() {
        checks.extend([
            agent(data_dir),
            pending(data_dir),
            ledger(data_dir),
            space(data_dir),
        ]);
    }
    checks
}

fn folder(data_dir: &DataDir) -> Check {
    const NAME: &str = "data directory";
    let path = data_dir.path().display().to_string();
    let Ok(found) = std::fs::metadata(data_dir.path()) else {
        let fix = "`tally run` makes it; or name another with --data-dir";
        return Check::problem(NAME, format!("{path} does not exist"), fix);
    };
    if !found.is_dir() {
        return Check::problem(
            NAME,
            format!("{path} is no folder"),
            "name another with --data-dir",
        );
    }
    if let Err(error) = app::check_secrets(data_dir) {
        return Check::problem(
            NAME,
            error.to_string(),
            "close it: `tally run` refuses to start so",
        );
    }
    Check::fine(NAME, path)
}

/// Those that an agent started from here would have. One that runs has its own.
fn credentials() -> Check {
    const NAME: &str = "credentials";
    let file = std::env::var_os("TALLY_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(paths::default_config_file);
    let file = match file.map(|path| ConfigFile::read(&path, false)).transpose() {
        Ok(file) => file.unwrap_or_default(),
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            return Check::problem(NAME, found, "mend the config file");
        }
    };
    let server = file.server.unwrap_or_default();
    let is_set = |name: &str| {
        let file = name.trim_start_matches("TALLY_").to_lowercase();
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(std::path::PathBuf::from);
        folder.is_some_and(|folder| folder.join(file).exists())
            || std::env::var_os(name).is_some_and(|value| !value.is_empty())
    };
    let missing: Vec<&str> = [
        ("TALLY_SERVER_API_KEY", server.api_key.is_some()),
        ("TALLY_SERVER_SHARED_KEY", server.shared_key.is_some()),
    ]
    .into_iter()
    .filter(|(name, in_file)| !in_file && !is_set(name))
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() {
        return Check::fine(NAME, "present".to_owned());
    }
    let fix = "set them as `tally run` will have them, or put them into the config file";
    Check::problem(NAME, format!("{} not set here", missing.join(" and ")), fix)
}

fn agent(data_dir: &DataDir) -> Check {
    const NAME: &str = "agent";
    match app::is_running(data_dir) {
        Ok(true) => Check::fine(NAME, "runs".to_owned()),
        Ok(false) => Check::fine(NAME, "does not run; `tally run` starts one".to_owned()),
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            Check::problem(
                NAME,
                found,
                "make the data directory writable for this user",
            )
        }
    }
}

fn pending(data_dir: &DataDir) -> Check {
    const NAME: &str = "recovery";
    match recovery::pending(data_dir.path()) {
        Ok(None) => Check::fine(NAME, "none waits to be accepted".to_owned()),
        Ok(Some(report)) => Check::problem(
            NAME,
            format!(
                "the ledger was found damaged ({}) and is kept in {}; {}",
                report.cause,
                report.folder,
                report.summary()
            ),
            "restore a copy of ledger.db if there is one, or go on with what was salvaged: \
             tally doctor --accept-recovery",
        ),
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            Check::problem(NAME, found, "put its folder back where it was")
        }
    }
}

fn ledger(data_dir: &DataDir) -> Check {
    const NAME: &str = "ledger";
    let path = data_dir.ledger();
    if !path.exists() && !data_dir.reserve().exists() {
        return Check::fine(NAME, "there is none yet".to_owned());
    }
    let found = evidence::read_key(&data_dir.chain_key())
        .and_then(|key| health::look(&path, data_dir.reserve().exists(), true, &key));
    match found {
        Ok(Health::New) => Check::fine(NAME, "there is none yet".to_owned()),
        Ok(Health::Sound) => proved(data_dir),
        Ok(Health::Damaged(cause)) => Check::problem(
            NAME,
            format!("it is damaged: {cause}"),
            "start the agent again with `tally run`: it keeps the file and salvages what can be read",
        ),
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            Check::problem(NAME, found, "mend what it names")
        }
    }
}

/// Nothing refers to what is missing; now whether it is as the agent wrote it.
fn proved(data_dir: &DataDir) -> Check {
    const NAME: &str = "ledger";
    match verify::prove(data_dir) {
        Ok(findings) => match findings.faults.first() {
            None => Check::fine(
                NAME,
                "opens, its pages are in order, its chain is whole, and all sums are right"
                    .to_owned(),
            ),
            Some(fault) => Check::problem(
                NAME,
                format!("it was changed behind the agent's back: {}", fault.what),
                "find out who did: `tally verify` says where it shows. The agent goes on, and sends \
                 nothing on the word of what was changed",
            ),
        },
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            Check::problem(NAME, found, "mend what it names")
        }
    }
}

/// Free space cannot be asked for portably; the reserve tells whether there was enough.
fn space(data_dir: &DataDir) -> Check {
    const NAME: &str = "reserve";
    if data_dir.reserve().exists() {
        return Check::fine(NAME, "space is set aside for a full disk".to_owned());
    }
    if !data_dir.ledger().exists() {
        return Check::fine(NAME, "set aside at the first start".to_owned());
    }
    let fix = "make space on the disk; the agent then sets it aside by itself";
    Check::problem(
        NAME,
        "no space is set aside for a full disk".to_owned(),
        fix,
    )
}

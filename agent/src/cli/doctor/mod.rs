//! `tally doctor`: what a support engineer would ask for, what was found, and how to mend it.

mod disk;
pub(super) mod holders;
mod ledger;
mod network;
mod settings;

use std::{path::PathBuf, time::Duration};

use anstyle::{AnsiColor, Style};
use clap::ArgMatches;
use serde::Serialize;
use serde_json::{Value, json};

use self::settings::Known;
use super::{
    args::DoctorArgs,
    client::Agent,
    output::{self, Outcome},
    progress::Progress,
    screen::{Piece, Screen, flow, paragraph},
};
use crate::{
    app,
    config::paths::DataDir,
    deps::SystemClocks,
    foreign::shown,
    ledger::recovery::{self, Report},
};

/// Where the text begins, after the mark.
const MARGIN: usize = 9;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// Whether it is as it should be, or could not be looked at.
    ok: bool,
    /// Whether it was not looked at, because something that it needs is missing.
    skipped: bool,
    /// What was found.
    found: String,
    /// More of it, a line each.
    details: Vec<String>,
    /// How to mend it, where it is not right.
    fix: Option<String>,
}

impl Check {
    const fn fine(name: &'static str, found: String) -> Self {
        Self {
            name,
            ok: true,
            skipped: false,
            found,
            details: Vec::new(),
            fix: None,
        }
    }

    fn skipped(name: &'static str, why: &str) -> Self {
        Self {
            skipped: true,
            ..Self::fine(name, format!("not tried: {why}"))
        }
    }

    fn problem(name: &'static str, found: String, fix: &str) -> Self {
        Self {
            ok: false,
            fix: Some(fix.to_owned()),
            ..Self::fine(name, found)
        }
    }

    /// What an error says; `fix` is for those that do not say it themselves.
    fn failed(name: &'static str, error: impl Into<anyhow::Error>, fix: &str) -> Self {
        Self::problem(name, format!("{:#}", error.into()), fix)
    }
}

/// Only reads, unless a recovery is accepted.
pub(super) fn run(
    data_dir: Option<PathBuf>,
    args: DoctorArgs,
    matches: &ArgMatches,
) -> anyhow::Result<Outcome> {
    let known = settings::look(data_dir, args.settings, matches)?;
    let data_dir = &known.data_dir;
    app::refuse_links(data_dir)?;
    if args.accept_recovery {
        return accept(data_dir, args.output.json);
    }
    let checks = checks(&known)?;
    let is_well = checks.iter().all(|check| check.ok);
    if args.output.json {
        let report = recovery::pending(data_dir.path()).ok().flatten();
        output::json(&json!({"ok": is_well, "checks": checks, "pending_recovery": report}))?;
    } else {
        output::text(&page(&checks, Screen::of_stdout()))?;
    }
    Ok(if is_well {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

fn checks(known: &Known) -> anyhow::Result<Vec<Check>> {
    let data_dir = &known.data_dir;
    let holders = holders::holders(data_dir);
    if let (false, Some(holder)) = (data_dir.ledger().exists(), holders.first()) {
        // First of all, and alone: what else may be wrong is mended by starting the agent again.
        return Ok(vec![ledger::held(*holder)]);
    }
    // The agent that runs knows best how it gets on.
    let status: Option<Value> = Agent::connect(data_dir)
        .and_then(|agent| agent.get("/v1/status"))
        .ok();
    let status = status.as_ref();
    let mut checks = vec![
        version(status),
        settings::check(known, status),
        disk::folder(data_dir),
    ];
    if data_dir.path().is_dir() {
        checks.push(disk::file_system(data_dir));
        checks.push(disk::modes(data_dir));
        checks.push(agent(data_dir, status, &holders));
        checks.extend(ledger::checks(data_dir, &holders));
        checks.extend(ledger::copy(status));
        checks.extend(disk::space(data_dir));
    }
    checks.extend(network::checks(known, status)?);
    Ok(checks)
}

fn version(status: Option<&Value>) -> Check {
    const NAME: &str = "version";
    let own = env!("CARGO_PKG_VERSION");
    let running = status.and_then(|status| status.get("version")?.as_str());
    match running {
        Some(other) if other != own => Check::problem(
            NAME,
            format!("this is tally {own}, and the agent that runs is {other}"),
            "start the agent again, with the same program",
        ),
        _ => Check::fine(NAME, format!("tally {own} for {}", std::env::consts::OS)),
    }
}

fn agent(data_dir: &DataDir, status: Option<&Value>, holders: &[u32]) -> Check {
    const NAME: &str = "agent";
    let numbers: Vec<String> = holders.iter().map(u32::to_string).collect();
    match (app::is_running(data_dir), status) {
        (Ok(true), Some(status)) => {
            let state = status.pointer("/connection/state").and_then(Value::as_str);
            let since = status
                .pointer("/connection/since_ms")
                .and_then(Value::as_u64);
            let since = super::human::span(Duration::from_millis(since.unwrap_or_default()));
            if state == Some("other_server") {
                return Check::problem(
                    NAME,
                    "runs, and sends nothing: what is owed was recorded for another server"
                        .to_owned(),
                    "`tally status` names it, and says what to type",
                );
            }
            Check::fine(NAME, format!("runs, {} for {since}", state.unwrap_or("?")))
        }
        (Ok(true), None) => Check::problem(
            NAME,
            "runs, and does not answer this user".to_owned(),
            "run this command as the user of the agent, or start the agent again where it hangs",
        ),
        (Ok(false), _) if !numbers.is_empty() => Check::problem(
            NAME,
            format!(
                "process {} has the ledger open, and holds no lock: its lock file was removed",
                numbers.join(" and ")
            ),
            "start no other on this folder. Where two run, keep one; the one that started first writes nothing any more",
        ),
        (Ok(false), _) => Check::fine(NAME, "does not run; `tally run` starts one".to_owned()),
        (Err(error), _) => Check::failed(
            NAME,
            error,
            "make the data directory writable for this user, or run this command as the user of the agent",
        ),
    }
}

fn page(checks: &[Check], screen: Screen) -> String {
    let mut text = String::new();
    for check in checks {
        let (mark, style) = match (check.ok, check.skipped) {
            (_, true) => ("-      ", Style::new().dimmed()),
            (true, false) => ("ok     ", AnsiColor::Green.on_default()),
            (false, false) => ("PROBLEM", AnsiColor::Red.on_default().bold()),
        };
        let name = Piece::new(format!("{}:", check.name), Style::new().bold());
        let words = check.found.split(' ').map(Piece::plain);
        let words: Vec<Piece> = std::iter::once(name).chain(words).collect();
        // The mark stands in the margin.
        let lines = flow(&words, " ", MARGIN, screen);
        let mark = format!("{style}{mark}{style:#}  ");
        text = text + &mark + lines.trim_start();
        for detail in &check.details {
            text += &paragraph(detail, Style::new().dimmed(), MARGIN + 2, screen);
        }
        if let Some(fix) = &check.fix {
            text += &paragraph(&format!("→ {fix}"), Style::new(), MARGIN, screen);
        }
    }
    text
}

fn accept(data_dir: &DataDir, as_json: bool) -> anyhow::Result<Outcome> {
    let progress = Progress::start("putting the salvaged ledger in its place");
    let report = app::accept_recovery(data_dir, &SystemClocks::new())?;
    drop(progress);
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
            held.batch,
            held.units,
            held.rows,
            shown(&held.product),
            shown(&held.holder_value),
            held.batch
        )
    });
    text + &held.collect::<String>() + "start the agent with `tally run`\n"
}

//! Proves that the simulation can fail: each known way to break a promise is switched on in a copy of the source, and the
//! simulation must find it within 2,000 seeds; or a test must, where no world has what it takes.
//!
//! The copy is built once, with all mutants in it ([`tally_tests::mutants`]), and stays: what has not changed is not built
//! again. `mutants WORD...` tries those whose names hold one of the words.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum as _;
use serde_json::Value;
use tally_tests::mutants::{self, FoundBy, Mutant};

/// How many seeds the simulation has for each.
const SEEDS: &str = "2000";

/// How many pass before any mutant is switched on.
const SEEDS_UNBROKEN: &str = "10";

/// The profile of the worlds, which has what is not of the workspace built for other steps of `.ci/run`.
const PROFILE: &str = "bench";

/// What is built otherwise than in the workspace: faster, and never to be taken for what the workspace has.
const PACKAGES: [&str; 5] = [
    "tally-agent",
    "tally-server-stub",
    "tally-shared",
    "tally-simdisk",
    "tally-tests",
];

/// The copy, and where it is built.
struct Tree {
    path: PathBuf,
    build_dir: PathBuf,
    target: PathBuf,
}

/// What is run of the copy.
struct Programs {
    simulate: PathBuf,
    parts: Option<PathBuf>,
    end_to_end: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted =
        |mutant: &Mutant| wanted.is_empty() || wanted.iter().any(|it| mutant.name.contains(it));
    let chosen: Vec<(u32, &Mutant)> = (1..)
        .zip(mutants::all())
        .filter(|(_, mutant)| is_wanted(mutant))
        .collect();
    let started = Instant::now();
    let tree = Tree::copy()?;
    let programs = tree.build(&chosen)?;
    say(&format!("built in {} s", seconds(started.elapsed())));
    let began = Instant::now();
    programs.check_unbroken(&chosen)?;
    say(&format!(
        "passed unbroken in {} s",
        seconds(began.elapsed())
    ));
    let mut survivors = Vec::new();
    for (no, mutant) in &chosen {
        let began = Instant::now();
        let found = programs.find(*no, mutant)?;
        let took = seconds(began.elapsed());
        if let Some(how) = found {
            say(&format!("caught in {took} s: {}\n    {how}", mutant.name));
        } else {
            say(&format!("NOT CAUGHT in {took} s: {}", mutant.name));
            survivors.push(mutant.name);
        }
    }
    if !survivors.is_empty() {
        bail!(
            "{} of {} mutants survive: {}",
            survivors.len(),
            chosen.len(),
            survivors.join("; ")
        );
    }
    say(&format!(
        "all {} mutants are caught, in {} s",
        chosen.len(),
        seconds(started.elapsed())
    ));
    Ok(())
}

impl Tree {
    /// Copies the workspace, with all mutants in it. Files that are there already, and the same, keep their times.
    fn copy() -> anyhow::Result<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let root = root
            .parent()
            .context("this package lies in its workspace")?;
        let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let build_dir = root.join(given.unwrap_or_else(|| "target".into()));
        let target = build_dir.join("mutants");
        let path = target.join("tree");
        copy(root, &path, &build_dir, Path::new(""))?;
        Ok(Self {
            path,
            build_dir,
            target,
        })
    }

    /// Builds what is needed.
    fn build(&self, chosen: &[(u32, &Mutant)]) -> anyhow::Result<Programs> {
        let worlds = ["build", "--package", "tally-tests", "--bin", "simulate"];
        self.cargo(&worlds, PROFILE)?;
        let mut programs = Programs {
            simulate: self.target.join("release/simulate"),
            parts: None,
            end_to_end: None,
        };
        // As `cargo test --workspace` builds them, so that what is not of the workspace is there.
        let mut targets = vec!["test", "--no-run", "--workspace"];
        let is_found_by = |is_so: fn(FoundBy) -> bool| {
            let mut chosen = chosen.iter();
            chosen.any(|(_, mutant)| is_so(mutant.found_by))
        };
        if is_found_by(|by| matches!(by, FoundBy::Part(_))) {
            targets.push("--lib");
        }
        if is_found_by(|by| matches!(by, FoundBy::EndToEnd(_))) {
            targets.extend(["--test", "e2e"]);
        }
        if targets.len() == 3 {
            return Ok(programs);
        }
        let output = self.cargo(&targets, "dev")?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let program = message["executable"].as_str().map(PathBuf::from);
            match message["target"]["name"].as_str() {
                Some("tally_agent") => programs.parts = program.or(programs.parts),
                Some("e2e") => programs.end_to_end = program.or(programs.end_to_end),
                _ => {}
            }
        }
        Ok(programs)
    }

    fn cargo(&self, arguments: &[&str], profile: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments);
        command.args(["--locked", "--quiet", "--message-format", "json"]);
        command.args(["--profile", profile]);
        for package in PACKAGES {
            let mut set = |what: &str| {
                let setting = format!("profile.{profile}.package.{package}.{what}");
                command.args(["--config", &setting]);
            };
            set("debug=false");
            if profile == PROFILE {
                set("opt-level=1");
            }
        }
        let output = command
            .env("CARGO_BUILD_BUILD_DIR", &self.build_dir)
            .env("CARGO_TARGET_DIR", &self.target)
            .current_dir(&self.path)
            .output()
            .context("cannot run cargo")?;
        let said = || {
            let lines = String::from_utf8_lossy(&output.stdout).into_owned();
            let rendered = lines.lines().filter_map(|line| {
                let message: Value = serde_json::from_str(line).ok()?;
                let message = message["message"]["rendered"].as_str()?.to_owned();
                message.starts_with("error").then_some(message)
            });
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            rendered.chain([stderr]).collect::<String>()
        };
        ensure!(
            output.status.success(),
            "the copy does not build: {}",
            said()
        );
        Ok(output)
    }
}

impl Programs {
    /// With no mutant switched on, nothing fails.
    fn check_unbroken(&self, chosen: &[(u32, &Mutant)]) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for (_, mutant) in chosen {
            if !seen.insert(name_of(mutant.found_by)) {
                continue;
            }
            let output = self.command(mutant.found_by, SEEDS_UNBROKEN)?.output()?;
            ensure!(
                output.status.success(),
                "it fails although nothing is broken: {}",
                text(&output)
            );
        }
        Ok(())
    }

    /// Switches a mutant on. Returns how it was found.
    fn find(&self, no: u32, mutant: &Mutant) -> anyhow::Result<Option<String>> {
        let switched = |first: u64, seeds| {
            let mut command = self.command(mutant.found_by, seeds)?;
            if mutant.found_by.test().is_none() {
                command.args(["--first", &first.to_string()]);
            }
            let output = command.env(mutants::SWITCH, no.to_string()).output();
            output.context("cannot run it")
        };
        let mut output = switched(mutant.seed, "1")?;
        if output.status.success() && mutant.found_by.test().is_none() {
            output = switched(0, SEEDS)?;
        }
        if output.status.success() {
            return Ok(None);
        }
        if let Some(test) = mutant.found_by.test() {
            return Ok(Some(format!("{test} fails")));
        }
        let output = text(&output);
        let is_how = |line: &&str| line.contains(" fails after ") || line.contains(" in doubt: ");
        let how = output.lines().find(is_how);
        Ok(Some(how.unwrap_or("the simulation panicked").to_owned()))
    }

    fn command(&self, by: FoundBy, seeds: &str) -> anyhow::Result<Command> {
        let kind = name_of(by);
        let worlds = ["--seeds", seeds, "--only", &kind];
        let (program, arguments) = match by {
            FoundBy::Plain => (Some(&self.simulate), vec!["--seeds", seeds, "--plain"]),
            FoundBy::Worlds(_) => (Some(&self.simulate), worlds.to_vec()),
            FoundBy::Shared => (
                Some(&self.simulate),
                vec!["--devices", "3", "--verdicts", seeds],
            ),
            FoundBy::Part(test) => (self.parts.as_ref(), vec![test]),
            FoundBy::EndToEnd(test) => (self.end_to_end.as_ref(), vec![test]),
        };
        let mut command = Command::new(program.context("its test was not built")?);
        command.args(arguments);
        command.env_remove(mutants::SWITCH);
        Ok(command)
    }
}

/// The kind of trouble as the simulation is asked for it, or the test.
fn name_of(by: FoundBy) -> String {
    let kind = by.kind().and_then(|kind| kind.to_possible_value());
    let kind = kind.map(|kind| kind.get_name().to_owned());
    kind.unwrap_or_else(|| by.test().unwrap_or_default().to_owned())
}

/// Copies the sources of a workspace.
fn copy(root: &Path, tree: &Path, build_dir: &Path, inner: &Path) -> anyhow::Result<()> {
    let folder = tree.join(inner);
    fs::create_dir_all(&folder)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root.join(inner))? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_source = name != "target" && name != ".git" && path != build_dir;
        if !is_source {
            continue;
        }
        let inner = inner.join(&name);
        names.insert(name);
        if entry.file_type()?.is_dir() {
            copy(root, tree, build_dir, &inner)?;
            continue;
        }
        let mut content = fs::read(&path)?;
        let file = inner.to_str().unwrap_or_default();
        if mutants::is_changed(file) {
            content = mutants::put_in(file, &String::from_utf8(content)?)?.into_bytes();
        }
        let target = tree.join(&inner);
        if fs::read(&target).ok().as_ref() != Some(&content) {
            fs::write(&target, content)?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
        }
    }
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

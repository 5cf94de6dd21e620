//! Proves that the simulation can fail: each known way to break a promise is put into a copy of the
//! source, and the simulation must find it within 2,000 seeds.
//!
//! A mutant is a piece of the source and what stands in its place. Where the source has changed so that
//! the piece is no longer there, this fails as well: the mutant wants to be rewritten.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};

/// How many seeds the simulation has for each.
const SEEDS: &str = "2000";

struct Mutant {
    /// What is broken.
    name: &'static str,
    file: &'static str,
    original: &'static str,
    broken: &'static str,
    /// The kind of trouble that finds it; worlds without any where there is none; [`DEVICES`].
    only: Option<&'static str>,
}

/// Several devices that share a licence find it.
const DEVICES: &str = "devices";

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "resend without looking",
        file: "agent/src/core/machine/agenda.rs",
        original: "self.keeps_keys() && is_peer && is_known && age < KEY_AGE_MAX",
        broken: "self.keeps_keys() || is_peer || is_known || age < KEY_AGE_MAX || true",
        only: None,
    },
    Mutant {
        name: "settle in memory what is not on disk",
        file: "agent/src/ledger/engine.rs",
        original: "self.core.roll_back(&group.commands);",
        broken: "self.core.book_mut().committed();",
        only: None,
    },
    Mutant {
        name: "forget the high-water mark",
        file: "agent/src/core/clock.rs",
        original: "            time\n        } else {\n            newest\n        };",
        broken: "            time\n        } else {\n            Timestamp::default()\n        };",
        only: None,
    },
    Mutant {
        name: "an unproven time binds a proven clock",
        file: "agent/src/core/clock.rs",
        original: "if proven && !newest_proven {",
        broken: "if proven && !newest_proven && false {",
        only: None,
    },
    Mutant {
        name: "seal after send: the ledger does not know that a batch left",
        file: "agent/src/ledger/store/write.rs",
        original: "BatchState::Sent => (\"sent\", None),",
        broken: "BatchState::Sent => (\"sealed\", None),",
        only: None,
    },
    Mutant {
        name: "forget an answer of the server whose commit failed",
        file: "agent/src/ledger/engine.rs",
        original: "self.kept.extend(group.events.drain(..));",
        broken: "group.events.clear();",
        only: None,
    },
    Mutant {
        name: "take a gateway's error for a refusal",
        file: "agent/src/core/outcome.rs",
        original: "    if !(400..500).contains(&answer.status) {\n        return unknown();",
        broken: "    if !(400..500).contains(&answer.status) {\n        return SendOutcome::Unreached(String::new());",
        only: None,
    },
    Mutant {
        name: "compare totals over a period's turn",
        file: "agent/src/core/reconcile.rs",
        original: "if is_turned || is_edited {",
        broken: "if is_turned && is_edited {",
        only: None,
    },
    Mutant {
        name: "grant as if nothing were held",
        file: "agent/src/core/book/mod.rs",
        original: "            .try_fold(Units::ZERO, |sum, batch| sum.checked_add(batch.units))",
        broken: "            .filter(|batch| !matches!(batch.state, BatchState::Held(_) | BatchState::Sent))\n            .try_fold(Units::ZERO, |sum, batch| sum.checked_add(batch.units))",
        only: None,
    },
    Mutant {
        name: "do not remember answers",
        file: "agent/src/ledger/engine.rs",
        original: "            answers::remember(&self.connection, age, (*app, key), remembered)?;",
        broken: "            let _ = (age, app, key, remembered);",
        only: None,
    },
    Mutant {
        name: "forget answers by a clock that leapt",
        file: "agent/src/ledger/answers.rs",
        original: "    if !now.proven {\n        return Ok(());\n    }",
        broken: "",
        only: None,
    },
    Mutant {
        name: "trust a key for ever",
        file: "agent/src/core/mod.rs",
        original: "const KEY_AGE_MAX: Duration = Duration::from_hours(24);",
        broken: "const KEY_AGE_MAX: Duration = Duration::from_hours(24 * 365);",
        only: None,
    },
    Mutant {
        name: "a failed commit leaves the chain's end where it was",
        file: "agent/src/core/book/changes.rs",
        original: "            self.head = head;",
        broken: "            let _ = head;",
        only: None,
    },
    Mutant {
        name: "a failed commit leaves sums as its rows made them",
        file: "agent/src/core/book/changes.rs",
        original: "            self.shrink(growth);",
        broken: "            let _ = growth;",
        only: None,
    },
    Mutant {
        name: "rows are written without what they add to their batch",
        file: "agent/src/ledger/store/write.rs",
        original: "        write_batch_sums(connection, batch)?;",
        broken: "        let _ = batch;",
        only: None,
    },
    Mutant {
        name: "fold rows that are owed",
        file: "agent/src/ledger/retention.rs",
        original: "                _ => None,\n            };\n            let is_late",
        broken: "                _ => Some(\"settled\"),\n            };\n            let is_late",
        only: None,
    },
    Mutant {
        name: "fold what follows a settled batch",
        file: "agent/src/ledger/retention.rs",
        original: "end.unwrap_or(i64::MAX)",
        broken: "end.map_or(i64::MAX, |_| i64::MAX)",
        only: None,
    },
    Mutant {
        name: "forget a licence of which something is owed",
        file: "agent/src/core/machine/membership.rs",
        original: "            return Err(Unforgettable::Owed(owed));",
        broken: "            tracing::trace!(owed);",
        only: None,
    },
    Mutant {
        name: "take what was sent before a crash for not sent",
        file: "agent/src/core/machine/mod.rs",
        original: "                batch.state = BatchState::Unknown { look_at: now.mono };\n                if let Some(sealed) = &mut batch.sealed {\n                    sealed.doubtful = true;\n                    sealed.readings = readings;\n                }\n            }\n            if batch.is_open()",
        broken: "                batch.state = BatchState::Sealed;\n                let _ = readings;\n            }\n            if batch.is_open()",
        only: None,
    },
    Mutant {
        name: "send the key to a server that keeps none",
        file: "agent/src/core/machine/agenda.rs",
        original: "let peer = self.keeps_keys().then(|| self.peer.clone());",
        broken: "let peer = Some(self.peer.clone());",
        only: Some("gateway"),
    },
    Mutant {
        name: "a batch that was counted more than once is no finding",
        file: "agent/src/core/machine/audit.rs",
        original: "let is_repeat = !is_deduplicated && repeats(account, Some(batch.units), surplus);",
        broken: "let is_repeat = is_deduplicated && repeats(account, Some(batch.units), surplus);",
        only: Some("balancer"),
    },
    Mutant {
        name: "a refusal is believed before the total was read",
        file: "agent/src/core/machine/mod.rs",
        original: "            sealed.refused_at = Some(now.mono);",
        broken: "            sealed.refused_at = None;",
        only: Some("balancer"),
    },
    Mutant {
        name: "a total that fell is no finding",
        file: "agent/src/core/machine/audit.rs",
        original: "        self.note_finding(now, no, misfit);\n        true",
        broken: "        let _ = misfit;\n        true",
        only: Some("roll-back"),
    },
    Mutant {
        name: "one reading shows that a batch was not counted",
        file: "agent/src/core/machine/learn.rs",
        original: "if readings.without_at.is_some() && asked_at >= again_at {",
        broken: "if asked_at >= readings.arrives_until || asked_at >= again_at {",
        only: Some("replica"),
    },
    Mutant {
        name: "a cache's answer is fresh",
        file: "agent/src/core/clock.rs",
        original: "            is_fresh: false,",
        broken: "            is_fresh: true,",
        only: Some("cache"),
    },
    Mutant {
        name: "a refusal before the key was looked up is believed",
        file: "agent/src/core/event.rs",
        original: "matches!(self, Self::New | Self::Replayed)",
        broken: "matches!(self, Self::New | Self::Replayed | Self::Echoed)",
        only: Some("early-refusal"),
    },
    Mutant {
        name: "a key is known under any credentials",
        file: "agent/src/core/machine/agenda.rs",
        original: "let is_peer = sealed.peer.as_deref() == Some(self.peer.as_str());",
        broken: "let is_peer = sealed.peer.is_some();",
        only: Some("rotation"),
    },
    Mutant {
        name: "keys of today speak for a batch that was sent without",
        file: "agent/src/core/machine/agenda.rs",
        original: "let is_peer = sealed.peer.as_deref() == Some(self.peer.as_str());",
        broken: "let is_peer = true;",
        only: Some("keys"),
    },
    Mutant {
        name: "a copy is no copy",
        file: "agent/src/core/instance.rs",
        original: "(Some((was, now)), _) => was != now,",
        broken: "(Some((was, now)), _) => was > now,",
        only: Some("put-back"),
    },
    Mutant {
        name: "a copy goes on with what may have grown in the original",
        file: "agent/src/core/machine/copies.rs",
        original: " && !self.open_at_start.contains(&no);",
        broken: ";",
        only: Some("copy"),
    },
    Mutant {
        name: "the total is followed over a step that may be the batch",
        file: "agent/src/core/machine/unknown.rs",
        original: "            Verdict::Undecidable => self.read_again(now, no, readings.arrives_until),",
        broken: "            Verdict::Undecidable => {\n                self.note_reached(now, no, told);\n                self.read_again(now, no, readings.arrives_until);\n            }",
        only: Some(DEVICES),
    },
    Mutant {
        name: "any step of a batch's size is the batch",
        file: "agent/src/core/machine/unknown.rs",
        original: "verdict == Verdict::Applied && is_shared && !is_close && !has_setting",
        broken: "verdict == Verdict::Applied && is_shared && !is_close && has_setting",
        only: Some(DEVICES),
    },
];

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
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root
        .parent()
        .context("this package lies in its workspace")?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let tree = tempfile::tempdir()?;
    copy(root, tree.path())?;
    let unchanged = build(root, tree.path())?;
    ensure!(
        unchanged.status.success(),
        "the copy does not build: {}",
        text(&unchanged)
    );
    let mut survivors = Vec::new();
    let chosen: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| wanted.is_empty() || wanted.iter().any(|part| mutant.name.contains(part)))
        .collect();
    for mutant in &chosen {
        let started = Instant::now();
        let found = try_mutant(root, tree.path(), mutant).with_context(|| mutant.name)?;
        let took = started.elapsed().as_secs();
        if let Some(how) = found {
            say(&format!(
                "caught in {took:>3} s: {}\n    {how}",
                mutant.name
            ));
        } else {
            say(&format!("NOT CAUGHT: {}", mutant.name));
            survivors.push(mutant.name);
        }
    }
    if !survivors.is_empty() {
        bail!(
            "{} of {} mutants survive {SEEDS} seeds",
            survivors.len(),
            chosen.len()
        );
    }
    say(&format!(
        "all {} mutants are caught within {SEEDS} seeds",
        chosen.len()
    ));
    Ok(())
}

/// Puts a mutant in, lets the simulation look for it, and takes it out. Returns how it was found.
fn try_mutant(root: &Path, tree: &Path, mutant: &Mutant) -> anyhow::Result<Option<String>> {
    let path = tree.join(mutant.file);
    let source = std::fs::read_to_string(&path)?;
    ensure!(
        source.matches(mutant.original).count() > 0,
        "{} does not hold what is to be broken any more",
        mutant.file
    );
    std::fs::write(&path, source.replacen(mutant.original, mutant.broken, 1))?;
    let built = build(root, tree);
    std::fs::write(&path, source)?;
    let built = built?;
    ensure!(
        built.status.success(),
        "it does not build: {}",
        text(&built)
    );
    let simulate = target(root).join("debug/simulate");
    let worlds = match mutant.only {
        Some(DEVICES) => vec!["--devices", "3", "--verdicts", SEEDS],
        Some(kind) => vec!["--seeds", SEEDS, "--only", kind],
        None => vec!["--seeds", SEEDS, "--plain"],
    };
    let simulated = Command::new(simulate).args(worlds).output()?;
    if simulated.status.success() {
        return Ok(None);
    }
    let output = text(&simulated);
    let is_how = |line: &&str| line.contains(" fails after ") || line.contains(" in doubt: ");
    let how = output.lines().find(is_how);
    Ok(Some(how.unwrap_or("the simulation panicked").to_owned()))
}

fn build(root: &Path, tree: &Path) -> anyhow::Result<Output> {
    Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--quiet",
            "-p",
            "tally-tests",
            "--bin",
            "simulate",
        ])
        // Of what is built already only the programs have a place of their own: a broken one must not be
        // taken for the real one.
        .env("CARGO_BUILD_BUILD_DIR", build_dir(root))
        .env("CARGO_TARGET_DIR", target(root))
        .current_dir(tree)
        .output()
        .context("cannot run cargo")
}

fn target(root: &Path) -> PathBuf {
    build_dir(root).join("mutants")
}

fn build_dir(root: &Path) -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root.join(given.unwrap_or_else(|| "target".into()))
}

/// Copies the sources of a workspace.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            if name != "target" && name != ".git" {
                std::fs::create_dir_all(&target)?;
                copy(&entry.path(), &target)?;
            }
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

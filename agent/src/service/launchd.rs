//! launchd: a daemon of the device, or an agent of one user. A property list says which.

use std::path::PathBuf;

use directories::BaseDirs;

use super::{Plan, Scope, ServiceError, State, Step, Target, run, user_id, words};

const LABEL: &str = "tally";
const PLIST: &str = include_str!("../../../packaging/tally.plist");
const SETTINGS: &str = include_str!("../../../packaging/tally.toml");
const SETTINGS_FILE: &str = "/etc/tally/tally.toml";
const DATA_DIR: &str = "/Library/Application Support/tally";
const LOG_FILE: &str = "/Library/Logs/tally/tally.log";

/// Where things are, for one of the two.
struct Places {
    plist: PathBuf,
    domain: String,
    data_dir: PathBuf,
    arguments: Vec<String>,
}

pub(super) fn install(target: &Target) -> Result<Plan, ServiceError> {
    no_other_root(target)?;
    let places = places(target)?;
    let mut steps = vec![Step::Write {
        path: places.plist.clone(),
        content: plist(&places.arguments),
    }];
    if target.scope == Scope::System {
        steps.push(Step::WriteOnce {
            path: PathBuf::from(SETTINGS_FILE),
            content: SETTINGS.to_owned(),
        });
    }
    let plist = places.plist.display().to_string();
    let load = words(&["launchctl", "bootstrap", &places.domain, &plist]);
    let mut notes = Vec::new();
    if target.start {
        if is_loaded(&places) {
            // It would go on by the old definition.
            let label = format!("{}/{LABEL}", places.domain);
            steps.push(Step::Run {
                command: words(&["launchctl", "bootout", &label]),
            });
        }
        steps.push(Step::Run { command: load });
        notes.push("The service runs, and starts by itself from now on.".to_owned());
    } else {
        notes.push(format!(
            "The service starts by itself from now on; it was not started: {}",
            load.join(" ")
        ));
    }
    if target.scope == Scope::System {
        notes.push(format!(
            "It runs as root. Settings: {SETTINGS_FILE}; with credentials in it: chmod 600 {SETTINGS_FILE}"
        ));
    }
    Ok(Plan { steps, notes })
}

pub(super) fn uninstall(target: &Target) -> Result<Plan, ServiceError> {
    no_other_root(target)?;
    let places = places(target)?;
    let mut steps = Vec::new();
    if is_loaded(&places) {
        let label = format!("{}/{LABEL}", places.domain);
        steps.push(Step::Run {
            command: words(&["launchctl", "bootout", &label]),
        });
    }
    steps.push(Step::Remove { path: places.plist });
    Ok(Plan {
        steps,
        notes: vec![
            "The service was stopped and removed.".to_owned(),
            format!(
                "The data directory stays, with what is owed: {}",
                places.data_dir.display()
            ),
        ],
    })
}

pub(super) fn state(target: &Target) -> Result<State, ServiceError> {
    no_other_root(target)?;
    let places = places(target)?;
    let label = format!("{}/{LABEL}", places.domain);
    let answer = run(&words(&["launchctl", "print", &label])).unwrap_or_default();
    let installed = places.plist.exists();
    let found = |name: &str| {
        let mut lines = answer
            .lines()
            .filter_map(|line| line.trim().split_once(" = "));
        lines
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    };
    let state = found("state").unwrap_or("not loaded").to_owned();
    Ok(State {
        manager: "launchd",
        scope: target.scope,
        installed,
        enabled: installed,
        running: state == "running",
        state,
        pid: found("pid").and_then(|pid| pid.parse().ok()),
        file: installed.then_some(places.plist),
        data_dir: places.data_dir,
    })
}

fn places(target: &Target) -> Result<Places, ServiceError> {
    let program = target.program.display().to_string();
    let mut arguments = words(&[&program, "run"]);
    let own = |given: PathBuf| target.data_dir.clone().unwrap_or(given);
    match target.scope {
        Scope::System => {
            let data_dir = own(PathBuf::from(DATA_DIR));
            let folder = data_dir.display().to_string();
            arguments.extend(words(&["--config", SETTINGS_FILE, "--data-dir", &folder]));
            arguments.extend(words(&["--log-file", LOG_FILE]));
            Ok(Places {
                plist: PathBuf::from(format!("/Library/LaunchDaemons/{LABEL}.plist")),
                domain: "system".to_owned(),
                data_dir,
                arguments,
            })
        }
        Scope::User => {
            let home = BaseDirs::new().ok_or(ServiceError::NoHome)?;
            let home = home.home_dir();
            let data_dir = own(home.join("Library/Application Support/tally"));
            let folder = data_dir.display().to_string();
            let log = home.join("Library/Logs/tally/tally.log");
            arguments.extend(words(&["--data-dir", &folder, "--log-file"]));
            arguments.push(log.display().to_string());
            Ok(Places {
                plist: home.join(format!("Library/LaunchAgents/{LABEL}.plist")),
                domain: format!("gui/{}", user_id()),
                data_dir,
                arguments,
            })
        }
    }
}

fn is_loaded(places: &Places) -> bool {
    let label = format!("{}/{LABEL}", places.domain);
    run(&words(&["launchctl", "print", &label])).is_ok()
}

fn no_other_root(target: &Target) -> Result<(), ServiceError> {
    match &target.root {
        Some(_) => Err(ServiceError::Unsupported(
            "--root is for systemd; here, install on the device itself",
        )),
        None => Ok(()),
    }
}

fn plist(arguments: &[String]) -> String {
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| format!("    <string>{}</string>", escaped(argument)))
        .collect();
    PLIST.replace("@ARGUMENTS@", &arguments.join("\n"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_daemon_is_written_and_not_loaded_where_that_is_not_asked_for() {
        let target = Target {
            scope: Scope::System,
            program: PathBuf::from("/opt/a & b/tally"),
            data_dir: None,
            root: None,
            start: false,
        };
        let plan = install(&target).unwrap();
        let [
            Step::Write { path, content },
            Step::WriteOnce { path: settings, .. },
        ] = plan.steps.as_slice()
        else {
            panic!("{plan:?}");
        };
        assert_eq!(path, Path::new("/Library/LaunchDaemons/tally.plist"));
        assert_eq!(settings, Path::new(SETTINGS_FILE));
        let wanted = "    <string>/opt/a &amp; b/tally</string>\n    <string>run</string>\n    \
                      <string>--config</string>\n";
        assert!(content.contains(wanted), "{content}");
        assert!(plan.notes[0].contains("launchctl bootstrap system"));
    }
}

//! systemd. The device's service is packaging/tally.service as it is, but for where the program is.

use std::path::{Path, PathBuf};

use directories::BaseDirs;

use super::{Plan, Scope, ServiceError, State, Step, Target, is_root, run, words};

/// The unit of the device's service; packages ship it as it is.
pub const SYSTEM_UNIT: &str = include_str!("../../../packaging/tally.service");

/// The unit of a user's service, without its command.
pub const USER_UNIT: &str = include_str!("../../../packaging/tally-user.service");

/// The settings that the device's service begins with.
const SETTINGS: &str = include_str!("../../../packaging/tally.toml");

const UNIT: &str = "tally.service";
const PROGRAM: &str = "/usr/bin/tally";
const DATA_DIR: &str = "/var/lib/tally";
const CREDENTIALS: [&str; 2] = [
    "/etc/tally/credentials/server_api_key",
    "/etc/tally/credentials/server_shared_key",
];

/// What the unit keeps the service from seeing (`ProtectHome`, `PrivateTmp`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Where packages put units.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) fn install(target: &Target) -> Result<Plan, ServiceError> {
    match (target.scope, &target.root) {
        (Scope::System, None) => install_here(target),
        (Scope::System, Some(root)) => Ok(install_into(root)),
        (Scope::User, _) => install_for_user(target),
    }
}

fn install_here(target: &Target) -> Result<Plan, ServiceError> {
    check_data_dir(target)?;
    let packaged = packaged();
    if packaged.is_none() {
        check_visible(&target.program)?;
    }
    check_manager(Scope::System)?;
    if target.start
        && let Some(path) = CREDENTIALS.map(PathBuf::from).into_iter().find(|path| {
            // Only root may look; who may not is told by the step that fails.
            is_root() && !path.exists()
        })
    {
        return Err(ServiceError::NoCredential { path });
    }
    let mut plan = Plan::default();
    match packaged {
        Some(file) => plan
            .notes
            .push(format!("{} is a package's, and stays", file.display())),
        None => plan.steps.push(Step::Write {
            path: system_unit(Path::new("/")),
            content: system_unit_for(&target.program),
        }),
    }
    plan.steps.push(settings(Path::new("/")));
    plan.steps
        .push(step(systemctl(Scope::System, &["daemon-reload"])));
    plan.steps.push(enable(target));
    plan.notes
        .push(started(target, "sudo systemctl start tally"));
    plan.notes.extend([
        "Settings: /etc/tally/tally.toml. Credentials, which only root and the service can read:"
            .to_owned(),
        format!("  sudo install -D -m 600 /dev/stdin {}", CREDENTIALS[0]),
        format!("  sudo install -D -m 600 /dev/stdin {}", CREDENTIALS[1]),
    ]);
    Ok(plan)
}

/// For the image of a device: nothing of the running system is touched.
fn install_into(root: &Path) -> Plan {
    Plan {
        steps: vec![
            Step::Write {
                path: system_unit(root),
                content: SYSTEM_UNIT.to_owned(),
            },
            settings(root),
            step(offline(root, "enable")),
        ],
        notes: vec![format!(
            "The service starts with the device. The program belongs at {PROGRAM}, the credentials at {} and {}.",
            CREDENTIALS[0], CREDENTIALS[1]
        )],
    }
}

fn install_for_user(target: &Target) -> Result<Plan, ServiceError> {
    check_manager(Scope::User)?;
    let path = user_unit()?;
    let mut command = vec![quoted(&target.program), "run".to_owned()];
    if let Some(folder) = &target.data_dir {
        command.extend(["--data-dir".to_owned(), quoted(folder)]);
    }
    let content = USER_UNIT.replace("@COMMAND@", &command.join(" "));
    Ok(Plan {
        steps: vec![
            Step::Write { path, content },
            step(systemctl(Scope::User, &["daemon-reload"])),
            enable(target),
        ],
        notes: vec![
            started(target, "systemctl --user start tally"),
            format!(
                "Settings and credentials: {} (mode 0600).",
                crate::config::paths::default_config_file().map_or_else(
                    || "the config file".to_owned(),
                    |path| path.display().to_string()
                )
            ),
            "It runs while you are logged in; `loginctl enable-linger` keeps it running."
                .to_owned(),
        ],
    })
}

pub(super) fn uninstall(target: &Target) -> Result<Plan, ServiceError> {
    let data_dir = data_dir(target)?;
    let stays = format!(
        "The data directory stays, with what is owed: {}",
        data_dir.display()
    );
    if let Some(root) = &target.root {
        let path = system_unit(root);
        return Ok(Plan {
            steps: vec![step(offline(root, "disable")), Step::Remove { path }],
            notes: vec![stays],
        });
    }
    let file = match target.scope {
        Scope::System => system_unit(Path::new("/")),
        Scope::User => user_unit()?,
    };
    if !file.exists() {
        return match packaged().filter(|_| target.scope == Scope::System) {
            Some(file) => Err(ServiceError::Packaged { file }),
            None => Ok(Plan {
                steps: Vec::new(),
                notes: vec!["no service is installed".to_owned(), stays],
            }),
        };
    }
    check_manager(target.scope)?;
    Ok(Plan {
        steps: vec![
            step(systemctl(target.scope, &["disable", "--now", UNIT])),
            Step::Remove { path: file },
            step(systemctl(target.scope, &["daemon-reload"])),
        ],
        notes: vec!["The service was stopped and removed.".to_owned(), stays],
    })
}

pub(super) fn state(target: &Target) -> Result<State, ServiceError> {
    let data_dir = data_dir(target)?;
    let file = match target.scope {
        Scope::System => Some(system_unit(
            target.root.as_deref().unwrap_or(Path::new("/")),
        )),
        Scope::User => user_unit().ok(),
    };
    let file = file.filter(|file| file.exists());
    let mut state = State {
        manager: "systemd",
        scope: target.scope,
        installed: file.is_some(),
        enabled: false,
        running: false,
        state: String::new(),
        pid: None,
        file,
        data_dir,
    };
    let properties = "--property=LoadState,ActiveState,SubState,UnitFileState,FragmentPath,MainPID";
    if let Some(root) = &target.root {
        state.enabled = run(&offline(root, "is-enabled")).is_ok();
        "this is the image of another system".clone_into(&mut state.state);
        return Ok(state);
    }
    match run(&systemctl(target.scope, &["show", UNIT, properties])) {
        Ok(answer) => read(&answer, &mut state),
        Err(ServiceError::Failed { reason, .. }) => state.state = reason,
        Err(other) => return Err(other),
    }
    Ok(state)
}

/// Reads what `systemctl show` prints: a property a line.
fn read(answer: &str, state: &mut State) {
    let property = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    };
    state.installed = property("LoadState") == "loaded";
    state.enabled = matches!(property("UnitFileState"), "enabled" | "enabled-runtime");
    state.running = matches!(property("ActiveState"), "active" | "reloading");
    state.state = match (property("ActiveState"), property("SubState")) {
        (active, "") => active.to_owned(),
        (active, sub) => format!("{active} ({sub})"),
    };
    state.pid = property("MainPID").parse().ok().filter(|pid| *pid != 0);
    let file = property("FragmentPath");
    if !file.is_empty() {
        state.file = Some(PathBuf::from(file));
    }
}

/// The unit, for a program that is elsewhere than a package's.
pub fn system_unit_for(program: &Path) -> String {
    let ours = format!("ExecStart={PROGRAM} ");
    SYSTEM_UNIT.replace(&ours, &format!("ExecStart={} ", quoted(program)))
}

/// A word of a unit's command line: systemd takes blanks, quotes, `%` and `$` for more than they are.
fn quoted(word: &Path) -> String {
    let word = word.to_string_lossy().replace('%', "%%").replace('$', "$$");
    if word.contains([' ', '\t', '"', '\'', '\\', ';']) {
        let word = word.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{word}\"");
    }
    word
}

fn settings(root: &Path) -> Step {
    Step::WriteOnce {
        path: root.join("etc/tally/tally.toml"),
        content: SETTINGS.to_owned(),
    }
}

fn system_unit(root: &Path) -> PathBuf {
    root.join("etc/systemd/system").join(UNIT)
}

fn user_unit() -> Result<PathBuf, ServiceError> {
    let folders = BaseDirs::new().ok_or(ServiceError::NoHome)?;
    Ok(folders.config_dir().join("systemd/user").join(UNIT))
}

fn packaged() -> Option<PathBuf> {
    let mut units = PACKAGED.iter().map(|folder| Path::new(folder).join(UNIT));
    units.find(|unit| unit.exists())
}

fn data_dir(target: &Target) -> Result<PathBuf, ServiceError> {
    match target.scope {
        Scope::System => {
            check_data_dir(target)?;
            Ok(PathBuf::from(DATA_DIR))
        }
        Scope::User => crate::config::paths::data_dir(target.data_dir.clone())
            .map_err(|_| ServiceError::NoHome),
    }
}

fn check_data_dir(target: &Target) -> Result<(), ServiceError> {
    match &target.data_dir {
        Some(other) if other != Path::new(DATA_DIR) => {
            Err(ServiceError::DataDir { wanted: DATA_DIR })
        }
        _ => Ok(()),
    }
}

fn check_visible(program: &Path) -> Result<(), ServiceError> {
    match HIDDEN.iter().find(|folder| program.starts_with(folder)) {
        Some(folder) => Err(ServiceError::Hidden {
            program: program.to_owned(),
            folder,
        }),
        None => Ok(()),
    }
}

fn check_manager(scope: Scope) -> Result<(), ServiceError> {
    let asked = run(&systemctl(scope, &["show", "--property=Version"]));
    asked.map(|_| ()).map_err(|error| match error {
        ServiceError::Failed { reason, .. } => ServiceError::NoManager {
            manager: match scope {
                Scope::System => "systemd",
                Scope::User => "your systemd",
            },
            reason,
            otherwise: match scope {
                Scope::System => {
                    ", or write the service into the image of a device with --root DIR"
                }
                Scope::User => "",
            },
        },
        other => other,
    })
}

fn enable(target: &Target) -> Step {
    let arguments: &[&str] = if target.start {
        &["enable", "--now", UNIT]
    } else {
        &["enable", UNIT]
    };
    step(systemctl(target.scope, arguments))
}

fn started(target: &Target, start: &str) -> String {
    if target.start {
        return "The service runs, and starts by itself from now on.".to_owned();
    }
    format!("The service starts by itself from now on; it was not started: {start}")
}

fn systemctl(scope: Scope, arguments: &[&str]) -> Vec<String> {
    let program: &[&str] = match scope {
        Scope::System => &["systemctl"],
        Scope::User => &["systemctl", "--user"],
    };
    words(&[program, arguments].concat())
}

/// For a system that does not run.
fn offline(root: &Path, what: &str) -> Vec<String> {
    let root = format!("--root={}", root.display());
    words(&["systemctl", &root, what, UNIT])
}

fn step(command: Vec<String>) -> Step {
    Step::Run { command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_packaged_one_but_for_its_program() {
        let unit = system_unit_for(Path::new("/opt/50% off/tally"));
        let changed: Vec<&str> = unit
            .lines()
            .filter(|line| !SYSTEM_UNIT.lines().any(|other| other == *line))
            .collect();
        let wanted = "ExecStart=\"/opt/50%% off/tally\" run --config /etc/tally/tally.toml --data-dir /var/lib/tally";
        assert_eq!(changed, [wanted]);
        assert_eq!(unit.lines().count(), SYSTEM_UNIT.lines().count());
        assert_eq!(system_unit_for(Path::new(PROGRAM)), SYSTEM_UNIT);
    }

    #[test]
    fn a_program_that_the_service_cannot_see_is_refused_with_what_to_type() {
        let refused = check_visible(Path::new("/home/ada/.cargo/bin/tally")).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("sudo install -m 755 '/home/ada/.cargo/bin/tally'"),
            "{said}"
        );
        assert!(check_visible(Path::new("/usr/local/bin/tally")).is_ok());
    }
}

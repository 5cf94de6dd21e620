//! Windows' service manager, by its own tool (`sc.exe`). The service runs as `LocalService`, whose profile
//! nobody but it and administrators can read.

use std::path::PathBuf;

use super::{Plan, Scope, ServiceError, State, Step, Target, run, words};

const NAME: &str = "tally";
const PROFILE: &str = r"C:\Windows\ServiceProfiles\LocalService\AppData";

pub(super) fn install(target: &Target) -> Result<Plan, ServiceError> {
    check(target)?;
    let log = format!(r"{PROFILE}\Local\tally\log\tally.log");
    let (program, data_dir) = (target.program.display(), data_dir(target));
    let command = format!(
        r#""{program}" run --data-dir "{}" --log-file "{log}""#,
        data_dir.display()
    );
    let verb = if is_installed() { "config" } else { "create" };
    let mut steps = vec![
        sc(&[
            verb,
            NAME,
            "binPath=",
            &command,
            "start=",
            "delayed-auto",
            "obj=",
            r"NT AUTHORITY\LocalService",
            "DisplayName=",
            "Tally",
        ]),
        sc(&[
            "failure",
            NAME,
            "reset=",
            "86400",
            "actions=",
            "restart/2000",
        ]),
    ];
    let mut notes = Vec::new();
    if target.start {
        steps.push(sc(&["start", NAME]));
        notes.push("The service runs, and starts by itself from now on.".to_owned());
    } else {
        notes.push(
            "The service starts by itself from now on; it was not started: sc.exe start tally"
                .to_owned(),
        );
    }
    notes.push(format!(
        r"Settings and credentials: {PROFILE}\Roaming\tally\config\tally.toml"
    ));
    Ok(Plan { steps, notes })
}

pub(super) fn uninstall(target: &Target) -> Result<Plan, ServiceError> {
    check(target)?;
    let stays = format!(
        "The data directory stays, with what is owed: {}",
        data_dir(target).display()
    );
    if !is_installed() {
        return Ok(Plan {
            steps: Vec::new(),
            notes: vec!["no service is installed".to_owned(), stays],
        });
    }
    let mut steps = Vec::new();
    if state(target)?.running {
        steps.push(sc(&["stop", NAME]));
    }
    steps.push(sc(&["delete", NAME]));
    Ok(Plan {
        steps,
        notes: vec!["The service was stopped and removed.".to_owned(), stays],
    })
}

pub(super) fn state(target: &Target) -> Result<State, ServiceError> {
    check(target)?;
    let answer = run(&words(&["sc.exe", "queryex", NAME]));
    let installed = answer.is_ok();
    let answer = answer.unwrap_or_default();
    let found = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(found, _)| found.trim() == name)
            .map(|(_, value)| value.trim())
    };
    // "4  RUNNING"; the number does not depend on the language.
    let number = found("STATE").and_then(|state| state.split_whitespace().next());
    Ok(State {
        manager: "windows",
        scope: target.scope,
        installed,
        enabled: installed,
        running: number == Some("4"),
        state: found("STATE").unwrap_or("not installed").to_owned(),
        pid: found("PID")
            .and_then(|pid| pid.parse().ok())
            .filter(|pid| *pid != 0),
        file: None,
        data_dir: data_dir(target),
    })
}

fn is_installed() -> bool {
    run(&words(&["sc.exe", "query", NAME])).is_ok()
}

fn data_dir(target: &Target) -> PathBuf {
    let own = || PathBuf::from(format!(r"{PROFILE}\Local\tally\data"));
    target.data_dir.clone().unwrap_or_else(own)
}

fn check(target: &Target) -> Result<(), ServiceError> {
    match (&target.root, target.scope) {
        (Some(_), _) => Err(ServiceError::Unsupported(
            "--root is for systemd; here, install on the device itself",
        )),
        (None, Scope::User) => Err(ServiceError::Unsupported(
            "Windows has no services of users; leave --user away",
        )),
        (None, Scope::System) => Ok(()),
    }
}

fn sc(arguments: &[&str]) -> Step {
    Step::Run {
        command: words(&[&["sc.exe"], arguments].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_localservice_is_made_and_not_started_where_that_is_not_asked_for() {
        let target = Target {
            scope: Scope::System,
            program: PathBuf::from(r"C:\Program Files\tally\tally.exe"),
            data_dir: None,
            root: None,
            start: false,
        };
        let plan = install(&target).unwrap();
        let Some(Step::Run { command }) = plan.steps.first() else {
            panic!("{plan:?}");
        };
        assert_eq!(command[..4], ["sc.exe", "create", "tally", "binPath="]);
        assert!(command[4].starts_with(r#""C:\Program Files\tally\tally.exe" run --data-dir ""#));
        assert!(command.contains(&r"NT AUTHORITY\LocalService".to_owned()));
        assert_eq!(plan.steps.len(), 2, "{plan:?}");
    }
}

//! The folder, who can look into it, and the room that is left.

use super::Check;
use crate::{app, cli::human, config::paths::DataDir, file_system, owner};

/// With less than this, the log and a backup may not fit.
#[cfg(unix)]
const FREE_MIN: u64 = 64 * 1024 * 1024;

pub(super) fn folder(data_dir: &DataDir) -> Check {
    const NAME: &str = "data directory";
    let path = data_dir.path().display().to_string();
    match std::fs::metadata(data_dir.path()) {
        Ok(found) if found.is_dir() => Check::fine(NAME, path),
        Ok(_) => Check::problem(
            NAME,
            format!("{path} is no folder"),
            "name another with --data-dir",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::problem(
            NAME,
            format!("{path} does not exist"),
            "`tally run` makes it; or name another with --data-dir",
        ),
        Err(error) => Check::failed(NAME, error, "run this command as the user of the agent"),
    }
}

pub(super) fn file_system(data_dir: &DataDir) -> Check {
    const NAME: &str = "file system";
    match file_system::risky(data_dir.path()) {
        None => Check::fine(
            NAME,
            "a ledger is safe on it, as far as can be told".to_owned(),
        ),
        Some(risky) => Check::problem(
            NAME,
            format!("the data directory is on {}: {}", risky.name, risky.risk()),
            risky.advice(),
        ),
    }
}

pub(super) fn modes(data_dir: &DataDir) -> Check {
    const NAME: &str = "modes";
    match app::check_secrets(data_dir, owner::user_of(data_dir.path())) {
        Ok(()) => Check::fine(
            NAME,
            "folder, keys and tokens are their owner's alone".to_owned(),
        ),
        Err(error) => Check::failed(NAME, error, "close it: `tally run` refuses to start so"),
    }
}

pub(super) fn space(data_dir: &DataDir) -> Vec<Check> {
    let mut checks = vec![reserve(data_dir)];
    #[cfg(unix)]
    checks.push(free(data_dir));
    checks
}

#[cfg(unix)]
fn free(data_dir: &DataDir) -> Check {
    const NAME: &str = "disk space";
    let found = match rustix::fs::statvfs(data_dir.path()) {
        Ok(found) => found,
        Err(error) => return Check::failed(NAME, error, "see whether the disk is mounted"),
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{} are free", human::bytes(free));
    if free < FREE_MIN {
        let fix = format!("make space: less than {} is little", human::bytes(FREE_MIN));
        return Check::problem(NAME, text, &fix);
    }
    Check::fine(NAME, text)
}

fn reserve(data_dir: &DataDir) -> Check {
    const NAME: &str = "reserve";
    if data_dir.reserve().exists() {
        return Check::fine(NAME, "space is set aside for a full disk".to_owned());
    }
    if !data_dir.ledger().exists() {
        return Check::fine(NAME, "set aside at the first start".to_owned());
    }
    Check::problem(
        NAME,
        "no space is set aside for a full disk".to_owned(),
        "make space on the disk; the agent then sets it aside by itself",
    )
}

//! Which processes have the ledger open, wherever its name leads by now.

#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};

use crate::config::paths::DataDir;

/// The numbers of the processes that have the ledger of this folder open, as far as this user may see them.
#[cfg(target_os = "linux")]
pub(in crate::cli) fn holders(data_dir: &DataDir) -> Vec<u32> {
    let ledger = resolved(&data_dir.ledger());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    numbers
        .filter(|number| *number != own && holds(*number, &ledger))
        .collect()
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
pub(in crate::cli) fn holders(_data_dir: &DataDir) -> Vec<u32> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn holds(process: u32, ledger: &Path) -> bool {
    const DELETED: &str = " (deleted)";
    let files = std::fs::read_dir(format!("/proc/{process}/fd"));
    let files = files.into_iter().flatten().flatten();
    files
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|path| {
            let text = path.to_string_lossy();
            Path::new(text.strip_suffix(DELETED).unwrap_or(&text)) == ledger
        })
}

/// The path as the system names it, of which the end may be gone.
#[cfg(target_os = "linux")]
fn resolved(path: &Path) -> PathBuf {
    if let Ok(found) = std::fs::canonicalize(path) {
        return found;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

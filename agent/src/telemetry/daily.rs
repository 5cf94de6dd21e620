//! A log that is begun anew each day, in UTC: `NAME.2026-11-25`, with `NAME` as a link to the newest. Of these files, and
//! of no others, the oldest are taken away.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tally_shared::time::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use crate::private_file;

/// Letters of a day: `2026-11-25`.
const DAY_BYTES: usize = 10;

/// Where lines go.
pub(super) struct DailyFile {
    folder: PathBuf,
    name: OsString,
    /// How many days have a file of their own.
    days: usize,
    current: Mutex<Current>,
}

/// The file of a day.
struct Current {
    day: String,
    file: File,
}

/// Writes a line, or a part of one, while nobody else does.
pub(super) struct Line<'a>(MutexGuard<'a, Current>);

impl DailyFile {
    /// Opens the file of this day in a folder that is there.
    pub(super) fn open(folder: &Path, name: &OsStr, days: usize) -> io::Result<Self> {
        let day = today();
        let file = open_day(folder, name, &day, days)?;
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            days,
            current: Mutex::new(Current { day, file }),
        })
    }
}

impl<'a> MakeWriter<'a> for DailyFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let day = today();
        if day != current.day {
            // Where it cannot be begun, the log goes on in the old one.
            if let Ok(file) = open_day(&self.folder, &self.name, &day, self.days) {
                *current = Current { day, file };
            }
        }
        Line(current)
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file.flush()
    }
}

fn today() -> String {
    let mut day = Timestamp::from_system_time(SystemTime::now()).to_string();
    day.truncate(DAY_BYTES);
    day
}

fn open_day(folder: &Path, name: &OsStr, day: &str, days: usize) -> io::Result<File> {
    let of_day = of_day(name, day);
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    private_file::follow_no_link(&mut options);
    let file = options.open(folder.join(&of_day))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    // The log goes on without a link, and with files that are too old.
    let _ = link(folder, name, &of_day);
    let _ = prune(folder, name, days);
    Ok(file)
}

/// Whether something else than a link to a file of this log has its name.
pub(super) fn is_taken(folder: &Path, name: &OsStr) -> bool {
    let place = folder.join(name);
    let is_ours = || {
        let target = fs::read_link(&place).ok()?;
        day_of(name, target.file_name()?)
    };
    fs::symlink_metadata(&place).is_ok() && is_ours().is_none()
}

fn of_day(name: &OsStr, day: &str) -> OsString {
    let mut of_day = name.to_owned();
    of_day.push(".");
    of_day.push(day);
    of_day
}

#[cfg(unix)]
fn link(folder: &Path, name: &OsStr, of_day: &OsStr) -> io::Result<()> {
    let place = folder.join(name);
    if is_taken(folder, name) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(of_day, place)
}

/// Other systems' links are for administrators.
#[cfg(not(unix))]
const fn link(_folder: &Path, _name: &OsStr, _of_day: &OsStr) -> io::Result<()> {
    Ok(())
}

/// Takes the oldest files of this log away, beyond so many.
fn prune(folder: &Path, name: &OsStr, days: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        found.extend(
            day_of(name, &entry.file_name())
                .filter(|_| is_file)
                .map(|day| (day, entry.path())),
        );
    }
    found.sort();
    found.truncate(found.len().saturating_sub(days));
    found.iter().try_for_each(|(_, path)| fs::remove_file(path))
}

/// The day of a file of this log.
fn day_of(name: &OsStr, file: &OsStr) -> Option<String> {
    let day = file
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())?;
    let day = std::str::from_utf8(day.strip_prefix(b".")?).ok()?;
    // What is a day is written in one way only.
    let midnight = Timestamp::parse(&format!("{day}T00:00:00Z"))?;
    let is_day = day.len() == DAY_BYTES && midnight.to_string().starts_with(day);
    is_day.then(|| day.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_log_has_its_name_and_a_day_and_nothing_else() {
        let day = |file: &str| day_of(OsStr::new("tally.log"), OsStr::new(file));
        assert_eq!(day("tally.log.2026-11-25").as_deref(), Some("2026-11-25"));
        for other in [
            "tally.log",
            "tally.log.",
            "tally.log.2026-11-2",
            "tally.log.2026-11-255",
            "tally.log.2026-13-25",
            "tally.log.2026-02-30",
            "tally.log.2026_11_25",
            "tally.log.2026-11-25.gz",
            "tally.log-2026-11-25",
            "tally.2026-11-25",
            "other.tally.log.2026-11-25",
        ] {
            assert_eq!(day(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_days_stay() {
        let folder = tempfile::tempdir().unwrap();
        for day in ["2026-01-03", "2026-01-01", "2025-12-31", "2026-01-02"] {
            fs::write(folder.path().join(format!("log.{day}")), "").unwrap();
        }
        prune(folder.path(), OsStr::new("log"), 2).unwrap();
        let files = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log.2026-01-02", "log.2026-01-03"]);
    }
}

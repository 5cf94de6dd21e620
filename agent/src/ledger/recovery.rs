//! Opening the ledger at a start, a damaged one included: it is kept, what can be read of it goes into
//! a new one, and that takes its place, by itself where nothing is missing and by
//! `tally doctor --accept-recovery` where something is. A start never goes on with an empty ledger in
//! place of a damaged one.
//!
//! Each step can be cut off and is taken up by the next start:
//!
//! 1. The damaged files are copied into `damaged-….part`, salvaged into `ledger.recovered.db`, and the
//!    report is written. Cut off here, all of that is begun again.
//! 2. `recovery.json` is written: from here on, that recovery is the one. The folder loses its `.part`.
//! 3. Accepted, the new ledger gets its note, and `recovery.json` says so.
//! 4. The old log is removed, the new ledger takes the old one's name, and `recovery.json` is removed.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tally_shared::time::Timestamp;

pub use super::salvage::{Held, Report};
use super::{
    FILE_NAME, LedgerError, beside, evidence,
    health::{self, Health},
    instances, log_file, salvage, schema, store,
};
use crate::{
    core::{
        book::{Book, NoteKind, Seq},
        chain,
        clock::{Clock, Moment},
    },
    deps::Clocks,
    private_file,
};

const RECOVERED: &str = "ledger.recovered.db";
const STATE: &str = "recovery.json";
const REPORT: &str = "report.json";
const PART: &str = ".part";

/// Why there is no ledger to start with.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It was salvaged, and something is missing.
    #[error(
        "the ledger is damaged ({cause}). It was left as it is and copied into {folder}, and what can \
         be read of it was salvaged; {summary}. Restore a copy of {FILE_NAME} if there is one, or run \
         `tally doctor --accept-recovery` to go on with what was salvaged"
    )]
    Pending {
        /// How it showed.
        cause: String,
        /// Where the damaged files and the report are.
        folder: PathBuf,
        /// What is missing.
        summary: String,
    },
    /// There is nothing to accept.
    #[error(
        "no recovery waits to be accepted: the ledger was not found damaged. `tally run` looks at it \
         at each start, and `tally verify` proves it"
    )]
    NonePending,
    /// It cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a ledger is compared with while it is opened.
pub struct Guard {
    /// What its chain is keyed with.
    pub key: chain::Key,
    /// The mark's file.
    pub mark: PathBuf,
}

impl Guard {
    fn marked(&self) -> Result<Option<(u64, Seq)>, LedgerError> {
        evidence::marked(&self.mark, &self.key)
    }
}

/// Which recovery there is, and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    folder: String,
    cause: String,
    accepted: bool,
    /// The ledger that was salvaged: its length, and when it was last written.
    ledger: Option<(u64, u64)>,
}

/// Opens the ledger in a data directory whose lock is held, salvaging a damaged one. `had_one` says that
/// an earlier run had a ledger here; `guard` is what it is compared with.
///
/// # Errors
///
/// [`RecoveryError::Pending`] where something of it is missing and nobody has accepted that.
pub fn open(
    folder: &Path,
    had_one: bool,
    clocks: &dyn Clocks,
    guard: &Guard,
) -> Result<Connection, RecoveryError> {
    let path = folder.join(FILE_NAME);
    if let Some(state) = take_up(folder)? {
        return Err(pending_error(folder, &state));
    }
    let suspect = suspect_path(&path);
    let thorough = suspect.exists();
    let cause = match health::look(&path, had_one, thorough, &guard.key)? {
        Health::Damaged(cause) => cause,
        Health::New | Health::Sound => match open_sound(&path, &guard.key) {
            Ok(Ok(connection)) => {
                forget(&suspect)?;
                return Ok(connection);
            }
            Ok(Err(cause)) => cause,
            Err(error) if health::is_damage(&error) => health::cause(error),
            Err(error) => return Err(error.into()),
        },
    };
    tracing::error!(cause, "the ledger is damaged: it is salvaged");
    let report = recover(folder, &cause, clocks, guard)?;
    let Some(state) = read_state(folder)?.filter(|_| !report.is_whole) else {
        let report = accept(folder, clocks, guard)?;
        tracing::warn!(
            folder = report.folder,
            cause = report.cause,
            "the ledger was damaged; all of it was salvaged, and the damaged files are kept"
        );
        return Ok(open_prepared(&path)?);
    };
    Err(pending_error(folder, &state))
}

/// The recovery that waits to be accepted, if there is one.
///
/// # Errors
///
/// [`LedgerError`] where its report cannot be read.
pub fn pending(folder: &Path) -> Result<Option<Report>, LedgerError> {
    let state = read_state(folder)?;
    let state = state.filter(|state| state.accepted || folder.join(RECOVERED).exists());
    state.map(|state| read_report(folder, &state)).transpose()
}

/// Puts the salvaged ledger in the place of the damaged one, which stays in its folder. The data
/// directory's lock must be held.
///
/// # Errors
///
/// [`RecoveryError::NonePending`]; or [`LedgerError`], and then it can be tried again.
pub fn accept(folder: &Path, clocks: &dyn Clocks, guard: &Guard) -> Result<Report, RecoveryError> {
    let state = read_state(folder)?.ok_or(RecoveryError::NonePending)?;
    finish_folder(folder, &state)?;
    let report = read_report(folder, &state)?;
    if !state.accepted {
        let recovered = folder.join(RECOVERED);
        if !recovered.exists() {
            return Err(RecoveryError::NonePending);
        }
        write_note(&recovered, &report, clocks, guard)?;
        write_state(
            folder,
            &State {
                accepted: true,
                ..state
            },
        )?;
    }
    put_in_place(folder)?;
    Ok(report)
}

/// Leaves word that damage was met, so that the next start looks at all of the ledger.
pub fn suspect(path: &Path) {
    if path.file_name().is_none() {
        // A ledger in memory.
        return;
    }
    let written = private_file::replace(&suspect_path(path), b"damage was met here\n");
    if let Err(error) = written {
        tracing::warn!(%error, "cannot leave word that the ledger is damaged");
    }
}

fn suspect_path(path: &Path) -> PathBuf {
    beside(path, ".suspect")
}

fn open_sound(path: &Path, key: &chain::Key) -> Result<Result<Connection, String>, LedgerError> {
    let connection = open_prepared(path)?;
    private_file::sync_folder(path).map_err(|source| kept(path, source))?;
    Ok(match health::look_at_books(&connection, false, key)? {
        None => Ok(connection),
        Some(cause) => Err(cause),
    })
}

/// Opens the ledger with a log at its full length.
fn open_prepared(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        // SQLite removes any log that it finds beside a ledger that it makes.
        drop(schema::open(path)?);
    }
    if let Err(error) = log_file::prepare(path) {
        tracing::debug!(%error, "the log will grow as it is written");
    }
    schema::open(path)
}

/// Takes up what an earlier start or a person began. Returns a recovery that waits to be accepted.
fn take_up(folder: &Path) -> Result<Option<State>, LedgerError> {
    let Some(state) = read_state(folder)? else {
        clean_up(folder)?;
        return Ok(None);
    };
    finish_folder(folder, &state)?;
    if state.accepted {
        put_in_place(folder)?;
        return Ok(None);
    }
    let is_same = state.ledger == identify(&folder.join(FILE_NAME));
    if is_same && folder.join(RECOVERED).exists() {
        return Ok(Some(state));
    }
    tracing::warn!(
        "the ledger is another than the one that was salvaged: that recovery is dropped"
    );
    forget(&folder.join(STATE))?;
    clean_up(folder)?;
    Ok(None)
}

fn recover(
    folder: &Path,
    cause: &str,
    clocks: &dyn Clocks,
    guard: &Guard,
) -> Result<Report, LedgerError> {
    let path = folder.join(FILE_NAME);
    let now = clocks.reading().wall;
    let name = free_name(folder, now);
    let part = folder.join(format!("{name}{PART}"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LedgerError::Salvage { path, source }
    };
    private_file::create_folder(&part).map_err(failed(&part))?;
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(&path, suffix), beside(&part.join(FILE_NAME), suffix));
        copy(&from, &to).map_err(failed(&from))?;
    }
    let recovered = folder.join(RECOVERED);
    let mut report = salvage::salvage(&part.join(FILE_NAME), &recovered, now, &guard.key)?;
    miss_the_end(&recovered, guard, &mut report)?;
    report.folder.clone_from(&name);
    cause.clone_into(&mut report.cause);
    settle_file(&recovered)?;
    let text = serde_json::to_vec_pretty(&report).map_err(|error| kept(&part, error.into()))?;
    private_file::create(&part.join(REPORT), &text).map_err(failed(&part))?;
    let state = State {
        folder: name,
        cause: cause.to_owned(),
        accepted: false,
        ledger: identify(&path),
    };
    write_state(folder, &state)?;
    finish_folder(folder, &state)?;
    Ok(report)
}

/// A name that no folder has, with the time in it.
fn free_name(folder: &Path, now: Timestamp) -> String {
    let time = now.to_string().replace(':', "-");
    let names = (1..).map(|count: u32| match count {
        1 => format!("damaged-{time}"),
        _ => format!("damaged-{time}-{count}"),
    });
    let mut free = names.filter(|name| !folder.join(name).exists());
    free.next().unwrap_or_else(|| format!("damaged-{time}"))
}

/// Copies a file that may not exist. What the disk cannot read is left as zeros.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let mut from = match fs::File::open(from) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = from.metadata()?.len();
    private_file::create(to, &[])?;
    let mut to = fs::OpenOptions::new().write(true).open(to)?;
    let mut position = 0;
    let mut buffer = vec![0; 256 * BLOCK];
    while position < length {
        from.seek(SeekFrom::Start(position))?;
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            // Block by block around the place, so that no more than that is lost.
            Err(_) if buffer.len() > BLOCK => {
                buffer.truncate(BLOCK);
                continue;
            }
            Err(_) => {
                buffer.fill(0);
                usize::try_from(length - position).map_or(BLOCK, |left| left.min(BLOCK))
            }
        };
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        position += read as u64;
    }
    to.sync_all()
}

/// Waits until a closed ledger is on disk, alone: its log is in it.
fn settle_file(path: &Path) -> Result<(), LedgerError> {
    let log = beside(path, "-wal");
    if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
        let left = io::Error::other("its write-ahead log is left");
        return Err(kept(&log, left));
    }
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .and_then(|()| private_file::sync_folder(path))
        .map_err(|source| kept(path, source))
}

/// Writes the note that says what happened, unless it stands there already.
fn write_note(
    path: &Path,
    report: &Report,
    clocks: &dyn Clocks,
    guard: &Guard,
) -> Result<(), LedgerError> {
    let mut connection = schema::open(path)?;
    let failed = || LedgerError::while_doing("writing the recovery's note");
    let sql = "SELECT count(*) FROM notes WHERE kind = 'recovery' AND body ->> 'folder' = ?1";
    let count = connection.query_row(sql, [&report.folder], |row| row.get::<_, i64>(0));
    if count.map_err(failed())? == 0 {
        let mut contents = store::load(&connection, &guard.key)?;
        // Places that something speaks of are not given again.
        let last = report
            .known
            .missing_places
            .iter()
            .map(|range| range.1)
            .max();
        let head = contents.head.0.0;
        contents.head.0 = Seq(head.max(last.unwrap_or(head)));
        let now = moment(&connection, clocks)?;
        let mut book = Book::new(contents);
        book.add_note(now, NoteKind::Recovery, note_body(report).to_string());
        let tx = connection.transaction().map_err(failed())?;
        store::write_changes(&tx, &book).map_err(failed())?;
        // Where the damage took what the ledger says of its mark, that is not doubted.
        if let (None, Some((generation, _))) = (store::generation(&tx)?, guard.marked()?) {
            store::write_generation(&tx, generation).map_err(failed())?;
        }
        let damaged = path.with_file_name(FILE_NAME);
        instances::made_anew(&tx, &damaged, path).map_err(failed())?;
        tx.commit().map_err(failed())?;
    }
    let closed = connection.close().map_err(|(_, error)| error);
    closed.map_err(failed())?;
    settle_file(path)
}

/// Rows that the mark beside the ledger knows of, and that left no other trace.
fn miss_the_end(path: &Path, guard: &Guard, report: &mut Report) -> Result<(), LedgerError> {
    let connection = schema::open_read_only(path)?;
    let head = store::load(&connection, &guard.key)?.head.0;
    let last = report.known.missing_places.iter().map(|range| range.1);
    let last = last.max().unwrap_or(0).max(head.0);
    match guard.marked()? {
        Some((_, marked)) if marked.0 > last => {
            let places = (last + 1, marked.0);
            report.missing.push(format!(
                "the newest rows, at the places {} to {}",
                places.0, places.1
            ));
            report.known.missing_places.push(places);
            report.is_whole = false;
        }
        _ => {}
    }
    Ok(())
}

fn note_body(report: &Report) -> serde_json::Value {
    json!({
        "folder": report.folder,
        "cause": report.cause,
        "is_whole": report.is_whole,
        "missing": report.missing,
        "missing_rows": report.missing_rows,
        "missing_units": report.missing_units,
        "held": report.held,
        "missing_places": report.known.missing_places,
        "changed_rows": report.known.changed_rows,
        "missing_in_accounts": report.known.missing_in_accounts,
        "folded_places": report.known.folded_places,
    })
}

fn moment(connection: &Connection, clocks: &dyn Clocks) -> Result<Moment, LedgerError> {
    let reading = clocks.reading();
    let saved = store::load_clock(connection)?;
    let high_water = store::high_water(connection)?;
    Ok(Clock::start(&reading, saved.as_ref(), high_water).now(reading.mono))
}

/// The last step. The old log must be gone before the new ledger has the old one's name: SQLite would
/// write it into the new one.
fn put_in_place(folder: &Path) -> Result<(), LedgerError> {
    let (path, recovered) = (folder.join(FILE_NAME), folder.join(RECOVERED));
    if recovered.exists() {
        for suffix in ["-wal", "-shm"] {
            forget(&beside(&path, suffix))?;
            forget(&beside(&recovered, suffix))?;
        }
        let renamed = fs::rename(&recovered, &path).and_then(|()| private_file::sync_folder(&path));
        renamed.map_err(|source| kept(&path, source))?;
    }
    forget(&suspect_path(&path))?;
    forget(&folder.join(STATE))
}

fn finish_folder(folder: &Path, state: &State) -> Result<(), LedgerError> {
    let part = folder.join(format!("{}{PART}", state.folder));
    if !part.exists() {
        return Ok(());
    }
    let whole = folder.join(&state.folder);
    let renamed = fs::rename(&part, &whole).and_then(|()| private_file::sync_folder(&whole));
    renamed.map_err(|source| kept(&part, source))
}

/// Removes what a start that was cut off left behind.
fn clean_up(folder: &Path) -> Result<(), LedgerError> {
    for suffix in ["", "-wal", "-shm"] {
        forget(&beside(&folder.join(RECOVERED), suffix))?;
    }
    let failed = |source| kept(folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("damaged-") && name.ends_with(PART) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn pending_error(folder: &Path, state: &State) -> RecoveryError {
    match read_report(folder, state) {
        Ok(report) => RecoveryError::Pending {
            cause: state.cause.clone(),
            folder: folder.join(&state.folder),
            summary: report.summary(),
        },
        Err(error) => error.into(),
    }
}

fn read_report(folder: &Path, state: &State) -> Result<Report, LedgerError> {
    let path = folder.join(&state.folder).join(REPORT);
    let text = fs::read(&path).map_err(|source| kept(&path, source))?;
    serde_json::from_slice(&text).map_err(|error| kept(&path, error.into()))
}

fn read_state(folder: &Path) -> Result<Option<State>, LedgerError> {
    let path = folder.join(STATE);
    match fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(state) => Ok(Some(state)),
            Err(error) => Err(kept(&path, error.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(kept(&path, source)),
    }
}

fn write_state(folder: &Path, state: &State) -> Result<(), LedgerError> {
    let path = folder.join(STATE);
    let text = serde_json::to_vec(state).map_err(|error| kept(&path, error.into()))?;
    private_file::replace(&path, &text).map_err(|source| kept(&path, source))
}

fn identify(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    let written = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((found.len(), u64::try_from(written.as_millis()).ok()?))
}

/// Removes a file that may be gone already, for good.
fn forget(path: &Path) -> Result<(), LedgerError> {
    match fs::remove_file(path) {
        Ok(()) => private_file::sync_folder(path).map_err(|source| kept(path, source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(kept(path, source)),
    }
}

fn kept(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Salvage {
        path: path.to_owned(),
        source,
    }
}

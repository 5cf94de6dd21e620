//! The names of the ledger's files, and whether they still lead to the files that this process has open. A ledger that
//! was deleted, moved away or replaced takes rows as before, and nobody would ever find them: so it is written back
//! from the open connection.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use zeroize::Zeroizing;

use super::{LedgerError, beside, copy, instances::Instances, log_file, schema};
use crate::private_file;

/// What is at the names of the ledger's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The files that are open.
    Same,
    /// The ledger, and not its log.
    NoLog,
    /// Nothing.
    Empty,
    /// Another file.
    Taken,
}

/// What became of a ledger that was not at its place.
pub(super) enum Returned {
    /// It is there again, on this connection.
    Back(Connection),
    /// Another file stands at its place: it is kept under this name.
    Kept(PathBuf),
}

/// The files of a ledger that this process has open.
pub struct Files(Option<Open>);

struct Open {
    path: PathBuf,
    ledger: Known,
    log: Option<Known>,
    /// The file of the chain's key, and its content.
    key: (PathBuf, Zeroizing<String>),
}

/// An open file. It is never closed before SQLite has closed the same: that would take SQLite's locks away.
struct Known {
    file: fs::File,
    id: Id,
}

/// The device, and the number of the file on it.
type Id = (u64, u64);

impl Files {
    /// The files of a ledger on a disk that only SQLite knows, as simulations have, are not looked at.
    pub const fn simulated() -> Self {
        Self(None)
    }

    /// The files of the ledger at `path`, which is open, and of the key of its chain.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path, key: &Path) -> io::Result<Self> {
        let content = Zeroizing::new(fs::read_to_string(key)?);
        Ok(Self(Some(Open {
            path: path.to_owned(),
            ledger: Known::open(path)?,
            log: Known::open(&beside(path, "-wal")).ok(),
            key: (key.to_owned(), content),
        })))
    }

    /// Looks at the names. It is in the way of every commit: two questions to the system. What is recorded into a log
    /// that is deleted lives as long as this process does, so that none is answered before it was looked for.
    pub(super) fn look(&mut self) -> Place {
        let Some(Open {
            path, ledger, log, ..
        }) = &mut self.0
        else {
            return Place::Same;
        };
        match (ledger.is_at(path), log) {
            (Some(true), None) => Place::Same,
            (Some(true), Some(log)) => match log.is_at(&beside(path, "-wal")) {
                Some(true) => Place::Same,
                Some(false) | None => Place::NoLog,
            },
            (Some(false), _) => Place::Taken,
            (None, _) => Place::Empty,
        }
    }

    /// Whether they are on a disk of the system's.
    pub(super) const fn are_looked_at(&self) -> bool {
        self.0.is_some()
    }

    /// Where the ledger should be.
    pub(super) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), |open| &open.path)
    }

    /// Makes the folder again, and the key in it, where they are gone.
    pub(super) fn make_folder(&self) -> io::Result<()> {
        let Some(open) = &self.0 else {
            return Ok(());
        };
        if let Some(folder) = open.path.parent() {
            private_file::create_folder(folder)?;
        }
        let (path, content) = &open.key;
        match private_file::create(path, content.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the ledger back to its place, as the open connection has it; never over a file that stands there.
    /// `instances` makes the record of the new file.
    pub(super) fn write_back(
        &mut self,
        connection: &Connection,
        instances: &Instances,
    ) -> Result<Returned, LedgerError> {
        let place = self.look();
        let Some(open) = &mut self.0 else {
            return Err(copy_failed(Path::new(""), io::ErrorKind::NotFound.into()));
        };
        let path = open.path.clone();
        match place {
            Place::Same | Place::NoLog => empty_log(connection)?,
            Place::Empty => {
                let part = beside(&path, ".back");
                write_copy(connection, &part, instances)?;
                open.remove_log()?;
                if put(&part, &path).map_err(|error| copy_failed(&path, error))? {
                    return open.reopen();
                }
                return open.keep(&part).map(Returned::Kept);
            }
            Place::Taken => {
                let part = beside(&path, ".back");
                write_copy(connection, &part, instances)?;
                let kept = open.keep(&part)?;
                open.remove_log()?;
                return Ok(Returned::Kept(kept));
            }
        }
        open.reopen()
    }
}

impl Open {
    fn reopen(&mut self) -> Result<Returned, LedgerError> {
        if let Err(error) = log_file::prepare(&self.path) {
            tracing::debug!(%error, "the log will grow as it is written");
        }
        let connection = schema::open(&self.path)?;
        let failed = |error| copy_failed(&self.path, error);
        self.ledger = Known::open(&self.path).map_err(failed)?;
        self.log = Known::open(&beside(&self.path, "-wal")).ok();
        Ok(Returned::Back(connection))
    }

    /// Removes the log of the ledger that was there: SQLite would write it into whatever stands there next.
    fn remove_log(&mut self) -> Result<(), LedgerError> {
        let log = beside(&self.path, "-wal");
        let is_ours = self.log.as_mut().and_then(|known| known.is_at(&log));
        if is_ours == Some(true) {
            for path in [log, beside(&self.path, "-shm")] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(copy_failed(&path, error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Gives a copy a name that nothing has.
    fn keep(&self, part: &Path) -> Result<PathBuf, LedgerError> {
        for number in 1..u32::MAX {
            let kept = beside(&self.path, &format!(".rescued-{number}"));
            if put(part, &kept).map_err(|error| copy_failed(&kept, error))? {
                return Ok(kept);
            }
        }
        Err(copy_failed(part, io::ErrorKind::AlreadyExists.into()))
    }
}

impl Known {
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let id = id(&file.metadata()?);
        Ok(Self { file, id })
    }

    /// Whether the file is at this name; `None` where nothing is.
    fn is_at(&mut self, path: &Path) -> Option<bool> {
        let found = match fs::metadata(path) {
            Ok(found) => id(&found),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => return None,
                // A disk that fails now says so to the commit as well.
                _ => return Some(true),
            },
        };
        if found != self.id {
            // Some shared file systems number their files anew; then the open one has the new number too.
            self.id = self.file.metadata().map_or(self.id, |own| id(&own));
        }
        Some(found == self.id)
    }
}

#[cfg(unix)]
fn id(found: &fs::Metadata) -> Id {
    use std::os::unix::fs::MetadataExt as _;
    (found.dev(), found.ino())
}

/// Other systems let nobody take away a file that is open.
#[cfg(not(unix))]
fn id(_found: &fs::Metadata) -> Id {
    (0, 0)
}

/// All of the log goes into the ledger, which is at its place.
fn empty_log(connection: &Connection) -> Result<(), LedgerError> {
    let failed = LedgerError::while_doing("copying its log back");
    let is_busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(failed)?;
    if is_busy {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let failed = LedgerError::while_doing("copying its log back");
        return Err(failed(rusqlite::Error::SqliteFailure(busy, None)));
    }
    Ok(())
}

fn write_copy(
    connection: &Connection,
    part: &Path,
    instances: &Instances,
) -> Result<(), LedgerError> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => private_file::create(part, &[]),
    }
    .map_err(|error| copy_failed(part, error))?;
    copy::write_from(connection, part)?;
    // From its first moment on it says that this file is the ledger, and no copy of it.
    instances
        .introduce(part)
        .map_err(LedgerError::while_doing("writing where it is"))?;
    let synced = fs::File::open(part).and_then(|copy| copy.sync_all());
    synced.map_err(|error| copy_failed(part, error))
}

/// Gives a file a name that nothing has; `false` where something has it.
fn put(from: &Path, to: &Path) -> io::Result<bool> {
    // A second name is made, or not: no file that appears meanwhile is written over.
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        // A file system that knows no second names.
        Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(from, to)?,
        Err(_) => return Ok(false),
    }
    private_file::sync_folder(to)?;
    Ok(true)
}

fn copy_failed(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Copy {
        path: path.to_owned(),
        source,
    }
}

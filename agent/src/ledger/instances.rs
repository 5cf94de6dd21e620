//! The record in a ledger of the place that it lives at, and what a start finds it to be.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;
use tally_shared::time::Timestamp;

use super::{
    LedgerError,
    store::{self, INSTANCE},
};
use crate::{
    core::{
        book::Contents,
        doubt::Doubt,
        instance::{Difference, Instance},
    },
    instance,
};

/// The time between two files beside the ledger while rows are written.
const BESIDE_INTERVAL: Duration = Duration::from_hours(1);

/// The instance of a ledger, and the one that it was.
pub(super) struct Instances {
    is: Instance,
    /// What the ledger says of itself; `None` where it says nothing.
    was: Option<Instance>,
    differs: Option<Difference>,
    /// Whether the record is still to be written.
    is_due: bool,
    /// Where the ledger is; `None` on a disk that only SQLite knows.
    path: Option<PathBuf>,
    /// Whether another file was made that is put beside the ledger when the record that names it is on disk.
    is_made: bool,
    /// When the next one is made.
    make_at: Duration,
}

impl Instances {
    /// Compares the place that a ledger lives at with its record, and renews that where it is the same.
    pub(super) fn look(
        connection: &Connection,
        is: Instance,
        path: &Path,
    ) -> Result<Self, LedgerError> {
        let failed = LedgerError::while_doing("looking where it was written");
        let was = read(connection).map_err(failed)?;
        let differs = was.as_ref().and_then(|was| is.differs(was));
        Ok(Self {
            is_due: was.as_ref() != Some(&is),
            is,
            was,
            differs,
            path: Some(path.to_owned()).filter(|path| path.is_absolute()),
            is_made: false,
            make_at: Duration::ZERO,
        })
    }

    /// Makes another file to be beside the ledger, with the first commit, each hour, and when the agent stops: a folder that is
    /// written over in place with an earlier copy keeps the newest one.
    pub(super) fn make_beside(&mut self, now: Duration) {
        if now >= self.make_at {
            self.make(now);
        }
    }

    /// The same when the agent stops, if anything was written since it started.
    pub(super) fn make_last_beside(&mut self, now: Duration) {
        if self.make_at > Duration::ZERO {
            self.make(now);
        }
    }

    fn make(&mut self, now: Duration) {
        let Some(path) = self.path.as_ref().filter(|_| !self.is_made) else {
            return;
        };
        self.make_at = now.saturating_add(BESIDE_INTERVAL);
        match instance::make_beside(path) {
            Ok(made) => {
                let current = instance::beside(path);
                self.is.beside = current.into_iter().chain([made]).collect();
                self.is_made = true;
                self.is_due = true;
            }
            Err(error) => tracing::debug!(%error, "no file can be made beside the ledger"),
        }
    }

    /// What shows that the ledger is a copy, beside what else was found. A ledger that is behind its mark was put back on the
    /// device that it is of: that says more.
    pub(super) fn doubt(
        &self,
        doubts: &mut Vec<Doubt>,
        (written, contents): ((Timestamp, bool), &Contents),
    ) {
        let is_put_back = doubts
            .iter()
            .any(|doubt| matches!(doubt, Doubt::OlderCopy { .. }));
        let (Some(differs), Some(was)) = (self.differs, &self.was) else {
            return;
        };
        if is_put_back || contents.head.0.0 == 0 {
            return;
        }
        // The mark stays with the original.
        doubts.retain(|doubt| *doubt != Doubt::MarkLost);
        let copied = Doubt::Copied {
            differs,
            host: was.host.clone(),
            path: was.path.clone(),
            written,
        };
        doubts.insert(0, copied);
    }

    /// Writes the record, within a transaction.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.is_due {
            return Ok(());
        }
        write(connection, &self.is)
    }

    /// Whether the record is still to be written.
    pub(super) const fn is_due(&self) -> bool {
        self.is_due
    }

    /// Notes that a commit is on disk.
    pub(super) fn committed(&mut self) {
        self.is_due = false;
        let Some(path) = self.path.as_ref().filter(|_| self.is_made) else {
            return;
        };
        self.is_made = false;
        if let Err(error) = instance::put_beside(path) {
            tracing::debug!(%error, "the file beside the ledger stays the former one");
        }
    }

    /// The agent has made the file anew itself.
    pub(super) fn renew(&mut self, path: &Path) {
        self.is = self.is.in_another_file(&instance::file(path));
        self.is_due = true;
        self.make_at = Duration::ZERO;
    }

    /// Writes into a copy that takes the ledger's place that it is the ledger.
    pub(super) fn introduce(&self, copy: &Path) -> rusqlite::Result<()> {
        let instance = self.is.in_another_file(&instance::file(copy));
        let connection = Connection::open(copy)?;
        write(&connection, &instance)?;
        connection.close().map_err(|(_, error)| error)
    }

    /// Has a ledger that was moved away say that it is another's: what it owes is owed here.
    pub(super) fn leave(&self, connection: &Connection) {
        let nowhere = Instance {
            born: self.is.born.map(|_| 0),
            inode: self.is.inode.map(|_| 0),
            ..self.is.clone()
        };
        let left = write(connection, &nowhere)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = left {
            tracing::debug!(%error, "the file that was moved away does not say so");
        }
    }
}

/// Has a ledger that was salvaged into another file say so, where the damaged one was in the file that it should be in: a
/// damaged copy stays one.
pub(super) fn made_anew(
    connection: &Connection,
    damaged: &Path,
    salvaged: &Path,
) -> rusqlite::Result<()> {
    let Some(was) = read(connection)? else {
        return Ok(());
    };
    if instance::file(damaged).differs(&was).is_some() {
        return Ok(());
    }
    write(connection, &was.in_another_file(&instance::file(salvaged)))
}

/// The record; one that cannot be read is none.
fn read(connection: &Connection) -> rusqlite::Result<Option<Instance>> {
    let text = store::fact(connection, INSTANCE)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn write(connection: &Connection, instance: &Instance) -> rusqlite::Result<()> {
    let text = serde_json::to_string(instance)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    store::write_fact(connection, INSTANCE, &text)
}

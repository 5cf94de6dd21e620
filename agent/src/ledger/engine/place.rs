//! A transaction of a ledger that is this process's alone and at its place; and what is done where it is not.

use std::time::Duration;

use rusqlite::{Connection, ffi};
use serde_json::json;

use super::{Engine, Group};
use crate::{
    core::{book::NoteKind, clock::Moment},
    ledger::{
        Ended,
        files::{Place, Returned},
        storage::Storage,
    },
};

/// The time between two looks at the names of the files while units are owed and nothing else happens.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Engine {
    /// Begins a transaction that may write. Fails where the ledger is another's by now, or is not at its place.
    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        let place = self.files.look();
        self.found(place)?;
        if !self.connection.is_autocommit() {
            // A failed commit could not even be taken back then.
            self.execute("ROLLBACK")?;
        }
        self.execute("BEGIN IMMEDIATE")?;
        let checked = self.fence.check(&self.connection);
        if checked.is_err() {
            self.take_back();
        }
        checked
    }

    /// Takes note of where the ledger is; fails where that is not its place.
    pub(super) fn found(&mut self, place: Place) -> rusqlite::Result<()> {
        self.place = place;
        if self.place == Place::Same {
            return Ok(());
        }
        let code = ffi::Error::new(ffi::SQLITE_IOERR);
        let what = "the ledger is not at its place any more".to_owned();
        Err(rusqlite::Error::SqliteFailure(code, Some(what)))
    }

    /// Looks where nothing is to be written, so that an agent does not end, nor wait for long, with a ledger that
    /// nobody finds.
    pub(super) fn look_at_times(&mut self, now: Moment, group: &Group) -> rusqlite::Result<()> {
        if !group.stop && now.mono < self.look_at {
            return Ok(());
        }
        self.look_at = now.mono.saturating_add(super::RETRY_MIN);
        let place = self.files.look();
        self.found(place)
    }

    /// When the names are looked at although nothing else happens, on the monotonic clock.
    pub(super) fn next_look(&self, now: Moment) -> Option<Duration> {
        let owes = self.core.book().batches().next().is_some();
        let must_look = owes && self.files.are_looked_at();
        must_look.then(|| now.mono.saturating_add(LOOK_INTERVAL))
    }

    /// Takes a transaction back that failed.
    pub(super) fn take_back(&self) {
        if !self.connection.is_autocommit() {
            // Fails where the disk does; then the next commit takes it back.
            let _ = self.execute("ROLLBACK");
        }
    }

    /// Writes something beside the book, in a transaction of its own.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.begin()?;
        let done = work(&self.connection).and_then(|done| self.execute("COMMIT").map(|()| done));
        if done.is_err() {
            self.take_back();
        }
        done
    }

    /// Has the record of where the ledger lives name another file beside it, if anything was written since the start.
    pub(super) fn renew_record(&mut self, now: Moment) {
        self.instances.make_last_beside(now.mono);
        if !self.instances.is_due() {
            return;
        }
        let written = self.begin().and_then(|()| {
            self.instances.write(&self.connection)?;
            self.execute("COMMIT")
        });
        match written {
            Ok(()) => self.instances.committed(),
            Err(error) => {
                self.take_back();
                tracing::debug!(%error, "the record of where the ledger lives stays as it was");
            }
        }
    }

    /// What an error says of the disk.
    pub(super) fn storage_of(&self, error: &rusqlite::Error) -> Storage {
        match self.place {
            Place::Same => Storage::of(error),
            Place::NoLog | Place::Empty | Place::Taken => Storage::Gone,
        }
    }

    /// Whether another agent writes this ledger, by what an error says of it.
    pub(super) fn is_rivalled(&mut self, error: &rusqlite::Error) -> bool {
        self.fence.meet(error);
        if !self.fence.is_lost() {
            return false;
        }
        let path = self.connection.path().unwrap_or_default().into();
        self.ended.get_or_insert(Ended::Rival { path });
        true
    }

    /// Writes the ledger back to its place. Returns whether it is there.
    pub(super) fn write_back(&mut self, now: Moment) -> bool {
        if now.mono < self.write_back_at {
            return false;
        }
        let (place, path) = (self.place, self.files.path().to_owned());
        self.take_back();
        if place == Place::Empty {
            if let Err(error) = self.files.make_folder() {
                tracing::error!(%error, "the folder of the ledger cannot be made again");
            }
            // Before the ledger is back: the mark is never ahead of it, and one that is missing was taken away.
            self.evidence.renew(self.core.book().head());
        }
        match self.files.write_back(&self.connection, &self.instances) {
            Ok(Returned::Back(connection)) => {
                self.take_over(connection);
                let what = match place {
                    Place::NoLog => "its log was gone",
                    Place::Same | Place::Empty | Place::Taken => "it was deleted or moved away",
                };
                tracing::error!(
                    path = %path.display(),
                    what,
                    "the ledger was not at its place: it is written back, with all that was recorded"
                );
                let body = json!({"what": "written_back", "why": what});
                self.notices.push(body.to_string());
                true
            }
            Ok(Returned::Kept(kept)) => {
                self.ended.get_or_insert(Ended::Replaced { path, kept });
                false
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    "the ledger is not at its place, and cannot be written back: {error:#}"
                );
                self.write_back_at = now.mono.saturating_add(self.retry_wait);
                false
            }
        }
    }

    /// Goes on with another connection to the same ledger.
    fn take_over(&mut self, connection: Connection) {
        if self.place == Place::Empty {
            // Where the former file is kept somewhere, it is not this ledger any more.
            self.instances.leave(&self.connection);
        }
        self.connection = connection;
        self.instances.renew(self.files.path());
        if let Err(error) = self.fence.look(&self.connection) {
            tracing::error!(%error, "cannot look at the ledger that was written back");
        }
        self.place = Place::Same;
        self.storage = Storage::Ok;
        self.written_back += 1;
        if let Err(error) = self.reserve.take() {
            tracing::warn!(%error, "no space can be set aside for a full disk");
        }
    }

    /// Takes what is to be said of the ledger into it, once.
    pub(super) fn tell_notices(&mut self, now: Moment) {
        for body in &self.notices {
            let book = self.core.book_mut();
            book.add_note(now, NoteKind::Recovery, body.clone());
        }
    }
}

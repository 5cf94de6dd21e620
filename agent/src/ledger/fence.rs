//! The claim of one process on its ledger. A lock keeps a second agent away where locks hold; where they do not (its
//! file was removed, a shared file system ignores it), the ledger itself does: a start writes a claim into it, and
//! each transaction first looks whether that still stands there. The agent that started last goes on; the other
//! writes nothing more and stops.

use std::cell::Cell;

use rusqlite::{Connection, ffi};
use uuid::Builder;

use super::{LedgerError, store};
use crate::core::{
    Random,
    book::{BatchNo, Book, Seq},
};

const CLAIM: &str = "writer";

/// A claim on a ledger, and what this process knows to stand there.
pub(super) struct Fence {
    claim: String,
    /// How often another connection had written, as SQLite counts it, when that was last looked into.
    version: Cell<i64>,
    /// The generation and the newest place of the last commit.
    known: Cell<(Option<u64>, Seq)>,
    is_lost: Cell<bool>,
}

impl Fence {
    /// Claims the ledger. Whoever had claimed it before writes nothing more.
    pub(super) fn claim(connection: &Connection, random: &mut Random) -> Result<Self, LedgerError> {
        let bits = (u128::from(random()) << 64) | u128::from(random());
        let claim = Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        let claim = claim.to_string();
        store::write_fact(connection, CLAIM, &claim)
            .map_err(LedgerError::while_doing("claiming it"))?;
        let fence = Self {
            claim,
            version: Cell::new(0),
            known: Cell::new((None, Seq(0))),
            is_lost: Cell::new(false),
        };
        fence.look(connection)?;
        Ok(fence)
    }

    /// Takes what stands in the ledger now for what this process left there.
    pub(super) fn look(&self, connection: &Connection) -> Result<(), LedgerError> {
        let failed = || LedgerError::while_doing("looking who writes it");
        self.version.set(version(connection).map_err(failed())?);
        self.known.set(state(connection).map_err(failed())?);
        Ok(())
    }

    /// Fails where another process has written the ledger, within a transaction that may write.
    pub(super) fn check(&self, connection: &Connection) -> rusqlite::Result<()> {
        let version = version(connection)?;
        if version == self.version.get() {
            return Ok(());
        }
        // SQLite also counts when it had to read everything again, as after an error of the disk.
        let claim = store::fact(connection, CLAIM)?;
        if claim.as_deref() == Some(&self.claim) && state(connection)? == self.known.get() {
            self.version.set(version);
            return Ok(());
        }
        Err(self.lose())
    }

    /// Seals batches, each of which must still be open in the ledger.
    pub(super) fn seal(&self, connection: &Connection, book: &Book) -> rusqlite::Result<()> {
        for BatchNo(no) in book.newly_sealed() {
            let sealed = connection
                .prepare_cached("UPDATE batches SET closed = 1 WHERE no = ?1 AND state = 'open'")?
                .execute([no])?;
            if sealed != 1 {
                return Err(self.lose());
            }
        }
        Ok(())
    }

    /// Notes what a commit left.
    pub(super) fn committed(&self, generation: Option<u64>, newest: Seq) {
        let (before, _) = self.known.get();
        self.known.set((generation.or(before), newest));
    }

    /// Takes note of an error: rows that stand there already are another's.
    pub(super) fn meet(&self, error: &rusqlite::Error) {
        if let rusqlite::Error::SqliteFailure(error, _) = error
            && matches!(
                error.extended_code,
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                    | ffi::SQLITE_CONSTRAINT_ROWID
                    | ffi::SQLITE_CONSTRAINT_UNIQUE
            )
        {
            self.is_lost.set(true);
        }
    }

    /// Whether another process writes this ledger.
    pub(super) const fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    fn lose(&self) -> rusqlite::Error {
        self.is_lost.set(true);
        let code = ffi::Error::new(ffi::SQLITE_BUSY_SNAPSHOT);
        rusqlite::Error::SqliteFailure(code, Some("another agent writes this ledger".to_owned()))
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// The generation and the newest place.
fn state(connection: &Connection) -> rusqlite::Result<(Option<u64>, Seq)> {
    let generation = store::fact(connection, store::GENERATION)?;
    let newest = connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT max(seq) FROM consumptions), 0),
                        coalesce((SELECT max(seq) FROM notes), 0),
                        coalesce((SELECT last_seq FROM anchors ORDER BY first_seq DESC LIMIT 1), 0))",
        )?
        .query_row([], |row| row.get(0))?;
    let generation = generation.and_then(|text| text.parse().ok());
    Ok((generation, Seq(newest)))
}

//! A ledger of numbered rows, of which a test knows how many commits were acknowledged.

use rusqlite::{Connection, Error};
use tally_simdisk::Disk;

/// How a ledger is kept.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) journal: &'static str,
    pub(crate) synchronous: &'static str,
}

pub(crate) const WAL_FULL: Mode = Mode {
    journal: "WAL",
    synchronous: "FULL",
};

/// What a workload got to: rows `1..=acknowledged` are committed for sure, and no row beyond
/// `attempted` was ever asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) acknowledged: i64,
    pub(crate) attempted: i64,
}

pub(crate) fn connect(disk: &Disk, mode: Mode) -> Result<Connection, Error> {
    let connection = Connection::open(disk.path("ledger.db"))?;
    let Mode {
        journal,
        synchronous,
    } = mode;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = {synchronous};"
    ))?;
    Ok(connection)
}

/// A disk with an empty ledger on it, durable.
pub(crate) fn empty_ledger(mode: Mode) -> Disk {
    let disk = Disk::new();
    let connection = connect(&disk, mode).unwrap();
    connection
        .execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY, body BLOB)")
        .unwrap();
    connection.close().unwrap();
    disk.sync_folder();
    disk
}

/// Commits the next row: some new pages, and some old ones again.
pub(crate) fn commit(connection: &Connection, progress: &mut Progress) -> Result<(), Error> {
    let id = progress.acknowledged + 1;
    progress.attempted = progress.attempted.max(id);
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = (|| {
        connection.execute("INSERT INTO entry VALUES (?1, ?2)", (id, body(id, 3000)))?;
        let older = id / 2;
        connection.execute(
            "UPDATE entry SET body = ?2 WHERE id = ?1",
            (older, body(older, 2000 + id)),
        )?;
        connection.execute_batch("COMMIT")
    })();
    match done {
        Ok(()) => progress.acknowledged = id,
        // As an application does; after some errors SQLite has rolled back by itself.
        Err(_) if !connection.is_autocommit() => drop(connection.execute_batch("ROLLBACK")),
        Err(_) => {}
    }
    done
}

/// A row's body, of bytes that only this row has.
fn body(id: i64, length: i64) -> Vec<u8> {
    vec![id.to_le_bytes()[0]; usize::try_from(length).unwrap()]
}

pub(crate) fn checkpoint(connection: &Connection, how: &str) -> Result<(), Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
}

/// Commits thirty rows, with checkpoints of every kind in between, until something fails.
pub(crate) fn thirty_commits(
    disk: &Disk,
    mode: Mode,
    progress: &mut Progress,
) -> Result<(), Error> {
    let connection = connect(disk, mode)?;
    for _ in 0..30 {
        commit(&connection, progress)?;
        match progress.acknowledged {
            8 => checkpoint(&connection, "PASSIVE")?,
            16 => checkpoint(&connection, "RESTART")?,
            24 => checkpoint(&connection, "TRUNCATE")?,
            _ => {}
        }
    }
    Ok(())
}

/// The number of rows of a ledger that is whole and has the rows `1..`, each with its own body;
/// otherwise what is wrong.
pub(crate) fn rows(connection: &Connection) -> Result<i64, String> {
    let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    match check {
        Ok(check) if check == "ok" => read_rows(connection).map_err(|error| error.to_string())?,
        other => Err(format!("{other:?}")),
    }
}

fn read_rows(connection: &Connection) -> Result<Result<i64, String>, Error> {
    let mut statement = connection.prepare("SELECT id, body FROM entry ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        let (id, found): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let length = i64::try_from(found.len()).unwrap_or_default();
        if id != count || found != body(id, length) {
            return Ok(Err(format!("row {count} is {id} with another body")));
        }
    }
    Ok(Ok(count))
}

/// The rows after a restart, by a new connection.
pub(crate) fn rows_of(disk: &Disk, mode: Mode) -> Result<i64, String> {
    let connection = connect(disk, mode).map_err(|error| error.to_string())?;
    rows(&connection)
}

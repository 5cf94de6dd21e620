//! A simulated disk for SQLite: a file system in memory that loses power and fails as told.
//!
//! A [`Disk`] keeps apart what a program wrote and what it synced. When the power fails, the
//! unsynced part is kept, dropped, torn or reordered by a seed, so that a test can ask of every
//! moment of a workload what a restart would find. [`Disk::fail`] makes operations fail instead.
//!
//! ```
//! let disk = tally_simdisk::Disk::new();
//! let path = disk.path("ledger.db");
//! let ledger = rusqlite::Connection::open(&path)?;
//! ledger.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
//! ledger.execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY)")?;
//! disk.sync_folder();
//! ledger.execute_batch("INSERT INTO entry VALUES (1)")?;
//!
//! disk.power_on(42);
//! drop(ledger);
//! let ledger = rusqlite::Connection::open(&path)?;
//! let rows: i64 = ledger.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
//! assert_eq!(rows, 1);
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! * `disk` is the public face; `state` the disk behind it: folder, power, counters, capacity.
//! * `file` is one file's content and what of it is unsynced; `fault` what is to fail, and when.
//! * `locks` are the locks of a database file and its shared memory; `handle` an open file.
//! * `vfs` hands all this to SQLite, and is the one place with `unsafe`.

mod disk;
mod fault;
mod file;
mod handle;
mod locks;
mod random;
mod state;
#[expect(
    unsafe_code,
    reason = "SQLite takes a file system as a table of C functions over raw pointers"
)]
mod vfs;

pub use disk::Disk;
pub use fault::{ErrorKind, Fault, Kind};

//! What is to fail: kinds of operations, the faults set for them, and the codes SQLite gets.

use rusqlite::ffi;

/// A kind of operation on a disk, for [`Disk::count`](crate::Disk::count) and [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a file, and creates it if need be.
    Open,
    /// Reads bytes of a file.
    Read,
    /// Writes bytes to a file.
    Write,
    /// Makes a file's content durable.
    Sync,
    /// Sets a file's length.
    Truncate,
    /// Removes a file from the folder.
    Delete,
}

impl Kind {
    /// Every kind, for tests that go through them.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Truncate,
        Self::Delete,
    ];

    /// The code by which SQLite's own file systems report an I/O error of this kind.
    pub(crate) fn io_error(self) -> i32 {
        match self {
            Self::Open => ffi::SQLITE_CANTOPEN,
            Self::Read => ffi::SQLITE_IOERR_READ,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Self::Delete => ffi::SQLITE_IOERR_DELETE,
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An I/O error: `SQLITE_IOERR_WRITE` and its like; of an open, `SQLITE_CANTOPEN`.
    Io,
    /// The disk is full: `SQLITE_FULL`.
    Full,
    /// The disk is read-only: `SQLITE_READONLY`.
    ReadOnly,
}

/// Operations that are to fail: see [`Disk::fail`](crate::Disk::fail).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of operation that fails.
    pub kind: Kind,
    /// How many operations of that kind still succeed first.
    pub skip: u64,
    /// How many fail then; `None`: all.
    pub times: Option<u64>,
    /// How they fail.
    pub error: ErrorKind,
}

impl Fault {
    fn code(&self) -> i32 {
        match self.error {
            ErrorKind::Io => self.kind.io_error(),
            ErrorKind::Full => ffi::SQLITE_FULL,
            ErrorKind::ReadOnly => ffi::SQLITE_READONLY,
        }
    }
}

/// The faults set on a disk, each with what is left of its `skip` and `times`.
#[derive(Default)]
pub(crate) struct Faults {
    set: Vec<Fault>,
    fired: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.set.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }

    /// Lets an operation of a kind pass, or fails it with the code of the first fault due.
    pub(crate) fn check(&mut self, kind: Kind) -> Result<(), i32> {
        for fault in self.set.iter_mut().filter(|fault| fault.kind == kind) {
            if let Some(rest) = fault.skip.checked_sub(1) {
                fault.skip = rest;
                continue;
            }
            match &mut fault.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            self.fired += 1;
            return Err(fault.code());
        }
        Ok(())
    }
}

//! The locks of a database file between its connections, and its shared memory in WAL mode.
//!
//! Both follow SQLite's own `os_unix.c`, with handles in place of processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use rusqlite::ffi;

/// Names an open handle on a disk.
pub(crate) type HandleId = u64;

/// A lock of a database file, in SQLite's order; no lock is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

impl Level {
    /// SQLite's number for it; `None` for no lock.
    pub(crate) fn from_sqlite(level: i32) -> Option<Self> {
        match level {
            ffi::SQLITE_LOCK_SHARED => Some(Self::Shared),
            ffi::SQLITE_LOCK_RESERVED => Some(Self::Reserved),
            ffi::SQLITE_LOCK_PENDING => Some(Self::Pending),
            ffi::SQLITE_LOCK_EXCLUSIVE => Some(Self::Exclusive),
            _ => None,
        }
    }
}

/// Who holds which lock of a database file.
#[derive(Default)]
pub(crate) struct FileLocks(BTreeMap<HandleId, Level>);

impl FileLocks {
    /// Raises a handle's lock, or fails with `SQLITE_BUSY`. A refused exclusive lock leaves a pending
    /// one, which keeps new readers out.
    pub(crate) fn lock(&mut self, handle: HandleId, level: Level) -> Result<(), i32> {
        if self.0.get(&handle).is_some_and(|&held| held >= level) {
            return Ok(());
        }
        let others = self.0.iter().filter(|&(&other, _)| other != handle);
        let highest = others.map(|(_, &held)| held).max();
        let admitted = match level {
            Level::Reserved => highest < Some(Level::Reserved),
            Level::Shared | Level::Pending | Level::Exclusive => highest < Some(Level::Pending),
        };
        if !admitted {
            return Err(ffi::SQLITE_BUSY);
        }
        if level == Level::Exclusive && highest.is_some() {
            self.0.insert(handle, Level::Pending);
            return Err(ffi::SQLITE_BUSY);
        }
        self.0.insert(handle, level);
        Ok(())
    }

    /// Lowers a handle's lock to a shared one or to none.
    pub(crate) fn unlock(&mut self, handle: HandleId, level: Option<Level>) {
        let Some(held) = self.0.get_mut(&handle) else {
            return;
        };
        match level {
            Some(level) => *held = level.min(*held),
            None => {
                self.0.remove(&handle);
            }
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.0.values().any(|&held| held >= Level::Reserved)
    }
}

/// One region of shared memory. SQLite synchronises its own access, through pointers; atomics are the
/// memory that safe Rust may share without knowing when it changes.
pub(crate) struct Region(Box<[AtomicU64]>);

impl Region {
    fn new(size: usize) -> Self {
        let words = size.div_ceil(size_of::<AtomicU64>());
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    /// Where it begins. Good for as long as the region lives.
    pub(crate) fn start(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }
}

/// A set of the locks of shared memory, one bit each.
pub(crate) type ShmMask = u8;

#[derive(Clone, Copy, Default)]
struct ShmLocks {
    shared: ShmMask,
    exclusive: ShmMask,
}

/// The shared memory of a database file: gone with the last handle that maps it, and with the power.
#[derive(Default)]
pub(crate) struct Shm {
    regions: Vec<Arc<Region>>,
    handles: BTreeMap<HandleId, ShmLocks>,
}

impl Shm {
    /// A region; those up to it are made if `extend`.
    pub(crate) fn map(
        &mut self,
        handle: HandleId,
        index: usize,
        size: usize,
        extend: bool,
    ) -> Option<Arc<Region>> {
        self.handles.entry(handle).or_default();
        if extend {
            while self.regions.len() <= index {
                self.regions.push(Arc::new(Region::new(size)));
            }
        }
        self.regions.get(index).cloned()
    }

    /// Takes locks, exclusive or shared, or fails with `SQLITE_BUSY` and takes none.
    pub(crate) fn lock(
        &mut self,
        handle: HandleId,
        mask: ShmMask,
        exclusive: bool,
    ) -> Result<(), i32> {
        let others = self.handles.iter().filter(|&(&other, _)| other != handle);
        let taken = others.fold(0, |taken, (_, held)| {
            taken | held.exclusive | if exclusive { held.shared } else { 0 }
        });
        if taken & mask != 0 {
            return Err(ffi::SQLITE_BUSY);
        }
        let own = self.handles.entry(handle).or_default();
        if exclusive {
            own.exclusive |= mask;
        } else {
            own.shared |= mask;
        }
        Ok(())
    }

    pub(crate) fn unlock(&mut self, handle: HandleId, mask: ShmMask) {
        if let Some(own) = self.handles.get_mut(&handle) {
            own.exclusive &= !mask;
            own.shared &= !mask;
        }
    }

    /// Ends a handle's use of the memory; the last one frees it.
    pub(crate) fn unmap(&mut self, handle: HandleId) {
        self.handles.remove(&handle);
        if self.handles.is_empty() {
            self.regions.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_waits_for_the_readers_and_keeps_new_ones_out() {
        let mut locks = FileLocks::default();
        locks.lock(1, Level::Shared).unwrap();
        locks.lock(2, Level::Shared).unwrap();
        locks.lock(1, Level::Reserved).unwrap();
        assert_eq!(locks.lock(2, Level::Reserved), Err(ffi::SQLITE_BUSY));
        assert!(locks.is_reserved());
        assert_eq!(locks.lock(1, Level::Exclusive), Err(ffi::SQLITE_BUSY));
        assert_eq!(locks.lock(3, Level::Shared), Err(ffi::SQLITE_BUSY));
        locks.unlock(2, None);
        locks.lock(1, Level::Exclusive).unwrap();
        locks.unlock(1, Some(Level::Shared));
        locks.lock(3, Level::Shared).unwrap();
        assert!(!locks.is_reserved());
    }

    #[test]
    fn shared_memory_locks_exclude_each_other_by_slot() {
        let mut shm = Shm::default();
        shm.lock(1, 0b01, true).unwrap();
        assert_eq!(shm.lock(2, 0b01, false), Err(ffi::SQLITE_BUSY));
        shm.lock(2, 0b10, false).unwrap();
        shm.lock(3, 0b10, false).unwrap();
        assert_eq!(shm.lock(1, 0b11, true), Err(ffi::SQLITE_BUSY));
        shm.unlock(2, 0b10);
        shm.unmap(3);
        shm.lock(1, 0b11, true).unwrap();
    }
}

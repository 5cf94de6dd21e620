//! An open file, and the operations on names: what SQLite asks of a file system, in safe Rust.

use std::sync::Arc;

use rusqlite::ffi;

use crate::{
    disk::Inner,
    fault::Kind,
    locks::{HandleId, Level, Region},
    state::{FileId, Inode, State},
};

/// The kinds of files whose entry SQLite's unix file system makes durable on their first sync.
const JOURNALS: i32 =
    ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;

/// An open file. After a power loss it is dead: only letting go of things still works.
pub(crate) struct Handle {
    disk: Arc<Inner>,
    cycle: u64,
    file: FileId,
    id: HandleId,
    read_only: bool,
    name: String,
    is_journal: bool,
    delete_on_close: bool,
    /// The regions mapped: SQLite keeps pointers into them, even past a power loss.
    regions: Vec<Arc<Region>>,
}

impl Handle {
    pub(crate) fn open(disk: Arc<Inner>, name: &str, flags: i32) -> Result<Self, i32> {
        let is_journal = flags & JOURNALS != 0;
        let mut read_only = flags & ffi::SQLITE_OPEN_READONLY != 0;
        let mut state = disk.state();
        let cycle = state.cycle();
        let found = state.find(name);
        match state.begin(Kind::Open, cycle) {
            // As a file on a read-only disk: an existing one opens, but only for reading.
            Err(ffi::SQLITE_READONLY) if found.is_some() => read_only = true,
            Err(ffi::SQLITE_READONLY) if is_journal => {
                return Err(ffi::SQLITE_READONLY_DIRECTORY);
            }
            Err(ffi::SQLITE_READONLY) => return Err(ffi::SQLITE_CANTOPEN),
            other => other?,
        }
        let creates = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let file = match found {
            Some(_) if creates && flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0 => {
                return Err(ffi::SQLITE_CANTOPEN);
            }
            Some(file) => file,
            None if creates => {
                state.change(ffi::SQLITE_CANTOPEN)?;
                state.create(name)
            }
            None => return Err(ffi::SQLITE_CANTOPEN),
        };
        inode(&mut state, file, ffi::SQLITE_CANTOPEN)?.handles += 1;
        let id = state.new_handle_id();
        drop(state);
        Ok(Self {
            disk,
            cycle,
            file,
            id,
            read_only,
            name: name.to_owned(),
            is_journal,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
            regions: Vec::new(),
        })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn close(self) {
        self.unmap();
        let mut state = self.disk.state();
        if state.cycle() != self.cycle {
            return;
        }
        if let Some(inode) = state.inode_mut(self.file) {
            inode.locks.unlock(self.id, None);
            inode.handles -= 1;
        }
        if self.delete_on_close && state.is_on() {
            state.unlink(&self.name);
        }
        state.forget_if_unused(self.file);
    }

    pub(crate) fn read(&self, start: usize, buffer: &mut [u8]) -> Result<usize, i32> {
        let mut state = self.disk.state();
        state.begin(Kind::Read, self.cycle)?;
        let inode = inode(&mut state, self.file, ffi::SQLITE_IOERR_READ)?;
        Ok(inode.file.read(start, buffer))
    }

    pub(crate) fn write(&self, start: usize, data: &[u8]) -> Result<(), i32> {
        let mut state = self.disk.state();
        state.begin(Kind::Write, self.cycle)?;
        self.check_room(&mut state, start + data.len())?;
        state.change(ffi::SQLITE_IOERR_WRITE)?;
        let inode = inode(&mut state, self.file, ffi::SQLITE_IOERR_WRITE)?;
        inode.file.write(start, data);
        Ok(())
    }

    pub(crate) fn truncate(&self, length: usize) -> Result<(), i32> {
        let mut state = self.disk.state();
        state.begin(Kind::Truncate, self.cycle)?;
        self.check_room(&mut state, length)?;
        state.change(ffi::SQLITE_IOERR_TRUNCATE)?;
        let inode = inode(&mut state, self.file, ffi::SQLITE_IOERR_TRUNCATE)?;
        inode.file.resize(length);
        Ok(())
    }

    fn check_room(&self, state: &mut State, wanted: usize) -> Result<(), i32> {
        if self.read_only {
            return Err(ffi::SQLITE_READONLY);
        }
        let length = inode(state, self.file, ffi::SQLITE_IOERR_WRITE)?
            .file
            .content()
            .len();
        state.check_room(length, wanted)
    }

    /// Makes the content durable, and then a journal's entry in the folder.
    pub(crate) fn sync(&self) -> Result<(), i32> {
        let mut state = self.disk.state();
        state.begin(Kind::Sync, self.cycle)?;
        state.change(ffi::SQLITE_IOERR_FSYNC)?;
        let inode = inode(&mut state, self.file, ffi::SQLITE_IOERR_FSYNC)?;
        inode.file.sync();
        if self.is_journal
            && state.find(&self.name) == Some(self.file)
            && state.is_entry_unsynced(&self.name)
        {
            state.change(ffi::SQLITE_IOERR_DIR_FSYNC)?;
            state.sync_entry(&self.name);
        }
        Ok(())
    }

    pub(crate) fn size(&self) -> Result<usize, i32> {
        self.powered(ffi::SQLITE_IOERR_FSTAT, |inode| {
            Ok(inode.file.content().len())
        })
    }

    pub(crate) fn lock(&self, level: Level) -> Result<(), i32> {
        self.powered(ffi::SQLITE_IOERR_LOCK, |inode| {
            inode.locks.lock(self.id, level)
        })
    }

    pub(crate) fn unlock(&self, level: Option<Level>) {
        self.let_go(|inode| inode.locks.unlock(self.id, level));
    }

    pub(crate) fn is_reserved(&self) -> Result<bool, i32> {
        self.powered(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, |inode| {
            Ok(inode.locks.is_reserved())
        })
    }

    /// Where a region of shared memory begins, if there is that region.
    pub(crate) fn shm_map(
        &mut self,
        index: usize,
        size: usize,
        extend: bool,
    ) -> Result<Option<*mut u8>, i32> {
        let region = self.powered(ffi::SQLITE_IOERR_SHMMAP, |inode| {
            Ok(inode.shm.map(self.id, index, size, extend))
        })?;
        let start = region.as_ref().map(|region| region.start());
        self.regions.extend(region);
        Ok(start)
    }

    /// Takes the `count` locks from `first` on.
    pub(crate) fn shm_lock(&self, first: u32, count: u32, exclusive: bool) -> Result<(), i32> {
        let mask = shm_mask(first, count);
        self.powered(ffi::SQLITE_IOERR_SHMLOCK, |inode| {
            inode.shm.lock(self.id, mask, exclusive)
        })
    }

    pub(crate) fn shm_unlock(&self, first: u32, count: u32) {
        self.let_go(|inode| inode.shm.unlock(self.id, shm_mask(first, count)));
    }

    pub(crate) fn shm_unmap(&mut self) {
        self.unmap();
        self.regions.clear();
    }

    fn unmap(&self) {
        self.let_go(|inode| inode.shm.unmap(self.id));
    }

    /// Does what works only with power, and fails with `code` without.
    fn powered<T>(
        &self,
        code: i32,
        act: impl FnOnce(&mut Inode) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let mut state = self.disk.state();
        if !state.serves(self.cycle) {
            return Err(code);
        }
        act(inode(&mut state, self.file, code)?)
    }

    /// Lets go of what a handle holds: nothing, if it is dead.
    fn let_go(&self, act: impl FnOnce(&mut Inode)) {
        let mut state = self.disk.state();
        if state.cycle() == self.cycle
            && let Some(inode) = state.inode_mut(self.file)
        {
            act(inode);
        }
    }
}

/// Removes a file; durably if `sync`.
pub(crate) fn delete(disk: &Inner, name: &str, sync: bool) -> Result<(), i32> {
    let mut state = disk.state();
    let cycle = state.cycle();
    state.begin(Kind::Delete, cycle)?;
    if state.find(name).is_none() {
        return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
    }
    state.change(ffi::SQLITE_IOERR_DELETE)?;
    state.unlink(name);
    if sync {
        state.change(ffi::SQLITE_IOERR_DIR_FSYNC)?;
        state.sync_entry(name);
    }
    Ok(())
}

/// Whether there is a file. As on unix, one without content does not count if asked for existence.
pub(crate) fn access(disk: &Inner, name: &str, flags: i32) -> Result<bool, i32> {
    let state = disk.state();
    if !state.is_on() {
        return Err(ffi::SQLITE_IOERR_ACCESS);
    }
    let found = state.find(name).and_then(|file| state.inode(file));
    Ok(found.is_some_and(|it| flags != ffi::SQLITE_ACCESS_EXISTS || !it.file.content().is_empty()))
}

fn inode(state: &mut State, file: FileId, code: i32) -> Result<&mut Inode, i32> {
    state.inode_mut(file).ok_or(code)
}

fn shm_mask(first: u32, count: u32) -> u8 {
    (first..first + count).fold(0, |mask, lock| mask | 1_u8.checked_shl(lock).unwrap_or(0))
}

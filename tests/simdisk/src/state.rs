//! The disk behind a [`Disk`](crate::Disk): its files and folder, its power, and what is counted.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::ffi;

use crate::{
    fault::{Faults, Kind},
    file::File,
    locks::{FileLocks, HandleId, Shm},
    random::Random,
};

/// Names a file whatever its name: a name may be deleted, and given to another file.
pub(crate) type FileId = u64;

/// A file with all that belongs to it while the power is on.
#[derive(Default)]
pub(crate) struct Inode {
    pub(crate) file: File,
    pub(crate) locks: FileLocks,
    pub(crate) shm: Shm,
    /// How many handles are open on it: it outlives its name for as long as there are any.
    pub(crate) handles: usize,
}

pub(crate) struct State {
    pub(crate) faults: Faults,
    pub(crate) capacity: Option<u64>,
    on: bool,
    /// Counts the power losses: a handle of an earlier cycle is dead.
    cycle: u64,
    changes: u64,
    cut_at: Option<u64>,
    counts: [u64; Kind::ALL.len()],
    files: BTreeMap<FileId, Inode>,
    folder: BTreeMap<String, FileId>,
    synced_folder: BTreeMap<String, FileId>,
    ids: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            faults: Faults::default(),
            capacity: None,
            on: true,
            cycle: 0,
            changes: 0,
            cut_at: None,
            counts: [0; Kind::ALL.len()],
            files: BTreeMap::new(),
            folder: BTreeMap::new(),
            synced_folder: BTreeMap::new(),
            ids: 0,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn cycle(&self) -> u64 {
        self.cycle
    }

    /// Whether a handle opened in that cycle still works.
    pub(crate) fn serves(&self, cycle: u64) -> bool {
        self.on && self.cycle == cycle
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    pub(crate) fn cut_power_after(&mut self, changes: u64) {
        self.cut_at = Some(self.changes.saturating_add(changes));
    }

    /// Counts an operation, unless there is no power for it, and fails it if a fault is due.
    pub(crate) fn begin(&mut self, kind: Kind, cycle: u64) -> Result<(), i32> {
        if !self.serves(cycle) {
            return Err(kind.io_error());
        }
        self.counts[kind as usize] += 1;
        self.faults.check(kind)
    }

    /// Counts a change that is about to be made, or fails with `code` because the power fails first.
    pub(crate) fn change(&mut self, code: i32) -> Result<(), i32> {
        if self.cut_at.is_some_and(|cut_at| self.changes >= cut_at) {
            self.on = false;
        }
        if !self.on {
            return Err(code);
        }
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn new_handle_id(&mut self) -> HandleId {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn find(&self, name: &str) -> Option<FileId> {
        self.folder.get(name).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.folder.keys()
    }

    pub(crate) fn inode(&self, file: FileId) -> Option<&Inode> {
        self.files.get(&file)
    }

    pub(crate) fn inode_mut(&mut self, file: FileId) -> Option<&mut Inode> {
        self.files.get_mut(&file)
    }

    /// Makes an empty file. Its entry is not durable until synced.
    pub(crate) fn create(&mut self, name: &str) -> FileId {
        self.ids += 1;
        self.files.insert(self.ids, Inode::default());
        self.folder.insert(name.to_owned(), self.ids);
        self.ids
    }

    /// Removes a name from the folder, not durably until synced.
    pub(crate) fn unlink(&mut self, name: &str) {
        if let Some(file) = self.folder.remove(name) {
            self.forget_if_unused(file);
        }
    }

    /// Whether a name's entry, or its absence, is not durable yet.
    pub(crate) fn is_entry_unsynced(&self, name: &str) -> bool {
        self.folder.get(name) != self.synced_folder.get(name)
    }

    /// Makes one name's entry durable, or its absence.
    pub(crate) fn sync_entry(&mut self, name: &str) {
        let before = match self.folder.get(name) {
            Some(&file) => self.synced_folder.insert(name.to_owned(), file),
            None => self.synced_folder.remove(name),
        };
        if let Some(file) = before {
            self.forget_if_unused(file);
        }
    }

    pub(crate) fn sync_folder(&mut self) {
        let before = std::mem::replace(&mut self.synced_folder, self.folder.clone());
        for file in before.into_values() {
            self.forget_if_unused(file);
        }
    }

    /// Frees a file that no name and no handle leads to any more.
    pub(crate) fn forget_if_unused(&mut self, file: FileId) {
        let mut named = self.folder.values().chain(self.synced_folder.values());
        let is_open = self.files.get(&file).is_some_and(|it| it.handles > 0);
        if !is_open && !named.any(|&named| named == file) {
            self.files.remove(&file);
        }
    }

    /// The bytes of all files that have a name or are open.
    pub(crate) fn used(&self) -> u64 {
        let named: BTreeSet<_> = self.folder.values().collect();
        let files = self.files.iter();
        let taken = files.filter(|(id, it)| it.handles > 0 || named.contains(id));
        taken.map(|(_, it)| it.file.content().len() as u64).sum()
    }

    /// Fails with `SQLITE_FULL` if a file of `length` bytes may not have `wanted`.
    pub(crate) fn check_room(&self, length: usize, wanted: usize) -> Result<(), i32> {
        let Some(capacity) = self.capacity.filter(|_| wanted > length) else {
            return Ok(());
        };
        if self.used() + (wanted - length) as u64 > capacity {
            return Err(ffi::SQLITE_FULL);
        }
        Ok(())
    }

    /// Ends all handles: see [`Disk::kill`](crate::Disk::kill).
    pub(crate) fn kill(&mut self) {
        self.cycle += 1;
        let named: BTreeSet<_> = self
            .folder
            .values()
            .chain(self.synced_folder.values())
            .copied()
            .collect();
        self.files.retain(|id, _| named.contains(id));
        for inode in self.files.values_mut() {
            let file = std::mem::take(&mut inode.file);
            *inode = Inode {
                file,
                ..Inode::default()
            };
        }
    }

    /// Loses the power, and restarts: see [`Disk::power_on`](crate::Disk::power_on).
    pub(crate) fn power_on(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        self.on = true;
        self.cut_at = None;
        self.cycle += 1;
        self.folder = self.folder_after_power_loss(&mut random);
        self.synced_folder = self.folder.clone();
        let named: BTreeSet<_> = self.folder.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        for inode in self.files.values_mut() {
            let mut file = std::mem::take(&mut inode.file);
            file.lose_power(&mut random);
            *inode = Inode {
                file,
                ..Inode::default()
            };
        }
    }

    /// The folder with each entry as it was synced, or as it was last, or, if a file took the place of
    /// another, with neither.
    fn folder_after_power_loss(&self, random: &mut Random) -> BTreeMap<String, FileId> {
        let names: BTreeSet<_> = self
            .folder
            .keys()
            .chain(self.synced_folder.keys())
            .collect();
        let mut folder = BTreeMap::new();
        for name in names {
            let last = self.folder.get(name);
            let synced = self.synced_folder.get(name);
            let outcomes = match (last, synced) {
                (Some(_), Some(_)) if last != synced => vec![last, synced, None],
                (Some(_), Some(_)) => vec![last],
                _ => vec![last, synced],
            };
            if let Some(&file) = outcomes[random.below(outcomes.len())] {
                folder.insert(name.clone(), file);
            }
        }
        folder
    }
}

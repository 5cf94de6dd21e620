//! The public face: a disk, its power, its faults and its files.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    fault::{Fault, Kind},
    state::State,
    vfs,
};

/// Where every disk's paths begin. Other paths are the machine's own files.
const ROOT: &str = "/simdisk/";

/// The disks there are, by the number in their paths: SQLite knows a file by its path alone.
static DISKS: RwLock<BTreeMap<u64, Weak<Inner>>> = RwLock::new(BTreeMap::new());

/// A disk that exists in memory. Cheap to clone: the clones are one disk, and its memory is freed with
/// the last of them and the last open file. Many disks may exist at once, on many threads.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

/// What the clones of a disk share, and its open files.
pub(crate) struct Inner {
    id: u64,
    state: Mutex<State>,
}

impl Inner {
    fn new() -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State::new()),
        })
    }

    /// A disk of its own for a temporary file, which has no name and needs no power loss.
    pub(crate) fn temporary() -> Arc<Self> {
        Self::new()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked in between is a failed test, and its other threads may still end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
        disks.remove(&self.id);
    }
}

/// Whether a path is one of a disk's, be there such a disk or not.
pub(crate) fn is_simulated(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// The disk and the file's name that a path stands for.
pub(crate) fn resolve(path: &str) -> Option<(Arc<Inner>, &str)> {
    let (id, name) = path.strip_prefix(ROOT)?.split_once('/')?;
    let id = id.parse().ok()?;
    let disks = DISKS.read().unwrap_or_else(PoisonError::into_inner);
    // Handed out before it is let go: the last `Arc` must not end in here, under the lock.
    let disk = disks.get(&id)?.upgrade()?;
    Some((disk, name))
}

impl Disk {
    /// Makes an empty disk, with the power on.
    ///
    /// The first one in a process also makes simulated disks SQLite's default file system. Paths that
    /// are not a disk's still lead to the machine's own files; temporary files are kept in memory.
    ///
    /// # Panics
    ///
    /// If SQLite refuses the file system, which it does only without memory.
    #[expect(clippy::new_without_default, reason = "it registers a file system")]
    pub fn new() -> Self {
        vfs::register();
        let inner = Inner::new();
        let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
        disks.insert(inner.id, Arc::downgrade(&inner));
        Self(inner)
    }

    /// The path of a file on this disk, to give to SQLite: `/simdisk/17/ledger.db`.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{ROOT}{}/{name}", self.0.id))
    }

    /// How many operations so far changed the disk or what of it is durable: a write, a truncation, a
    /// sync of a file or of the folder, a deletion, a creation. Those that failed are not among them.
    pub fn changes(&self) -> u64 {
        self.0.state().changes()
    }

    /// How many operations of one kind there were so far while the power was on, failed ones too.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.state().count(kind)
    }

    /// Lets the power fail right before the n-th change from now; 0 is the next one. That change and
    /// every operation after it fail with an I/O error until [`power_on`](Self::power_on).
    pub fn cut_power_after(&self, changes: u64) {
        self.0.state().cut_power_after(changes);
    }

    /// Whether the power is on.
    pub fn is_on(&self) -> bool {
        self.0.state().is_on()
    }

    /// Restarts after a power loss, which happens now if it has not yet.
    ///
    /// What was synced stays. Each unsynced change of a file is by the seed kept, dropped, torn or
    /// applied in another order. Torn is a write of which only some 512-byte sectors arrived, one of
    /// them half garbage at times; bytes beside the write stay as they are. A file created since the
    /// folder was synced may vanish, and a deleted one come back.
    ///
    /// All handles of before are dead: they fail. Locks and shared memory are gone. Faults and the
    /// capacity stay as they are. The same seed after the same operations gives the same disk.
    pub fn power_on(&self, seed: u64) {
        self.0.state().power_on(seed);
    }

    /// The process is killed: all its handles are dead, and what it wrote is there, synced or not.
    pub fn kill(&self) {
        self.0.state().kill();
    }

    /// Syncs the folder: creations and deletions so far are durable. Does nothing without power.
    ///
    /// SQLite syncs the entry of a journal or WAL file that it made or deletes; no one but this call
    /// syncs that of the database. It counts as a change and not as a [`Kind::Sync`].
    pub fn sync_folder(&self) {
        let mut state = self.0.state();
        if state.change(0).is_ok() {
            state.sync_folder();
        }
    }

    /// Makes operations fail from now on, beside the faults set before. A failed operation changes
    /// nothing: what a failed sync was for is still unsynced, and a later sync may make it durable.
    pub fn fail(&self, fault: Fault) {
        self.0.state().faults.add(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.0.state().faults.clear();
    }

    /// How many operations failed by a fault so far.
    pub fn fired(&self) -> u64 {
        self.0.state().faults.fired()
    }

    /// Bounds the bytes of all files together; growth beyond fails with `SQLITE_FULL`. `None`: no
    /// bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.state().capacity = bytes;
    }

    /// The bytes of all files together.
    pub fn used(&self) -> u64 {
        self.0.state().used()
    }

    /// A file's content as programs see it, synced or not.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.state();
        let inode = state.inode(state.find(name)?)?;
        Some(inode.file.content().to_vec())
    }

    /// Replaces a file's content, or makes a file: durably, with or without power, whatever the
    /// capacity, and as no operation that is counted. For damage, and for putting back a copy.
    pub fn write(&self, name: &str, content: Vec<u8>) {
        let mut state = self.0.state();
        let file = match state.find(name) {
            Some(file) => file,
            None => state.create(name),
        };
        if let Some(inode) = state.inode_mut(file) {
            inode.file.replace(content);
        }
        state.sync_entry(name);
    }

    /// Removes a file, if it is there, as [`write`](Self::write) writes one.
    pub fn remove(&self, name: &str) {
        let mut state = self.0.state();
        state.unlink(name);
        state.sync_entry(name);
    }

    /// The names of all files, in order.
    pub fn files(&self) -> Vec<String> {
        self.0.state().names().cloned().collect()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Disk");
        debug.field("id", &self.0.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_freed_with_its_last_clone() {
        let disk = Disk::new();
        let path = disk.path("file").display().to_string();
        let clone = disk.clone();
        disk.write("file", vec![0; 10]);
        let inner = Arc::downgrade(&disk.0);
        drop(disk);
        assert!(resolve(&path).is_some());
        drop(clone);
        assert!(resolve(&path).is_none());
        assert!(inner.upgrade().is_none());
    }
}

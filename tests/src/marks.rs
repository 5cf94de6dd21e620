//! Marks beside a simulated ledger.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tally_agent::{
    core::chain,
    ledger::evidence::{Evidence, MARK_BYTES, Marks},
};

/// So many earlier states can come back at a loss of power.
const HISTORY_MAX: usize = 16;

type Slots = [Option<[u8; MARK_BYTES]>; 2];

/// Marks in memory, which outlive the process that writes them. Clones are the same marks.
#[derive(Clone, Default)]
pub struct MemoryMarks(Arc<Mutex<VecDeque<Slots>>>);

impl MemoryMarks {
    /// The power fails: any of the newest states may be what is left.
    pub fn lose_power(&self, random: u64) {
        let mut history = self.history();
        if history.is_empty() {
            return;
        }
        let kept = usize::try_from(random % history.len() as u64).unwrap_or(0) + 1;
        history.truncate(kept);
    }

    /// Other marks that stand as these do.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.history().clone())))
    }

    /// The marks stand as those did.
    pub fn put_back(&self, earlier: &Self) {
        let earlier = earlier.history().clone();
        *self.history() = earlier;
    }

    fn history(&self) -> std::sync::MutexGuard<'_, VecDeque<Slots>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks for MemoryMarks {
    fn read(&mut self) -> io::Result<Vec<[u8; MARK_BYTES]>> {
        let newest = self.history().back().copied().unwrap_or_default();
        Ok(newest.into_iter().flatten().collect())
    }

    fn write(&mut self, slot: usize, mark: &[u8; MARK_BYTES]) -> io::Result<()> {
        let mut history = self.history();
        let mut slots = history.back().copied().unwrap_or_default();
        if let Some(slot) = slots.get_mut(slot) {
            *slot = Some(*mark);
        }
        history.push_back(slots);
        if history.len() > HISTORY_MAX {
            history.pop_front();
        }
        Ok(())
    }
}

/// The key of every simulated ledger.
pub fn key() -> chain::Key {
    chain::Key::new(b"the key of a simulated device")
}

/// What guards a simulated ledger.
pub fn evidence(marks: &MemoryMarks) -> Evidence {
    Evidence::new(key(), Box::new(marks.clone()))
}

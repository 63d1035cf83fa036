//! Open descriptors: kept while a file has unsynced bytes, few otherwise.
//!
//! Why a descriptor must stay: Linux reports a failed write-back to descriptors that were open when
//! it failed, once each. A file that is written, closed, and opened again for its sync may hear
//! nothing, and its bytes are acknowledged and gone.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};
#[cfg(cairn_loom)]
use std::sync::{Mutex, MutexGuard};

use cairn_io::File;
#[cfg(not(cairn_loom))]
use cairn_io::sync::{Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Handles {
    open: Mutex<Open>,
    /// Above so many, files without unsynced bytes are closed, least recently used first.
    open_files_max: usize,
}

#[derive(Debug, Default)]
struct Open {
    slots: BTreeMap<u64, Slot>,
    /// Rises with every use and change, over all slots: a slot made later has later changes than
    /// any snapshot of an earlier one.
    clock: u64,
}

/// Unsynced bytes exist while `changed > synced`.
#[derive(Debug)]
struct Slot {
    file: Arc<dyn File>,
    used: u64,
    /// When the file was last changed: set before the change begins and again after it returned.
    changed: u64,
    /// The largest `changed` that a successful barrier began after.
    synced: u64,
}

/// A file with unsynced bytes, as of one moment.
pub(crate) struct Unsynced {
    pub(crate) index: u64,
    pub(crate) file: Arc<dyn File>,
    changed: u64,
}

impl Handles {
    pub(crate) fn new(open_files_max: usize) -> Self {
        Self { open: Mutex::default(), open_files_max }
    }

    /// The descriptor of a segment, from `open` when there is none.
    pub(crate) fn get(
        &self,
        index: u64,
        open: impl FnOnce() -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        let mut all = self.lock();
        all.clock += 1;
        let used = all.clock;
        if let Some(slot) = all.slots.get_mut(&index) {
            slot.used = used;
            return Ok(Arc::clone(&slot.file));
        }
        let file = open()?;
        let slot = Slot { file: Arc::clone(&file), used, changed: 0, synced: 0 };
        all.slots.insert(index, slot);
        all.close_idle(self.open_files_max);
        Ok(file)
    }

    /// Notes a change of a segment whose descriptor the caller holds. Call before and after: a
    /// barrier in between covers nothing of it, and a change that fails or panics may have
    /// happened.
    pub(crate) fn changed(&self, index: u64) {
        let mut all = self.lock();
        all.clock += 1;
        let now = all.clock;
        if let Some(slot) = all.slots.get_mut(&index) {
            slot.changed = now;
        }
    }

    /// Everything a barrier that begins now has to cover.
    pub(crate) fn unsynced(&self) -> Vec<Unsynced> {
        let all = self.lock();
        let unsynced = all.slots.iter().filter(|(_, slot)| !slot.is_clean());
        unsynced
            .map(|(&index, slot)| Unsynced {
                index,
                file: Arc::clone(&slot.file),
                changed: slot.changed,
            })
            .collect()
    }

    /// Notes a successful barrier that began after `unsynced` was taken.
    pub(crate) fn synced(&self, unsynced: Unsynced) {
        let mut all = self.lock();
        if let Some(slot) = all.slots.get_mut(&unsynced.index) {
            slot.synced = slot.synced.max(unsynced.changed);
        }
        drop(unsynced);
        all.close_idle(self.open_files_max);
    }

    /// Closes the descriptor of a removed file, unsynced or not.
    pub(crate) fn forget(&self, index: u64) {
        self.lock().slots.remove(&index);
    }

    /// No method panics halfway.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// A descriptor that a thread holds may be about to be written through: it counts as in use,
    /// whatever its marks say.
    fn close_idle(&mut self, open_files_max: usize) {
        while self.slots.len() > open_files_max {
            let idle = self
                .slots
                .iter()
                .filter(|(_, slot)| slot.is_clean() && Arc::strong_count(&slot.file) == 1)
                .min_by_key(|(_, slot)| slot.used)
                .map(|(&index, _)| index);
            let Some(index) = idle else { return };
            self.slots.remove(&index);
        }
    }
}

impl Slot {
    fn is_clean(&self) -> bool {
        self.changed <= self.synced
    }
}

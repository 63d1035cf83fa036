//! Freezing and ending a log, and the groups that say so on disk.

use crate::error::{Error, Result};
use crate::format::{FrameKind, GROUP_HEADER_LEN, GroupKind, HeadMark, push_frame};
use crate::mutation::{self, Mutation};
use crate::place::{Place, SlotNumber};
use crate::segment::space::NOTE_BYTES;
use crate::sync::thread;
use crate::writer::core::Core;
use crate::writer::lead::Leading;
use crate::writer::requests::forget_panic;
use crate::writer::state::Goal;

/// A log that is closed has at most so many bytes to be scanned when it is opened: less than a
/// millisecond's worth.
const SCANNED_BYTES_MAX: u64 = 1 << 20;

impl Core {
    /// Ends writing: everything appended becomes durable, and a mark says so on disk.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_process()?;
        let mut leading = self.freeze()?;
        let result = leading.write_end().and_then(|()| leading.keep_closed());
        leading.phase.close();
        let (active, segments) = (leading.active.file, leading.segments.clone());
        leading.finish();
        // Before another writer is let in, who may rename what it likes.
        let result = result.and_then(|()| self.layout.expect_in_place(&active, &segments));
        self.end_threads();
        result
    }

    /// What `Drop` does: hands what is buffered to the operating system, as well as that goes, and
    /// promises nothing. If all of it is durable already, a mark says so.
    pub(crate) fn abandon(&self) {
        // The child of the process that writes has nothing to hand over, no thread to wait for, and
        // the other one's lock.
        if self.check_process().is_err() {
            return;
        }
        let _ = self.flush();
        let mut leading = self.claim();
        leading.phase.freeze();
        self.close_slot(&mut leading, false);
        leading.mark_what_is_durable();
        leading.phase.close();
        leading.finish();
        self.end_threads();
    }

    pub(super) fn end_threads(&self) {
        self.wake_committer();
        for word in [&self.wanted, &self.requests.full] {
            word.bump();
            word.wake_all();
        }
        let mut guard = self.lock();
        let threads = [guard.committer.take(), guard.preparer.take()];
        let helpers = std::mem::take(&mut guard.helpers);
        drop(guard);
        for thread in threads.into_iter().flatten().chain(helpers) {
            // A callback may drop the last handle: its thread ends when the callback has returned,
            // and cannot wait for itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            // The committer catches what callbacks do; a panic of its own is in the state already.
            if let Err(panic) = thread.join() {
                forget_panic(panic);
            }
        }
        self.drop_spares();
        self.lock().phase.end();
        // Not when the last handle of a file goes: tickets and followers keep the files open, and
        // so do processes that were forked.
        if !mutation::is(Mutation::KeepLock) {
            self.layout.unlock();
        }
        self.progress.notify(usize::MAX);
    }
}

impl Core {
    /// Leads, with everything appended durable and no append under way: for a truncation, or for
    /// closing.
    pub(crate) fn freeze(&self) -> Result<Leading<'_>> {
        let mut leading = self.claim();
        leading.phase.check_writable()?;
        leading.phase.freeze();
        // Also when it holds nothing yet. Left open: 1. the rest is flushed without the lock, 2. a
        // record gets a place in it, 3. what was to be durable as a whole has a record that is not.
        self.close_slot(&mut leading, false);
        leading.when_nothing_is_prepared();
        let goal =
            if mutation::is(Mutation::MarkBeforeBarrier) { Goal::Flushed } else { Goal::Durable };
        if let Err(error) = leading.flush_out(goal, SlotNumber::MAX) {
            leading.phase.thaw();
            leading.finish();
            return Err(error);
        }
        Ok(leading)
    }
}

impl<'a> Leading<'a> {
    /// In a frozen log: appends a group that names a place, and makes it durable. Fails before
    /// anything has changed when there is no space for it, and for a mark behind it.
    pub(crate) fn write_note(&mut self, kind: GroupKind, place: Place) -> Result<()> {
        self.reserve_space(self.end.lsn + NOTE_BYTES)?;
        let superblock = self.active.file.superblock;
        let note = HeadMark { lsn: place.lsn, seq: place.seq, uuid: *superblock.uuid.as_bytes() };
        let frame = if kind == GroupKind::Cut { FrameKind::Cut } else { FrameKind::Head };
        let lsn = self.end.lsn;
        let mut bytes = vec![0; GROUP_HEADER_LEN];
        push_frame(
            &mut bytes,
            frame,
            &note.encode(),
            lsn + GROUP_HEADER_LEN as u64,
            self.active.seed(),
        );
        let len = u32::try_from(bytes.len()).expect("a note is small");
        let header = self.author().header(kind, self.end, len, self.durable);
        bytes[..GROUP_HEADER_LEN].copy_from_slice(&header.encode(self.active.log_seed()));
        self.write_group(&bytes)
    }

    /// In a frozen log, all of which is durable: ends it so that the next open need not scan much.
    /// A segment that holds a good part of what it may is sealed, and the mark is all that its
    /// successor holds.
    pub(crate) fn write_end(&mut self) -> Result<()> {
        let long = self.active.offset(self.end.lsn).0 > SCANNED_BYTES_MAX;
        if self.marked || !long {
            return self.write_mark();
        }
        match self.rotate_frozen() {
            Err(error) if self.phase.stopped().is_some() => Err(error),
            // Where there is no space for another segment, there still is for the mark.
            _ => self.write_mark(),
        }
    }

    /// In a frozen log: writes a mark behind everything, if that is durable and there is room.
    ///
    /// Without it nothing proves the last group: 1. a record is committed, 2. the handle is
    /// dropped, 3. a bit of the record flips, 4. the next opening cannot tell that from a torn
    /// write. The mark needs no barrier: it claims only what had one.
    fn mark_what_is_durable(&mut self) {
        let end = self.end.lsn.saturating_add(GROUP_HEADER_LEN as u64);
        let ready = self.phase.is_frozen() && !self.marked && self.pending.is_empty();
        if !ready || self.durable != self.end.lsn || end > self.reserved {
            return;
        }
        self.when_nothing_is_prepared();
        let active = self.active.clone();
        let mut mark = self.author().mark(self.end).encode(active.log_seed()).to_vec();
        mark.resize(mark.len() + active.zeros_behind(end), 0);
        let offset = active.offset(self.end.lsn).0;
        let _ = self.unlocked(|| active.store.write_at(offset, &mark));
    }

    /// In a frozen log that ends in a mark: writes down where. From then on a log that ends earlier
    /// was cut by somebody, and is no torn one.
    fn keep_closed(&mut self) -> Result<()> {
        let (core, state) = (self.core, self.closed_state());
        self.unlocked(|| core.layout.keep_state(&state))?;
        self.unlocked(|| core.layout.discard_cuts(0));
        self.stated = state;
        Ok(())
    }

    /// In a frozen log: writes that all of it is durable, unless the disk says so already, and
    /// gives back reserved space.
    ///
    /// The barrier before the mark is what the mark claims; a barrier behind it only makes the
    /// claim itself durable. With one barrier for both: 1. the mark lands, 2. power fails before
    /// the last group does, 3. a torn tail is taken for corruption.
    pub(crate) fn write_mark(&mut self) -> Result<()> {
        if self.marked {
            return Ok(());
        }
        let end = self.end.lsn + GROUP_HEADER_LEN as u64;
        self.reserve_space(end)?;
        let active = self.active.clone();
        let mark = self.author().mark(self.end).encode(active.log_seed());
        let trimmed = self.unlocked(|| active.store.truncate(active.offset(end).0));
        let result = self.write_group(&mark);
        self.marked = result.is_ok();
        let trimmed = trimmed.map_err(|e| Error::io("trim", &active.path, e));
        result.and(trimmed)
    }
}

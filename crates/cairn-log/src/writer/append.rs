//! Placing records: in the open slot, or after making room.

use cairn_commit::gate::Turn;

use crate::error::{Error, Result};
use crate::format::{
    ALIGN, Batch, GROUP_HEADER_LEN, POSITIONS_END, frame_len, seal_len, write_record,
};
use crate::mutation::{self, Mutation};
use crate::place::Lsn;
use crate::ring::{Opening, Placed};
use crate::segment::space::{NOTE_BYTES, NOTES_BYTES};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::writer::core::{Appended, Core, Guard};
use crate::writer::lead::Leading;
use crate::writer::state::{Goal, Pending, State};

/// Bytes of one group must fit its header's length field, with room to spare.
const GROUP_BYTES_MAX: usize = (1 << 31) + (1 << 20);

/// Whether an append may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Refuse,
}

/// Why no slot can be opened.
pub(crate) enum Blocked {
    /// The segment is full.
    Segment,
    /// Space has to be reserved up to this position.
    Space(Lsn),
    /// Every slot is on its way to the disk.
    Ring,
    /// Zeros are being written where the slot would go.
    Zeros,
    /// The system refused the memory for a group of that size, or there are no more positions.
    Refused(Error),
}

impl Core {
    /// Appends one record.
    pub(crate) fn append(&self, payload: &[u8], patience: Patience) -> Result<Appended> {
        let max = self.options.max_record_size;
        if payload.len() as u64 > max {
            return Err(Error::TooLarge { len: payload.len() as u64, max });
        }
        let mut placed = self.place(frame_len(payload.len()), 1, patience)?;
        if !mutation::is(Mutation::PublishBeforeCopy) {
            write_record(&mut placed.part, Batch::Ends, payload, placed.lsn, placed.seed);
        }
        placed.part.publish();
        Ok(Appended { lsn: placed.lsn, seq: placed.seq, slot: placed.slot })
    }

    /// Appends several records into one group, which recovery keeps or drops as a whole. Returns
    /// where the first one went, and where the last one starts.
    pub(crate) fn append_batch(&self, payloads: &[&[u8]]) -> Result<(Appended, Lsn)> {
        let max = self.options.max_record_size;
        let mut len = 0usize;
        for payload in payloads {
            if payload.len() as u64 > max {
                return Err(Error::TooLarge { len: payload.len() as u64, max });
            }
            len = len.saturating_add(frame_len(payload.len()));
        }
        if len > GROUP_BYTES_MAX {
            return Err(Error::TooLarge { len: len as u64, max: GROUP_BYTES_MAX as u64 });
        }
        let count = payloads.len() as u64;
        // Counted before it is published. Otherwise the leader counts each of its records as one
        // arriving thread and stops waiting for the others.
        self.in_company.fetch_add(count.saturating_sub(1), Ordering::AcqRel);
        let mut placed = self.place(len, count, Patience::Wait)?;
        let mut rest = &mut placed.part[..];
        let (mut next, mut last) = (placed.lsn, placed.lsn);
        for (nth, payload) in payloads.iter().enumerate() {
            let (frame, behind) = rest.split_at_mut(frame_len(payload.len()));
            let batch = if nth + 1 < payloads.len() { Batch::GoesOn } else { Batch::Ends };
            write_record(frame, batch, payload, next, placed.seed);
            (last, next, rest) = (next, next + frame.len() as u64, behind);
        }
        placed.part.publish();
        Ok((Appended { lsn: placed.lsn, seq: placed.seq, slot: placed.slot }, last))
    }

    pub(super) fn place(&self, len: usize, records: u64, patience: Patience) -> Result<Placed<'_>> {
        self.check_process()?;
        match self.ring.place(len, records) {
            Some(placed) => Ok(placed),
            None => loop {
                match self.make_room(len, records, patience) {
                    // Files kept for recycling also occupy space: delete them and try again.
                    Err(Error::Full { .. }) if self.remove_dropped() => {}
                    made => return made,
                }
            },
        }
    }

    /// Opens a slot that has room, after rotating, reserving space and writing as needed. Fails
    /// before anything is placed, so that the caller may free space and try again.
    #[cold]
    pub(super) fn make_room(
        &self,
        len: usize,
        records: u64,
        patience: Patience,
    ) -> Result<Placed<'_>> {
        let mut guard = self.lock();
        loop {
            guard.phase.check_writable()?;
            if guard.phase.is_frozen() {
                if patience == Patience::Refuse {
                    return Err(Error::WouldBlock);
                }
                guard = self.wait(guard);
                continue;
            }
            if let Some(placed) = self.ring.place(len, records) {
                self.write_behind(guard);
                return Ok(placed);
            }
            let blocked = match self.turn_over(&mut guard, len) {
                Ok(()) => continue,
                Err(Blocked::Refused(error)) => return Err(error),
                Err(_) if patience == Patience::Refuse => return Err(Error::WouldBlock),
                Err(blocked) => blocked,
            };
            if let Blocked::Zeros = blocked {
                guard.prepared.note_wait();
                guard = self.wait(guard);
                continue;
            }
            self.unblock(guard, blocked, len)?;
            guard = self.lock();
        }
    }

    /// Leads, and does what keeps a slot with room for `len` bytes from being opened, if it still
    /// is to be done.
    fn unblock(&self, guard: Guard<'_>, blocked: Blocked, len: usize) -> Result<()> {
        let oldest = guard.written;
        let mut leading = match blocked {
            Blocked::Ring => {
                self.write_behind(guard);
                match self.gate.wait(oldest.0) {
                    Turn::Lead(lead) => Leading::new(self, lead),
                    Turn::Covered | Turn::Ended => return Ok(()),
                }
            }
            _ => {
                drop(guard);
                self.claim()
            }
        };
        leading.phase.check_writable()?;
        // While this thread waited, another one may have seen to it.
        match self.turn_over(&mut leading, len) {
            Ok(()) | Err(Blocked::Zeros) => {}
            Err(Blocked::Refused(error)) => return Err(error),
            Err(Blocked::Segment) => leading.rotate()?,
            Err(Blocked::Space(end)) => leading.reserve_space(end)?,
            Err(Blocked::Ring) => {
                let asked = self.requests.slots.load(Ordering::Acquire) > self.covered().0;
                let durable = asked || self.block(&leading) > 1;
                leading.flush_out(if durable { Goal::Durable } else { Goal::Flushed }, oldest)?;
            }
        }
        leading.finish();
        Ok(())
    }

    /// Closes the open slot as full, unless it has room for `len` bytes of frames, and opens one
    /// that has.
    pub(super) fn turn_over(
        &self,
        state: &mut State,
        len: usize,
    ) -> std::result::Result<(), Blocked> {
        if self.ring.has_room(len) {
            return Ok(());
        }
        self.close_slot(state, true);
        self.try_open(state, len)
    }

    /// Closes the open slot, if there is one. A full one ends at a block boundary, so that the next
    /// one can be written at the same time.
    pub(crate) fn close_slot(&self, state: &mut State, full: bool) {
        if self.ring.open_slot().is_none() {
            return;
        }
        let filled = self.ring.close();
        self.in_company.store(0, Ordering::Relaxed);
        if filled.records == 0 {
            state.next_slot = filled.number;
            return;
        }
        let end = state.active.offset(filled.end_lsn);
        let full = full && !mutation::is(Mutation::SharedBlockInFlight);
        let padding = if full { end.next_multiple_of(self.block(state)) - end } else { 0 };
        let pending = Pending { filled, padding };
        state.end = pending.end();
        if mutation::is(Mutation::OverlapOversize) {
            state.end.lsn = state.end.lsn.min(filled.lsn + self.options.buffer_size as u64);
        }
        if state.index.takes(filled.lsn) {
            Arc::make_mut(&mut state.index).note(filled.lsn, filled.first_seq);
        }
        state.marked = false;
        state.stats.records += filled.records;
        state.stats.frame_bytes += filled.end_lsn - filled.lsn - GROUP_HEADER_LEN as u64;
        state.stats.groups += 1;
        state.pending.push_back(pending);
    }

    /// Opens a slot with room for `len` bytes of frames. None is open.
    pub(crate) fn try_open(
        &self,
        state: &mut State,
        len: usize,
    ) -> std::result::Result<(), Blocked> {
        let wanted = GROUP_HEADER_LEN + len;
        if state.pending.len() + state.writing() >= self.ring.len() {
            return Err(Blocked::Ring);
        }
        let block = self.block(state);
        let (start, base) = (state.end.lsn, state.active.file.superblock.base_lsn);
        let left = POSITIONS_END.saturating_since(start);
        if left < wanted as u64 {
            return Err(Blocked::Refused(Error::Exhausted { what: "positions" }));
        }
        let offset = state.active.offset(start);
        let whole_blocks = |end: u64| end - end % block.max(ALIGN);
        let entries = state.index.entries.len() + usize::from(state.index.takes(start));
        let seal = seal_len(entries) as u64 + NOTE_BYTES;
        let mut room =
            whole_blocks(self.options.segment_size.saturating_sub(seal)).saturating_sub(offset.0);
        // An empty segment takes whatever comes: a record larger than a segment gets one of its own
        // size.
        if room < wanted as u64 && start > base {
            return Err(Blocked::Segment);
        }
        room = room.max(wanted as u64);
        // Where the whole segment is reserved, the room for a seal is there for notes, too.
        let whole = state.reserved - base >= self.options.segment_room();
        let notes = if whole { 0 } else { NOTES_BYTES };
        let space = whole_blocks(state.active.offset(state.reserved).0.saturating_sub(notes))
            .saturating_sub(offset.0);
        if space < wanted as u64 {
            return Err(Blocked::Space(start.saturating_add(wanted as u64 + NOTES_BYTES + block)));
        }
        room = state.prepared.room(start, room.min(space), wanted as u64).ok_or(Blocked::Zeros)?;
        room = room.min(left);
        room -= room % ALIGN;
        let opening = Opening {
            number: state.next_slot,
            lsn: start,
            shared: usize::try_from(offset.within(block)).expect("less than a block"),
            room,
            wanted,
            first_seq: state.end.seq,
            seed: state.active.seed(),
        };
        self.ring.open(opening).map_err(Blocked::Refused)?;
        state.next_slot += 1;
        state.open_end = start.saturating_add(room);
        Ok(())
    }
}

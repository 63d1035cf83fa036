//! What one commit writes, and in which order.
//!
//! Commit *n* takes the stack from state *n − 1*, which is durable, to state *n*. Its slot is *n
//! mod 2*; the other slot holds *n − 1*.
//!
//! ```text
//! in place of n − 1 -> appended bytes of n -> body and header of n -> barrier -> n is durable
//! ```
//!
//! A header takes a block of 4096 bytes in any case, so small changes stay in that block. While
//! there is room, a commit *carries* two things in its body: the changes that earlier commits have
//! not yet written in place, and the bytes that it appends. Such a commit writes that one block. If
//! the store can, the write goes past the page cache and is its own barrier.
//!
//! Invariants, and the loss that follows if one does not hold:
//! 1. Nothing of commit *n* is written before the barrier of *n − 1* returned. So a crash leaves
//!    state *n* or *n − 1*, never *n − 2*. Commit *n* may overwrite the slot and the body of
//!    *n − 2*, and bytes behind the end that only *n − 2* needed.
//! 2. Recovery accepts header *n* only with its proof: the checksum of the body, and the checksums
//!    in the body of the appended bytes. Otherwise: 1. the header reaches the disk, 2. power fails,
//!    3. the payload is whatever bytes were there before (L27).
//! 3. A byte before the end of state *n − 1* changes in place only after the barrier of *n*, or of
//!    the later commit that carried the change. Otherwise: 1. such a byte reaches the disk,
//!    2. power fails, 3. header *n* did not reach the disk: state *n − 1* is a mixture (L29).
//! 4. The in-place changes of *n* are written, or carried, before the barrier of *n + 1* is called.
//!    The body of *n* stays until that barrier returned. So if *n + 1* is the newest commit, either
//!    its barrier returned and the changes are durable, or the body of *n* is there and recovery
//!    writes them again.
//! 5. A body too large for its slot is behind the payload, where the next commit would append. So
//!    that commit is *settled* first: its changes are written in place, and a commit that changes
//!    nothing follows, with a barrier of its own.
//! 6. From `dirty_end` on, the file holds zeros or ends.
//! 7. A header is written as its own barrier only if no earlier write waits for a barrier.
//!    Otherwise: 1. a commit's appended bytes are in the page cache, 2. its header is durable, and
//!    the commit acknowledged, 3. power fails: its proof does not hold, and the commit is lost.
//! 8. The file is never shorter than a durable state; a shorter file was truncated from outside.
//!    Growing is always done by a write, which marks the medium unsynced, so that 7 holds.
//! 9. A failure before the header is begun leaves state *n − 1* for certain: no byte that was
//!    written belongs to it. Once the header is begun, *n* is in doubt until the stack is opened
//!    again.

use uuid::Uuid;

use crate::delta::Delta;
use crate::error::{Error, Failure, Result};
use crate::format::{
    BLOCK_LEN, Body, CommitNumber, DATA_ALIGN, ENTRY_LEN, Epoch, HEADER_LEN, HOLES, Header,
    HeaderName, PayloadOffset, SLOT_BODY_MAX, body_checksum,
};
use crate::medium::{HOLE_MIN, Medium, ZEROS};
use crate::mutation::{self, Mutation};
use crate::overlay::{Overlay, Piece};
use crate::sync::{Arc, Stopwatch};

/// Bytes of body that fit behind a header in its block.
const ROOM: u64 = (BLOCK_LEN - HEADER_LEN) as u64;

/// Bytes of zeros that are written ahead of the end the first time. Each later time writes as many
/// as all times before, up to the end of the reserved space.
const ZEROS_AHEAD_MIN: u64 = 64 << 10;

/// Memory for one block, aligned for writes past the page cache.
#[derive(Debug)]
#[repr(align(4096))]
struct Block([u8; BLOCK_LEN]);

/// A durable state: the file, and on top of it the changes that are not yet written in place.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) len: u64,
    pub(crate) in_place: Arc<Overlay>,
}

/// Why a commit did not become durable.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The commit did not take place. The next one may be tried.
    Refused(Error),
    /// Nothing more may be written. If `in_doubt`, the commit may have taken place; otherwise it
    /// did not.
    Halted { failure: Failure, in_doubt: bool },
}

/// The state of the file that only the leader of a commit uses.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) medium: Arc<Medium>,
    pub(crate) uuid: Uuid,
    pub(crate) created_unix_ns: u64,
    /// Number of the newest durable commit.
    pub(crate) sequence: CommitNumber,
    /// The header of that commit.
    newest: HeaderName,
    /// Of this opening.
    pub(crate) epoch: Epoch,
    pub(crate) holes: bool,
    /// Whether the body of the newest commit is behind the payload.
    pub(crate) outside: bool,
    /// From here on the file holds zeros or ends.
    dirty_end: PayloadOffset,
    /// Up to here every block was written before: another write there changes no metadata.
    filled_end: PayloadOffset,
    /// The file is at least this long.
    grown_end: PayloadOffset,
    /// Bytes of zeros that were written ahead so far.
    zeros_ahead: u64,
    /// Duration of the last barrier.
    pub(crate) barrier_took: std::time::Duration,
    block: Box<Block>,
}

impl Disk {
    /// The file of a stack whose newest commit has this header and is durable. Any byte up to `end`
    /// may be dirty.
    pub(crate) fn new(
        medium: Arc<Medium>,
        (header, newest): (&Header, HeaderName),
        epoch: Epoch,
        end: PayloadOffset,
    ) -> Self {
        Disk {
            medium,
            uuid: header.uuid,
            created_unix_ns: header.created_unix_ns,
            sequence: header.sequence,
            newest,
            epoch,
            holes: header.flags & HOLES != 0,
            outside: false,
            dirty_end: end,
            filled_end: end,
            grown_end: end,
            zeros_ahead: 0,
            barrier_took: std::time::Duration::ZERO,
            block: Box::new(Block([0; BLOCK_LEN])),
        }
    }

    /// Applies `delta` to the state `base`; the new state is durable on return. Returns the changes
    /// that are still to be written in place, or nothing if these are the in-place changes of
    /// `delta`.
    pub(crate) fn commit(
        &mut self,
        base: &Durable,
        delta: &Delta,
        holes: bool,
    ) -> std::result::Result<Option<Overlay>, Stop> {
        assert_eq!(base.len, delta.base_len(), "a commit starts from the durable state");
        let refuse = Stop::Refused;
        let fits = entries_len(&base.in_place) + entries_len(delta.overlay()) <= ROOM;
        let mut carried = (fits && !self.outside).then(|| (*base.in_place).clone());
        if self.outside && !mutation::is(Mutation::SkipSettle) {
            self.settle(base)?;
        } else if carried.is_none() && !mutation::is(Mutation::ApplyTooLate) {
            self.write_in_place(&base.in_place).map_err(refuse)?;
        }
        let applied = carried.is_none();
        if applied && entries_len(delta.overlay()) <= ROOM {
            carried = Some(Overlay::default());
        }
        self.clear_old_bytes(PayloadOffset(base.len), delta)?;
        let body = match &mut carried {
            Some(carried) => self.carry(delta, carried),
            None => self.write_appended(delta).map_err(refuse)?,
        };
        self.grow(delta.len()).map_err(refuse)?;
        self.holes |= holes;
        let sequence = match mutation::is(Mutation::OneSlot) {
            true => self.sequence.next().next(),
            false => self.sequence.next(),
        };
        let mut header = self.header(sequence, base.len, delta.len());
        let slot = self.write_body(&mut header, body.bytes()).map_err(refuse)?;
        if mutation::is(Mutation::WriteInPlaceAtOnce) {
            self.write_in_place(&delta.clone().into_in_place()).map_err(refuse)?;
        }
        self.write_header(&header, &slot, true)?;
        self.outside = header.body_is_outside();
        if applied && mutation::is(Mutation::ApplyTooLate) {
            self.write_in_place(&base.in_place).map_err(refuse)?;
        }
        Ok(carried)
    }

    /// Adds the changes of the commit to those carried so far, and returns the body of the commit,
    /// which holds all of them. Nothing is written in place.
    fn carry(&self, delta: &Delta, carried: &mut Overlay) -> Body {
        carried.truncate(delta.kept());
        let dirty_end = if mutation::is(Mutation::TrustOldBytes) { 0 } else { self.dirty_end.0 };
        for (offset, piece) in delta.overlay().iter() {
            match piece {
                Piece::Bytes(bytes) => carried.write(offset, bytes),
                // Behind the end of the old state and behind `dirty_end`, the file already holds
                // zeros.
                Piece::Zeros(len) => {
                    let end = (offset + len).min(delta.base_len().max(dirty_end));
                    carried.zero(offset, end.saturating_sub(offset));
                }
            }
        }
        let mut body = Body::default();
        for (offset, piece) in carried.iter() {
            match piece {
                Piece::Bytes(bytes) => body.data(offset, bytes),
                Piece::Zeros(len) => body.zeros(offset, *len),
            }
        }
        body
    }

    /// Writes the body behind the payload if it does not fit in the slot. Completes the header, and
    /// returns the bytes to write in the slot.
    fn write_body(&mut self, header: &mut Header, body: &[u8]) -> Result<Vec<u8>> {
        header.body_len = body.len() as u64;
        header.body_crc = body_checksum(self.uuid, self.epoch, header.sequence, body);
        if header.body_len <= SLOT_BODY_MAX {
            return Ok(header.encode(body));
        }
        let start = PayloadOffset(header.base_len.max(header.len)).next_block();
        let end = start + header.body_len;
        header.body_offset = start.in_file();
        self.dirty_end = self.dirty_end.max(end);
        self.medium.write(start, body)?;
        self.grown_end = self.grown_end.max(end);
        Ok(header.encode(&[]))
    }

    fn header(&self, sequence: CommitNumber, base_len: u64, len: u64) -> Header {
        Header {
            uuid: self.uuid,
            sequence,
            base_len,
            len,
            body_offset: sequence.slot().body_offset(),
            body_len: 0,
            body_crc: body_checksum(self.uuid, self.epoch, sequence, &[]),
            flags: if self.holes { HOLES } else { 0 },
            created_unix_ns: self.created_unix_ns,
            epoch: self.epoch,
            previous: self.newest,
        }
    }

    /// Writes a slot from its beginning, and makes everything durable that was written so far. Then
    /// its commit is the newest one.
    fn write_header(
        &mut self,
        header: &Header,
        slot: &[u8],
        in_doubt: bool,
    ) -> std::result::Result<(), Stop> {
        let halted = |failure| Stop::Halted { failure, in_doubt };
        let (medium, offset) = (&self.medium, header.sequence.slot().offset());
        let watch = Stopwatch::start();
        // Invariant 7: past the page cache only if nothing else waits for a barrier.
        if slot.len() == BLOCK_LEN && medium.is_synced() {
            self.block.0.copy_from_slice(slot);
            let written = medium.write_durable(offset, &self.block.0);
            written.map_err(|e| halted(medium.failure("commit to", e)))?;
        } else {
            let written = medium.write_at(offset, slot);
            written.map_err(|e| halted(medium.failure("write to", e)))?;
            medium.sync().map_err(|e| halted(medium.failure("sync", e)))?;
        }
        self.barrier_took = watch.elapsed();
        (self.sequence, self.newest) = (header.sequence, header.name_in(slot));
        Ok(())
    }

    /// Writes the changes of the newest commit in place, and commits nothing on top of it: then no
    /// state needs the body.
    pub(crate) fn settle(&mut self, base: &Durable) -> std::result::Result<(), Stop> {
        self.write_in_place(&base.in_place).map_err(Stop::Refused)?;
        let header = self.header(self.sequence.next(), base.len, base.len);
        self.write_header(&header, &header.encode(&[]), false)?;
        self.outside = false;
        Ok(())
    }

    /// Settles, and gives back the space behind the end.
    pub(crate) fn finish(&mut self, base: &Durable) -> std::result::Result<(), Stop> {
        self.settle(base)?;
        self.cut(PayloadOffset(base.len))
    }

    fn write_in_place(&mut self, overlay: &Overlay) -> Result<()> {
        for (offset, piece) in overlay.iter() {
            let start = PayloadOffset(offset);
            let end = start + piece.len();
            match piece {
                Piece::Bytes(bytes) => {
                    // If the bytes were carried, the file may have held zeros there until now.
                    self.dirty_end = self.dirty_end.max(end);
                    self.medium.write(start, bytes)?;
                }
                Piece::Zeros(_) => self.medium.write_zeros(start, end)?,
            }
        }
        Ok(())
    }

    /// Cuts the file if the commit adds zeros over more than [`HOLE_MIN`] bytes that earlier
    /// commits left: writing that many zeros would take long.
    fn clear_old_bytes(
        &mut self,
        base_end: PayloadOffset,
        delta: &Delta,
    ) -> std::result::Result<(), Stop> {
        let (mut old, mut written_end) = (0, base_end);
        for (offset, piece) in delta.overlay().iter() {
            let start = PayloadOffset(offset);
            let end = start + piece.len();
            match piece {
                Piece::Zeros(_) => old += end.min(self.dirty_end).bytes_from(start.max(base_end)),
                Piece::Bytes(_) => written_end = end,
            }
        }
        if old <= HOLE_MIN {
            return Ok(());
        }
        self.cut(base_end)?;
        self.medium.reserve(written_end).map_err(Stop::Refused)
    }

    /// Cuts the file at `end`, where the state of the newest commit ends. That commit must not need
    /// bytes behind it.
    fn cut(&mut self, end: PayloadOffset) -> std::result::Result<(), Stop> {
        let mut reserved = self.medium.lock_reserved();
        *reserved = end.min(*reserved);
        // Before the call, whether it succeeds or not. Otherwise: 1. the call cuts the file and
        // returns an error, 2. the next commit takes the file for long enough, and does not make it
        // longer, 3. the file is shorter than a durable state, and does not open.
        (self.filled_end, self.grown_end) = (end, end);
        let store = &self.medium.store;
        store.truncate(end.in_file().0).map_err(|e| Stop::Refused(self.medium.error("cut")(e)))?;
        let in_doubt = false;
        self.medium
            .sync()
            .map_err(|e| Stop::Halted { failure: self.medium.failure("sync", e), in_doubt })?;
        drop(reserved);
        self.dirty_end = end;
        Ok(())
    }

    /// Writes the bytes behind the end of the old state; returns the body of the commit.
    fn write_appended(&mut self, delta: &Delta) -> Result<Body> {
        let mut body = Body::default();
        let base_len = delta.base_len();
        let dirty_end = if mutation::is(Mutation::TrustOldBytes) { 0 } else { self.dirty_end.0 };
        let (mut written, mut written_end) = (0, PayloadOffset(0));
        for (offset, piece) in delta.overlay().iter() {
            let end = offset + piece.len();
            match piece {
                Piece::Bytes(bytes) => {
                    let below = usize::try_from(base_len.saturating_sub(offset))
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let (below, behind) = bytes.split_at(below);
                    if !below.is_empty() {
                        body.data(offset, below);
                    }
                    if !behind.is_empty() {
                        let start = end - behind.len() as u64;
                        body.proof(start, behind.len() as u64, crc32c::crc32c(behind));
                        written += behind.len() as u64;
                        written_end = PayloadOffset(end);
                        self.dirty_end = self.dirty_end.max(written_end);
                        self.medium.write(PayloadOffset(start), behind)?;
                    }
                }
                Piece::Zeros(_) => {
                    if offset < base_len {
                        body.zeros(offset, end.min(base_len) - offset);
                    }
                    let (start, end) = (offset.max(base_len), end.min(dirty_end));
                    if start < end {
                        body.proof(start, end - start, crc_of_zeros(end - start));
                        written += end - start;
                        written_end = PayloadOffset(end);
                        self.medium.write_zeros(PayloadOffset(start), written_end)?;
                    }
                }
            }
        }
        self.grown_end = self.grown_end.max(written_end);
        if written_end > self.filled_end {
            self.filled_end = written_end;
            if written < self.medium.ahead / 4 && self.dirty_end <= written_end {
                self.fill_ahead(written_end);
            }
        }
        Ok(body)
    }

    /// Makes the file as long as the stack. Zeros at its end need not be written, but a file that
    /// is shorter than a durable state is refused (invariant 8).
    fn grow(&mut self, len: u64) -> Result<()> {
        let end = PayloadOffset(len);
        if end <= self.grown_end {
            return Ok(());
        }
        // More zeros than `HOLE_MIN`: the first ones stay a hole.
        let from = self.grown_end.max(PayloadOffset(len.saturating_sub(HOLE_MIN)));
        self.medium.write_zeros(from, end)?;
        self.grown_end = end;
        self.fill_ahead(end);
        Ok(())
    }

    /// Writes zeros to reserved space from `from` on, where the file holds nothing. Then the
    /// barriers of the next small commits have no metadata to write. Failure is harmless: those
    /// commits just make the file longer.
    fn fill_ahead(&mut self, from: PayloadOffset) {
        let more = self.zeros_ahead.max(ZEROS_AHEAD_MIN).min(self.medium.ahead);
        let end = self.medium.reserved().min(from.saturating_add(more));
        self.filled_end = self.filled_end.max(from);
        if from < end && self.medium.write_zeros(from, end).is_ok() {
            (self.filled_end, self.grown_end) = (self.filled_end.max(end), self.grown_end.max(end));
            self.zeros_ahead += end.bytes_from(from);
        }
    }
}

/// Upper bound of the bytes that these pieces take in a body.
fn entries_len(overlay: &Overlay) -> u64 {
    let data = |piece: &Piece| match piece {
        Piece::Bytes(bytes) => bytes.len().next_multiple_of(DATA_ALIGN) as u64,
        Piece::Zeros(_) => 0,
    };
    overlay.iter().map(|(_, piece)| ENTRY_LEN as u64 + data(piece)).sum()
}

fn crc_of_zeros(mut len: u64) -> u32 {
    let mut crc = 0;
    while len > 0 {
        let part = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        crc = crc32c::crc32c_append(crc, &ZEROS[..part]);
        len -= part as u64;
    }
    crc
}

//! What one commit writes, and in which order.
//!
//! Commit *n* takes the stack from state *n − 1*, which is durable, to state *n*. Its slot is *n mod 2*; the other slot holds *n − 1*.
//!
//! ```text
//!  in place of n − 1 -> appended bytes of n -> body and header of n -> barrier -> state n is durable
//! ```
//!
//! A header is written as a block of 4096 bytes anyway, so small changes stay in it: while there is room, a commit *carries* what the ones before it have not yet
//! written where it belongs, and appended bytes, too. It then writes that block and nothing else; where the store can, past the page cache, as one write
//! that is its own barrier.
//!
//! Invariants, and what follows when one does not hold:
//! 1. Nothing of commit *n* is written before the barrier of *n − 1* returned. So a crash leaves state *n* or *n − 1*, never *n − 2*,
//!    and the slot, the body and the bytes behind the end that only *n − 2* needed are free to be overwritten.
//! 2. Header *n* is believed with its proof only: the checksum of the body, and in it those of the appended bytes. Otherwise: 1. the header
//!    reaches the disk, 2. power fails, 3. the bytes it announces are whatever was there (L27).
//! 3. Bytes below the length of *n − 1* change only after the barrier of *n*, or of the later commit that carried them, from its body. Otherwise: 1. such a byte reaches the
//!    disk, 2. power fails, 3. header *n* does not: state *n − 1* is a mixture (L29).
//! 4. They are written, or carried, before the barrier of *n + 1* is called, and the body of *n* stays until that returned. So when *n + 1* is the newest, either its
//!    barrier returned and what *n* changed in place is durable, or the body of *n* is still there, and recovery writes it in place again.
//! 5. A body too large for its slot lies behind the payload, where the next commit would append. Such a commit is *settled* first: written in place,
//!    and followed by a commit that changes nothing, with a barrier of its own.
//! 6. The file reads as zeros from `dirty_end` on, or ends before.
//! 7. A header is written as its own barrier only when nothing written before waits for one. Otherwise: 1. a commit's appended bytes are in the page cache,
//!    2. its header is durable, and the commit acknowledged, 3. power fails: its proof does not hold, and it is gone.
//! 8. The file is as long as a durable state, or longer: a shorter one was cut by somebody. Who makes it longer writes, so that 7 holds.
//! 9. A failure before the header is begun leaves state *n − 1* for certain: everything written so far is out of its sight. Once the header is begun,
//!    *n* is in doubt until the stack is opened again.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_io::Store;
use uuid::Uuid;

use crate::delta::Delta;
use crate::error::{Error, Failure, Result};
use crate::format::{
    BLOCK_LEN, Body, DATA_ALIGN, ENTRY_LEN, HEADER_LEN, HOLES, Header, PAYLOAD, SLOT_BODY_MAX, body_checksum,
    slot_offset,
};
use crate::mutation::{self, Mutation};
use crate::overlay::{Overlay, Piece};
use crate::sync::{Arc, Mutex, PoisonError, Stopwatch};

/// Zeros behind the end that are fewer than this are written, or reserved; more are left as a hole.
pub(crate) const HOLE_MIN: u64 = 1 << 20;

/// Bytes of body behind a header in the block that is written anyway.
const ROOM: u64 = (BLOCK_LEN - HEADER_LEN) as u64;

/// Zeros are written ahead of the end so many at first, then twice as many each time, as far as space is reserved.
const ZEROS_AHEAD_MIN: u64 = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Memory for a header and its body that can go past the page cache.
#[derive(Debug)]
#[repr(align(4096))]
struct Block([u8; BLOCK_LEN]);

/// A durable state: the file, with what the newest commit has not yet written in place laid over it.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) len: u64,
    pub(crate) in_place: Arc<Overlay>,
}

/// Why a commit did not become durable.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It did not take place, and the next one may be tried.
    Refused(Error),
    /// Nothing more may be written. Whether it took place is unknown, or certainly it did not.
    Halted { failure: Failure, in_doubt: bool },
}

/// The file of one open stack.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) path: PathBuf,
    /// Up to here, in bytes of payload, space is reserved, holes excepted.
    reserved: Mutex<u64>,
    ahead: u64,
    pub(crate) barriers: AtomicU64,
    /// Whether something was written that waits for a barrier. A write that is durable by itself says nothing of it.
    unsynced: AtomicBool,
}

impl Medium {
    pub(crate) fn new(store: Arc<dyn Store>, path: PathBuf, reserved: u64, ahead: u64) -> Self {
        let (barriers, unsynced) = (AtomicU64::new(0), AtomicBool::new(false));
        Medium { store, path, reserved: Mutex::new(reserved), ahead, barriers, unsynced }
    }

    pub(crate) fn error(&self, op: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::io(op, &self.path, source)
    }

    fn failure(&self, op: &'static str, source: io::Error) -> Failure {
        Failure::Io { op, path: self.path.clone(), source: Arc::new(source) }
    }

    /// Writes at an offset of the file.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Whatever the answer: a part may have been written.
        self.unsynced.store(true, Ordering::Relaxed);
        self.store.write_at(offset, bytes)
    }

    /// Writes at an offset of the payload.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.write_at(PAYLOAD + offset, bytes) {
            Err(_) if mutation::is(Mutation::IgnoreFailedWrite) => Ok(()),
            written => written.map_err(self.error("write to")),
        }
    }

    pub(crate) fn write_zeros(&self, mut offset: u64, end: u64) -> Result<()> {
        while offset < end {
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(offset, &ZEROS[..len])?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Reads at an offset of the payload; what the file does not hold is zeros.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let read = self.store.read_at(PAYLOAD + offset, buf).map_err(self.error("read from"))?;
        buf[read..].fill(0);
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        self.store.sync()?;
        self.unsynced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether everything written so far is durable.
    fn is_synced(&self) -> bool {
        !self.unsynced.load(Ordering::Relaxed) || mutation::is(Mutation::DirectOverUnsynced)
    }

    /// Writes at an offset of the file, durably: these bytes alone.
    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        self.store.write_durable(offset, &[IoSlice::new(bytes)])
    }

    fn lock_reserved(&self) -> crate::sync::MutexGuard<'_, u64> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserved(&self) -> u64 {
        *self.lock_reserved()
    }

    /// Reserves space up to `end`, and some ahead if there is.
    pub(crate) fn reserve(&self, end: u64) -> Result<()> {
        let mut reserved = self.lock_reserved();
        if end <= *reserved {
            return Ok(());
        }
        let ahead = end.saturating_add(self.ahead).next_multiple_of(BLOCK_LEN as u64);
        let from = PAYLOAD + *reserved;
        if self.ahead > 0 && self.store.preallocate(from, ahead - *reserved).is_ok() {
            *reserved = ahead;
            return Ok(());
        }
        self.store.preallocate(from, end - *reserved).map_err(self.error("reserve space in"))?;
        *reserved = end;
        Ok(())
    }

    /// Leaves what is not yet reserved below `len` a hole.
    pub(crate) fn leave_hole(&self, len: u64) {
        let mut reserved = self.lock_reserved();
        *reserved = reserved.max(len);
    }

    /// Reserves space for a range that may be a hole.
    pub(crate) fn fill_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.store.preallocate(PAYLOAD + offset, len).map_err(self.error("reserve space in"))
    }
}

/// What the leader of a commit knows of the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) medium: Arc<Medium>,
    pub(crate) uuid: Uuid,
    pub(crate) created_unix_ns: u64,
    /// Number of the newest durable commit.
    pub(crate) sequence: u64,
    pub(crate) holes: bool,
    /// Whether the body of the newest commit lies behind the payload.
    pub(crate) outside: bool,
    /// From here on, in bytes of payload, the file holds zeros.
    pub(crate) dirty_end: u64,
    /// Up to here every block was written once: writing there again changes no metadata.
    pub(crate) filled_end: u64,
    /// The file holds so many bytes of payload, or more.
    pub(crate) grown_end: u64,
    /// So many zeros were written ahead so far.
    zeros_ahead: u64,
    /// Duration of the last barrier.
    pub(crate) barrier_took: std::time::Duration,
    block: Box<Block>,
}

impl Disk {
    /// The file of a stack whose newest commit has this header and is durable. It holds `end` bytes of payload, any of which may be dirty.
    pub(crate) fn new(medium: Arc<Medium>, header: &Header, end: u64) -> Self {
        Disk {
            medium,
            uuid: header.uuid,
            created_unix_ns: header.created_unix_ns,
            sequence: header.sequence,
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

    /// Takes the stack from `base` to what `delta` makes of it; it is durable on return. Returns what is then to be written in place, or nothing if
    /// that is what `delta` says.
    pub(crate) fn commit(
        &mut self,
        base: &Durable,
        delta: &Delta,
        holes: bool,
    ) -> std::result::Result<Option<Overlay>, Stop> {
        assert_eq!(base.len, delta.base_len(), "a commit goes on from what is durable");
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
        self.clear_old_bytes(base.len, delta)?;
        let body = match &mut carried {
            Some(carried) => self.carry(delta, carried),
            None => self.write_appended(delta).map_err(refuse)?,
        };
        self.grow(delta.len()).map_err(refuse)?;
        self.holes |= holes;
        let sequence = match mutation::is(Mutation::OneSlot) {
            true => self.sequence + 2,
            false => self.sequence + 1,
        };
        let mut header = self.header(sequence, base.len, delta.len());
        header.body_len = body.bytes().len() as u64;
        header.body_crc = body_checksum(self.uuid, sequence, body.bytes());
        let outside = header.body_len > SLOT_BODY_MAX;
        let slot = if outside {
            let at = base.len.max(delta.len()).next_multiple_of(BLOCK_LEN as u64);
            header.body_offset = PAYLOAD + at;
            self.dirty_end = self.dirty_end.max(at + header.body_len);
            self.medium.write(at, body.bytes()).map_err(refuse)?;
            self.grown_end = self.grown_end.max(at + header.body_len);
            header.encode(&[])
        } else {
            header.encode(body.bytes())
        };
        if mutation::is(Mutation::WriteInPlaceAtOnce) {
            self.write_in_place(&delta.clone().into_in_place()).map_err(refuse)?;
        }
        self.write_header(sequence, &slot, true)?;
        (self.sequence, self.outside) = (sequence, outside);
        if applied && mutation::is(Mutation::ApplyTooLate) {
            self.write_in_place(&base.in_place).map_err(refuse)?;
        }
        Ok(carried)
    }

    /// Lays everything that the commit changes over what was carried so far; returns the body of the commit, which says all of it. Nothing is written
    /// where it belongs for now.
    fn carry(&self, delta: &Delta, carried: &mut Overlay) -> Body {
        carried.truncate(delta.kept());
        let dirty_end = if mutation::is(Mutation::TrustOldBytes) { 0 } else { self.dirty_end };
        for (offset, piece) in delta.overlay().iter() {
            match piece {
                Piece::Bytes(bytes) => carried.write(offset, bytes),
                // Behind what there was, the file holds zeros already, unless earlier commits left something.
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

    fn header(&self, sequence: u64, base_len: u64, len: u64) -> Header {
        Header {
            uuid: self.uuid,
            sequence,
            base_len,
            len,
            body_offset: Header::slot_body_offset(sequence),
            body_len: 0,
            body_crc: body_checksum(self.uuid, sequence, &[]),
            flags: if self.holes { HOLES } else { 0 },
            created_unix_ns: self.created_unix_ns,
        }
    }

    /// Writes a slot from its beginning, and makes everything written so far durable.
    fn write_header(&mut self, sequence: u64, slot: &[u8], in_doubt: bool) -> std::result::Result<(), Stop> {
        let halted = |failure| Stop::Halted { failure, in_doubt };
        let medium = &self.medium;
        let watch = Stopwatch::start();
        // Alone, it can go past the page cache, as one write that is its own barrier. Not when anything else waits for one.
        if slot.len() == BLOCK_LEN && medium.is_synced() {
            self.block.0.copy_from_slice(slot);
            let written = medium.write_durable(slot_offset(sequence), &self.block.0);
            written.map_err(|e| halted(medium.failure("commit to", e)))?;
        } else {
            let written = medium.write_at(slot_offset(sequence), slot);
            written.map_err(|e| halted(medium.failure("write to", e)))?;
            medium.sync().map_err(|e| halted(medium.failure("sync", e)))?;
        }
        self.barrier_took = watch.elapsed();
        Ok(())
    }

    /// Makes the newest commit independent of its body: written in place, and followed by one that changes nothing.
    pub(crate) fn settle(&mut self, base: &Durable) -> std::result::Result<(), Stop> {
        self.write_in_place(&base.in_place).map_err(Stop::Refused)?;
        let sequence = self.sequence + 1;
        let slot = self.header(sequence, base.len, base.len).encode(&[]);
        self.write_header(sequence, &slot, false)?;
        (self.sequence, self.outside) = (sequence, false);
        Ok(())
    }

    /// Settles, and gives back the space behind the end.
    pub(crate) fn finish(&mut self, base: &Durable) -> std::result::Result<(), Stop> {
        self.settle(base)?;
        self.cut(base.len)
    }

    fn write_in_place(&mut self, overlay: &Overlay) -> Result<()> {
        for (offset, piece) in overlay.iter() {
            match piece {
                Piece::Bytes(bytes) => {
                    // The file may have held zeros there until now, although the stack was longer.
                    self.dirty_end = self.dirty_end.max(offset + piece.len());
                    self.medium.write(offset, bytes)?;
                }
                Piece::Zeros(len) => self.medium.write_zeros(offset, offset + len)?,
            }
        }
        Ok(())
    }

    /// Cuts the file when the commit grows over much that earlier ones left behind: writing that many zeros would take long.
    fn clear_old_bytes(&mut self, len: u64, delta: &Delta) -> std::result::Result<(), Stop> {
        let (mut old, mut written_end) = (0, len);
        for (offset, piece) in delta.overlay().iter() {
            let end = offset + piece.len();
            match piece {
                Piece::Zeros(_) => old += end.min(self.dirty_end).saturating_sub(offset.max(len)),
                Piece::Bytes(_) => written_end = end,
            }
        }
        if old <= HOLE_MIN {
            return Ok(());
        }
        self.cut(len)?;
        self.medium.reserve(written_end).map_err(Stop::Refused)
    }

    /// Cuts the file behind `len`, the length of the newest commit, which does not need anything there.
    fn cut(&mut self, len: u64) -> std::result::Result<(), Stop> {
        let mut reserved = self.medium.lock_reserved();
        *reserved = len.min(*reserved);
        // Whatever the answer. Otherwise: 1. the file is cut, and the call fails, 2. a commit is longer, and does not make the file so, 3. the file of a durable
        // state is too short.
        (self.filled_end, self.grown_end) = (len, len);
        let store = &self.medium.store;
        store.truncate(PAYLOAD + len).map_err(|e| Stop::Refused(self.medium.error("cut")(e)))?;
        let in_doubt = false;
        self.medium.sync().map_err(|e| Stop::Halted { failure: self.medium.failure("sync", e), in_doubt })?;
        drop(reserved);
        self.dirty_end = len;
        Ok(())
    }

    /// Writes what lies behind the length before; returns the body of the commit.
    fn write_appended(&mut self, delta: &Delta) -> Result<Body> {
        let mut body = Body::default();
        let base_len = delta.base_len();
        let mut dirty_end = self.dirty_end;
        if mutation::is(Mutation::TrustOldBytes) {
            dirty_end = 0;
        }
        let (mut written, mut written_end) = (0, 0);
        for (offset, piece) in delta.overlay().iter() {
            let end = offset + piece.len();
            match piece {
                Piece::Bytes(bytes) => {
                    let below = usize::try_from(base_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
                    let (below, behind) = bytes.split_at(below);
                    if !below.is_empty() {
                        body.data(offset, below);
                    }
                    if !behind.is_empty() {
                        let start = end - behind.len() as u64;
                        body.proof(start, behind.len() as u64, crc32c::crc32c(behind));
                        self.dirty_end = self.dirty_end.max(end);
                        self.medium.write(start, behind)?;
                        (written, written_end) = (written + behind.len() as u64, end);
                    }
                }
                Piece::Zeros(_) => {
                    if offset < base_len {
                        body.zeros(offset, end.min(base_len) - offset);
                    }
                    let (start, end) = (offset.max(base_len), end.min(dirty_end));
                    if start < end {
                        body.proof(start, end - start, crc_of_zeros(end - start));
                        self.medium.write_zeros(start, end)?;
                        (written, written_end) = (written + end - start, end);
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

    /// Makes the file as long as the stack: zeros behind the last byte that was written need not be there, but a file that is shorter than a durable
    /// state was cut by somebody.
    fn grow(&mut self, len: u64) -> Result<()> {
        if len <= self.grown_end {
            return Ok(());
        }
        // Below `len` a hole stays one.
        let from = self.grown_end.max(len.saturating_sub(HOLE_MIN)).min(len - 1);
        self.medium.write_zeros(from, len)?;
        self.grown_end = len;
        self.fill_ahead(len);
        Ok(())
    }

    /// Fills reserved space behind `from`, where nothing is, with zeros: the barriers of the next small commits then find no metadata to write. It may
    /// fail without harm; they do without, then.
    fn fill_ahead(&mut self, from: u64) {
        let more = self.zeros_ahead.max(ZEROS_AHEAD_MIN).min(self.medium.ahead);
        let end = self.medium.reserved().min(from.saturating_add(more));
        self.filled_end = self.filled_end.max(from);
        if from < end && self.medium.write_zeros(from, end).is_ok() {
            (self.filled_end, self.grown_end) = (self.filled_end.max(end), self.grown_end.max(end));
            self.zeros_ahead += end - from;
        }
    }
}

/// At most so many bytes of body do these pieces take.
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

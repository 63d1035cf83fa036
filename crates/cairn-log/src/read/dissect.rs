//! One segment's file by itself, taken apart: what each byte of it is, as far as it verifies.
//!
//! Unlike a [`Walk`](crate::read::walk::Walk) this needs no log around the file, and goes on behind
//! everything that does not verify. It decides nothing: it is for people who look.

mod part;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Access, FileStore, Fs, NativeFs, Store};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{
    ALIGN, ALIGN_LEN, DATA_OFFSET, FRAME_HEADER_LEN, GROUP_HEADER_LEN, GroupHeader, GroupKind,
    SUPERBLOCK_LEN, Seed, TRAILER_LEN, decode_trailer, peek_frame_len, read_frame,
};
use crate::place::{Chain, Epoch, FileOffset, Lsn, Seq};
use crate::read::window::{NO_END, Window};

pub use part::{GroupPart, HeadState, Part, PartKind, SegmentHead};

/// A segment's file, part by part, from its first byte to its last.
///
/// Reads this one file and changes nothing. Damage is no error: it is a part like others.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// use cairn_log::{Dissection, Inspection, Log, PartKind};
///
/// let log = Log::open(&path)?;
/// log.commit(b"paid 42 to Ada")?;
/// log.close()?;
///
/// let segment = Inspection::open(&path)?.segments().remove(0);
/// let mut parts = Dissection::open(&segment.path)?;
/// let mut records = 0;
/// while let Some(part) = parts.next_part()? {
///     records += u64::from(matches!(part.kind, PartKind::Record { .. }));
/// }
/// assert_eq!(records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Dissection {
    path: PathBuf,
    store: Arc<dyn Store>,
    window: Window,
    /// Length of the file in bytes.
    len: u64,
    head: SegmentHead,
    /// Where the next part starts.
    at: u64,
    group: Option<Open>,
    /// Chain value of the last group header that verified.
    chain: Option<Chain>,
    /// Whose frames may lie where no group header verifies.
    last: (u32, Epoch),
    /// Bytes that may still be read twice: of files that somebody made for that, each position can
    /// look like a frame as long as the file.
    patience: u64,
}

/// The group that the next part may lie in.
#[derive(Clone, Copy, Debug)]
struct Open {
    header: GroupHeader,
    seed: Seed,
    /// Number of the next record, unless a frame before it did not verify.
    next_seq: Option<Seq>,
}

impl Dissection {
    /// Opens one segment's file for reading.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or measured.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(&NativeFs, path)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`open`](Dissection::open).
    pub fn open_on(fs: &dyn Fs, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = fs.open(path, Access::Read).map_err(|e| Error::io("open", path, e))?;
        let store: Arc<dyn Store> = Arc::new(FileStore::new(file));
        let len = store.len().map_err(|e| Error::io("measure", path, e))?;
        let mut block = [0; SUPERBLOCK_LEN];
        let head = match store.read_at(0, &mut block) {
            Ok(read) => SegmentHead::of(block.get(..read).unwrap_or_default(), path),
            Err(_) => SegmentHead { state: HeadState::Unreadable, ..SegmentHead::of(&[], path) },
        };
        Ok(Dissection {
            path: path.to_owned(),
            window: Window::new(store.clone(), FileOffset(len), false),
            store,
            len,
            last: (head.generation, Epoch(head.epoch)),
            head,
            at: DATA_OFFSET,
            group: None,
            chain: None,
            patience: len.saturating_mul(16),
        })
    }

    /// Takes the file for a segment of this log, whatever its superblock says: nothing verifies
    /// without the log's identity.
    #[must_use]
    pub fn of_log(mut self, uuid: Uuid) -> Self {
        self.head.uuid = uuid;
        self
    }

    /// The superblock.
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Up to `buf.len()` bytes of the file from `offset`; returns how many there were.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.store.read_at(offset, buf).map_err(|e| Error::io("read", &self.path, e))
    }

    /// The next part behind the superblock; `None` at the end of the file.
    ///
    /// # Errors
    /// [`Error::NoMemoryToRead`] when a frame is larger than the memory that this process may have.
    pub fn next_part(&mut self) -> Result<Option<Part>> {
        loop {
            if self.at >= self.len {
                return Ok(None);
            }
            let part = match self.group {
                Some(open) => self.part_of_group(&open)?,
                None => Some(self.part_between_groups()?),
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    fn lsn(&self, offset: u64) -> Lsn {
        self.head.base_lsn.saturating_add(offset.saturating_sub(DATA_OFFSET))
    }

    /// The part from where the last one ended up to `end`.
    fn part(&mut self, end: u64, kind: PartKind) -> Part {
        // Otherwise a length of nothing would be returned for ever.
        let end = end.max(self.at.saturating_add(1)).min(self.len);
        let part = Part { offset: self.at, len: end - self.at, lsn: self.lsn(self.at), kind };
        self.at = end;
        part
    }

    /// The bytes from `offset`, at most `len`; none where the device cannot read.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let lsn = self.lsn(offset);
        let failed = self.window.get(FileOffset(offset), len).is_err();
        if let Some(bytes) = self.window.refused.take() {
            return Err(Error::NoMemoryToRead { lsn, bytes });
        }
        if failed {
            return Ok(None);
        }
        Ok(self.window.get(FileOffset(offset), len).ok())
    }

    /// Up to the end of the sector at which reading fails.
    fn unreadable(&mut self) -> Part {
        let end = match self.window.get(FileOffset(self.at), 1) {
            Err(bad) if bad.sector_end != NO_END => bad.sector_end.0,
            Err(_) => self.len,
            // What cannot be read follows.
            Ok(_) => return self.part(self.at.saturating_add(ALIGN), PartKind::Unverified),
        };
        self.part(end, PartKind::Unreadable)
    }

    /// The next part of a group; `None` at its end.
    fn part_of_group(&mut self, open: &Open) -> Result<Option<Part>> {
        let header = &open.header;
        let behind = |lsn: Option<Lsn>| {
            let offset = lsn.and_then(|lsn| lsn.checked_since(self.head.base_lsn));
            offset.map_or(self.len, |len| DATA_OFFSET.saturating_add(len)).min(self.len)
        };
        let (end, next) = (behind(header.frames_end()), behind(header.next_lsn()));
        let is_seal = header.kind == GroupKind::Seal;
        let frames_end = if is_seal { end.saturating_sub(TRAILER_LEN as u64) } else { end };
        if self.at < frames_end {
            return self.frame(open, frames_end).map(Some);
        }
        if self.at < end {
            let len = header.len;
            let trailer = self.bytes(self.at, TRAILER_LEN)?.and_then(|bytes| bytes.first_chunk());
            let verifies = trailer.and_then(decode_trailer) == Some(len);
            let kind = if verifies { PartKind::Trailer } else { PartKind::Unverified };
            return Ok(Some(self.part(end, kind)));
        }
        self.group = None;
        if self.at >= next {
            return Ok(None);
        }
        let len = usize::try_from(next - self.at).unwrap_or(usize::MAX);
        let zeros = self.bytes(self.at, len)?.map(|bytes| bytes.iter().all(|byte| *byte == 0));
        Ok(Some(match zeros {
            Some(true) => self.part(next, PartKind::Padding),
            Some(false) => self.part(next, PartKind::Unverified),
            None => self.unreadable(),
        }))
    }

    /// The next frame of a group that reaches up to `end`, or what does not verify before the one
    /// behind it.
    fn frame(&mut self, open: &Open, end: u64) -> Result<Part> {
        if let Some((kind, len)) = self.frame_at(self.at, end, open)? {
            let kind = match (kind, open.next_seq) {
                (PartKind::Record { payload_len, .. }, seq) => {
                    let next_seq = seq.map(|seq| Seq(seq.0.saturating_add(1)));
                    self.group = Some(Open { next_seq, ..*open });
                    PartKind::Record { seq, payload_len }
                }
                (kind, _) => kind,
            };
            return Ok(self.part(self.at.saturating_add(len), kind));
        }
        self.group = Some(Open { next_seq: None, ..*open });
        if self.bytes(self.at, 1)?.is_none() {
            return Ok(self.unreadable());
        }
        let mut next = self.at.saturating_add(ALIGN);
        while next < end && self.frame_at(next, end, open)?.is_none() {
            next = next.saturating_add(ALIGN);
        }
        Ok(self.part(next.min(end), PartKind::Unverified))
    }

    /// The frame at `offset`, which ends before `end`, if one verifies there.
    fn frame_at(&mut self, offset: u64, end: u64, open: &Open) -> Result<Option<(PartKind, u64)>> {
        let lsn = self.lsn(offset);
        let room = end.saturating_sub(offset);
        let Some(header) = self.bytes(offset, FRAME_HEADER_LEN)? else { return Ok(None) };
        let Some(len) = peek_frame_len(header, room) else { return Ok(None) };
        if len as u64 > self.patience {
            return Ok(None);
        }
        let Some(bytes) = self.bytes(offset, len)? else { return Ok(None) };
        let found = read_frame(bytes, lsn, open.seed).and_then(|frame| PartKind::of(&frame));
        if found.is_none() {
            self.patience -= len as u64;
        }
        Ok(found.map(|kind| (kind, len as u64)))
    }

    /// A group's header, zeros, frames whose header is lost, or what verifies as nothing.
    fn part_between_groups(&mut self) -> Result<Part> {
        if let Some(header) = self.group_at(self.at)? {
            let group = self.enter(&header);
            return Ok(self.part(self.at + GROUP_HEADER_LEN as u64, PartKind::Group(group)));
        }
        let Some(word) = self.bytes(self.at, ALIGN_LEN)? else { return Ok(self.unreadable()) };
        if word.iter().all(|byte| *byte == 0) {
            let end = self.end_of_zeros()?;
            return Ok(self.part(end, PartKind::Zeros));
        }
        let lost = self.lost_group();
        if let Some((kind, len)) = self.frame_at(self.at, self.len, &lost)? {
            return Ok(self.part(self.at.saturating_add(len), kind));
        }
        let end = self.end_of_unverified(&lost)?;
        Ok(self.part(end, PartKind::Unverified))
    }

    /// What is known of a group whose header does not verify.
    fn lost_group(&self) -> Open {
        let (generation, epoch) = self.last;
        let header = GroupHeader {
            kind: GroupKind::Records,
            padding: 0,
            len: 0,
            generation,
            lsn: self.lsn(self.at),
            durable_lsn: self.head.base_lsn,
            first_seq: Seq(0),
            epoch,
            previous: Chain(0),
        };
        let seed = Seed::of_frames(self.head.uuid, generation, epoch);
        Open { header, seed, next_seq: None }
    }

    fn group_at(&mut self, offset: u64) -> Result<Option<GroupHeader>> {
        let (lsn, log) = (self.lsn(offset), Seed::of_log(self.head.uuid));
        let bytes = self.bytes(offset, GROUP_HEADER_LEN)?;
        Ok(bytes.and_then(|bytes| GroupHeader::decode(bytes, lsn, log)))
    }

    /// Goes into a group.
    fn enter(&mut self, header: &GroupHeader) -> GroupPart {
        let chain = header.chain(Seed::of_log(self.head.uuid));
        let before = self.chain.replace(chain);
        self.last = (header.generation, header.epoch);
        let seed = Seed::of_frames(self.head.uuid, header.generation, header.epoch);
        self.group = Some(Open { header: *header, seed, next_seq: Some(header.first_seq) });
        GroupPart::of(header, chain, before)
    }

    /// Where the first word starts that is not all zeros.
    fn end_of_zeros(&mut self) -> Result<u64> {
        const STEP: usize = 256 << 10;
        let mut at = self.at;
        while at < self.len {
            let Some(bytes) = self.bytes(at, STEP)? else {
                // A smaller step finds where it cannot be read.
                let Some(word) = self.bytes(at, ALIGN_LEN)? else { return Ok(at) };
                if word.iter().any(|byte| *byte != 0) {
                    return Ok(at);
                }
                at = at.saturating_add(ALIGN);
                continue;
            };
            if let Some(n) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(at.saturating_add(n as u64) / ALIGN * ALIGN);
            }
            at = at.saturating_add(bytes.len() as u64);
            let hole = self.window.behind_hole(FileOffset(at), 1).0;
            at = at.max(hole / ALIGN * ALIGN);
        }
        Ok(self.len)
    }

    /// Where something verifies again, or a sector of zeros begins.
    fn end_of_unverified(&mut self, lost: &Open) -> Result<u64> {
        const SECTOR: u64 = 512;
        let mut zeros = 0;
        let mut at = self.at.saturating_add(ALIGN);
        while at < self.len {
            let Some(word) = self.bytes(at, ALIGN_LEN)? else { return Ok(at) };
            let is_zero = word.iter().all(|byte| *byte == 0);
            zeros = if is_zero { zeros + ALIGN } else { 0 };
            if zeros >= SECTOR {
                return Ok(at + ALIGN - zeros);
            }
            let verifies = !is_zero
                && (self.group_at(at)?.is_some() || self.frame_at(at, self.len, lost)?.is_some());
            if verifies {
                return Ok(at);
            }
            at = at.saturating_add(ALIGN);
        }
        Ok(self.len)
    }
}

//! Opening: which commit is the newest that is whole, and making sure that it is on the disk.
//!
//! Looking changes nothing:
//!
//! | slot of the newer header | its proof | slot of the older one | verdict |
//! |---|---|---|---|
//! | valid, *n* | holds | valid, *n − 1* | state *n*; what *n − 1* changed in place may be missing, and is written again if its body is still whole |
//! | valid, *n* | holds | torn | state *n*: a commit after it was cut off |
//! | valid, *n* | fails | valid, *n − 1*, proof holds | state *n − 1*: commit *n* was cut off |
//! | valid, *n* | fails | torn, or its proof fails | corrupt |
//! | valid, both, not consecutive or not of one stack | | | corrupt |
//! | torn, both | | | corrupt |
//!
//! Then state *m* is made durable. What can be read need not be on the disk: after a failed barrier the page cache shows bytes that
//! are lost with the power (L51). So, before anything builds on them:
//!
//! 1. what *m − 1* changed in place, which is durable as a commit, is written in place again; appended bytes, body and header of *m* are written again where they are → barrier.
//!    Nothing of *m* is written in place before: 1. it reaches the disk, 2. power fails, 3. header *m*, which was in the page cache alone, is gone.
//! 2. what *m* changed in place is written, and a commit *m + 1* that changes nothing, over the other slot → barrier. Otherwise a commit that was dropped
//!    might come back: 1. its header is there, its appended bytes are not, 2. state *m* is opened, and the same bytes are appended by another commit,
//!    3. power fails, 4. that one's bytes reach the disk and its header does not: they are the proof of the old one.
//!
//! A crash anywhere in this finds the same state again: in step 1 nothing is written that was not there, in step 2 commit *m* is durable.

use std::io;

use cairn_io::{File, read_full_at};

use crate::disk::{Disk, Durable, Medium, Stop};
use crate::error::{Error, Failure, Result};
use crate::format::{
    BLOCK_LEN, Entry, EntryKind, FORMAT_VERSION, HEADER_LEN, Header, HeaderError, PAYLOAD, body_checksum, parse,
    slot_offset,
};
use crate::mutation::{self, Mutation};
use crate::overlay::Overlay;
use crate::sync::Arc;

/// Bytes are verified and rewritten so many at a time.
const CHUNK: usize = 1 << 20;

/// A commit as it is in the file.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) header: Header,
    body: Vec<u8>,
    entries: Vec<Entry>,
}

impl Commit {
    /// Lays what is to be in place over what is there.
    pub(crate) fn lay_over(&self, in_place: &mut Overlay) {
        for entry in &self.entries {
            match entry.kind {
                EntryKind::Data => in_place.write(entry.offset, &self.body[entry.data.clone()]),
                EntryKind::Zeros => in_place.zero(entry.offset, entry.len),
                EntryKind::Proof { .. } => {}
            }
        }
    }
}

/// What the file holds.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The newest commit that is whole.
    pub(crate) newest: Commit,
    /// The one before it, if its body is there.
    pub(crate) previous: Option<Commit>,
    /// Whether a later commit was cut off.
    pub(crate) torn: bool,
    pub(crate) file_len: u64,
}

/// Whether a file is certainly not a stack: neither slot begins as one.
pub(crate) fn is_foreign(file: &dyn File) -> io::Result<bool> {
    for slot in 0..2 {
        let mut block = [0; BLOCK_LEN];
        let read = read_full_at(file, slot_offset(slot), &mut block)?;
        if Header::decode(&block[..read], slot) != Err(HeaderError::Foreign) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The headers in the slots, or why they are none.
pub(crate) type Slots = [std::result::Result<Header, HeaderError>; 2];

/// Reads the headers.
pub(crate) fn slots(medium: &Medium) -> Result<Slots> {
    let header = |slot| {
        let mut block = [0; BLOCK_LEN];
        let read = medium.store.read_at(slot_offset(slot), &mut block).map_err(medium.error("read from"))?;
        Ok(Header::decode(&block[..read], slot))
    };
    Ok([header(0)?, header(1)?])
}

/// Looks; changes nothing.
pub(crate) fn survey(medium: &Medium) -> Result<Survey> {
    let look = Look { medium, file_len: medium.store.len().map_err(medium.error("look at"))? };
    let slots = slots(medium)?;
    let path = || medium.path.clone();
    for slot in slots {
        if let Err(HeaderError::Version(found)) = slot {
            return Err(Error::UnsupportedVersion { path: path(), found, supported: FORMAT_VERSION });
        }
    }
    let (newer, older) = match slots {
        [Err(HeaderError::Foreign), Err(HeaderError::Foreign)] => return Err(Error::Foreign { path: path() }),
        [Ok(a), Ok(b)] if a.sequence > b.sequence => (a, Some(b)),
        [Ok(a), Ok(b)] => (b, Some(a)),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => (one, None),
        [Err(_), Err(_)] => return Err(look.corrupt(0, "neither header is whole")),
    };
    if let Some(older) = older {
        let follows = older.sequence + 1 == newer.sequence && older.len == newer.base_len;
        if !follows || older.uuid != newer.uuid {
            return Err(look.corrupt(slot_offset(older.sequence), "the headers do not follow each other"));
        }
    }
    if let Some(newest) = look.proven(newer)? {
        // What it appended is proven; what it kept was durable before.
        look.check_len(newer.base_len.min(newer.len))?;
        let previous = match older {
            Some(header) if !mutation::is(Mutation::SkipPreviousReplay) => look.commit(header)?,
            _ => None,
        };
        return Ok(Survey { newest, previous, torn: older.is_none(), file_len: look.file_len });
    }
    let corrupt = || look.corrupt(PAYLOAD + newer.base_len, "the newest commit is not what was written");
    let newest = look.proven(older.ok_or_else(corrupt)?)?.ok_or_else(corrupt)?;
    look.check_len(newest.header.len)?;
    Ok(Survey { newest, previous: None, torn: true, file_len: look.file_len })
}

struct Look<'a> {
    medium: &'a Medium,
    file_len: u64,
}

impl Look<'_> {
    fn corrupt(&self, offset: u64, what: &'static str) -> Error {
        Error::Corrupt { path: self.medium.path.clone(), offset, what }
    }

    /// The file holds so many bytes of payload, or somebody cut it.
    fn check_len(&self, len: u64) -> Result<()> {
        if self.file_len < PAYLOAD + len { Err(self.corrupt(self.file_len, "the file is cut short")) } else { Ok(()) }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.medium.store.read_at(offset, buf).map_err(self.medium.error("read from"))
    }

    /// The commit with this header, if its body verifies.
    fn commit(&self, header: Header) -> Result<Option<Commit>> {
        let fits = header.body_offset.checked_add(header.body_len).is_some_and(|end| end <= self.file_len);
        let Some(len) = usize::try_from(header.body_len).ok().filter(|_| fits) else {
            return Ok(None);
        };
        let mut body = vec![0; len];
        let read = self.read(header.body_offset, &mut body)?;
        let sound = read == len && header.body_crc == body_checksum(header.uuid, header.sequence, &body);
        if !sound {
            return Ok(None);
        }
        let entries = parse(&body, header.base_len, header.len);
        Ok(entries.map(|entries| Commit { header, body, entries }))
    }

    /// The commit with this header, if its proof holds.
    fn proven(&self, header: Header) -> Result<Option<Commit>> {
        let Some(commit) = self.commit(header)? else { return Ok(None) };
        if mutation::is(Mutation::TrustLength) {
            return Ok(Some(commit));
        }
        for entry in &commit.entries {
            if let EntryKind::Proof { crc } = entry.kind
                && !self.holds(entry, crc)?
            {
                return Ok(None);
            }
        }
        Ok(Some(commit))
    }

    fn holds(&self, entry: &Entry, expected: u32) -> Result<bool> {
        if self.file_len < PAYLOAD + entry.end() {
            return Ok(false);
        }
        let mut crc = 0;
        chunks(self.medium, entry, |_, bytes| {
            crc = crc32c::crc32c_append(crc, bytes);
            Ok(())
        })?;
        Ok(crc == expected)
    }
}

/// Reads the range of an entry part by part.
fn chunks(medium: &Medium, entry: &Entry, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut offset = entry.offset;
    let mut buf = vec![0; usize::try_from(entry.len).unwrap_or(CHUNK).min(CHUNK)];
    while offset < entry.end() {
        let len = usize::try_from(entry.end() - offset).unwrap_or(CHUNK).min(CHUNK);
        medium.read(offset, &mut buf[..len])?;
        each(offset, &buf[..len])?;
        offset += len as u64;
    }
    Ok(())
}

/// Makes what was found durable. Returns the state and how many bytes were written again.
pub(crate) fn adopt(medium: &Arc<Medium>, survey: Survey) -> Result<(Disk, Durable, u64)> {
    let Survey { newest, previous, file_len, .. } = survey;
    let header = newest.header;
    let mut rewritten = 0;
    if let Some(previous) = &previous {
        rewritten += write_in_place(medium, previous)?;
    }
    if mutation::is(Mutation::ReplayBeforeBarrier) {
        write_in_place(medium, &newest)?;
    }
    if !mutation::is(Mutation::TrustPageCache) {
        rewritten += write_again(medium, &newest)?;
    }
    if file_len < PAYLOAD + header.len {
        medium.write_zeros(header.len - 1, header.len)?;
    }
    medium.sync().map_err(medium.error("sync"))?;

    if !mutation::is(Mutation::SkipReplay) {
        rewritten += write_in_place(medium, &newest)?;
    }
    let end = file_len.saturating_sub(PAYLOAD).max(header.len);
    let mut disk = Disk::new(medium.clone(), &header, end);
    let durable = Durable { len: header.len, in_place: Arc::new(Overlay::default()) };
    if !mutation::is(Mutation::LeaveOtherSlot) {
        disk.settle(&durable).map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Halted { failure: Failure::Io { op, path, source }, .. } => Error::Io { op, path, source },
            Stop::Halted { failure: Failure::Panicked, .. } => unreachable!("no thread panicked here"),
        })?;
    }
    Ok((disk, durable, rewritten))
}

/// Writes appended bytes, body and header of a commit again, as they are.
fn write_again(medium: &Medium, commit: &Commit) -> Result<u64> {
    let mut written = 0;
    for entry in commit.entries.iter().filter(|entry| matches!(entry.kind, EntryKind::Proof { .. })) {
        chunks(medium, entry, |offset, bytes| medium.write(offset, bytes))?;
        written += entry.len;
    }
    let header = &commit.header;
    let slot = if header.body_is_outside() {
        let written = medium.write_at(header.body_offset, &commit.body);
        written.map_err(medium.error("write to"))?;
        header.encode(&[])
    } else {
        header.encode(&commit.body)
    };
    medium.write_at(slot_offset(header.sequence), &slot).map_err(medium.error("write to"))?;
    Ok(written + commit.body.len() as u64 + HEADER_LEN as u64)
}

/// Does what a commit says is to be done in place.
fn write_in_place(medium: &Medium, commit: &Commit) -> Result<u64> {
    let mut written = 0;
    for entry in &commit.entries {
        match entry.kind {
            EntryKind::Data => medium.write(entry.offset, &commit.body[entry.data.clone()])?,
            EntryKind::Zeros => medium.write_zeros(entry.offset, entry.end())?,
            EntryKind::Proof { .. } => continue,
        }
        written += entry.len;
    }
    Ok(written)
}

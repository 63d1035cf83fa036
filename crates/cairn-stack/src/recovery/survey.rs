//! Looking at the file of a stack; nothing is changed.

use std::cmp::Reverse;
use std::io;

use cairn_io::{File, read_full_at};

use super::cases::{
    Body, Bytes, Case, Length, Link, Look, Older, Place, Proof, Slot, Verdict, classify,
};
use crate::error::{Error, Result};
use crate::format::{
    BLOCK_LEN, Entry, EntryKind, FORMAT_VERSION, FileOffset, Header, HeaderError, HeaderName,
    PayloadOffset, SlotNumber, body_checksum, parse,
};
use crate::medium::Medium;
use crate::mutation::{self, Mutation};
use crate::overlay::Overlay;

/// A commit that was read from the file; its body verifies.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) header: Header,
    pub(super) name: HeaderName,
    pub(super) body: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

impl Commit {
    /// Adds the in-place changes of the commit.
    pub(crate) fn lay_over(&self, in_place: &mut Overlay) {
        for entry in &self.entries {
            match entry.kind {
                EntryKind::Data => in_place.write(entry.start.0, &self.body[entry.data.clone()]),
                EntryKind::Zeros => in_place.zero(entry.start.0, entry.len),
                EntryKind::Proof { .. } => {}
            }
        }
    }
}

/// What the file holds.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The row that describes the file; it leads to a state.
    pub(crate) case: &'static Case,
    /// The newest commit that is whole.
    pub(crate) newest: Commit,
    /// The commit before it, if its in-place changes are to be written again.
    pub(crate) previous: Option<Commit>,
    /// One past the last byte of the file.
    pub(crate) file_end: FileOffset,
}

impl Survey {
    /// Whether a crash cut off the commit after the newest one.
    pub(crate) fn is_torn(&self) -> bool {
        matches!(self.case.verdict, Verdict::Newer(Older::CutOff) | Verdict::Older)
    }
}

/// A header, and what the one after it calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) header: Header,
    pub(crate) name: HeaderName,
}

/// The header in a slot, or why it holds none.
pub(crate) type InSlot = std::result::Result<Named, HeaderError>;

/// Both slots.
pub(crate) type Slots = [InSlot; 2];

/// The header in the first block of a slot.
fn decode(block: &[u8], slot: SlotNumber) -> InSlot {
    let header = Header::decode(block, slot)?;
    Ok(Named { header, name: header.name_in(block) })
}

impl Slot {
    fn of(decoded: &InSlot) -> Self {
        match decoded {
            Ok(_) => Slot::Valid,
            Err(HeaderError::Version(_)) => Slot::OtherVersion,
            Err(HeaderError::Damaged) => Slot::Torn,
            Err(HeaderError::Foreign) => Slot::Foreign,
        }
    }
}

/// Whether a file is certainly not a stack: neither slot begins with the magic.
pub(crate) fn is_foreign(file: &dyn File) -> io::Result<bool> {
    for slot in SlotNumber::BOTH {
        let mut block = [0; BLOCK_LEN];
        let read = read_full_at(file, slot.offset().0, &mut block)?;
        if Slot::of(&decode(&block[..read], slot)) != Slot::Foreign {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the headers.
pub(crate) fn slots(medium: &Medium) -> Result<Slots> {
    let header = |slot: SlotNumber| {
        let mut block = [0; BLOCK_LEN];
        let read =
            medium.store.read_at(slot.offset().0, &mut block).map_err(medium.error("read from"))?;
        Ok(decode(&block[..read], slot))
    };
    let [first, second] = SlotNumber::BOTH;
    Ok([header(first)?, header(second)?])
}

/// Looks at the file; changes nothing.
pub(crate) fn survey(medium: &Medium) -> Result<Survey> {
    let mut sight = Sight::of(medium)?;
    let case = classify(&mut sight)?;
    sight.conclude(case)
}

/// A file, as far as it was looked at.
pub(super) struct Sight<'a> {
    medium: &'a Medium,
    pub(super) file_end: FileOffset,
    /// The newer slot, then the older one.
    pub(super) slots: Slots,
    proof: Option<Proof>,
    /// The commits whose bodies verify.
    newer: Option<Commit>,
    older: Option<Commit>,
}

impl Look for Sight<'_> {
    type Error = Error;

    fn newer(&mut self) -> Slot {
        Slot::of(&self.slots[0])
    }

    fn older(&mut self) -> Slot {
        Slot::of(&self.slots[1])
    }

    fn link(&mut self) -> Link {
        let [Ok(newer), Ok(Named { header: older, name })] = self.slots else {
            return Link::Single;
        };
        let newer = newer.header;
        let is_next = older.sequence.next() == newer.sequence && older.len == newer.base_len;
        match older.uuid == newer.uuid {
            true if newer.previous != name && !mutation::is(Mutation::IgnorePredecessor) => {
                Link::OtherHistory
            }
            true if is_next => Link::Follows,
            _ => Link::Apart,
        }
    }

    fn proof(&mut self) -> Result<Proof> {
        self.newer = self.commit(0)?;
        let proof = match &self.newer {
            None => Proof::BodyLost,
            Some(commit) if self.appended_bytes_hold(commit)? => Proof::Holds,
            Some(_) => Proof::BytesLost,
        };
        self.proof = Some(proof);
        Ok(proof)
    }

    fn older_body(&mut self) -> Result<Body> {
        self.older = self.commit(1)?;
        Ok(if self.older.is_some() { Body::Whole } else { Body::Lost })
    }

    fn older_bytes(&mut self) -> Result<Bytes> {
        Ok(match &self.older {
            Some(commit) if self.appended_bytes_hold(commit)? => Bytes::Whole,
            _ => Bytes::Lost,
        })
    }

    fn length(&mut self) -> Length {
        let needed = match (self.proof, self.slots) {
            // The proof covers the bytes it appended. The bytes before them were durable before.
            (Some(Proof::Holds), [Ok(newer), _]) => newer.header.base_len.min(newer.header.len),
            (_, [_, Ok(older)]) => older.header.len,
            _ => 0,
        };
        if self.file_end < PayloadOffset(needed).in_file() { Length::Short } else { Length::Enough }
    }
}

impl<'a> Sight<'a> {
    pub(super) fn of(medium: &'a Medium) -> Result<Self> {
        let file_end = FileOffset(medium.store.len().map_err(medium.error("look at"))?);
        let mut slots = slots(medium)?;
        slots.sort_by_key(|slot| {
            (Slot::of(slot), slot.ok().map(|found| Reverse(found.header.sequence)))
        });
        Ok(Sight { medium, file_end, slots, proof: None, newer: None, older: None })
    }

    /// Acts on the verdict of the row that describes the file.
    pub(super) fn conclude(self, case: &'static Case) -> Result<Survey> {
        let path = || self.medium.path.clone();
        let (newest, previous) = match case.verdict {
            Verdict::Newer(Older::Replayed) if !mutation::is(Mutation::SkipPreviousReplay) => {
                (self.newer, self.older)
            }
            Verdict::Newer(_) => (self.newer, None),
            Verdict::Older => (self.older, None),
            Verdict::Foreign => return Err(Error::Foreign { path: path() }),
            Verdict::OtherVersion => {
                let version = |slot| match slot {
                    Err(HeaderError::Version(version)) => Some(version),
                    _ => None,
                };
                let found = self.slots.into_iter().find_map(version).unwrap_or_default();
                return Err(Error::UnsupportedVersion {
                    path: path(),
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            Verdict::OtherHistory => {
                let commits =
                    self.slots.map(|slot| slot.map_or(0, |found| found.header.sequence.0));
                return Err(Error::OtherHistory { path: path(), commits });
            }
            Verdict::Corrupt(place) => {
                let offset = self.offset(place).0;
                return Err(Error::Corrupt { path: path(), offset, what: case.label });
            }
        };
        let newest = newest.expect("a row that leads to a state asks for its body");
        Ok(Survey { case, newest, previous, file_end: self.file_end })
    }

    /// The position in the file of a place in the table.
    fn offset(&self, place: Place) -> FileOffset {
        match (place, self.slots) {
            (Place::Start, _) => FileOffset(0),
            (Place::OlderHeader, [_, Ok(older)]) => older.header.sequence.slot().offset(),
            (Place::NewerCommit, [Ok(newer), _]) if self.newer.is_none() => {
                newer.header.body_offset
            }
            (Place::NewerCommit, [Ok(newer), _]) => PayloadOffset(newer.header.base_len).in_file(),
            _ => self.file_end,
        }
    }

    fn read(&self, offset: FileOffset, buf: &mut [u8]) -> Result<usize> {
        self.medium.store.read_at(offset.0, buf).map_err(self.medium.error("read from"))
    }

    /// The commit whose header is in this slot, if there is one and its body verifies.
    pub(super) fn commit(&self, slot: usize) -> Result<Option<Commit>> {
        let Ok(Named { header, name }) = self.slots[slot] else { return Ok(None) };
        let fits =
            header.body_offset.checked_add(header.body_len).is_some_and(|end| end <= self.file_end);
        let Some(len) = usize::try_from(header.body_len).ok().filter(|_| fits) else {
            return Ok(None);
        };
        let mut body = vec![0; len];
        let read = self.read(header.body_offset, &mut body)?;
        let crc = body_checksum(header.uuid, header.epoch, header.sequence, &body);
        if read != len || header.body_crc != crc {
            return Ok(None);
        }
        let entries = parse(&body, header.base_len, header.len);
        Ok(entries.map(|entries| Commit { header, name, body, entries }))
    }

    /// Whether the bytes that a commit appended verify.
    fn appended_bytes_hold(&self, commit: &Commit) -> Result<bool> {
        if mutation::is(Mutation::TrustLength) {
            return Ok(true);
        }
        for entry in &commit.entries {
            if let EntryKind::Proof { crc } = entry.kind
                && !self.holds(entry, crc)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn holds(&self, entry: &Entry, expected: u32) -> Result<bool> {
        if self.file_end < entry.end().in_file() {
            return Ok(false);
        }
        let mut crc = 0;
        self.medium.read_in_parts(entry.start, entry.end(), |_, bytes| {
            crc = crc32c::crc32c_append(crc, bytes);
            Ok(())
        })?;
        Ok(crc == expected)
    }
}

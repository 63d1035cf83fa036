//! The body of a commit: its changes in place, and checksums of the bytes that it appended.

use std::ops::Range;

use uuid::Uuid;

use super::layout::{CommitNumber, Epoch, PayloadOffset};

/// Bytes of an entry without its data.
pub(crate) const ENTRY_LEN: usize = 24;
/// Data is padded with zeros to a multiple of this.
pub(crate) const DATA_ALIGN: usize = 8;

/// What an entry says of its range of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// The range has the bytes that follow the entry.
    Data,
    /// The range is zeros.
    Zeros,
    /// The range was written where it belongs, and has this checksum.
    Proof {
        /// CRC-32C of the range.
        crc: u32,
    },
}

/// One entry of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    /// First byte of the range.
    pub(crate) start: PayloadOffset,
    /// Bytes, at least one.
    pub(crate) len: u64,
    /// The data's place in the body; empty unless the kind is `Data`.
    pub(crate) data: Range<usize>,
}

impl Entry {
    /// One past the last byte of the range.
    pub(crate) fn end(&self) -> PayloadOffset {
        self.start + self.len
    }
}

/// A body under construction. Entries are added by rising offset and do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    pub(crate) fn data(&mut self, offset: u64, data: &[u8]) {
        self.entry(1, 0, offset, data.len() as u64);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(DATA_ALIGN), 0);
    }

    pub(crate) fn zeros(&mut self, offset: u64, len: u64) {
        self.entry(2, 0, offset, len);
    }

    pub(crate) fn proof(&mut self, offset: u64, len: u64, crc: u32) {
        self.entry(3, crc, offset, len);
    }

    fn entry(&mut self, kind: u32, crc: u32, offset: u64, len: u64) {
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The checksum of a body. It covers the identity of the stack, the opening and the number of the
/// commit, so the body of another stack, history or commit does not verify.
pub(crate) fn body_checksum(uuid: Uuid, epoch: Epoch, sequence: CommitNumber, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(uuid.as_bytes());
    let crc = crc32c::crc32c_append(crc, &epoch.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &sequence.0.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

/// The entries of a body whose checksum is right; `None` if a commit from `base_len` to `len`
/// cannot have them.
pub(crate) fn parse(body: &[u8], base_len: u64, len: u64) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let word = |from: usize| {
            Some(u32::from_le_bytes(body.get(at + from..at + from + 4)?.try_into().ok()?))
        };
        let long = |from: usize| {
            Some(u64::from_le_bytes(body.get(at + from..at + from + 8)?.try_into().ok()?))
        };
        let (kind, crc, offset, entry_len) = (word(0)?, word(4)?, long(8)?, long(16)?);
        at += ENTRY_LEN;
        let end = offset.checked_add(entry_len)?;
        let follows = entries.last().is_none_or(|before| before.end() <= PayloadOffset(offset));
        let inside = match kind {
            1 | 2 => crc == 0 && end <= len,
            _ => offset >= base_len && end <= len,
        };
        if entry_len == 0 || !follows || !inside {
            return None;
        }
        let mut data = at..at;
        let kind = match kind {
            1 => {
                let size = usize::try_from(entry_len).ok()?;
                data = at..at.checked_add(size)?;
                body.get(data.clone())?;
                let padded = size.checked_next_multiple_of(DATA_ALIGN)?;
                let padding = body.get(data.end..at.checked_add(padded)?)?;
                if padding.iter().any(|b| *b != 0) {
                    return None;
                }
                at += padded;
                EntryKind::Data
            }
            2 => EntryKind::Zeros,
            3 => EntryKind::Proof { crc },
            _ => return None,
        };
        entries.push(Entry { kind, start: PayloadOffset(offset), len: entry_len, data });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> Body {
        let mut body = Body::default();
        body.data(10, b"abc");
        body.zeros(20, 5);
        body.proof(100, 50, 0x1234_5678);
        body
    }

    #[test]
    fn a_body_is_laid_out_as_documented() {
        let body = body();
        let bytes = body.bytes();
        assert_eq!(bytes.len(), 3 * ENTRY_LEN + 8);
        assert_eq!(
            bytes[..24],
            [&[1u8, 0, 0, 0, 0, 0, 0, 0][..], &10u64.to_le_bytes(), &3u64.to_le_bytes()].concat()
        );
        assert_eq!(bytes[24..32], *b"abc\0\0\0\0\0");
        assert_eq!(bytes[32..40], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[56..64], [3, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
        let entries = parse(bytes, 100, 150).unwrap();
        assert_eq!(
            entries[0],
            Entry { kind: EntryKind::Data, start: PayloadOffset(10), len: 3, data: 24..27 }
        );
        assert_eq!(
            entries[1],
            Entry { kind: EntryKind::Zeros, start: PayloadOffset(20), len: 5, data: 56..56 }
        );
        assert_eq!(entries[2].kind, EntryKind::Proof { crc: 0x1234_5678 });
        assert_eq!(parse(&[], 0, 0), Some(vec![]));
    }

    #[test]
    fn impossible_entries_are_refused() {
        let refused = |base_len, len, build: fn(&mut Body)| {
            let mut body = Body::default();
            build(&mut body);
            assert_eq!(parse(body.bytes(), base_len, len), None);
        };
        refused(100, 149, |b| b.proof(100, 50, 0)); // beyond the end
        refused(101, 150, |b| b.proof(100, 50, 0)); // a proof of what the commit did not append
        refused(100, 12, |b| b.data(10, b"abc")); // beyond the end
        refused(100, 100, |b| b.zeros(5, 0));
        refused(100, 100, |b| b.zeros(u64::MAX, 2));
        refused(100, 100, |b| b.entry(4, 0, 0, 1));
        refused(100, 100, |b| b.entry(2, 1, 0, 1));
        refused(u64::MAX, u64::MAX, |b| b.entry(1, 0, 0, u64::MAX - 2)); // data that is not there
        refused(100, 100, |b| {
            b.zeros(5, 5);
            b.zeros(9, 1);
        });
        let mut short = body().bytes().to_vec();
        short.pop();
        assert_eq!(parse(&short, 100, 150), None);
        let mut padded = body().bytes().to_vec();
        padded[31] = 1;
        assert_eq!(parse(&padded, 100, 150), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            base_len: u64,
            len: u64,
        ) {
            if let Some(entries) = parse(&bytes, base_len, len) {
                for entry in entries {
                    prop_assert!(entry.end() <= PayloadOffset(len));
                }
            }
        }
    }
}

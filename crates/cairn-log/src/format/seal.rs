//! What the bookkeeping frames hold: the sparse index and trailer of a sealed segment, and the positions that cuts name.

use super::{FRAME_HEADER_LEN, GROUP_HEADER_LEN, frame_len};

/// Bytes of the trailer that ends a sealed segment's file.
pub(crate) const TRAILER_LEN: usize = 16;

const TRAILER_MAGIC: [u8; 8] = *b"CAIRNEND";
const ENTRY_LEN: usize = 16;

/// One line of a sparse index: a group starts at `lsn`, and its first record has number `first_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) first_seq: u64,
    pub(crate) lsn: u64,
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

pub(crate) fn encode_index(entries: &[IndexEntry]) -> Vec<u8> {
    let words = entries.iter().flat_map(|e| [e.first_seq, e.lsn]);
    words.flat_map(u64::to_le_bytes).collect()
}

/// The entries, or `None` when the length is wrong or they do not rise.
pub(crate) fn decode_index(payload: &[u8]) -> Option<Vec<IndexEntry>> {
    if !payload.len().is_multiple_of(ENTRY_LEN) {
        return None;
    }
    let entry = |at| Some(IndexEntry { first_seq: u64_at(payload, at)?, lsn: u64_at(payload, at + 8)? });
    let entries: Option<Vec<IndexEntry>> = (0..payload.len()).step_by(ENTRY_LEN).map(entry).collect();
    entries.filter(|e| e.is_sorted_by(|a, b| a.lsn < b.lsn && a.first_seq <= b.first_seq))
}

/// Bytes of a seal group with this many index entries: header, index frame, trailer.
pub(crate) fn seal_len(entries: usize) -> usize {
    GROUP_HEADER_LEN + frame_len(entries * ENTRY_LEN) + TRAILER_LEN
}
const _: () = assert!((FRAME_HEADER_LEN + ENTRY_LEN).next_multiple_of(8) % 8 == 0 && TRAILER_LEN.is_multiple_of(8));

/// The last bytes of a sealed file: how long the seal group is, so that it is found from the end.
pub(crate) fn encode_trailer(seal_len: u32) -> [u8; TRAILER_LEN] {
    let mut bytes = [0; TRAILER_LEN];
    bytes[..8].copy_from_slice(&TRAILER_MAGIC);
    bytes[8..12].copy_from_slice(&seal_len.to_le_bytes());
    bytes[12..].copy_from_slice(&(!seal_len).to_le_bytes());
    bytes
}

/// Length of the seal group that ends with this trailer.
pub(crate) fn decode_trailer(bytes: &[u8; TRAILER_LEN]) -> Option<u32> {
    let len = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
    (*bytes == encode_trailer(len)).then_some(len)
}

/// A position with its record number: the payload of a head or cut frame, followed by the log's identity, so that a store whose
/// beginning was dropped still tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadMark {
    pub(crate) lsn: u64,
    pub(crate) seq: u64,
    pub(crate) uuid: [u8; 16],
}

impl HeadMark {
    pub(crate) const LEN: usize = 32;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..].copy_from_slice(&self.uuid);
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let uuid = payload.get(16..Self::LEN)?.try_into().ok()?;
        (payload.len() == Self::LEN).then_some(())?;
        Some(HeadMark { lsn: u64_at(payload, 0)?, seq: u64_at(payload, 8)?, uuid })
    }
}

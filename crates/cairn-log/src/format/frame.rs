//! A frame: one record, or one piece of the log's own bookkeeping, with its checksum.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, Seed};

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_LEN: usize = size_of::<Raw>();
/// Largest payload the format can hold in one frame: a group's length is 32 bits wide and counts headers too.
pub(crate) const MAX_PAYLOAD_LEN: u64 = (1 << 31) - 1;

const CRC_LEN: usize = 4;
const _: () = assert!(FRAME_HEADER_LEN == 12);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    crc: U32,
    len: U32,
    kind: u8,
    flags: u8,
    reserved: U16,
}

/// What a frame's payload is. Zero is no kind, so that zeros never parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Record = 1,
    Index = 2,
    Head = 3,
    Cut = 4,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => FrameKind::Record,
            2 => FrameKind::Index,
            3 => FrameKind::Head,
            4 => FrameKind::Cut,
            _ => return None,
        })
    }
}

/// A frame that verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) payload: &'a [u8],
}

/// Bytes a frame with this payload takes, padding to the alignment included.
pub(crate) fn frame_len(payload_len: usize) -> usize {
    (FRAME_HEADER_LEN + payload_len).next_multiple_of(8)
}

/// Length the frame that starts with these bytes says it has, or `None` when no frame starts like this. *Not verified*: only
/// good for deciding how many bytes to look at, within what is there.
fn claimed_len(bytes: &[u8]) -> Option<(FrameKind, u64)> {
    let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
    if raw.flags != 0 || raw.reserved.get() != 0 || u64::from(raw.len.get()) > MAX_PAYLOAD_LEN {
        return None;
    }
    let kind = FrameKind::from_byte(raw.kind)?;
    Some((kind, (FRAME_HEADER_LEN as u64 + u64::from(raw.len.get())).next_multiple_of(ALIGN)))
}

/// CRC-32C over log, generation, position, and everything of the frame after the checksum, its padding included.
fn checksum(generation: Seed, lsn: u64, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(generation.0, &lsn.to_le_bytes()), rest)
}

/// Appends to `out` the frame that will be at `lsn`.
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8], lsn: u64, generation: Seed) {
    let start = out.len();
    let len = u32::try_from(payload.len()).expect("callers bound payloads by MAX_PAYLOAD_LEN");
    let raw = Raw { crc: U32::new(0), len: U32::new(len), kind: kind as u8, flags: 0, reserved: U16::new(0) };
    out.reserve(frame_len(payload.len()));
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(payload);
    out.resize(start + frame_len(payload.len()), 0);
    stamp(&mut out[start..], lsn, generation);
}

/// Binds a whole frame to a position and a generation by writing its checksum anew.
fn stamp(frame: &mut [u8], lsn: u64, generation: Seed) {
    let crc = checksum(generation, lsn, &frame[CRC_LEN..]);
    frame[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// Binds the frame at the start of `bytes`, which was verified or just encoded, to a position and a generation; returns its length.
pub(crate) fn restamp_frame(bytes: &mut [u8], lsn: u64, generation: Seed) -> Option<usize> {
    let (_, len) = claimed_len(bytes)?;
    let len = usize::try_from(len).ok()?;
    stamp(bytes.get_mut(..len)?, lsn, generation);
    Some(len)
}

/// Length in bytes of the frame at the start of `bytes` if it can be a frame that fits in `room` bytes. Not verified.
pub(crate) fn peek_frame_len(bytes: &[u8], room: u64) -> Option<usize> {
    let (_, len) = claimed_len(bytes)?;
    (len <= room).then(|| usize::try_from(len).ok()).flatten()
}

/// Verifies the frame that `bytes` is from its first to its last byte.
pub(crate) fn read_frame(bytes: &[u8], lsn: u64, generation: Seed) -> Option<Frame<'_>> {
    let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
    let (kind, len) = claimed_len(bytes)?;
    if len != bytes.len() as u64 || raw.crc.get() != checksum(generation, lsn, &bytes[CRC_LEN..]) {
        return None;
    }
    let end = FRAME_HEADER_LEN + raw.len.get() as usize;
    Some(Frame { kind, payload: &bytes[FRAME_HEADER_LEN..end] })
}

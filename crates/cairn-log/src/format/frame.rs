//! A frame: one record, or one piece of the log's own bookkeeping, with its checksum.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, Seed};
use crate::place::Lsn;

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_LEN: usize = size_of::<Raw>();
/// Largest payload the format can hold in one frame: a group's length is 32 bits wide and counts
/// headers too.
pub(crate) const MAX_PAYLOAD_LEN: u64 = (1 << 31) - 1;

const CRC_LEN: usize = 4;
const _: () = assert!(FRAME_HEADER_LEN == 12);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    crc: U32,
    len: U32,
    kind: u8,
    /// Bit 0: a timestamp of 8 bytes precedes the payload. Reserved, with all the rest but
    /// [`GOES_ON`].
    flags: u8,
    /// What the application calls a record of this sort. Reserved.
    record_kind: u8,
    reserved: u8,
}

/// The flag of a record that belongs to one batch with the next one.
const GOES_ON: u8 = 2;

/// Whether a record is the last one of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// It is; also one that was appended alone.
    Ends,
    /// The next record, in the same group, belongs to the same batch.
    GoesOn,
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
    pub(crate) batch: Batch,
    pub(crate) payload: &'a [u8],
}

/// Bytes a frame with this payload takes, padding to the alignment included.
pub(crate) const fn frame_len(payload_len: usize) -> usize {
    (FRAME_HEADER_LEN + payload_len).next_multiple_of(8)
}

/// Length the frame that starts with these bytes says it has, or `None` when no frame starts like
/// this. *Not verified*: only good for deciding how many bytes to look at, within what is there.
#[inline]
fn claimed_len(bytes: &[u8]) -> Option<(FrameKind, u64)> {
    let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
    let plain = raw.flags & !GOES_ON == 0 && raw.record_kind == 0 && raw.reserved == 0;
    if !plain || u64::from(raw.len.get()) > MAX_PAYLOAD_LEN {
        return None;
    }
    let kind = FrameKind::from_byte(raw.kind)?;
    if raw.flags == GOES_ON && kind != FrameKind::Record {
        return None;
    }
    Some((kind, (FRAME_HEADER_LEN as u64 + u64::from(raw.len.get())).next_multiple_of(ALIGN)))
}

/// CRC-32C over log, generation, position, and everything of the frame after the checksum, its
/// padding included.
#[inline]
fn checksum(generation: Seed, lsn: Lsn, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(generation.at(lsn), rest)
}

/// Appends to `out` the frame that will be at `lsn`.
pub(crate) fn push_frame(
    out: &mut Vec<u8>,
    kind: FrameKind,
    payload: &[u8],
    lsn: Lsn,
    generation: Seed,
) {
    let start = out.len();
    out.resize(start + frame_len(payload.len()), 0);
    write_frame(&mut out[start..], kind, payload, lsn, generation);
}

/// Appends to `out` the record that will be at `lsn`.
pub(crate) fn push_record(
    out: &mut Vec<u8>,
    batch: Batch,
    payload: &[u8],
    lsn: Lsn,
    generation: Seed,
) {
    let start = out.len();
    out.resize(start + frame_len(payload.len()), 0);
    write_record(&mut out[start..], batch, payload, lsn, generation);
}

/// Makes `out`, which has just the length for it, the record that will be at `lsn`.
#[inline]
pub(crate) fn write_record(
    out: &mut [u8],
    batch: Batch,
    payload: &[u8],
    lsn: Lsn,
    generation: Seed,
) {
    let flags = if batch == Batch::GoesOn { GOES_ON } else { 0 };
    fill_frame(out, (FrameKind::Record, flags), payload, lsn, generation);
}

/// Makes `out`, which has just the length for it, the frame that will be at `lsn`.
#[inline]
pub(crate) fn write_frame(
    out: &mut [u8],
    kind: FrameKind,
    payload: &[u8],
    lsn: Lsn,
    generation: Seed,
) {
    fill_frame(out, (kind, 0), payload, lsn, generation);
}

#[inline]
fn fill_frame(
    out: &mut [u8],
    (kind, flags): (FrameKind, u8),
    payload: &[u8],
    lsn: Lsn,
    generation: Seed,
) {
    let len = u32::try_from(payload.len()).expect("callers bound payloads by MAX_PAYLOAD_LEN");
    let raw = Raw {
        crc: U32::new(0),
        len: U32::new(len),
        kind: kind as u8,
        flags,
        record_kind: 0,
        reserved: 0,
    };
    let (header, rest) = out.split_at_mut(FRAME_HEADER_LEN);
    header.copy_from_slice(raw.as_bytes());
    let (body, padding) = rest.split_at_mut(payload.len());
    body.copy_from_slice(payload);
    padding.fill(0);
    stamp(out, lsn, generation);
}

/// Binds a whole frame to a position and a generation by writing its checksum anew.
#[inline]
fn stamp(frame: &mut [u8], lsn: Lsn, generation: Seed) {
    let crc = checksum(generation, lsn, &frame[CRC_LEN..]);
    frame[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// Binds the frame at the start of `bytes`, which was verified or just encoded, to a position and a
/// generation; returns its length.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn restamp_frame(bytes: &mut [u8], lsn: Lsn, generation: Seed) -> Option<usize> {
    let (_, len) = claimed_len(bytes)?;
    let len = usize::try_from(len).ok()?;
    stamp(bytes.get_mut(..len)?, lsn, generation);
    Some(len)
}

/// Length in bytes of the frame at the start of `bytes` if it can be a frame that fits in `room`
/// bytes. Not verified.
#[inline]
pub(crate) fn peek_frame_len(bytes: &[u8], room: u64) -> Option<usize> {
    let (_, len) = claimed_len(bytes)?;
    (len <= room).then(|| usize::try_from(len).ok()).flatten()
}

/// What bytes would be as a frame. Not verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) kind: FrameKind,
    /// Bytes from the first one of the frame to the last one of its padding.
    pub(crate) len: u64,
    crc: u32,
}

impl Claim {
    /// Bytes at the beginning of a frame that its checksum does not cover.
    pub(crate) const UNCOVERED: u64 = CRC_LEN as u64;

    /// What the frame at the start of `bytes` would be, if it fits in `room` bytes.
    #[inline]
    pub(crate) fn of(bytes: &[u8], room: u64) -> Option<Self> {
        let (kind, len) = claimed_len(bytes).filter(|(_, len)| *len <= room)?;
        let crc = U32::read_from_prefix(bytes).ok()?.0.get();
        Some(Claim { kind, len, crc })
    }

    /// Whether it is that: `sum` is the checksum of everything it covers, going on from
    /// [`Seed::at`].
    pub(crate) fn holds(&self, sum: u32) -> bool {
        self.crc == sum
    }

    /// The same, of the whole frame.
    pub(crate) fn holds_of(&self, frame: &[u8], lsn: Lsn, generation: Seed) -> bool {
        frame.get(CRC_LEN..).is_some_and(|rest| self.holds(checksum(generation, lsn, rest)))
    }
}

/// Verifies the frame that `bytes` is from its first to its last byte.
#[inline]
pub(crate) fn read_frame(bytes: &[u8], lsn: Lsn, generation: Seed) -> Option<Frame<'_>> {
    let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
    let (kind, len) = claimed_len(bytes)?;
    if len != bytes.len() as u64 || raw.crc.get() != checksum(generation, lsn, &bytes[CRC_LEN..]) {
        return None;
    }
    let end = FRAME_HEADER_LEN + raw.len.get() as usize;
    let batch = if raw.flags & GOES_ON > 0 { Batch::GoesOn } else { Batch::Ends };
    Some(Frame { kind, batch, payload: &bytes[FRAME_HEADER_LEN..end] })
}

/// Verifies that `bytes` begin with a record's frame that fits in `room` bytes; returns the length
/// of its payload.
#[inline]
pub(crate) fn read_record(bytes: &[u8], room: u64, lsn: Lsn, generation: Seed) -> Option<usize> {
    // Type, flags and reserved bytes are one word, and so compared at once: most of what a log's
    // reader does is this.
    const RECORD: u32 = FrameKind::Record as u32;
    const ANY_BATCH: u32 = !((GOES_ON as u32) << 8);
    let header = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let payload_len = Some(word(4)).filter(|len| u64::from(*len) <= MAX_PAYLOAD_LEN)? as usize;
    let frame = bytes.get(..frame_len(payload_len)).filter(|frame| frame.len() as u64 <= room)?;
    (word(8) & ANY_BATCH == RECORD && word(0) == checksum(generation, lsn, &frame[CRC_LEN..]))
        .then_some(payload_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::place::Epoch;

    const LSN: u64 = 0x1234_5678;
    const KINDS: [FrameKind; 4] =
        [FrameKind::Record, FrameKind::Index, FrameKind::Head, FrameKind::Cut];

    fn seed() -> Seed {
        Seed::of_frames(Uuid::from_u128(77), 3, Epoch(9))
    }

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, kind, payload, Lsn(LSN), seed());
        bytes
    }

    #[test]
    fn a_frame_is_laid_out_as_documented() {
        let bytes = frame(FrameKind::Record, b"abcde");
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[4..12], [5, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[12..], *b"abcde\0\0\0\0\0\0\0");
        let generation = crc32c::crc32c(
            &[&77u128.to_be_bytes()[..], &3u32.to_le_bytes(), &9u64.to_le_bytes()].concat(),
        );
        let position = 0x0246_8ACFu32.wrapping_mul(0x9E37_79B9);
        assert_eq!(
            bytes[..4],
            crc32c::crc32c_append(generation ^ position, &bytes[4..]).to_le_bytes()
        );
    }

    #[test]
    fn every_flipped_bit_is_found_padding_included() {
        for payload in [&b""[..], b"x", b"four", b"a payload of some length"] {
            let good = frame(FrameKind::Record, payload);
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(read_frame(&bytes, Lsn(LSN), seed()).is_none(), "bit {bit}");
                // Whatever length it claims now, nothing at this place verifies.
                if let Some(len) = peek_frame_len(&bytes, good.len() as u64) {
                    assert!(
                        len <= good.len() && read_frame(&bytes[..len], Lsn(LSN), seed()).is_none()
                    );
                }
            }
        }
    }

    #[test]
    fn a_frame_verifies_nowhere_else() {
        let bytes = frame(FrameKind::Record, b"payload");
        assert!(read_frame(&bytes, Lsn(LSN), seed()).is_some());
        assert!(
            [0, LSN - 8, LSN + 8, LSN << 8, u64::MAX].iter().all(|lsn| read_frame(
                &bytes,
                Lsn(*lsn),
                seed()
            )
            .is_none())
        );
        for (uuid, generation, epoch) in
            [(77, 2, 9), (77, 4, 9), (77, 0, 9), (78, 3, 9), (0, 3, 9), (77, 3, 8), (77, 3, 0)]
        {
            let other = Seed::of_frames(Uuid::from_u128(uuid), generation, Epoch(epoch));
            assert!(read_frame(&bytes, Lsn(LSN), other).is_none());
        }
        // Not even with another length, although that is what the checksum sees first.
        let near = (1..1 << 13).flat_map(|n| [LSN - 8 * n, LSN + 8 * n]);
        for (lsn, len) in near.flat_map(|lsn| (5..=12).map(move |len| (lsn, len))) {
            let mut other = bytes.clone();
            other[4] = len;
            assert!(read_frame(&other, Lsn(lsn), seed()).is_none());
        }
        let mut moved = bytes.clone();
        assert_eq!(restamp_frame(&mut moved, Lsn(LSN + 8), seed()), Some(bytes.len()));
        assert_eq!(read_frame(&moved, Lsn(LSN + 8), seed()).unwrap().payload, b"payload");
    }

    #[test]
    fn zeros_and_impossible_lengths_are_no_frame() {
        for len in [0, 11, 12, 16, 4096] {
            assert!(read_frame(&vec![0; len], Lsn(0), seed()).is_none());
            assert!(peek_frame_len(&vec![0; len], u64::MAX).is_none());
        }
        let mut bytes = frame(FrameKind::Record, b"x");
        for len in [9u32, 1 << 20, 1 << 31, u32::MAX] {
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
            assert!(peek_frame_len(&bytes, bytes.len() as u64).is_none(), "{len}");
            assert!(restamp_frame(&mut bytes, Lsn(LSN), seed()).is_none());
        }
        for len in 0..12 {
            assert!(read_frame(&bytes[..len], Lsn(LSN), seed()).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_position_verifies_at_another_one_of_the_same_32_gib(block in 0..1u64 << 28, a: u32,
            b: u32) {
            let seed = seed();
            let at = |n: u32| seed.at(Lsn(block << 35 | u64::from(n) << 3));
            prop_assert_eq!(at(a) == at(b), a == b);
            // Where only the block differs, neither.
            prop_assert_ne!(at(a), seed.at(Lsn((block + 1) << 35 | u64::from(a) << 3)));
        }

        #[test]
        fn what_is_pushed_is_read(payload: Vec<u8>, lsn: u64, generation: u32, epoch: u64,
            uuid: u128, kind in 0..4usize, before: Vec<u8>) {
            let seed = Seed::of_frames(Uuid::from_u128(uuid), generation, Epoch(epoch));
            let mut bytes = before.clone();
            push_frame(&mut bytes, KINDS[kind], &payload, Lsn(lsn), seed);
            let bytes = &bytes[before.len()..];
            prop_assert_eq!(bytes.len(), frame_len(payload.len()));
            prop_assert_eq!(peek_frame_len(bytes, bytes.len() as u64), Some(bytes.len()));
            prop_assert_eq!(peek_frame_len(bytes, bytes.len() as u64 - 1), None);
            let frame = read_frame(bytes, Lsn(lsn), seed).unwrap();
            prop_assert_eq!(frame.kind, KINDS[kind]);
            prop_assert_eq!(frame.payload, &payload[..]);
        }

        #[test]
        fn arbitrary_bytes_are_no_frame(mut bytes: Vec<u8>, lsn: u64, room: u64) {
            if let Some(len) = peek_frame_len(&bytes, room) {
                prop_assert!(len as u64 <= room && len >= FRAME_HEADER_LEN);
            }
            prop_assert!(read_frame(&bytes, Lsn(lsn), seed()).is_none());
            restamp_frame(&mut bytes, Lsn(lsn), seed());
        }
    }
}

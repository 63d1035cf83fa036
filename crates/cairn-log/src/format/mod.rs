//! The bytes of a log, as `docs/format/log.md` specifies them. Pure: nothing here does I/O.
//!
//! A segment is a [`Superblock`], then groups back to back. A group is a [`GroupHeader`], then
//! frames, then padding. The byte at logical position `lsn` is at file offset
//! `DATA_OFFSET + (lsn - base_lsn)`, so that every structure knows where it must be, and every
//! checksum covers that.

mod frame;
mod gaps;
mod group;
mod openings;
mod seal;
mod state;
mod superblock;

#[cfg(feature = "fuzzing")]
pub(crate) use frame::restamp_frame;
pub(crate) use frame::{
    Batch, Claim, FRAME_HEADER_LEN, Frame, FrameKind, MAX_PAYLOAD_LEN, frame_len, peek_frame_len,
    push_frame, push_record, read_frame, read_record, write_record,
};
pub(crate) use gaps::{GAPS_LEN_MAX, GapGroup, GapList, GapNote, SegmentKey};
pub(crate) use group::{GROUP_HEADER_LEN, GroupHeader, GroupKind, chain_of};
pub(crate) use openings::Openings;
pub(crate) use seal::{
    HeadMark, TRAILER_LEN, decode_index, decode_trailer, encode_index, encode_trailer, seal_len,
};
pub(crate) use state::{STATE_LEN, StateRecord, newest_state};
pub(crate) use superblock::{
    CutNote, DATA_OFFSET, FORMAT_VERSION, OPEN_SEQ, STORE_SIZE, SUPERBLOCK_LEN, SegmentName,
    Superblock, SuperblockError,
};

use uuid::Uuid;

use crate::mutation::{self, Mutation};
use crate::place::{Epoch, Lsn, Seq};

/// Everything in a segment starts at a multiple of this many bytes.
pub(crate) const ALIGN: u64 = ALIGN_LEN as u64;
/// The same as a length in memory.
pub(crate) const ALIGN_LEN: usize = 8;

/// A sector, in bytes: what a disk writes whole, and can fail to read. In a recycled segment, each
/// flush fills its last one up with zeros.
pub(crate) const SECTOR_LEN: usize = 512;

/// Positions are below this, so that adding the length of a file to one never overflows.
const LSN_LIMIT: Lsn = Lsn(1 << 63);

/// No record is placed here or behind. What is left has room for a seal, notes and marks, whatever
/// the size of a segment.
pub(crate) const POSITIONS_END: Lsn = Lsn(LSN_LIMIT.0 - (1 << 40));

/// Whether a record with this number can start at this position: every record before it takes 16
/// bytes or more.
pub(crate) fn is_place(lsn: Lsn, seq: Seq) -> bool {
    lsn < LSN_LIMIT && seq.0 <= lsn.0
}

/// Who a frame belongs to: its checksum starts from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u32);

impl Seed {
    /// For group headers: bound to the log.
    pub(crate) fn of_log(uuid: Uuid) -> Self {
        Seed(crc32c::crc32c(uuid.as_bytes()))
    }

    /// For frames: bound to the log, to one generation of it, and to the opening that wrote them.
    pub(crate) fn of_frames(uuid: Uuid, generation: u32, epoch: Epoch) -> Self {
        let generation = if mutation::is(Mutation::UnboundGeneration) { 0 } else { generation };
        let epoch = if mutation::is(Mutation::UnboundEpoch) { 0 } else { epoch.0 };
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&generation.to_le_bytes());
        bytes[4..].copy_from_slice(&epoch.to_le_bytes());
        Seed(crc32c::crc32c_append(Self::of_log(uuid).0, &bytes))
    }

    /// What the checksum of the frame at `lsn` goes on from: bound to the position, too.
    ///
    /// In each 32 GiB of positions no two are the same. It multiplies because a checksum sees its
    /// state and the four bytes that come next only as the sum of both bit by bit: a change of
    /// these must not undo a small change of the position.
    #[inline]
    pub(crate) fn at(self, lsn: Lsn) -> u32 {
        let lsn = if mutation::is(Mutation::UnboundPosition) { 0 } else { lsn.0 };
        let [a, b, c, d, e, f, g, h] = (lsn / ALIGN).to_le_bytes();
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if mutation::is(Mutation::PlainPosition) {
            return self.0 ^ low ^ high;
        }
        self.0 ^ low.wrapping_mul(POSITION_LOW) ^ high.wrapping_mul(POSITION_HIGH)
    }
}

/// Odd, so that multiplying by it loses nothing; the first one is 2^32 over the golden ratio, which
/// keeps the products of near positions far apart.
const POSITION_LOW: u32 = 0x9E37_79B9;
const POSITION_HIGH: u32 = 0x85EB_CA77;

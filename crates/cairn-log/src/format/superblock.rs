//! The first block of a segment: who it is.

use std::fmt;

use cairn_io::preamble::{self, Checksum, Preamble};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::openings::RawOpenings;
use super::{ALIGN, Openings, is_place};
use crate::place::{Epoch, Lsn, Place, Seq};

/// Bytes of the superblock, its zero padding included.
pub(crate) const SUPERBLOCK_LEN: usize = 4096;
/// File offset of the segment's first group.
pub(crate) const DATA_OFFSET: u64 = SUPERBLOCK_LEN as u64;
/// The only format version this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// The segment size in the superblock of a store, which has one segment without bound. No segment
/// of a directory has it.
pub(crate) const STORE_SIZE: u64 = u64::MAX;

/// The number in the superblock of a segment that got its name before it was known: its first
/// record has the number that its first group says.
pub(crate) const OPEN_SEQ: Seq = Seq(u64::MAX);

/// Where the group before a cut's segment is, when its place is not said.
const NOT_SAID: u64 = u64::MAX;

const MAGIC: [u8; 8] = *b"CAIRNLOG";
const PREAMBLE: Preamble<SUPERBLOCK_LEN> =
    Preamble::new(MAGIC, FORMAT_VERSION, Checksum::BehindVersion);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    /// Magic, version, checksum.
    preamble: [u8; preamble::HEAD_LEN],
    uuid: [u8; preamble::ID_LEN],
    generation: U32,
    made: U32,
    base_lsn: U64,
    base_seq: U64,
    head_lsn: U64,
    head_seq: U64,
    segment_size: U64,
    created_unix_ns: U64,
    recycled_len: U64,
    epoch: U64,
    /// Zeros unless the segment was made by a cut.
    before_lsn: U64,
    cut_epoch: U64,
    cut_lsn: U64,
    known_lsn: U64,
    openings: RawOpenings,
}

/// `made` of a segment that a cut made, and of the others.
const BY_CUT: u32 = 1;
const IN_ORDER: u32 = 0;

/// Bytes of it that are not zero in every superblock.
pub(super) const RAW_LEN: usize = size_of::<Raw>();
// A torn superblock of a store is all zeros or whole: everything that is not zero lies in its first
// sector.
const _: () = assert!(RAW_LEN <= 512);

/// A decoded superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: Uuid,
    /// Counts cuts; frames of another generation do not verify here.
    pub(crate) generation: u32,
    /// Position of the first byte after the superblock. Everything below it was durable before the
    /// segment got its first group.
    pub(crate) base_lsn: Lsn,
    /// Number of the first record at or after `base_lsn`, or [`OPEN_SEQ`].
    pub(crate) base_seq: Seq,
    /// Records below this had been dropped when the segment was created.
    pub(crate) head_lsn: Lsn,
    pub(crate) head_seq: Seq,
    /// The size after which the segment was to be rotated, in bytes, as configured when it was
    /// created. Informative.
    pub(crate) segment_size: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(crate) created_unix_ns: u64,
    /// Length in bytes of the file when it was taken over from a dropped segment: what lies behind
    /// the last group may be that one's. 0 for a file made for this segment, where nothing but
    /// zeros does.
    pub(crate) recycled_len: u64,
    /// The opening that made the segment.
    pub(crate) epoch: Epoch,
    /// What it cut, if it was made by a recovery or by `truncate_after`.
    pub(crate) cut: Option<CutNote>,
}

/// What the segment says that a cut made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutNote {
    /// Where the header of the last group before the segment is; `None` if that is the seal of a
    /// segment that ends where this one starts, or there is no group.
    pub(crate) before: Option<Lsn>,
    /// The opening whose log was cut: the newest one that wrote to it.
    pub(crate) epoch: Epoch,
    /// Where it was cut: everything at or behind this is gone. A mark stands here.
    pub(crate) lsn: Lsn,
    /// Nothing of what was cut, now or by a cut before this one, reaches further.
    pub(crate) known: Lsn,
    /// The openings that wrote the last groups of the segments that were cut, now or by a cut
    /// before this one of which not all is removed.
    pub(crate) openings: Openings,
}

pub(crate) use cairn_io::preamble::Refusal as SuperblockError;

impl Superblock {
    /// The name that the segment bears in a directory.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base_lsn: self.base_lsn, generation: self.generation }
    }

    /// The superblock of a new log's first segment.
    pub(crate) fn first(uuid: [u8; 16], epoch: Epoch, at: Place, segment_size: u64) -> Self {
        Superblock {
            uuid: uuid::Builder::from_random_bytes(uuid).into_uuid(),
            generation: 1,
            base_lsn: at.lsn,
            base_seq: at.seq,
            head_lsn: at.lsn,
            head_seq: at.seq,
            segment_size,
            created_unix_ns: 0,
            recycled_len: 0,
            epoch,
            cut: None,
        }
    }

    pub(crate) fn encode(&self) -> Box<[u8; SUPERBLOCK_LEN]> {
        let before = self.cut.map_or(0, |cut| cut.before.map_or(NOT_SAID, |lsn| lsn.0));
        let raw = Raw {
            preamble: [0; preamble::HEAD_LEN],
            uuid: *self.uuid.as_bytes(),
            generation: U32::new(self.generation),
            made: U32::new(if self.cut.is_some() { BY_CUT } else { IN_ORDER }),
            base_lsn: U64::new(self.base_lsn.0),
            base_seq: U64::new(self.base_seq.0),
            head_lsn: U64::new(self.head_lsn.0),
            head_seq: U64::new(self.head_seq.0),
            segment_size: U64::new(self.segment_size),
            created_unix_ns: U64::new(self.created_unix_ns),
            recycled_len: U64::new(self.recycled_len),
            epoch: U64::new(self.epoch.0),
            before_lsn: U64::new(before),
            cut_epoch: U64::new(self.cut.map_or(0, |cut| cut.epoch.0)),
            cut_lsn: U64::new(self.cut.map_or(0, |cut| cut.lsn.0)),
            known_lsn: U64::new(self.cut.map_or(0, |cut| cut.known.0)),
            openings: self.cut.map_or(Openings::default(), |cut| cut.openings).encode(),
        };
        let mut block = Box::new([0; SUPERBLOCK_LEN]);
        block[..RAW_LEN].copy_from_slice(raw.as_bytes());
        PREAMBLE.seal(&mut block);
        block
    }

    /// Decodes the first bytes of a segment; `block` may be shorter than a superblock.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, SuperblockError> {
        let block = PREAMBLE.judge(block)?;
        let Ok((raw, _)) = Raw::read_from_prefix(&block[..]) else {
            return Err(SuperblockError::Damaged);
        };
        // A store has its superblock from the beginning.
        let open = raw.base_seq.get() == OPEN_SEQ.0 && raw.segment_size.get() != STORE_SIZE;
        let base_seq = Seq(if open { 0 } else { raw.base_seq.get() });
        let possible = is_place(Lsn(raw.base_lsn.get()), base_seq)
            && is_place(Lsn(raw.head_lsn.get()), Seq(raw.head_seq.get()));
        if !possible || !raw.base_lsn.get().is_multiple_of(ALIGN) {
            return Err(SuperblockError::Damaged);
        }
        Ok(Superblock {
            uuid: Uuid::from_bytes(raw.uuid),
            generation: raw.generation.get(),
            base_lsn: Lsn(raw.base_lsn.get()),
            base_seq: Seq(raw.base_seq.get()),
            head_lsn: Lsn(raw.head_lsn.get()),
            head_seq: Seq(raw.head_seq.get()),
            segment_size: raw.segment_size.get(),
            created_unix_ns: raw.created_unix_ns.get(),
            recycled_len: raw.recycled_len.get(),
            epoch: Epoch(raw.epoch.get()),
            cut: raw.cut().ok_or(SuperblockError::Damaged)?,
        })
    }
}

impl Superblock {
    /// Whose log, which generation, which position and which opening a superblock names that does
    /// not verify. Good for looking whether groups behind it do, and for nothing else.
    pub(crate) fn claimed(block: &[u8]) -> Option<(Uuid, u32, Lsn, Epoch)> {
        let (raw, _) = Raw::read_from_prefix(block).ok()?;
        let (base, epoch) = (Lsn(raw.base_lsn.get()), Epoch(raw.epoch.get()));
        Some((Uuid::from_bytes(raw.uuid), raw.generation.get(), base, epoch))
    }
}

impl Raw {
    /// What the segment cut, if it was made by a cut; `None` if what is said of that is impossible.
    fn cut(&self) -> Option<Option<CutNote>> {
        let words = [self.before_lsn, self.cut_epoch, self.cut_lsn, self.known_lsn];
        let [before, epoch, lsn, known] = words.map(U64::get);
        let base = self.base_lsn.get();
        let openings = Openings::decode(&self.openings)?;
        match self.made.get() {
            IN_ORDER => {
                let nothing = [before, epoch, lsn, known] == [0; 4] && !openings.are_listed();
                nothing.then_some(None)
            }
            BY_CUT => {
                let possible = base <= lsn && lsn <= known && is_place(Lsn(known), Seq(0));
                (possible && (before < base || before == NOT_SAID)).then_some(Some(CutNote {
                    before: Some(Lsn(before)).filter(|_| before != NOT_SAID),
                    epoch: Epoch(epoch),
                    lsn: Lsn(lsn),
                    known: Lsn(known),
                    openings,
                }))
            }
            _ => None,
        }
    }
}

/// The name of a segment: base LSN and generation, so that a listing reads in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) base_lsn: Lsn,
    pub(crate) generation: u32,
}

impl SegmentName {
    /// The name that these characters are, or `None` if they are none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (base, generation) = name.strip_suffix(".cairn")?.split_once('-')?;
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(base, 20) || !digits(generation, 10) {
            return None;
        }
        let base_lsn = Lsn(base.parse().ok()?);
        Some(SegmentName { base_lsn, generation: generation.parse().ok()? })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}.cairn", self.base_lsn.0, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            generation: 3,
            base_lsn: Lsn(0x1000),
            base_seq: Seq(0x20),
            head_lsn: Lsn(0x0800),
            head_seq: Seq(0x10),
            segment_size: 64 << 20,
            created_unix_ns: 1_700_000_000_000_000_000,
            recycled_len: 5 << 20,
            epoch: Epoch(0x77),
            cut: Some(CutNote {
                before: Some(Lsn(0x0F00)),
                epoch: Epoch(0x66),
                lsn: Lsn(0x1100),
                known: Lsn(0x1200),
                openings: Openings::of([Epoch(0x66), Epoch(0x55)]),
            }),
        }
    }

    fn signed(change: impl Fn(&mut [u8])) -> Box<[u8; SUPERBLOCK_LEN]> {
        let mut block = superblock().encode();
        change(&mut block[..]);
        block[12..16].fill(0);
        let crc = crc32c::crc32c(&block[..]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    #[test]
    fn a_superblock_is_laid_out_as_documented() {
        let block = superblock().encode();
        assert_eq!(block[..12], *b"CAIRNLOG\x02\0\0\0");
        assert_eq!(block[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        assert_eq!(block[32..40], [3, 0, 0, 0, 1, 0, 0, 0]);
        let words = [0x1000u64, 0x20, 0x0800, 0x10, 64 << 20, 1_700_000_000_000_000_000, 5 << 20];
        assert_eq!(block[40..96], *words.map(u64::to_le_bytes).concat());
        let words = [0x77u64, 0x0F00, 0x66, 0x1100, 0x1200];
        assert_eq!(block[96..136], *words.map(u64::to_le_bytes).concat());
        assert_eq!(block[136..160], *[2u64, 0x66, 0x55].map(u64::to_le_bytes).concat());
        assert!(block[160..].iter().all(|b| *b == 0));
        let mut blank = block.clone();
        blank[12..16].fill(0);
        assert_eq!(block[12..16], crc32c::crc32c(&blank[..]).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found_padding_included() {
        let good = superblock().encode();
        assert_eq!(Superblock::decode(&good[..]), Ok(superblock()));
        let mut block = good.clone();
        for bit in 0..SUPERBLOCK_LEN * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            let expected =
                if bit < 64 { SuperblockError::Foreign } else { SuperblockError::Damaged };
            assert_eq!(Superblock::decode(&block[..]), Err(expected), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_short_block_is_foreign_or_damaged() {
        let good = superblock().encode();
        for len in 0..SUPERBLOCK_LEN {
            let expected =
                if len < 8 { SuperblockError::Foreign } else { SuperblockError::Damaged };
            assert_eq!(Superblock::decode(&good[..len]), Err(expected));
        }
        assert_eq!(Superblock::decode(&[0; SUPERBLOCK_LEN]), Err(SuperblockError::Foreign));
    }

    #[test]
    fn another_version_is_told_from_damage_by_the_checksum() {
        for version in [0u32, 1, 3, 256, u32::MAX] {
            let block = signed(|b| b[8..12].copy_from_slice(&version.to_le_bytes()));
            assert_eq!(Superblock::decode(&block[..]), Err(SuperblockError::Version(version)));
        }
    }

    #[test]
    fn impossible_positions_are_refused_under_a_right_checksum() {
        assert_eq!(Superblock::decode(&signed(|_| ())[..]), Ok(superblock()));
        for (at, value) in [
            (40, 0x1004),
            (40, 1 << 63),
            (40, u64::MAX),
            (48, 0x1001),
            (56, 1 << 63),
            (72 - 8, 0x0801),
            (36, 2),
            (36, 0),
            (104, 0x1000),
            (120, 0x0FF8),
            (128, 0x10F8),
            (128, 1 << 63),
            (136, 15),
        ] {
            let block = signed(|b| b[at..at + 8].copy_from_slice(&u64::to_le_bytes(value)));
            assert_eq!(
                Superblock::decode(&block[..]),
                Err(SuperblockError::Damaged),
                "{value:#x} at {at}"
            );
        }
    }

    #[test]
    fn a_segment_name_is_exact() {
        let name = SegmentName { base_lsn: Lsn(4096), generation: 7 };
        assert_eq!(name.to_string(), "00000000000000004096-0000000007.cairn");
        let last = SegmentName { base_lsn: Lsn::MAX, generation: u32::MAX };
        for name in [name, last] {
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        for bad in [
            "",
            ".cairn",
            "-.cairn",
            "00000000000000004096-0000000007",
            "00000000000000004096-0000000007.cairn.tmp",
            "0000000000000004096-0000000007.cairn",
            "000000000000000004096-0000000007.cairn",
            "+0000000000000004096-0000000007.cairn",
            "00000000000000004096-000000000x.cairn",
            "00000000000000004096_0000000007.cairn",
            "00000000000000004096-0000000007-0.cairn",
            "00000000000000004096-0000000007.CAIRN",
            "99999999999999999999-0000000007.cairn",
            "00000000000000004096-4294967296.cairn",
            "\u{0660}0000000000000000000-0000000007.cairn",
        ] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            uuid: u128, generation: u32, base in 0..1u64 << 59, head_lsn in 0..1u64 << 63,
                seqs: (u64, u64), segment_size in 0..STORE_SIZE,
            created_unix_ns: u64, recycled_len: u64, open: bool, epoch: u64,
            cut in prop::option::of((any::<u64>(), any::<Option<u64>>(), 0..1u64 << 60,
                0..1u64 << 60, prop::collection::vec(any::<u64>(), 0..16))),
        ) {
            let base_lsn = base * 8;
            let superblock = Superblock {
                uuid: Uuid::from_u128(uuid),
                generation,
                base_lsn: Lsn(base_lsn),
                base_seq: if open { OPEN_SEQ } else { Seq(seqs.0.min(base_lsn)) },
                head_lsn: Lsn(head_lsn),
                head_seq: Seq(seqs.1.min(head_lsn)),
                segment_size,
                created_unix_ns,
                recycled_len,
                epoch: Epoch(epoch),
                cut: cut.map(|(epoch, before, long, lost, openings)| CutNote {
                    before: before.filter(|_| base > 0).map(|lsn| Lsn(lsn % base_lsn.max(1))),
                    epoch: Epoch(epoch),
                    lsn: Lsn(base_lsn / 8 + base_lsn - base_lsn / 8 + long / 8),
                    known: Lsn(base_lsn + long / 8 + lost / 8),
                    openings: Openings::of(openings.into_iter().map(Epoch)),
                }),
            };
            prop_assert_eq!(Superblock::decode(&superblock.encode()[..]), Ok(superblock));
            let name = SegmentName { base_lsn: Lsn(base_lsn), generation };
            prop_assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn arbitrary_bytes_are_no_superblock(
            mut block in prop::collection::vec(any::<u8>(), 0..5000), magic: bool, name: String,
        ) {
            if magic && block.len() > 8 {
                block[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(Superblock::decode(&block).is_err());
            prop_assert_eq!(SegmentName::parse(&name), None);
        }
    }
}

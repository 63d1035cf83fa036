//! What a repair found to be lost: a list of gaps, and superblocks that stand in for damaged ones.
//!
//! The list lies beside the segments and changes no byte of them. Each gap is bound to one segment
//! by base, generation and epoch: to one that a cut or a truncation superseded it says nothing any
//! more, whatever takes its positions.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::superblock::RAW_LEN;
use super::{ALIGN, SUPERBLOCK_LEN, Superblock, is_place};
use crate::place::{Chain, Epoch, Lsn, Seq};

const MAGIC: [u8; 8] = *b"CAIRNGAP";
const CRC_AT: usize = 12;

/// Lists are no longer than this, in bytes: a reader takes no more into memory.
pub(crate) const GAPS_LEN_MAX: u64 = 1 << 30;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHead {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    uuid: [u8; 16],
    gaps: U32,
    superblocks: U32,
    reserved: [u8; 24],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawGap {
    base_lsn: U64,
    epoch: U64,
    generation: U32,
    flags: U32,
    from: U64,
    to: U64,
    first_seq: U64,
    seq: U64,
    chain: U32,
    group_generation: U32,
    group_epoch: U64,
    frames_end: U64,
    group_end: U64,
    reserved: U64,
}

const HEAD_LEN: usize = size_of::<RawHead>();
const GAP_LEN: usize = size_of::<RawGap>();
const _: () = assert!(HEAD_LEN == 64 && GAP_LEN == 96);

/// Bytes that a group has at most behind its header, and behind its frames.
const FRAMES_LEN_MAX: u64 = (u32::MAX - 8) as u64 - super::GROUP_HEADER_LEN as u64;
const PADDING_MAX: u64 = u16::MAX as u64 * ALIGN;

/// Flags: the numbers are known, the chain is known, the log goes on inside a group, and that is a
/// Head group.
const COUNTED: u32 = 1;
const CHAINED: u32 = 2;
const INSIDE: u32 = 4;
const HEAD: u32 = 8;

/// A segment, told from every other one that ever had its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentKey {
    pub(crate) base_lsn: Lsn,
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
}

impl SegmentKey {
    pub(crate) fn of(superblock: &Superblock) -> Self {
        let Superblock { base_lsn, generation, epoch, .. } = *superblock;
        SegmentKey { base_lsn, generation, epoch }
    }
}

/// A range of positions in which records are lost, or nothing but what surrounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GapNote {
    /// The segment that it is in, or behind which one is missing. If `to` is that one's base, what
    /// is missing precedes it.
    pub(crate) segment: SegmentKey,
    /// A boundary of frames or groups: where the next one would be.
    pub(crate) from: Lsn,
    /// Where the log goes on.
    pub(crate) to: Lsn,
    /// Number that a record at `from` has, or had.
    pub(crate) first_seq: Seq,
    /// Number of the first record at or behind `to`.
    pub(crate) seq: Seq,
    /// Whether the two numbers are known, and with them how many records are lost.
    pub(crate) counted: bool,
    /// What the group behind the gap calls the one before it; or, inside a group, what names that
    /// one.
    pub(crate) chain: Option<Chain>,
    /// The group in which the log goes on, if it does so inside of one.
    pub(crate) group: Option<GapGroup>,
}

/// What frames behind a gap need of the header before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GapGroup {
    /// Whether it holds the note of a truncation, and not records.
    pub(crate) is_head: bool,
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    /// One past the last frame.
    pub(crate) frames_end: Lsn,
    /// Where the next group starts; zeros lie between.
    pub(crate) end: Lsn,
}

impl GapNote {
    /// Whether records are lost in it, or may be.
    pub(crate) fn is_told(&self) -> bool {
        self.seq != self.first_seq || !self.counted
    }

    /// Whether it stands for what preceded the first segment that is left.
    pub(crate) fn is_leading(&self) -> bool {
        self.to == self.segment.base_lsn
    }

    /// Whether it is in order by itself.
    fn is_sane(&self) -> bool {
        let aligned = |lsn: Lsn| lsn.0.is_multiple_of(ALIGN);
        let places = is_place(self.to, self.seq) && aligned(self.to) && aligned(self.from);
        let inside = self.group.is_none_or(|group| {
            self.to < group.frames_end
                && group.frames_end <= group.end
                && is_place(group.end, Seq(0))
                && group.end.saturating_since(group.frames_end) <= PADDING_MAX
                && group.frames_end.saturating_since(self.to) <= FRAMES_LEN_MAX
                && aligned(group.frames_end)
                && aligned(group.end)
        });
        let here = self.from >= self.segment.base_lsn || self.is_leading() && self.group.is_none();
        places && inside && here && self.from < self.to && self.first_seq <= self.seq
    }

    fn encode(&self) -> RawGap {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.counted, COUNTED)
            | flag(self.chain.is_some(), CHAINED)
            | flag(self.group.is_some(), INSIDE)
            | flag(self.group.is_some_and(|group| group.is_head), HEAD);
        let group = self.group.unwrap_or(GapGroup {
            is_head: false,
            generation: 0,
            epoch: Epoch(0),
            frames_end: Lsn(0),
            end: Lsn(0),
        });
        RawGap {
            base_lsn: U64::new(self.segment.base_lsn.0),
            epoch: U64::new(self.segment.epoch.0),
            generation: U32::new(self.segment.generation),
            flags: U32::new(flags),
            from: U64::new(self.from.0),
            to: U64::new(self.to.0),
            first_seq: U64::new(self.first_seq.0),
            seq: U64::new(self.seq.0),
            chain: U32::new(self.chain.unwrap_or_default().0),
            group_generation: U32::new(group.generation),
            group_epoch: U64::new(group.epoch.0),
            frames_end: U64::new(group.frames_end.0),
            group_end: U64::new(group.end.0),
            reserved: U64::new(0),
        }
    }

    fn decode(raw: &RawGap) -> Option<Self> {
        let flags = raw.flags.get();
        let is = |flag| flags & flag != 0;
        let note = GapNote {
            segment: SegmentKey {
                base_lsn: Lsn(raw.base_lsn.get()),
                generation: raw.generation.get(),
                epoch: Epoch(raw.epoch.get()),
            },
            from: Lsn(raw.from.get()),
            to: Lsn(raw.to.get()),
            first_seq: Seq(raw.first_seq.get()),
            seq: Seq(raw.seq.get()),
            counted: is(COUNTED),
            chain: is(CHAINED).then(|| Chain(raw.chain.get())),
            group: is(INSIDE).then(|| GapGroup {
                is_head: is(HEAD),
                generation: raw.group_generation.get(),
                epoch: Epoch(raw.group_epoch.get()),
                frames_end: Lsn(raw.frames_end.get()),
                end: Lsn(raw.group_end.get()),
            }),
        };
        let plain = flags <= (COUNTED | CHAINED | INSIDE | HEAD) && raw.reserved.get() == 0;
        let whole = plain && (is(INSIDE) || !is(HEAD));
        (whole && note.is_sane()).then_some(note)
    }
}

/// All gaps of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GapList {
    pub(crate) uuid: Uuid,
    /// By segment, and in each of them by position; something lies between each two.
    pub(crate) gaps: Vec<GapNote>,
    /// What stands in for superblocks that do not verify.
    pub(crate) superblocks: Vec<Superblock>,
}

impl GapList {
    pub(crate) fn is_empty(&self) -> bool {
        self.gaps.is_empty() && self.superblocks.is_empty()
    }

    /// Puts everything where it belongs, after a change.
    pub(crate) fn sort(&mut self) {
        self.gaps.sort_by_key(|gap| (gap.segment, gap.from));
        self.superblocks.sort_by_key(SegmentKey::of);
    }

    /// Lists these gaps of a segment, in place of what is listed of it: two lists of one segment
    /// would be none.
    pub(crate) fn set(&mut self, segment: SegmentKey, gaps: Vec<GapNote>) {
        self.gaps.retain(|gap| gap.segment != segment);
        self.gaps.extend(gaps);
        self.sort();
    }

    /// The gaps in the segment, or behind it, by position.
    pub(crate) fn of(&self, segment: SegmentKey) -> &[GapNote] {
        let start = self.gaps.partition_point(|gap| gap.segment < segment);
        let len = self.gaps[start..].partition_point(|gap| gap.segment == segment);
        &self.gaps[start..start + len]
    }

    /// The gap that stands for what precedes the segment.
    pub(crate) fn before(&self, segment: SegmentKey) -> Option<&GapNote> {
        self.of(segment).iter().find(|gap| gap.is_leading())
    }

    /// Whether the last gap of the segment, which ends at `end`, goes from there, or before, to the
    /// next one, which starts at `next`.
    pub(crate) fn reach(&self, segment: SegmentKey, end: Lsn, next: Lsn) -> bool {
        self.of(segment).iter().any(|gap| gap.from <= end && gap.to >= next)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let count = |len: usize| U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        let head = RawHead {
            magic: MAGIC,
            version: U32::new(super::FORMAT_VERSION),
            crc: U32::new(0),
            uuid: *self.uuid.as_bytes(),
            gaps: count(self.gaps.len()),
            superblocks: count(self.superblocks.len()),
            reserved: [0; 24],
        };
        let mut bytes = head.as_bytes().to_vec();
        for gap in &self.gaps {
            bytes.extend_from_slice(gap.encode().as_bytes());
        }
        for superblock in &self.superblocks {
            bytes.extend_from_slice(&superblock.encode()[..RAW_LEN]);
        }
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The list that these bytes are, the whole of a file; `None` if they are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = RawHead::read_from_prefix(bytes).ok()?;
        let ours = head.magic == MAGIC && head.version.get() == super::FORMAT_VERSION;
        let (before, behind) = (bytes.get(..CRC_AT)?, bytes.get(CRC_AT + 4..)?);
        let crc = [&[0; 4], behind]
            .iter()
            .fold(crc32c::crc32c(before), |crc, part| crc32c::crc32c_append(crc, part));
        if !ours || crc != head.crc.get() || head.reserved != [0; 24] {
            return None;
        }
        let count = |n: U32| usize::try_from(n.get()).ok();
        let gaps_len = count(head.gaps)?.checked_mul(GAP_LEN)?;
        let blocks_len = count(head.superblocks)?.checked_mul(RAW_LEN)?;
        let (gaps, blocks) = rest.split_at_checked(gaps_len)?;
        if blocks.len() != blocks_len {
            return None;
        }
        let gap = |raw| GapNote::decode(&RawGap::read_from_bytes(raw).ok()?);
        let gaps: Vec<GapNote> = gaps.chunks(GAP_LEN).map(gap).collect::<Option<_>>()?;
        let superblock = |used: &[u8]| {
            let mut block = [0; SUPERBLOCK_LEN];
            block[..RAW_LEN].copy_from_slice(used);
            Superblock::decode(&block).ok()
        };
        let superblocks = blocks.chunks(RAW_LEN).map(superblock).collect::<Option<_>>()?;
        let apart = |a: &GapNote, b: &GapNote| {
            a.segment < b.segment || a.segment == b.segment && a.to < b.from
        };
        let list = GapList { uuid: Uuid::from_bytes(head.uuid), gaps, superblocks };
        list.gaps.is_sorted_by(apart).then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::place::Place;

    fn key(base: u64) -> SegmentKey {
        SegmentKey { base_lsn: Lsn(base), generation: 2, epoch: Epoch(0x0102_0304_0506_0708) }
    }

    fn note() -> GapNote {
        GapNote {
            segment: key(0x1000),
            from: Lsn(0x1100),
            to: Lsn(0x1180),
            first_seq: Seq(10),
            seq: Seq(12),
            counted: true,
            chain: Some(Chain(0x1122_3344)),
            group: Some(GapGroup {
                is_head: false,
                generation: 2,
                epoch: Epoch(9),
                frames_end: Lsn(0x1200),
                end: Lsn(0x1210),
            }),
        }
    }

    fn list() -> GapList {
        let at_boundary =
            GapNote { from: Lsn(0x1300), to: Lsn(0x2000), chain: None, group: None, ..note() };
        let superblock = Superblock {
            base_lsn: Lsn(0x2000),
            ..Superblock::first([7; 16], Epoch(3), Place::default(), 1 << 20)
        };
        GapList {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            gaps: vec![note(), at_boundary],
            superblocks: vec![superblock],
        }
    }

    #[test]
    fn a_segment_is_listed_once_however_often_it_is_tried() {
        let mut twice = list();
        twice.set(key(0x1000), list().gaps);
        assert_eq!(twice, list());
        twice.set(key(0x1000), Vec::new());
        assert_eq!(twice.gaps, []);
        twice.set(key(0x800), vec![GapNote { segment: key(0x800), ..note() }]);
        twice.set(key(0x1000), list().gaps);
        assert_eq!(GapList::decode(&twice.encode()), Some(twice));
    }

    #[test]
    fn a_list_is_laid_out_as_documented() {
        let bytes = list().encode();
        assert_eq!(bytes.len(), 64 + 2 * 96 + RAW_LEN);
        assert_eq!(bytes[..12], *b"CAIRNGAP\x02\0\0\0");
        assert_eq!(bytes[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        assert_eq!(bytes[32..40], [2, 0, 0, 0, 1, 0, 0, 0]);
        assert!(bytes[40..64].iter().all(|b| *b == 0));
        let gap = &bytes[64..160];
        assert_eq!(gap[..16], *[0x1000u64, 0x0102_0304_0506_0708].map(u64::to_le_bytes).concat());
        assert_eq!(gap[16..24], [2, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(gap[24..56], *[0x1100u64, 0x1180, 10, 12].map(u64::to_le_bytes).concat());
        assert_eq!(gap[56..64], *[0x1122_3344u32, 2].map(u32::to_le_bytes).concat());
        assert_eq!(gap[64..96], *[9u64, 0x1200, 0x1210, 0].map(u64::to_le_bytes).concat());
        assert_eq!(bytes[256..], list().superblocks[0].encode()[..RAW_LEN]);
        let mut blank = bytes.clone();
        blank[12..16].fill(0);
        assert_eq!(bytes[12..16], crc32c::crc32c(&blank).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_found() {
        let good = list().encode();
        assert_eq!(GapList::decode(&good), Some(list()));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GapList::decode(&bytes), None, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(GapList::decode(&good[..len]), None);
        }
        assert_eq!(GapList::decode(&[good, vec![0]].concat()), None);
    }

    #[test]
    fn a_segment_finds_its_own_gaps_alone() {
        let mut list = list();
        list.gaps.push(GapNote { segment: key(0), from: Lsn(8), ..note() });
        list.sort();
        assert_eq!(list.of(key(0x1000)).len(), 2);
        assert_eq!(list.of(key(0)).len(), 1);
        let other = SegmentKey { epoch: Epoch(1), ..key(0x1000) };
        assert!(list.of(other).is_empty());
        let other = SegmentKey { generation: 3, ..key(0x1000) };
        assert!(list.of(other).is_empty());
    }

    #[test]
    fn impossible_gaps_are_refused_under_a_right_checksum() {
        let refused = |change: fn(&mut GapNote)| {
            let mut gap = note();
            change(&mut gap);
            let list = GapList { gaps: vec![gap], ..list() };
            assert_eq!(GapList::decode(&list.encode()), None, "{gap:?}");
        };
        refused(|gap| gap.to = gap.from);
        refused(|gap| gap.from = Lsn(0x1101));
        refused(|gap| gap.from = Lsn(0xFF8));
        refused(|gap| gap.seq = Seq(9));
        refused(|gap| gap.seq = Seq(0x2000));
        refused(|gap| gap.to = Lsn(1 << 63));
        refused(|gap| gap.to = Lsn(0x1200));
        refused(|gap| gap.group.iter_mut().for_each(|group| group.end = Lsn(0x11F8)));
        let twice = GapList { gaps: vec![note(), note()], ..list() };
        assert_eq!(GapList::decode(&twice.encode()), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_list(bytes: Vec<u8>) {
            prop_assert_eq!(GapList::decode(&bytes), None);
        }
    }
}

//! A superblock in place of one that does not verify, from what is left of it and from what
//! surrounds the segment.

use cairn_io::read_full_at;

use crate::clock::unix_ns;
use crate::format::{
    CutNote, DATA_OFFSET, GROUP_HEADER_LEN, GroupHeader, OPEN_SEQ, Openings, SUPERBLOCK_LEN, Seed,
    SegmentName, Superblock,
};
use crate::layout::Layout;
use crate::layout::directory::{Directory, Stated};
use crate::open::survey::Survey;
use crate::place::{Epoch, Lsn, Place};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;

/// Where in a superblock its checksum is.
const CRC_AT: usize = 12;

/// The superblock that the file with this name is to have. `None` if no group of the log is in it,
/// or nothing tells whose log that is.
pub(super) fn stand_in(
    directory: &Directory,
    name: SegmentName,
    survey: &Survey,
    stated: &Stated,
) -> Option<Superblock> {
    let file = directory.read(name).ok()?;
    let mut block = [0; SUPERBLOCK_LEN];
    let read = read_full_at(&*file, 0, &mut block).unwrap_or(0);
    if read == SUPERBLOCK_LEN
        && let Some(mended) = with_one_bit_back(&block, name)
    {
        return Some(mended);
    }
    let state = if let Stated::Record(state) = stated { Some(state) } else { None };
    let segments: Vec<&SegmentFile> =
        survey.segments.iter().filter(|segment| !segment.is_headless).collect();
    let uuid = match segments.first() {
        Some(segment) => segment.superblock.uuid,
        None => state?.uuid,
    };
    let len = file.len().ok()?;
    let mut superblock = Superblock {
        uuid,
        generation: name.generation,
        base_lsn: name.base_lsn,
        base_seq: OPEN_SEQ,
        // What a file that is used again holds behind its end says nothing.
        recycled_len: len.max(1),
        created_unix_ns: unix_ns(directory.fs()),
        ..Superblock::first([0; 16], Epoch::default(), Place::default(), len)
    };
    let mut header = [0; GROUP_HEADER_LEN];
    let read = read_full_at(&*file, DATA_OFFSET, &mut header).unwrap_or(0);
    let first = GroupHeader::decode(&header[..read], name.base_lsn, Seed::of_log(uuid));
    let first = first.filter(|group| group.generation == name.generation);
    let group = first.or_else(|| group_in(directory, &superblock))?;
    superblock.epoch = group.epoch;
    if let Some(first) = first {
        superblock.base_seq = first.first_seq;
    }
    superblock.cut = cut_of(name, &segments, state.map(|state| state.epoch), len);
    let head =
        segments.first().map(|segment| segment.base()).filter(|head| head.lsn < name.base_lsn);
    let noted = segments.iter().map(|segment| Place {
        lsn: segment.superblock.head_lsn,
        seq: segment.superblock.head_seq,
    });
    // Without any other segment, what precedes this one had been dropped, or nobody can tell.
    let own =
        Place { lsn: name.base_lsn, seq: first.map(|first| first.first_seq).unwrap_or_default() };
    let head = head.into_iter().chain(noted).max().unwrap_or(own);
    (superblock.head_lsn, superblock.head_seq) = (head.lsn, head.seq);
    Superblock::decode(&superblock.encode()[..]).ok()
}

/// The superblock that this is once the right bit of it is flipped back. Its checksum has a
/// distance of four: of all blocks with one other bit at most one verifies.
///
/// What a bit changes in the checksum depends on its distance from the end alone. So the bit is
/// found with one step for each place, instead of a checksum over the block.
fn with_one_bit_back(block: &[u8; SUPERBLOCK_LEN], name: SegmentName) -> Option<Superblock> {
    let mut block = *block;
    let crc = CRC_AT..CRC_AT + 4;
    let stored = u32::from_le_bytes(block[crc.clone()].try_into().ok()?);
    block[crc.clone()].fill(0);
    let difference = stored ^ crc32c::crc32c(&block);
    let right = |block: &mut [u8; SUPERBLOCK_LEN]| {
        let computed = crc32c::crc32c(&block[..]);
        block[crc.clone()].copy_from_slice(&computed.to_le_bytes());
        Superblock::decode(&block[..]).ok().filter(|superblock| superblock.name() == name)
    };
    if difference.count_ones() == 1 {
        return right(&mut block);
    }
    // Without the inversions at both ends, a checksum is linear.
    let behind = |crc: u32, bytes: &[u8]| !crc32c::crc32c_append(!crc, bytes);
    for bit in 0..8 {
        let mut change = behind(0, &[1 << bit]);
        for at in (0..SUPERBLOCK_LEN).rev() {
            if change == difference && !crc.contains(&at) {
                block[at] ^= 1 << bit;
                return right(&mut block);
            }
            change = behind(change, &[0]);
        }
    }
    None
}

/// The first group of this segment that verifies, wherever it is.
fn group_in(directory: &Directory, superblock: &Superblock) -> Option<GroupHeader> {
    let span = directory.open(&SegmentFile::new(*superblock, 0), Lsn::MAX).ok()?;
    let mut walk = Walk::new(span, superblock.base_lsn, Default::default());
    let mut found = walk.find_group(superblock.base_lsn);
    while let Some(other) = found.filter(|group| group.generation != superblock.generation) {
        found = walk.find_group(other.lsn + 1);
    }
    found
}

/// What the segment cut, if a cut made it: within a generation segments follow each other by
/// rotation alone. What it knew of is lost; it is taken to be all that is there.
fn cut_of(
    name: SegmentName,
    segments: &[&SegmentFile],
    epoch: Option<Epoch>,
    len: u64,
) -> Option<CutNote> {
    let before = |segment: &&&SegmentFile| segment.superblock.base_lsn < name.base_lsn;
    let rotated = match segments.iter().rfind(before) {
        Some(before) => before.superblock.generation == name.generation,
        None => name.generation == 1,
    };
    if rotated {
        return None;
    }
    let ends = segments.iter().map(|segment| segment.file_end_lsn());
    let own = name.base_lsn.saturating_add(len);
    Some(CutNote {
        before: None,
        epoch: epoch.unwrap_or_default(),
        lsn: name.base_lsn,
        known: ends.fold(own, Lsn::max),
        openings: Openings::default(),
    })
}

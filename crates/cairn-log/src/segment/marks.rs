//! The bytes of groups without records: the mark of an end, and the seal.

use crate::format::{
    FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, Seed, Superblock, encode_index,
    encode_trailer, push_frame,
};
use crate::place::{Chain, Epoch, IndexEntry, Lsn, Place};

const MARK_LEN: u32 = 56;

const _: () = assert!(MARK_LEN as usize == GROUP_HEADER_LEN);

/// Who writes a group of the log's own, and behind which one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) previous: Chain,
}

impl Author {
    /// The header of a group at `at`, before which everything is durable up to `durable_lsn`.
    pub(crate) fn header(
        &self,
        kind: GroupKind,
        at: Place,
        len: u32,
        durable_lsn: Lsn,
    ) -> GroupHeader {
        GroupHeader {
            kind,
            padding: 0,
            len,
            generation: self.generation,
            lsn: at.lsn,
            durable_lsn,
            first_seq: at.seq,
            epoch: self.epoch,
            previous: self.previous,
        }
    }

    /// The header of a group with no frames that says that everything before it is durable.
    pub(crate) fn mark(&self, at: Place) -> GroupHeader {
        self.header(GroupKind::Mark, at, MARK_LEN, at.lsn)
    }
}

/// The bytes of a seal group from `lsn` to `end`, up to the last byte of the file.
pub(crate) fn encode_seal(
    superblock: &Superblock,
    author: Author,
    lsn: Lsn,
    end: Place,
    index: &[IndexEntry],
) -> Vec<u8> {
    let len = u32::try_from(end.lsn - lsn).expect("an index has an entry per 64 KiB of a segment");
    let header = author.header(GroupKind::Seal, Place { lsn, ..end }, len, lsn);
    let seed = Seed::of_frames(superblock.uuid, superblock.generation, author.epoch);
    let mut bytes = header.encode(Seed::of_log(superblock.uuid)).to_vec();
    push_frame(
        &mut bytes,
        FrameKind::Index,
        &encode_index(index, len as usize),
        lsn + GROUP_HEADER_LEN as u64,
        seed,
    );
    bytes.extend_from_slice(&encode_trailer(len));
    bytes
}

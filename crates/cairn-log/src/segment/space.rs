//! Space of a segment: what is reserved, what is zeroed, and what is kept free for notes.

use std::io::IoSlice;
use std::sync::Arc;

use cairn_io::{File, reserve_space, retry, write_all_at};

use crate::format::{DATA_OFFSET, GROUP_HEADER_LEN, HeadMark, frame_len};
use crate::mutation::{self, Mutation};
use crate::options::Options;

/// Bytes of space that are reserved at a time.
pub(crate) const RESERVE_BYTES: u64 = 1 << 20;

/// Reserved bytes that appends must not use. They keep room for a Head group and a mark, so that on
/// a full disk the oldest records can be dropped, and the log closed.
pub(crate) const NOTES_BYTES: u64 = 4 << 10;

/// Bytes of a note and a mark behind it. A segment has room for them as for its seal.
pub(crate) const NOTE_BYTES: u64 = (2 * GROUP_HEADER_LEN + frame_len(HeadMark::LEN)) as u64;

/// Bytes that a new segment has zeroed before it gets its name.
const PREFILL_BYTES: usize = 128 << 10;

/// Space of a new segment, in bytes behind the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) reserve: u64,
    /// Bytes of it that are written as zeros; at most `reserve`.
    pub(crate) zeroed: usize,
}

impl Room {
    /// Where in the file it ends.
    pub(crate) fn end(&self) -> u64 {
        DATA_OFFSET.saturating_add(self.reserve)
    }
}

/// Bytes that are kept for the next opening, behind the first block of the lock file, or what a
/// whole small segment takes. It copies what is above the watermark, and needs space for it before
/// it can give back any. Without them: 1. the disk is full, 2. the process is killed, 3. the log
/// cannot be opened, and so nothing can be dropped from it (L61).
const KEPT_BYTES_MAX: u64 = 64 << 10;

/// How many bytes a log with these options keeps.
pub(crate) fn kept_bytes(options: &Options) -> u64 {
    KEPT_BYTES_MAX.min(options.segment_size.saturating_add(2 * DATA_OFFSET))
}

/// Keeps so many bytes for the next opening in the lock file: all of it, or none, where the log
/// itself needs what is left. Whether it has them now.
pub(crate) fn keep_for_recovery(lock: &dyn File, kept: u64) -> bool {
    let missing = || lock.len().is_ok_and(|len| len < DATA_OFFSET + kept);
    if mutation::is(Mutation::SpendReserve) || !missing() {
        return true;
    }
    let zeros = || vec![0; usize::try_from(kept).unwrap_or(0)];
    // Where the system reserves nothing, bytes do.
    let granted = reserve_space(lock, DATA_OFFSET, kept).and_then(|()| match missing() {
        true => write_all_at(lock, DATA_OFFSET, &[IoSlice::new(&zeros())]),
        false => Ok(()),
    });
    if granted.is_err() {
        spend_kept(lock);
    }
    granted.is_ok()
}

/// Gives back the space that was kept; whether there was any.
pub(crate) fn spend_kept(lock: &dyn File) -> bool {
    lock.len().is_ok_and(|len| len > DATA_OFFSET) && retry(|| lock.set_len(DATA_OFFSET)).is_ok()
}

/// What a segment has at least in advance: as much as notes take.
pub(crate) const LEAST_ROOM: Room = Room { reserve: NOTES_BYTES, zeroed: 0 };

/// What the first segment of a log, and each that follows a full one, has in advance.
pub(crate) fn first_room(options: &Options) -> Room {
    let reserve = RESERVE_BYTES.min(options.segment_room());
    Room { reserve, zeroed: PREFILL_BYTES.min(usize::try_from(reserve).unwrap_or(PREFILL_BYTES)) }
}

/// A file without a segment's name that can become a segment.
#[derive(Clone, Debug)]
pub(crate) struct SpareFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) room: Room,
    /// Its length in bytes if it was a dropped segment's, otherwise 0.
    pub(crate) recycled_len: u64,
}

//! What is to be prepared ahead of the writer, decided from what the writer knows. Pure: the jobs
//! themselves are in [`jobs`](super::jobs).

use std::ops::Range;

use crate::format::{DATA_OFFSET, POSITIONS_END, seal_len};
use crate::options::Options;
use crate::place::Lsn;
use crate::segment::space::{Room, first_room};
use crate::segment::zeros::ZEROS_BYTES_MAX;
use crate::writer::prepare::Spare;
use crate::writer::state::State;

const ZEROS_BYTES_MIN: u64 = 128 << 10;

/// Most bytes that are zeroed ahead of a writer: at 1 GB/s it takes 4 ms to get through.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Most bytes that are reserved at a time where there are to be no zeros.
const RESERVE_BYTES_MAX: u64 = 16 << 20;

/// One thing to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Cut off what a sealed segment's file does not need.
    Trim,
    /// Write zeros over this range of the active segment.
    Zero(Range<Lsn>),
    /// Reserve this range of the active segment, where zeros would cost as much as they bring.
    Reserve(Range<Lsn>),
    /// Make a file that can become the next segment.
    MakeSpare(Room),
    /// The same from the file of a dropped segment.
    Recycle,
    /// Give the spare file the name of the segment that starts here.
    Name(Lsn),
    /// Keep space for the next opening, which was given back when the disk was full. Last: the log
    /// itself needs what there is first.
    Keep,
}

/// What a plan depends on, and nothing else of the writer.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    /// Whether the phase is open, and something was appended: a handle that only reads changes
    /// nothing.
    pub(crate) writes: bool,
    pub(crate) segment_size: u64,
    /// Bytes for groups in a segment that is as long as it is to be.
    pub(crate) segment_room: u64,
    /// What a segment has in advance that nothing was prepared for.
    pub(crate) first_room: Room,
    /// Where the active segment starts.
    pub(crate) base: Lsn,
    /// End of what is closed, and how far the open slot may go.
    pub(crate) end: Lsn,
    pub(crate) open_end: Lsn,
    /// Space of the active segment is reserved up to here, and was written once up to there.
    pub(crate) reserved: Lsn,
    pub(crate) filled: Lsn,
    /// Bytes written since the log was opened.
    pub(crate) bytes_written: u64,
    /// Entries of the active segment's index: they decide how long its seal is.
    pub(crate) index_entries: usize,
    /// Whether zeros help flushes as they are now.
    pub(crate) small: bool,
    /// Whether a job for this segment failed, for lack of space most likely.
    pub(crate) gave_up: bool,
    pub(crate) trims: bool,
    pub(crate) spare: SpareKind,
    /// Whether the file of a dropped segment is kept.
    pub(crate) dropped: bool,
    /// Whether no space is kept for the next opening.
    pub(crate) lacks_kept: bool,
}

/// How far the next segment's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpareKind {
    None,
    /// A file without a name of a segment.
    Ready,
    /// It has the name, or may have it after a crash.
    Named,
}

impl State {
    /// What the next plan depends on.
    pub(super) fn situation(&self, options: &Options) -> Situation {
        let spare = match &self.prepared.spare {
            _ if self.prepared.name.is_some() => SpareKind::Named,
            Spare::None => SpareKind::None,
            Spare::Ready(_) => SpareKind::Ready,
            Spare::Making | Spare::Naming | Spare::Named(_) => SpareKind::Named,
        };
        Situation {
            writes: self.stats.groups > 0 && self.phase.is_open(),
            segment_size: options.segment_size,
            segment_room: options.segment_room(),
            first_room: first_room(options),
            base: self.active.file.superblock.base_lsn,
            end: self.end.lsn,
            open_end: self.open_end,
            reserved: self.reserved,
            filled: self.prepared.filled,
            bytes_written: self.stats.bytes_written,
            index_entries: self.index.entries.len(),
            small: self.prepared.small,
            gave_up: self.prepared.gave_up,
            trims: self.prepared.sealed.is_some(),
            spare,
            dropped: !self.dropped.is_empty(),
            lacks_kept: self.prepared.lacks_kept,
        }
    }
}

impl Situation {
    /// What to prepare next; `None` when nothing is wanted.
    pub(crate) fn plan(&self) -> Option<Step> {
        if self.trims {
            return Some(Step::Trim);
        }
        if !self.writes || self.gave_up {
            return None;
        }
        let ahead = if self.small { self.next_zeros() } else { self.next_space() };
        let keep = self.lacks_kept.then_some(Step::Keep);
        ahead.or_else(|| self.next_segment()).or(keep)
    }

    /// Zeros in proportion to what was written since the log was opened, so that a small log stays
    /// small.
    fn next_zeros(&self) -> Option<Step> {
        let limit = self.limit();
        let ahead = self.bytes_written.clamp(ZEROS_BYTES_MIN, AHEAD_BYTES_MAX);
        if self.filled >= self.end.saturating_add(ahead).min(limit) {
            return None;
        }
        let free = self.filled.max(self.end).max(self.open_end);
        let start = self.base + (free - self.base).next_multiple_of(DATA_OFFSET);
        let len = self.bytes_written.clamp(ZEROS_BYTES_MIN, ZEROS_BYTES_MAX);
        let end = start.saturating_add(len).min(limit);
        let end = self.base + (end - self.base) / DATA_OFFSET * DATA_OFFSET;
        (start < end).then_some(Step::Zero(start..end))
    }

    /// Durable writes wait while space is reserved: seldom, therefore, and long before.
    fn next_space(&self) -> Option<Step> {
        let limit = self.limit();
        let start = self.reserved;
        let len = self.bytes_written.clamp(4 * ZEROS_BYTES_MIN, RESERVE_BYTES_MAX);
        let wanted = self.end.saturating_add(len).min(limit);
        let range = start..start.saturating_add(len).min(limit);
        (start < wanted && !range.is_empty()).then_some(Step::Reserve(range))
    }

    fn next_segment(&self) -> Option<Step> {
        if self.end - self.base + DATA_OFFSET <= self.segment_size / 2 {
            return None;
        }
        match self.spare {
            SpareKind::None if self.dropped => Some(Step::Recycle),
            SpareKind::None => Some(Step::MakeSpare(self.spare_room())),
            // A segment that is rotated out of in the ordinary way ends where its file is as long
            // as it is to be. That is behind the end of the log and a seal, and stays behind
            // whatever may be noted there before the name is taken away.
            SpareKind::Ready => {
                let seal = seal_len(self.index_entries) as u64;
                let base = self.limit();
                let possible = self.end + seal <= base && base < POSITIONS_END;
                possible.then_some(Step::Name(base))
            }
            SpareKind::Named => None,
        }
    }

    /// What the next segment has in advance, so that the writer goes on there at the speed it has.
    fn spare_room(&self) -> Room {
        let Room { reserve, zeroed } = self.first_room;
        let more = self.bytes_written.min(AHEAD_BYTES_MAX).min(self.segment_room);
        Room {
            reserve: reserve.max(more),
            zeroed: zeroed.max(usize::try_from(more).unwrap_or(zeroed)),
        }
    }

    /// Where the active segment ends when it is as long as it is to be.
    fn limit(&self) -> Lsn {
        self.base.saturating_add(self.segment_room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Lsn = Lsn(1 << 30);
    const ROOM: u64 = (1 << 20) - DATA_OFFSET;

    /// A segment of 1 MiB with 64 KiB of groups and as many zeros as are wanted.
    fn quiet() -> Situation {
        Situation {
            writes: true,
            segment_size: 1 << 20,
            segment_room: ROOM,
            first_room: Room { reserve: 1 << 16, zeroed: 1 << 16 },
            base: BASE,
            end: BASE + (64 << 10),
            open_end: BASE + (64 << 10),
            reserved: BASE + ROOM,
            filled: BASE + ROOM,
            bytes_written: 64 << 10,
            index_entries: 1,
            small: true,
            gave_up: false,
            trims: false,
            spare: SpareKind::None,
            dropped: false,
            lacks_kept: false,
        }
    }

    fn late() -> Situation {
        Situation { end: BASE + (600 << 10), ..quiet() }
    }

    #[test]
    fn the_table_of_plans() {
        let kib = |n: u64| BASE + (n << 10);
        let few = Situation { filled: kib(64), ..quiet() };
        let room = Room { reserve: 1 << 16, zeroed: 1 << 16 };
        let spent = Situation { lacks_kept: true, ..quiet() };
        let table: [(&str, Situation, Option<Step>); 17] = [
            ("nothing is wanted", quiet(), None),
            ("zeros behind the end", few.clone(), Some(Step::Zero(kib(64)..kib(192)))),
            (
                "zeros behind the open slot, from the next block on",
                Situation { open_end: kib(70) + 8, ..few.clone() },
                Some(Step::Zero(kib(72)..kib(200))),
            ),
            (
                "zeros up to the end of the segment and no further",
                Situation { end: kib(960), filled: kib(960), open_end: kib(960), ..quiet() },
                Some(Step::Zero(kib(960)..BASE + ROOM)),
            ),
            ("no zeros where they do not help", Situation { small: false, ..few.clone() }, None),
            (
                "space where zeros do not help",
                Situation { small: false, reserved: kib(64), ..few.clone() },
                Some(Step::Reserve(kib(64)..kib(576))),
            ),
            ("nothing after a failure", Situation { gave_up: true, ..few.clone() }, None),
            ("nothing by a handle that reads", Situation { writes: false, ..few.clone() }, None),
            (
                "a sealed file is trimmed whatever else is",
                Situation { trims: true, writes: false, gave_up: true, ..few },
                Some(Step::Trim),
            ),
            ("a spare file from half a segment on", late(), Some(Step::MakeSpare(room))),
            (
                "a dropped one serves as well",
                Situation { dropped: true, ..late() },
                Some(Step::Recycle),
            ),
            (
                "it gets its name where the segment will end",
                Situation { spare: SpareKind::Ready, ..late() },
                Some(Step::Name(BASE + ROOM)),
            ),
            (
                "unless the seal would not fit before that",
                Situation { spare: SpareKind::Ready, end: BASE + (ROOM - 8), ..late() },
                None,
            ),
            ("space for the next opening", spent.clone(), Some(Step::Keep)),
            (
                "after what the log needs itself",
                Situation { lacks_kept: true, ..late() },
                Some(Step::MakeSpare(room)),
            ),
            ("and not where there was none", Situation { gave_up: true, ..spent }, None),
            ("it has its name", Situation { spare: SpareKind::Named, ..late() }, None),
        ];
        for (what, situation, step) in table {
            assert_eq!(situation.plan(), step, "{what}");
        }
    }

    /// guards: L43
    ///
    /// Invariant 1 of the [module](super::super): zeros never start before the end of what is
    /// closed, nor before the end of the open slot, whatever the other numbers are.
    #[test]
    fn zeros_are_never_planned_under_a_writer() {
        for step in 0..400u64 {
            let at = |n: u64| BASE + (step.wrapping_mul(n) % ROOM / 8 * 8);
            let (end, filled) = (at(104_729), at(1_299_709));
            let situation = Situation {
                end,
                open_end: end.max(at(15_485_863)),
                filled,
                bytes_written: step << 12,
                ..quiet()
            };
            if let Some(Step::Zero(range)) = situation.plan() {
                assert!(range.start >= situation.end && range.start >= situation.open_end);
                assert!(range.start < range.end && range.end <= BASE + ROOM, "{situation:?}");
            }
        }
    }
}

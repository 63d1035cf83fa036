//! The next frame that verifies, wherever it is: each multiple of 8 is tried.
//!
//! What claims to be a frame is cheap to look for: seven of its bytes have hardly any values. Those
//! that do are checked, small ones as a whole and large ones by [`Sums`].

use crate::format::{
    ALIGN, ALIGN_LEN, Claim, FRAME_HEADER_LEN, FrameKind, GroupKind, Seed, TRAILER_LEN,
    decode_trailer,
};
use crate::place::{Lsn, Seq};
use crate::read::stretch::{Region, Run, Whose};
use crate::read::sums::Sums;
use crate::read::walk::Walk;
use crate::read::window::{NO_END, Window};

/// Frames up to this length are checked as a whole.
const WHOLE_LEN_MAX: u64 = 8 << 10;

impl Walk {
    /// The first frame at or behind `from` that verifies, as a run of its own.
    pub(super) fn find_frame(&mut self, finder: &mut Finder, from: Lsn) -> Option<Run> {
        const STEP: usize = 64 << 10;
        let (mut lsn, mut step) = (from, STEP);
        while lsn < finder.to {
            let offset = self.span.offset(lsn);
            let bytes = match self.window.get_some(offset, FRAME_HEADER_LEN, step) {
                Ok(bytes) => bytes,
                Err(bad) if bad.readable >= FRAME_HEADER_LEN => {
                    step = bad.readable;
                    continue;
                }
                Err(bad) if bad.sector_end == NO_END => return None,
                Err(bad) => {
                    finder.zeros = false;
                    let skipped = (bad.sector_end - offset).checked_next_multiple_of(ALIGN);
                    lsn = lsn.saturating_add(skipped.unwrap_or(u64::MAX));
                    step = STEP;
                    continue;
                }
            };
            let room = finder.to - lsn;
            let Some(claimed) = finder.first_claim(bytes, room) else {
                let passed = bytes.len().saturating_sub(FRAME_HEADER_LEN - 1);
                if passed == 0 {
                    return None;
                }
                lsn = lsn.saturating_add(passed.next_multiple_of(ALIGN_LEN) as u64);
                let offset = self.span.offset(lsn);
                let hole = self.window.behind_hole(offset, FRAME_HEADER_LEN);
                // A frame may begin with zeros, and reach out of the hole.
                let hole = hole.saturating_since(offset).saturating_sub(FRAME_HEADER_LEN as u64);
                lsn = lsn.saturating_add(hole / ALIGN * ALIGN);
                continue;
            };
            let (passed, claim) = claimed;
            lsn += passed;
            if let Some(run) = self.check_claim(finder, lsn, claim) {
                return Some(run);
            }
            finder.zeros = false;
            lsn += ALIGN;
        }
        None
    }

    /// The frame that is claimed to be at `lsn`, if it is.
    fn check_claim(&mut self, finder: &mut Finder, lsn: Lsn, claim: Claim) -> Option<Run> {
        if finder.records_only && claim.kind != FrameKind::Record {
            return None;
        }
        let (offset, end) = (self.span.offset(lsn), lsn.checked_add(claim.len)?);
        let covered = offset + Claim::UNCOVERED;
        let whole = match usize::try_from(claim.len) {
            Ok(len) if claim.len <= WHOLE_LEN_MAX => {
                let frame = self.window.get(offset, len).ok().filter(|frame| frame.len() == len)?;
                Some(frame)
            }
            _ => None,
        };
        let holds = |(seed, _): &&(Seed, Whose)| match whole {
            Some(frame) => claim.holds_of(frame, lsn, *seed),
            None => {
                let sum = finder.sums.between(seed.at(lsn), covered, offset + claim.len);
                sum.is_some_and(|sum| claim.holds(sum))
            }
        };
        let whose = finder.openings.iter().find(holds)?.1;
        let (kind, end) = match claim.kind {
            FrameKind::Record => (GroupKind::Records, end),
            FrameKind::Head => (GroupKind::Head, end),
            FrameKind::Cut => (GroupKind::Cut, end),
            FrameKind::Index => {
                let bytes = self.window.get(self.span.offset(end), TRAILER_LEN).ok()?;
                decode_trailer(bytes.first_chunk()?)?;
                (GroupKind::Seal, end + TRAILER_LEN as u64)
            }
        };
        let records = u64::from(kind == GroupKind::Records);
        Some(Run {
            kind,
            start: lsn,
            end,
            whose,
            records,
            first_seq: Seq::default(),
            numbered: false,
        })
    }
}

/// Where frames are looked for, and with what they are checked.
pub(super) struct Finder {
    openings: Vec<(Seed, Whose)>,
    sums: Sums,
    to: Lsn,
    records_only: bool,
    /// Whether nothing but zeros was passed over since the last frame.
    pub(super) zeros: bool,
}

impl Finder {
    pub(super) fn new(walk: &Walk, region: &Region, openings: &[Whose]) -> Self {
        let span = &walk.span;
        let of =
            |whose: &Whose| (Seed::of_frames(span.uuid, whose.generation, whose.epoch), *whose);
        let window = Window::new(span.store.clone(), span.offset(region.to), false);
        Finder {
            openings: openings.iter().map(of).collect(),
            sums: Sums::new(window),
            to: region.to,
            records_only: region.frames_only,
            zeros: true,
        }
    }

    /// The first place in `bytes`, which begin `room` bytes before the end, where something claims
    /// to be a frame, and how far it is.
    fn first_claim(&mut self, bytes: &[u8], room: u64) -> Option<(u64, Claim)> {
        let mut passed = 0;
        while passed < room {
            let rest = usize::try_from(passed).ok().and_then(|passed| bytes.get(passed..))?;
            if rest.len() < FRAME_HEADER_LEN {
                self.zeros &= rest.iter().all(|byte| *byte == 0);
                return None;
            }
            if let Some(claim) = Claim::of(rest, room - passed) {
                return Some((passed, claim));
            }
            self.zeros &= rest.iter().take(ALIGN_LEN).all(|byte| *byte == 0);
            passed += ALIGN;
        }
        None
    }
}

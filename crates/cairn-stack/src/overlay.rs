//! The bytes that a layer above the file changes.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// A part of an [`Overlay`] without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// A number of zeros, which take no memory.
    Zeros(u64),
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Zeros(len) => *len,
        }
    }

    /// The part from `from` to `to`, both relative to the piece.
    fn part(&self, from: u64, to: u64) -> Piece {
        match self {
            Piece::Bytes(bytes) => Piece::Bytes(bytes[index(from)..index(to)].to_vec()),
            Piece::Zeros(_) => Piece::Zeros(to - from),
        }
    }

    fn truncate(&mut self, len: u64) {
        match self {
            Piece::Bytes(bytes) => bytes.truncate(index(len)),
            Piece::Zeros(zeros) => *zeros = len,
        }
    }

    /// Copies the piece from `from` on to the beginning of `buf`; returns how many bytes fit.
    fn copy(&self, from: u64, buf: &mut [u8]) -> usize {
        let len = usize::try_from(self.len() - from).unwrap_or(usize::MAX).min(buf.len());
        match self {
            Piece::Bytes(bytes) => buf[..len].copy_from_slice(&bytes[index(from)..][..len]),
            Piece::Zeros(_) => buf[..len].fill(0),
        }
        len
    }
}

/// A distance inside a piece of bytes, which is in memory.
fn index(at: u64) -> usize {
    usize::try_from(at).expect("no longer than a slice in memory")
}

/// Pieces by offset. None is empty, and none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    pieces: BTreeMap<u64, Piece>,
}

impl Overlay {
    /// The pieces with their offsets, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.pieces.iter().map(|(&at, piece)| (at, piece))
    }

    /// The pieces with their offsets, in order.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = (u64, Piece)> {
        self.pieces.into_iter()
    }

    /// Puts bytes at `offset`, over anything there.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len() as u64;
        let last = self.pieces.last_key_value().map(|(&at, _)| at);
        if let Some((&start, Piece::Bytes(below))) = self.pieces.range_mut(..=offset).next_back() {
            let at = offset - start;
            // The two most frequent cases: appending to the last piece, and writing inside of one.
            if at == below.len() as u64 && last == Some(start) {
                below.extend_from_slice(bytes);
                return;
            }
            if at + len <= below.len() as u64 {
                below[index(at)..][..bytes.len()].copy_from_slice(bytes);
                return;
            }
        }
        self.clear_range(offset, offset + len);
        self.pieces.insert(offset, Piece::Bytes(bytes.to_vec()));
    }

    /// Puts zeros at `offset`, over anything there.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        if len > 0 {
            self.clear_range(offset, offset + len);
            self.pieces.insert(offset, Piece::Zeros(len));
        }
    }

    /// Puts a piece at `offset`, over anything there.
    pub(crate) fn put(&mut self, offset: u64, piece: Piece) {
        match piece {
            Piece::Bytes(bytes) => self.write(offset, &bytes),
            Piece::Zeros(len) => self.zero(offset, len),
        }
    }

    /// Drops everything at or after `len`.
    pub(crate) fn truncate(&mut self, len: u64) {
        self.pieces.split_off(&len);
        if let Some((&at, piece)) = self.pieces.iter_mut().next_back()
            && piece.len() > len - at
        {
            piece.truncate(len - at);
        }
    }

    fn clear_range(&mut self, from: u64, to: u64) {
        let before =
            self.pieces.range(..from).next_back().map(|(&at, piece)| (at, at + piece.len()));
        if let Some((at, end)) = before.filter(|(_, end)| *end > from) {
            let piece = self.pieces.get_mut(&at).expect("it was just found");
            let rest = (end > to).then(|| piece.part(to - at, end - at));
            piece.truncate(from - at);
            if let Some(rest) = rest {
                self.pieces.insert(to, rest);
                return;
            }
        }
        while let Some((&at, piece)) = self.pieces.range(from..to).next() {
            let end = at + piece.len();
            let rest = (end > to).then(|| piece.part(to - at, end - at));
            self.pieces.remove(&at);
            if let Some(rest) = rest {
                self.pieces.insert(to, rest);
            }
        }
    }

    /// Copies the pieces within the range at `offset` into `buf`. Bytes of `buf` that no piece
    /// covers stay.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        let end = offset + buf.len() as u64;
        if let Some((&at, piece)) = self.pieces.range(..offset).next_back()
            && at + piece.len() > offset
        {
            piece.copy(offset - at, buf);
        }
        for (&at, piece) in self.pieces.range(offset..end) {
            piece.copy(0, &mut buf[index(at - offset)..]);
        }
    }

    /// Two overlays: the pieces before `at`, and the pieces at or after it.
    pub(crate) fn split(mut self, at: u64) -> (Overlay, Overlay) {
        let mut after = self.pieces.split_off(&at);
        if let Some((&start, piece)) = self.pieces.range_mut((Unbounded, Excluded(at))).next_back()
            && start + piece.len() > at
        {
            after.insert(at, piece.part(at - start, piece.len()));
            piece.truncate(at - start);
        }
        (self, Overlay { pieces: after })
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        Truncate(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60u64, prop::collection::vec(1..255u8, 0..20))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..60u64, 0..20u64).prop_map(|(at, len)| Step::Zero(at, len)),
            (0..80u64).prop_map(Step::Truncate),
        ]
    }

    proptest! {
        /// Against one slot per byte.
        #[test]
        fn an_overlay_is_what_was_laid_last(
            steps in prop::collection::vec(step(), 0..40),
            at in 0..90u64,
        ) {
            let mut overlay = Overlay::default();
            let mut model = [None; 100];
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        overlay.write(at, &bytes);
                        for (i, byte) in bytes.iter().enumerate() {
                            model[at as usize + i] = Some(*byte);
                        }
                    }
                    Step::Zero(at, len) => {
                        overlay.zero(at, len);
                        (at..at + len).for_each(|i| model[i as usize] = Some(0));
                    }
                    Step::Truncate(len) => {
                        overlay.truncate(len);
                        model[len as usize..].fill(None);
                    }
                }
                let mut end = 0;
                for (at, piece) in overlay.iter() {
                    prop_assert!(at >= end && piece.len() > 0);
                    end = at + piece.len();
                }
            }
            let look = |overlay: &Overlay| {
                let mut buf = [0xee; 100];
                overlay.read(0, &mut buf);
                buf
            };
            let seen = look(&overlay);
            for i in 0..100 {
                prop_assert_eq!(seen[i], model[i].unwrap_or(0xee));
                let mut one = [0xee];
                overlay.read(i as u64, &mut one);
                prop_assert_eq!(one[0], seen[i]);
            }
            let (before, after) = overlay.split(at);
            let (before, after) = (look(&before), look(&after));
            for i in 0..100 {
                let sides = (before[i], after[i]);
                let (mine, other) = if (i as u64) < at { sides } else { (sides.1, sides.0) };
                prop_assert_eq!((mine, other), (seen[i], 0xee));
            }
        }
    }
}

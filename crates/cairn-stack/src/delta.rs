//! The changes that operations made and no commit has written: a layer over the state below it.

use crate::overlay::{Overlay, Piece};

/// Changes on top of a state of `base_len` bytes.
///
/// Invariant: every byte in `kept..len` is in the overlay, and nothing at or after `len` is. So a
/// byte that is not in the overlay is before `kept`, and has the value of the state below.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    base_len: u64,
    /// The smallest length since the layer was begun. Before it, the state below shows through.
    kept: u64,
    len: u64,
    overlay: Overlay,
    /// Whether anything was changed at all.
    touched: bool,
    /// Upper bound of the bytes of memory in the overlay.
    pub(crate) weight: u64,
    /// Upper bound of the bytes of memory in the overlay that change in place, before `base_len`.
    pub(crate) in_place: u64,
    /// Upper bound of the number of pieces that these bytes and zeros in place form.
    pub(crate) in_place_pieces: u64,
}

impl Delta {
    pub(crate) fn new(base_len: u64) -> Self {
        Delta {
            base_len,
            kept: base_len,
            len: base_len,
            overlay: Overlay::default(),
            touched: false,
            weight: 0,
            in_place: 0,
            in_place_pieces: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn base_len(&self) -> u64 {
        self.base_len
    }

    /// The offset before which the state below shows through.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.touched
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Drops everything at or after `len`, which is not above the length.
    pub(crate) fn shrink(&mut self, len: u64) {
        debug_assert!(len <= self.len);
        self.touched |= len < self.len;
        self.overlay.truncate(len);
        self.len = len;
        self.kept = self.kept.min(len);
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.count(self.len, bytes.len() as u64, bytes.len() as u64);
        self.overlay.write(self.len, bytes);
        self.len += bytes.len() as u64;
    }

    pub(crate) fn extend(&mut self, zeros: u64) {
        self.count(self.len, zeros, 0);
        self.overlay.zero(self.len, zeros);
        self.len += zeros;
    }

    /// Overwrites bytes; the range is within the length.
    pub(crate) fn set(&mut self, offset: u64, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() as u64 <= self.len);
        self.count(offset, bytes.len() as u64, bytes.len() as u64);
        self.overlay.write(offset, bytes);
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        debug_assert!(offset + len <= self.len);
        self.count(offset, len, 0);
        self.overlay.zero(offset, len);
    }

    fn count(&mut self, offset: u64, len: u64, weight: u64) {
        self.touched |= len > 0;
        self.weight += weight;
        if offset < self.base_len && len > 0 {
            self.in_place += (self.base_len - offset).min(weight);
            // The new piece may cut another one in two.
            self.in_place_pieces += 2;
        }
    }

    /// Makes the changes of `above`, a layer on top of this one, part of this one.
    pub(crate) fn absorb(&mut self, above: Delta) {
        debug_assert_eq!(above.base_len, self.len);
        self.overlay.truncate(above.kept);
        self.kept = self.kept.min(above.kept);
        self.len = above.len;
        for (offset, piece) in above.overlay.into_pieces() {
            let weight = if matches!(piece, Piece::Bytes(_)) { piece.len() } else { 0 };
            self.count(offset, piece.len(), weight);
            self.overlay.put(offset, piece);
        }
        self.touched |= above.touched;
    }

    /// The changes before `base_len`; the others are in the file.
    pub(crate) fn into_in_place(self) -> Overlay {
        self.overlay.split(self.base_len).0
    }
}

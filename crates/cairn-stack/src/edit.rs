//! Operations on a layer: checks first, then the change, so that one that is refused has changed nothing.

use std::ops::Range;

use crate::commit::{Core, Demand, Stage, check_growth, is_hole};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::overlay::Piece;
use crate::sync::Arc;

/// The uppermost layer, and what lies below it.
pub(crate) struct Edit<'a> {
    core: &'a Core,
    /// From the lowest to the highest; the durable state lies below them.
    below: Vec<&'a Delta>,
    pub(crate) delta: &'a mut Delta,
    /// Present when space is to be reserved at once: whether holes may be left.
    holes: Option<&'a mut bool>,
}

impl<'a> Edit<'a> {
    /// Works on the open round.
    pub(crate) fn of_round(core: &'a Core, stage: &'a mut Stage) -> Self {
        let below = stage.flying.iter().map(|(delta, _)| &**delta).collect();
        Edit { core, below, delta: &mut stage.open, holes: Some(&mut stage.holes) }
    }

    /// Works on a transaction's own layer; space is reserved when it is [merged](merge).
    pub(crate) fn of_transaction(core: &'a Core, stage: &'a Stage, delta: &'a mut Delta) -> Self {
        let below = stage.flying.iter().map(|(delta, _)| &**delta).chain([&stage.open]).collect();
        Edit { core, below, delta, holes: None }
    }

    pub(crate) fn len(&self) -> u64 {
        self.delta.len()
    }

    /// One past the last byte of `len` bytes at `offset`.
    fn end_of(&self, offset: u64, len: u64) -> Result<u64> {
        check_range(offset, len, self.len())
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.end_of(offset, buf.len() as u64)?;
        let durable = self.core.durable();
        let layers: Vec<&Delta> = self.below.iter().copied().chain([&*self.delta]).collect();
        self.core.read_layers(&durable, &layers, offset, buf)
    }

    pub(crate) fn get(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = self.core.buffer(check_span(&range, self.len())?)?;
        self.read(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns where the bytes went.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<u64> {
        let (at, len) = (self.len(), bytes.len() as u64);
        check_growth(at, len)?;
        self.reserve(at, len, len)?;
        self.delta.push(bytes);
        Ok(at)
    }

    /// Returns where the zeros went.
    pub(crate) fn extend(&mut self, zeros: u64) -> Result<u64> {
        let at = self.len();
        check_growth(at, zeros)?;
        match &mut self.holes {
            Some(holes) if is_hole(zeros) => {
                **holes = true;
                self.core.medium.leave_hole(at + zeros);
            }
            _ => self.reserve(at, zeros, 0)?,
        }
        self.delta.extend(zeros);
        Ok(at)
    }

    pub(crate) fn pop(&mut self, bytes: u64) -> Result<Vec<u8>> {
        let start = self.start_of_last(bytes)?;
        let popped = self.get(start..self.len())?;
        self.delta.shrink(start);
        Ok(popped)
    }

    pub(crate) fn pop_into(&mut self, buf: &mut [u8]) -> Result<()> {
        let start = self.start_of_last(buf.len() as u64)?;
        self.read(start, buf)?;
        self.delta.shrink(start);
        Ok(())
    }

    pub(crate) fn discard(&mut self, bytes: u64) -> Result<()> {
        let start = self.start_of_last(bytes)?;
        self.delta.shrink(start);
        Ok(())
    }

    fn start_of_last(&self, bytes: u64) -> Result<u64> {
        let len = self.len();
        len.checked_sub(bytes).ok_or(Error::OutOfRange { start: 0, end: bytes, len })
    }

    pub(crate) fn set(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        self.end_of(offset, len)?;
        self.fill_hole(offset, len)?;
        self.reserve(offset, len, len)?;
        self.delta.set(offset, bytes);
        Ok(())
    }

    pub(crate) fn zero(&mut self, range: Range<u64>) -> Result<()> {
        let len = check_span(&range, self.len())?;
        self.fill_hole(range.start, len)?;
        self.reserve(range.start, len, 0)?;
        self.delta.zero(range.start, len);
        Ok(())
    }

    pub(crate) fn resize(&mut self, len: u64) -> Result<()> {
        match len.checked_sub(self.len()) {
            Some(more) => self.extend(more).map(drop),
            None => self.discard(self.len() - len),
        }
    }

    pub(crate) fn compare_and_set(&mut self, offset: u64, expected: &[u8], new: &[u8]) -> Result<bool> {
        if expected.len() != new.len() {
            return Err(Error::UnequalLengths { expected: expected.len() as u64, new: new.len() as u64 });
        }
        let end = self.end_of(offset, new.len() as u64)?;
        if self.get(offset..end)? != expected {
            return Ok(false);
        }
        self.set(offset, new)?;
        Ok(true)
    }

    /// Reserves space for a change of `len` bytes at `offset`, `weight` of which are in memory.
    fn reserve(&self, offset: u64, len: u64, weight: u64) -> Result<()> {
        if self.holes.is_none() {
            return Ok(());
        }
        let in_place = self.delta.base_len().saturating_sub(offset).min(weight);
        self.core.reserve(Demand {
            end: self.len().max(offset + len),
            base_len: self.delta.base_len(),
            in_place: self.delta.in_place + in_place,
            pieces: self.delta.in_place_pieces + 2,
        })
    }

    fn fill_hole(&self, offset: u64, len: u64) -> Result<()> {
        match &self.holes {
            Some(holes) if **holes && len > 0 => self.core.medium.fill_hole(offset, len),
            _ => Ok(()),
        }
    }
}

/// Makes a transaction's layer part of the open round, on which it lies; when there is no space for it, changes nothing.
pub(crate) fn merge(core: &Core, stage: &mut Stage, above: Delta) -> Result<()> {
    let open = &stage.open;
    let (mut in_place, mut pieces, mut holes) = (open.in_place, open.in_place_pieces, stage.holes);
    for (offset, piece) in above.overlay().iter() {
        let end = offset + piece.len();
        let below = end.min(above.base_len());
        if holes && offset < below {
            core.medium.fill_hole(offset, below - offset)?;
        }
        match piece {
            Piece::Zeros(len) if is_hole(*len) && end > open.len() => {
                holes = true;
                core.medium.leave_hole(end);
            }
            _ => core.medium.reserve(end)?,
        }
        if offset < open.base_len() {
            pieces += 2;
            in_place += if matches!(piece, Piece::Bytes(_)) { piece.len() } else { 0 };
        }
    }
    core.reserve(Demand { end: above.len(), base_len: open.base_len(), in_place, pieces })?;
    stage.holes = holes;
    stage.open.absorb(above);
    Ok(())
}

/// One past the last byte of `len` bytes at `offset`, all of them below `total`.
pub(crate) fn check_range(offset: u64, len: u64, total: u64) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(end),
        end => Err(Error::OutOfRange { start: offset, end: end.unwrap_or(u64::MAX), len: total }),
    }
}

/// The length of a range that lies below `total`.
pub(crate) fn check_span(range: &Range<u64>, total: u64) -> Result<u64> {
    match range.end.checked_sub(range.start) {
        Some(len) if range.end <= total => Ok(len),
        _ => Err(Error::OutOfRange { start: range.start, end: range.end, len: total }),
    }
}

impl Core {
    /// Zeroed memory, or an error where there is none.
    pub(crate) fn buffer(&self, len: u64) -> Result<Vec<u8>> {
        let none = || Error::Io {
            op: "find memory for reading",
            path: self.medium.path.clone(),
            source: Arc::new(std::io::ErrorKind::OutOfMemory.into()),
        };
        let len = usize::try_from(len).map_err(|_| none())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| none())?;
        bytes.resize(len, 0);
        Ok(bytes)
    }
}

//! Operations on a layer. Each one checks first and changes afterwards, so an operation that is
//! refused has changed nothing.

use std::ops::Range;

use crate::commit::Core;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::format::PayloadOffset;
use crate::medium::{Demand, is_hole};
use crate::overlay::Piece;
use crate::range::{check_growth, check_range, check_shrink, check_span};
use crate::stage::Stage;
use crate::sync::Arc;

/// The uppermost layer, and the layers below it.
pub(crate) struct Edit<'a> {
    core: &'a Core,
    /// The layers below `delta`, lowest first. The durable state is below them.
    below: Vec<&'a Delta>,
    pub(crate) delta: &'a mut Delta,
    /// Whether the stack may have holes. Absent if no space is reserved before the layer is merged.
    holes: Option<&'a mut bool>,
}

impl<'a> Edit<'a> {
    /// Works on the open round.
    pub(crate) fn of_round(core: &'a Core, stage: &'a mut Stage) -> Self {
        let below = stage.flying.iter().map(|(delta, _)| &**delta).collect();
        Edit { core, below, delta: &mut stage.open, holes: Some(&mut stage.holes) }
    }

    /// Works on a transaction's own layer. [`merge`] reserves its space.
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

    /// Returns the offset of the first byte.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<u64> {
        let (at, len) = (self.len(), bytes.len() as u64);
        check_growth(at, len)?;
        self.reserve(at, len, len)?;
        self.delta.push(bytes);
        Ok(at)
    }

    /// Returns the offset of the first zero.
    pub(crate) fn extend(&mut self, zeros: u64) -> Result<u64> {
        let at = self.len();
        check_growth(at, zeros)?;
        match &mut self.holes {
            Some(holes) if is_hole(zeros) => {
                **holes = true;
                self.core.medium.leave_hole(PayloadOffset(at + zeros));
            }
            _ => self.reserve(at, zeros, 0)?,
        }
        self.delta.extend(zeros);
        Ok(at)
    }

    pub(crate) fn pop(&mut self, bytes: u64) -> Result<Vec<u8>> {
        let start = check_shrink("pop", bytes, self.len())?;
        let popped = self.get(start..self.len())?;
        self.delta.shrink(start);
        Ok(popped)
    }

    pub(crate) fn pop_into(&mut self, buf: &mut [u8]) -> Result<()> {
        let start = check_shrink("pop", buf.len() as u64, self.len())?;
        self.read(start, buf)?;
        self.delta.shrink(start);
        Ok(())
    }

    pub(crate) fn discard(&mut self, bytes: u64) -> Result<()> {
        let start = check_shrink("discard", bytes, self.len())?;
        self.delta.shrink(start);
        Ok(())
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

    pub(crate) fn compare_and_set(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> Result<bool> {
        if expected.len() != new.len() {
            return Err(Error::UnequalLengths {
                expected: expected.len() as u64,
                new: new.len() as u64,
            });
        }
        let end = self.end_of(offset, new.len() as u64)?;
        if self.get(offset..end)? != expected {
            return Ok(false);
        }
        self.set(offset, new)?;
        Ok(true)
    }

    /// Reserves space for a change of `len` bytes at `offset`. `weight` of them are in memory: the
    /// others are zeros.
    fn reserve(&self, offset: u64, len: u64, weight: u64) -> Result<()> {
        if self.holes.is_none() {
            return Ok(());
        }
        let in_place = self.delta.base_len().saturating_sub(offset).min(weight);
        self.core.medium.reserve_for(Demand {
            end: PayloadOffset(self.len().max(offset + len)),
            base_end: PayloadOffset(self.delta.base_len()),
            in_place: self.delta.in_place + in_place,
            pieces: self.delta.in_place_pieces + 2,
        })
    }

    fn fill_hole(&self, offset: u64, len: u64) -> Result<()> {
        match &self.holes {
            Some(holes) if **holes && len > 0 => {
                self.core.medium.fill_hole(PayloadOffset(offset), len)
            }
            _ => Ok(()),
        }
    }
}

/// Makes a transaction's layer part of the open round below it. If there is no space, nothing is
/// changed.
pub(crate) fn merge(core: &Core, stage: &mut Stage, above: Delta) -> Result<()> {
    let open = &stage.open;
    let (mut in_place, mut pieces, mut holes) = (open.in_place, open.in_place_pieces, stage.holes);
    for (offset, piece) in above.overlay().iter() {
        let end = offset + piece.len();
        let below = end.min(above.base_len());
        if holes && offset < below {
            core.medium.fill_hole(PayloadOffset(offset), below - offset)?;
        }
        match piece {
            Piece::Zeros(len) if is_hole(*len) && end > open.len() => {
                holes = true;
                core.medium.leave_hole(PayloadOffset(end));
            }
            _ => core.medium.reserve(PayloadOffset(end))?,
        }
        if offset < open.base_len() {
            pieces += 2;
            in_place += if matches!(piece, Piece::Bytes(_)) { piece.len() } else { 0 };
        }
    }
    core.medium.reserve_for(Demand {
        end: PayloadOffset(above.len()),
        base_end: PayloadOffset(open.base_len()),
        in_place,
        pieces,
    })?;
    stage.holes = holes;
    stage.open.absorb(above);
    Ok(())
}

impl Core {
    /// Zeroed memory, or an error if the system has none.
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

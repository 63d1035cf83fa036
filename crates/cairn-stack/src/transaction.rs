//! Several changes as one.

use std::ops::Range;

use crate::commit::{Core, OwnTurn};
use crate::delta::Delta;
use crate::edit::{Edit, merge};
use crate::error::Result;
use crate::stage::{Epoch, Stage};

/// Changes that take place together, or not at all; see
/// [`Stack::transaction`](crate::Stack::transaction).
///
/// Its methods are those of the stack, and see the transaction's own changes. Ranges are checked at
/// once; space is reserved when the closure has returned. An operation that returns an error
/// changed nothing, and the closure may continue.
#[derive(Debug)]
pub struct Transaction<'a> {
    core: &'a Core,
    turn: OwnTurn<'a>,
    delta: Delta,
    epoch: Epoch,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(core: &'a Core) -> Result<Self> {
        let (guard, turn) = core.take_turn()?;
        let (delta, epoch) = (Delta::new(guard.open.len()), guard.epoch);
        drop(guard);
        Ok(Transaction { core, turn, delta, epoch })
    }

    pub(crate) fn commit(self) -> Result<()> {
        let Transaction { core, turn, delta, epoch } = self;
        let mut guard = core.lock();
        check(&guard, epoch)?;
        if delta.is_empty() {
            turn.end(&mut guard);
            return core.confirm(guard);
        }
        merge(core, &mut guard, delta)?;
        // The next operation may be applied on top of this one while this one becomes durable.
        turn.end(&mut guard);
        core.finish(guard)
    }

    /// Drops the changes. Everything that the closure read is durable on return; otherwise the
    /// error says why not.
    pub(crate) fn give_up(self) -> Result<()> {
        let Transaction { core, turn, epoch, .. } = self;
        let mut guard = core.lock();
        check(&guard, epoch)?;
        turn.end(&mut guard);
        core.confirm(guard)
    }

    fn edit<T>(&mut self, operate: impl FnOnce(&mut Edit<'_>) -> Result<T>) -> Result<T> {
        let guard = self.core.lock();
        check(&guard, self.epoch)?;
        operate(&mut Edit::of_transaction(self.core, &guard, &mut self.delta))
    }

    /// As [`Stack::push`](crate::Stack::push).
    ///
    /// # Errors
    /// [`Error::TooLong`](crate::Error::TooLong).
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) -> Result<u64> {
        self.edit(|edit| edit.push(bytes.as_ref()))
    }

    /// As [`Stack::extend`](crate::Stack::extend).
    ///
    /// # Errors
    /// [`Error::TooLong`](crate::Error::TooLong).
    pub fn extend(&mut self, zeros: u64) -> Result<u64> {
        self.edit(|edit| edit.extend(zeros))
    }

    /// As [`Stack::pop`](crate::Stack::pop).
    ///
    /// # Errors
    /// [`Error::TooShort`](crate::Error::TooShort); [`Error::Io`](crate::Error::Io) if the bytes
    /// cannot be read.
    pub fn pop(&mut self, bytes: u64) -> Result<Vec<u8>> {
        self.edit(|edit| edit.pop(bytes))
    }

    /// As [`Stack::pop_into`](crate::Stack::pop_into).
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn pop_into(&mut self, buf: &mut [u8]) -> Result<()> {
        self.edit(|edit| edit.pop_into(buf))
    }

    /// As [`Stack::discard`](crate::Stack::discard).
    ///
    /// # Errors
    /// [`Error::TooShort`](crate::Error::TooShort).
    pub fn discard(&mut self, bytes: u64) -> Result<()> {
        self.edit(|edit| edit.discard(bytes))
    }

    /// As [`Stack::set`](crate::Stack::set).
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn set(&mut self, offset: u64, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.edit(|edit| edit.set(offset, bytes.as_ref()))
    }

    /// As [`Stack::zero`](crate::Stack::zero).
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.edit(|edit| edit.zero(range))
    }

    /// As [`Stack::resize`](crate::Stack::resize).
    ///
    /// # Errors
    /// [`Error::TooLong`](crate::Error::TooLong).
    pub fn resize(&mut self, len: u64) -> Result<()> {
        self.edit(|edit| edit.resize(len))
    }

    /// As [`Stack::compare_and_set`](crate::Stack::compare_and_set).
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange),
    /// [`Error::UnequalLengths`](crate::Error::UnequalLengths); [`Error::Io`](crate::Error::Io)
    /// if the bytes cannot be read.
    pub fn compare_and_set(
        &mut self,
        offset: u64,
        expected: impl AsRef<[u8]>,
        new: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.edit(|edit| edit.compare_and_set(offset, expected.as_ref(), new.as_ref()))
    }

    /// As [`Stack::get`](crate::Stack::get), with the changes of this transaction.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange); [`Error::Io`](crate::Error::Io) if the
    /// bytes cannot be read.
    pub fn get(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        self.edit(|edit| edit.get(range))
    }

    /// As [`Stack::get_into`](crate::Stack::get_into), with the changes of this transaction.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_into(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.edit(|edit| edit.read(offset, buf))
    }

    /// As [`Stack::peek`](crate::Stack::peek), with the changes of this transaction.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn peek(&mut self, offset: u64) -> Result<Vec<u8>> {
        self.edit(|edit| edit.get(offset..edit.len()))
    }

    /// Length in bytes, with the changes of this transaction.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.delta.len()
    }

    /// Whether the stack holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Fails if a round below the transaction was refused or stopped: the transaction's changes were
/// made on top of it.
fn check(stage: &Stage, epoch: Epoch) -> Result<()> {
    stage.check_stopped()?;
    match &stage.refused {
        Some(error) if stage.epoch != epoch => Err(error.clone()),
        _ => Ok(()),
    }
}

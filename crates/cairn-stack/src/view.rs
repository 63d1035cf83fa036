//! Reading: the stack at one moment, all layers taken together.

use std::sync::atomic::Ordering;

use crate::commit::Core;
use crate::delta::Delta;
use crate::disk::Durable;
use crate::error::{Error, Result};
use crate::format::PayloadOffset;
use crate::range::check_range;

/// The stack at one moment.
pub(crate) struct View<'a> {
    core: &'a Core,
    durable: &'a Durable,
    layers: Vec<&'a Delta>,
}

impl View<'_> {
    pub(crate) fn len(&self) -> u64 {
        self.layers.last().map_or(self.durable.len, |layer| layer.len())
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len() as u64, self.len())?;
        self.core.read_layers(self.durable, &self.layers, offset, buf)
    }
}

impl Core {
    /// The length that readers see.
    pub(crate) fn len(&self) -> u64 {
        if self.is_explicit() { self.lock().open.len() } else { self.durable().len }
    }

    /// Reads a range below the length of the uppermost layer, all layers taken together.
    pub(crate) fn read_layers(
        &self,
        durable: &Durable,
        layers: &[&Delta],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let visible = layers.iter().map(|layer| layer.kept()).fold(durable.len, u64::min);
        let below =
            usize::try_from(visible.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        self.medium.read(PayloadOffset(offset), &mut buf[..below])?;
        durable.in_place.read(offset, &mut buf[..below]);
        layers.iter().for_each(|layer| layer.overlay().read(offset, buf));
        Ok(())
    }

    /// Reads the bytes at `offset` until `buf` is full or the stack ends; returns their number.
    pub(crate) fn read_some(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.view(|view| {
            let len = usize::try_from(view.len().saturating_sub(offset))
                .unwrap_or(usize::MAX)
                .min(buf.len());
            if len > 0 {
                view.read(offset, &mut buf[..len])?;
            }
            Ok(len)
        })
    }

    /// Calls `look` with the stack that readers see at this moment.
    pub(crate) fn view<T>(&self, look: impl FnOnce(View<'_>) -> Result<T>) -> Result<T> {
        if self.is_explicit() {
            let guard = self.lock();
            let durable = self.durable();
            self.check_not_over()?;
            let flying = guard.flying.as_ref().map(|(delta, _)| &**delta);
            let layers = flying.into_iter().chain([&guard.open]).collect();
            return look(View { core: self, durable: &durable, layers });
        }
        let durable = self.durable();
        self.check_not_over()?;
        look(View { core: self, durable: &durable, layers: Vec::new() })
    }

    fn check_not_over(&self) -> Result<()> {
        if self.over.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }
}

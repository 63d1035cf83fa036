//! A block device that remembers in which order it was written and flushed.
//!
//! Every request is answered before the next one is read. So the order of `Recording::ops` is the
//! order of a device: what was recorded before a flush had been reported as done, or could have
//! been, when the flush came.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::image::Image;
use super::served::{Medium, Served};
use super::trace::{Op, Trace};

/// The device while it is there.
pub(crate) struct Recorder {
    recording: Arc<Mutex<Recording>>,
    base: Image,
    served: Served,
}

struct Recording {
    content: Image,
    ops: Vec<Op>,
}

impl Recorder {
    /// Serves an image at `mount_point`.
    pub(crate) fn serve(base: Image, mount_point: &Path) -> Result<Self> {
        let recording = Arc::new(Mutex::new(Recording { content: base.clone(), ops: Vec::new() }));
        let served = Served::new(recording.clone(), mount_point)?;
        Ok(Recorder { recording, base, served })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.served.file()
    }

    /// Operations recorded by now. What is acknowledged *before* this call must survive a cut at or
    /// after this count.
    pub(crate) fn op_count(&self) -> usize {
        lock(&self.recording).ops.len()
    }

    /// Ends serving.
    pub(crate) fn finish(mut self) -> Result<Trace> {
        self.served.end()?;
        let ops = std::mem::take(&mut lock(&self.recording).ops);
        Ok(Trace { base: self.base, ops })
    }
}

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium for Mutex<Recording> {
    fn device_len(&self) -> u64 {
        lock(self).content.len()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        lock(self).content.read(offset, buf);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut recording = lock(self);
        recording.content.write(offset, bytes);
        recording.ops.push(Op::Write { offset, bytes: bytes.into() });
        Ok(())
    }

    fn flush(&self, done: impl FnOnce()) {
        lock(self).ops.push(Op::Flush);
        done();
    }
}

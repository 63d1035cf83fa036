//! Reading back: large reads, and a CRC-32C over every frame.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail, ensure};

use super::buffer::MutexBuffer;
use super::frame::{self, HEADER};
use crate::subject::{Seen, Setup, Subject, Writer};

/// Bytes read at once: large enough for the call not to matter, small enough to stay in the
/// second-level cache.
const WINDOW: usize = 256 << 10;

/// Written by [`MutexBuffer`], read by a plain loop.
pub(crate) struct Scan {
    written: Option<Box<dyn Subject>>,
    file: Mutex<Option<File>>,
}

impl Scan {
    /// Writes a fresh file, or opens the existing one, and reads it once: what opening takes for
    /// who has to look at everything.
    pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        if setup.fresh {
            return Ok(Box::new(Scan {
                written: Some(MutexBuffer::open(setup)?),
                file: Mutex::new(None),
            }));
        }
        let file = File::open(setup.dir.join("buffer")).context("opening the file")?;
        let scan = Scan { written: None, file: Mutex::new(Some(file)) };
        scan.replay(&mut Seen::default())?;
        Ok(Box::new(scan))
    }
}

impl Subject for Scan {
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>> {
        self.written.as_ref().context("is only read")?.writer(thread)
    }

    fn flush(&self) -> Result<()> {
        self.written.as_ref().context("is only read")?.flush()
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let guard = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = guard.as_ref().context("is only written")?;
        let mut window = vec![0; WINDOW];
        let (mut offset, mut len) = (0, 0);
        loop {
            let n = file.read_at(&mut window[len..], offset).context("pread")?;
            offset += n as u64;
            len += n;
            let used = scan(&window[..len], seen)?;
            if n == 0 {
                ensure!(used == len, "the file ends inside a frame");
                return Ok(());
            }
            if used == 0 && len == window.len() {
                window.resize(len * 2, 0);
            }
            window.copy_within(used..len, 0);
            len -= used;
        }
    }
}

/// Shows all whole frames; returns how many bytes they take.
fn scan(bytes: &[u8], seen: &mut Seen) -> Result<usize> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let word = |i: usize| header[i..i + 4].try_into().map(u32::from_le_bytes);
        let (crc, len) = (word(0)?, word(4)? as usize);
        let Some(payload) = bytes.get(at + HEADER..at + HEADER + len) else {
            break;
        };
        let end = at + frame::frame_len(len);
        if end > bytes.len() {
            break;
        }
        if crc32c::crc32c(payload) != crc {
            bail!("a frame does not verify");
        }
        seen.record(payload);
        at = end;
    }
    Ok(at)
}

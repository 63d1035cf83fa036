//! Reading a stack as a stream.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::commit::Core;
use crate::sync::Arc;

const BUFFER_LEN: usize = 8 << 10;

/// Reads a stack from an offset to its end. At the end, reads return 0 bytes; after a push they
/// return the new bytes.
///
/// Each read sees the stack at one moment and never waits for a barrier. The buffer of [`BufRead`]
/// holds the bytes of the moment at which it was filled; seeking empties it. After
/// [`Stack::close`](crate::Stack::close) reads return an error.
///
/// # Examples
/// ```
/// use std::io::{BufRead, Seek, SeekFrom};
/// # let dir = tempfile::tempdir()?;
/// let stack = cairn_stack::Stack::open(dir.path().join("stack"))?;
/// stack.push("first line\nsecond line\n")?;
/// let mut reader = stack.reader();
/// reader.seek(SeekFrom::Start(6))?;
/// let lines: Vec<String> = reader.by_ref().lines().collect::<Result<_, _>>()?;
/// # use std::io::Read;
/// assert_eq!(lines, ["line", "second line"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StackReader {
    core: Arc<Core>,
    /// Offset of the next byte to return.
    position: u64,
    /// Bytes read ahead.
    buffer: Vec<u8>,
    /// Index in `buffer` of the byte at `position`; at most its length.
    at: usize,
}

impl StackReader {
    pub(crate) fn new(core: Arc<Core>, position: u64) -> Self {
        StackReader { core, position, buffer: Vec::new(), at: 0 }
    }

    /// Offset of the next byte, in bytes from the bottom of the stack. It may be beyond the top.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer[self.at..]
    }
}

impl Read for StackReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let buffered = self.buffered();
        if buffered.is_empty() {
            let read = self.core.read_some(self.position, buf)?;
            self.position += read as u64;
            return Ok(read);
        }
        let read = buffered.len().min(buf.len());
        buf[..read].copy_from_slice(&buffered[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for StackReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffered().is_empty() {
            self.at = 0;
            self.buffer.resize(BUFFER_LEN, 0);
            let read = self.core.read_some(self.position, &mut self.buffer);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        Ok(self.buffered())
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.buffered().len());
        self.at += bytes;
        self.position += bytes as u64;
    }
}

impl Seek for StackReader {
    /// A position before the bottom is [`InvalidInput`](io::ErrorKind::InvalidInput) and changes
    /// nothing. A position beyond the top is legal.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(distance) => self.core.len().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot seek before the bottom of the stack, or beyond 2^64 - 1",
            )
        })?;
        self.buffer.clear();
        self.at = 0;
        Ok(self.position)
    }
}

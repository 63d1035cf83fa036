//! Standard input as records: a thread reads chunks ahead, a splitter finds the records in them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use memchr::{memchr, memchr_iter};

use crate::signals;

/// What a chunk may hold, and the most that one read asks for.
const CHUNK_SIZE: usize = 256 << 10;
/// Chunks read ahead while a barrier is under way: they bound memory, and make the next group.
const CHUNKS_AHEAD: usize = 16;

/// What there is to do next.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes were read.
    Chunk(Vec<u8>),
    /// Standard input ended.
    End,
    /// Standard input could not be read.
    Failed(io::Error),
    /// A signal, named here, asks to end.
    Stop(&'static str),
}

/// How long to wait for an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Take what is there.
    None,
    /// Wait this long.
    UpTo(Duration),
    /// Wait for whatever comes.
    Endless,
}

/// Standard input and the signals that end reading it, in one queue.
#[derive(Debug)]
pub(crate) struct Input {
    events: Receiver<Event>,
    spare: SyncSender<Vec<u8>>,
    /// Chunks that the reading thread has got hold of, sent or not.
    chunks_read: Arc<AtomicU64>,
    chunks_received: u64,
    stopping: Arc<AtomicBool>,
}

impl Input {
    /// Starts reading.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, events) = mpsc::sync_channel(CHUNKS_AHEAD);
        let (spare, spares) = mpsc::sync_channel(CHUNKS_AHEAD + 2);
        let chunks_read = Arc::new(AtomicU64::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop_reading, stopped) = (stopping.clone(), sender.clone());
        signals::on_stop(move |name| {
            // First the flag: then the reader takes at most what it is just being given.
            stop_reading.store(true, Ordering::SeqCst);
            let _ = stopped.send(Event::Stop(name));
        })?;
        let reader = Reader { sender, spares, chunks_read: chunks_read.clone(), stopping: stopping.clone() };
        std::thread::Builder::new().name("stdin".into()).spawn(move || reader.run())?;
        Ok(Input { events, spare, chunks_read, chunks_received: 0, stopping })
    }

    /// A flag that is set as soon as a signal arrives, before its event is due.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// The next event; `None` when patience ended first.
    pub(crate) fn next(&mut self, patience: Patience) -> Option<Event> {
        let event = match patience {
            Patience::None => match self.events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => Event::End,
            },
            Patience::UpTo(limit) => match self.events.recv_timeout(limit) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => Event::End,
            },
            Patience::Endless => self.events.recv().unwrap_or(Event::End),
        };
        if let Event::Chunk(_) = event {
            self.chunks_received += 1;
        }
        Some(event)
    }

    /// After [`Event::Stop`]: the next chunk that had been read by then.
    pub(crate) fn next_read_before_stop(&mut self) -> Option<Vec<u8>> {
        while self.chunks_received < self.chunks_read.load(Ordering::SeqCst) {
            match self.next(Patience::Endless) {
                Some(Event::Chunk(chunk)) => return Some(chunk),
                Some(Event::Stop(_)) => {}
                Some(Event::End | Event::Failed(_)) | None => return None,
            }
        }
        None
    }

    /// Gives a chunk's memory back to the reader.
    pub(crate) fn recycle(&self, chunk: Vec<u8>) {
        let _ = self.spare.try_send(chunk);
    }
}

/// The thread that reads.
struct Reader {
    sender: SyncSender<Event>,
    spares: Receiver<Vec<u8>>,
    chunks_read: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

impl Reader {
    fn run(self) {
        let mut stdin = io::stdin().lock();
        while !self.stopping.load(Ordering::SeqCst) {
            let mut chunk = self.spares.try_recv().unwrap_or_default();
            // Standard input's own buffer is smaller than this, so it is bypassed.
            chunk.resize(CHUNK_SIZE, 0);
            let event = match stdin.read(&mut chunk) {
                Ok(0) => Event::End,
                Ok(n) => {
                    self.chunks_read.fetch_add(1, Ordering::SeqCst);
                    chunk.truncate(n);
                    Event::Chunk(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Event::Failed(error),
            };
            let last = !matches!(event, Event::Chunk(_));
            if self.sender.send(event).is_err() || last {
                return;
            }
        }
    }
}

/// How records are told apart in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A record is a line without its newline.
    Lines,
    /// A record is a little-endian `u32` length and that many bytes.
    Framed,
}

/// Bytes of the length before a framed record.
const LENGTH_LEN: usize = 4;

/// Finds the records in chunks that end anywhere.
#[derive(Debug)]
pub(crate) struct Splitter {
    framing: Framing,
    record_size_max: u64,
    /// The beginning of a record whose end has not been read yet; never longer than the largest record and its length.
    unfinished: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(framing: Framing, record_size_max: u64) -> Self {
        Splitter { framing, record_size_max, unfinished: Vec::new() }
    }

    /// Calls `take` with every record that ends in `chunk`, in order, until one fails.
    pub(crate) fn feed(&mut self, chunk: &[u8], take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self.framing {
            Framing::Lines => self.feed_lines(chunk, take),
            Framing::Framed => self.feed_framed(chunk, take),
        }
    }

    /// At the end of the input: the last line needs no newline, the last frame must be whole.
    pub(crate) fn finish(&mut self, take: impl FnOnce(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        if self.unfinished.is_empty() {
            return Ok(());
        }
        if self.framing == Framing::Framed {
            bail!(
                "standard input ended inside a frame, after {} of its bytes: check what writes it",
                self.unfinished.len()
            );
        }
        take(&std::mem::take(&mut self.unfinished))
    }

    /// Bytes read of a record that has not ended.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.unfinished.len()
    }

    fn feed_lines(
        &mut self,
        mut chunk: &[u8],
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.unfinished.is_empty() {
            let end = memchr(b'\n', chunk);
            self.keep(&chunk[..end.unwrap_or(chunk.len())])?;
            let Some(end) = end else {
                return Ok(());
            };
            take(&self.unfinished)?;
            self.unfinished.clear();
            chunk = &chunk[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', chunk) {
            take(&chunk[start..end])?;
            start = end + 1;
        }
        self.keep(&chunk[start..])
    }

    /// Keeps more of an unfinished line, unless it is too long already.
    fn keep(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let len = (self.unfinished.len() + bytes.len()) as u64;
        if len > self.record_size_max {
            bail!("a line is longer than {} bytes: raise --max-record-size", self.record_size_max);
        }
        self.unfinished.extend_from_slice(bytes);
        Ok(())
    }

    fn feed_framed(
        &mut self,
        mut chunk: &[u8],
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while !chunk.is_empty() {
            if self.unfinished.is_empty()
                && let Some(frame_len) = self.frame_len(chunk)?
                && frame_len <= chunk.len()
            {
                take(&chunk[LENGTH_LEN..frame_len])?;
                chunk = &chunk[frame_len..];
                continue;
            }
            // What is kept grows with what was read, never ahead of it on the word of a length.
            let wanted = self.frame_len(&self.unfinished)?.unwrap_or(LENGTH_LEN);
            let (more, rest) = chunk.split_at(chunk.len().min(wanted - self.unfinished.len()));
            self.unfinished.extend_from_slice(more);
            chunk = rest;
            if self.frame_len(&self.unfinished)? == Some(self.unfinished.len()) {
                take(&self.unfinished[LENGTH_LEN..])?;
                self.unfinished.clear();
            }
        }
        Ok(())
    }

    /// Length of the frame at the beginning of `bytes`, its own length included; `None` when that cannot be told yet.
    fn frame_len(&self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*length);
        if u64::from(len) > self.record_size_max {
            bail!(
                "a frame announces {len} bytes, more than {}: raise --max-record-size if this is --framed input",
                self.record_size_max
            );
        }
        let len = usize::try_from(len).ok().and_then(|len| len.checked_add(LENGTH_LEN));
        len.map(Some).context("a frame is too long for this machine")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `bytes` fed in pieces of `step` bytes.
    fn split(framing: Framing, bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, anyhow::Result<()>) {
        let mut splitter = Splitter::new(framing, 1000);
        let mut records = Vec::new();
        let mut result = Ok(());
        for chunk in bytes.chunks(step) {
            result = result.and_then(|()| {
                splitter.feed(chunk, |r| {
                    records.push(r.to_vec());
                    Ok(())
                })
            });
        }
        result = result.and_then(|()| {
            splitter.finish(|r| {
                records.push(r.to_vec());
                Ok(())
            })
        });
        (records, result)
    }

    #[test]
    fn lines_are_the_same_wherever_chunks_end() {
        for (input, expected) in [
            (&b""[..], vec![]),
            (b"\n", vec![&b""[..]]),
            (b"a", vec![b"a"]),
            (b"a\n", vec![b"a"]),
            (b"\n\na\r\n\xff\0\n\nlast", vec![b"", b"", b"a\r", b"\xff\0", b"", b"last"]),
        ] {
            for step in 1..=input.len().max(1) {
                let (records, result) = split(Framing::Lines, input, step);
                assert_eq!(records, expected, "{input:?} in steps of {step}");
                assert!(result.is_ok());
            }
        }
    }

    #[test]
    fn frames_are_the_same_wherever_chunks_end() {
        let mut input = Vec::new();
        let expected: Vec<Vec<u8>> = vec![b"".to_vec(), b"a\nb".to_vec(), b"".to_vec(), vec![7; 600], b"z".to_vec()];
        for record in &expected {
            input.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
            input.extend_from_slice(record);
        }
        for step in 1..=input.len() {
            let (records, result) = split(Framing::Framed, &input, step);
            assert_eq!(records, expected, "in steps of {step}");
            assert!(result.is_ok());
            let (records, result) = split(Framing::Framed, &input[..input.len() - 1], step);
            assert_eq!(records, expected[..4], "in steps of {step}");
            assert!(result.is_err());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_kept() {
        for step in [1, 4, 5] {
            let (records, result) = split(Framing::Framed, b"\x01\0\0\0a\xff\xff\xff\xffzzzz", step);
            assert_eq!(records, [b"a"]);
            assert!(result.is_err());
        }
        assert!(split(Framing::Lines, &[b'x'; 1001], 100).1.is_err());
        assert!(split(Framing::Lines, &[b'x'; 1000], 100).1.is_ok());
    }
}

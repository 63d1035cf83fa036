//! Standard input as records: a thread reads chunks ahead, a splitter finds the records in them.

use std::fmt;
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
        let reader =
            Reader { sender, spares, chunks_read: chunks_read.clone(), stopping: stopping.clone() };
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
    /// A record is a line without the byte that ends it, a newline mostly.
    Lines(u8),
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
    /// Leave lines out that are too long, instead of failing.
    skip_long: bool,
    /// The beginning of a record whose end has not been read yet; never longer than the largest
    /// record and its length.
    unfinished: Vec<u8>,
    /// The line that is being read is left out.
    skipping: bool,
    /// Lines or frames that ended.
    ended: u64,
    skipped: Skipped,
}

/// Lines that were left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) count: u64,
    /// The numbers of the first ones.
    pub(crate) first: Vec<u64>,
}

impl Skipped {
    const NAMED: usize = 10;

    fn note(&mut self, number: u64) {
        self.count += 1;
        if self.first.len() < Self::NAMED {
            self.first.push(number);
        }
    }
}

impl Splitter {
    pub(crate) fn new(framing: Framing, record_size_max: u64, skip_long: bool) -> Self {
        Splitter {
            framing,
            record_size_max,
            skip_long,
            unfinished: Vec::new(),
            skipping: false,
            ended: 0,
            skipped: Skipped::default(),
        }
    }

    /// Calls `take` with every record that ends in `chunk`, in order, until one fails; and with
    /// what people call its place in the input.
    pub(crate) fn feed(
        &mut self,
        chunk: &[u8],
        take: impl FnMut(&[u8], Place) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self.framing {
            Framing::Lines(end) => self.feed_lines(chunk, end, take),
            Framing::Framed => self.feed_framed(chunk, take),
        }
    }

    /// At the end of the input: the last line needs no newline, the last frame must be whole.
    pub(crate) fn finish(
        &mut self,
        take: impl FnOnce(&[u8], Place) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if std::mem::take(&mut self.skipping) {
            self.ended += 1;
            self.skipped.note(self.ended);
        }
        if self.unfinished.is_empty() {
            return Ok(());
        }
        if self.framing == Framing::Framed {
            bail!(
                "standard input ended inside {}, after {} of its bytes: check what writes it",
                self.place(),
                self.unfinished.len()
            );
        }
        let place = self.place();
        self.ended += 1;
        take(&std::mem::take(&mut self.unfinished), place)
    }

    /// Bytes read of a record that has not ended.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.unfinished.len()
    }

    /// Lines that were left out so far.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// The record that is being read.
    fn place(&self) -> Place {
        Place { is_frame: self.framing == Framing::Framed, number: self.ended + 1 }
    }

    fn feed_lines(
        &mut self,
        mut chunk: &[u8],
        end_byte: u8,
        mut take: impl FnMut(&[u8], Place) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.unfinished.is_empty() || self.skipping {
            let end = memchr(end_byte, chunk);
            self.keep(&chunk[..end.unwrap_or(chunk.len())])?;
            let Some(end) = end else {
                return Ok(());
            };
            if !self.ends_skipped() {
                take(&self.unfinished, self.place())?;
            }
            self.ended += 1;
            self.unfinished.clear();
            chunk = &chunk[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(end_byte, chunk) {
            let line = &chunk[start..end];
            if self.is_too_long(line.len())? {
                self.skipped.note(self.ended + 1);
            } else {
                take(line, self.place())?;
            }
            self.ended += 1;
            start = end + 1;
        }
        self.keep(&chunk[start..])
    }

    /// Whether the line that ends now was left out, and takes note of it.
    fn ends_skipped(&mut self) -> bool {
        let skipped = std::mem::take(&mut self.skipping);
        if skipped {
            self.skipped.note(self.ended + 1);
        }
        skipped
    }

    /// Whether a line of at least this length is to be left out; fails if it is just too long.
    fn is_too_long(&self, len: usize) -> anyhow::Result<bool> {
        if len as u64 <= self.record_size_max {
            return Ok(false);
        }
        if self.skip_long {
            return Ok(true);
        }
        bail!(
            "{} is longer than {} bytes: raise --max-record-size, or leave such lines out with \
             --skip-long",
            self.place(),
            self.record_size_max
        )
    }

    /// Keeps more of an unfinished line, unless it is too long already.
    fn keep(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.skipping || self.is_too_long(self.unfinished.len().saturating_add(bytes.len()))? {
            self.skipping = true;
            self.unfinished = Vec::new();
            return Ok(());
        }
        self.extend(bytes)
    }

    /// Takes the memory for more of an unfinished record, or fails: what is read may be longer than
    /// what this process may have.
    fn extend(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        // Growing ahead needs up to three times what is there, growing as far as needed twice.
        let reserved = self.unfinished.try_reserve(bytes.len());
        if reserved.or_else(|_| self.unfinished.try_reserve_exact(bytes.len())).is_err() {
            bail!(
                "{} has {} bytes and more, and the system refuses the memory for it: give the \
                 process more, or lower --max-record-size",
                self.place(),
                self.unfinished.len()
            );
        }
        self.unfinished.extend_from_slice(bytes);
        Ok(())
    }

    fn feed_framed(
        &mut self,
        mut chunk: &[u8],
        mut take: impl FnMut(&[u8], Place) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while !chunk.is_empty() {
            if self.unfinished.is_empty()
                && let Some(frame_len) = self.frame_len(chunk)?
                && frame_len <= chunk.len()
            {
                take(&chunk[LENGTH_LEN..frame_len], self.place())?;
                self.ended += 1;
                chunk = &chunk[frame_len..];
                continue;
            }
            // What is kept grows with what was read, never ahead of it on the word of a length.
            let wanted = self.frame_len(&self.unfinished)?.unwrap_or(LENGTH_LEN);
            let (more, rest) = chunk.split_at(chunk.len().min(wanted - self.unfinished.len()));
            self.extend(more)?;
            chunk = rest;
            if self.frame_len(&self.unfinished)? == Some(self.unfinished.len()) {
                take(&self.unfinished[LENGTH_LEN..], self.place())?;
                self.ended += 1;
                self.unfinished.clear();
            }
        }
        Ok(())
    }

    /// Length of the frame at the beginning of `bytes`, its own length included; `None` when that
    /// cannot be told yet.
    fn frame_len(&self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*length);
        if u64::from(len) > self.record_size_max {
            bail!(
                "{} announces {len} bytes, more than {}: raise --max-record-size if this is \
                 --framed input",
                self.place(),
                self.record_size_max
            );
        }
        let len = usize::try_from(len).ok().and_then(|len| len.checked_add(LENGTH_LEN));
        len.map(Some).context("a frame is too long for this machine")
    }
}

/// What people call a record of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    is_frame: bool,
    /// From 1 on.
    number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_frame { "frame" } else { "line" }, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Framing = Framing::Lines(b'\n');

    /// Splits `bytes` fed in pieces of `step` bytes.
    fn split(framing: Framing, bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, anyhow::Result<()>) {
        let mut splitter = Splitter::new(framing, 1000, false);
        let mut records = Vec::new();
        let mut result = Ok(());
        for chunk in bytes.chunks(step) {
            result = result.and_then(|()| {
                splitter.feed(chunk, |r, _| {
                    records.push(r.to_vec());
                    Ok(())
                })
            });
        }
        result = result.and_then(|()| {
            splitter.finish(|r, _| {
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
                let (records, result) = split(LINES, input, step);
                assert_eq!(records, expected, "{input:?} in steps of {step}");
                assert!(result.is_ok());
            }
        }
    }

    #[test]
    fn frames_are_the_same_wherever_chunks_end() {
        let mut input = Vec::new();
        let expected: Vec<Vec<u8>> =
            vec![b"".to_vec(), b"a\nb".to_vec(), b"".to_vec(), vec![7; 600], b"z".to_vec()];
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
            let (records, result) =
                split(Framing::Framed, b"\x01\0\0\0a\xff\xff\xff\xffzzzz", step);
            assert_eq!(records, [b"a"]);
            assert!(result.is_err());
        }
        assert!(split(LINES, &[b'x'; 1001], 100).1.is_err());
        assert!(split(LINES, &[b'x'; 1000], 100).1.is_ok());
    }

    /// Long lines are left out wherever chunks end, the last one too, and each refusal names its
    /// line.
    #[test]
    fn long_lines_are_left_out_or_refused_by_number() {
        let input = [&b"a\0"[..], &[b'x'; 11], b"\0b\0", &[b'y'; 40], b"\0\0c\0", &[b'z'; 12]];
        let input = input.concat();
        for step in 1..=input.len() {
            let mut splitter = Splitter::new(Framing::Lines(0), 10, true);
            let mut found = Vec::new();
            let mut take = |record: &[u8], place: Place| {
                found.push((record.to_vec(), place.to_string()));
                Ok(())
            };
            for chunk in input.chunks(step) {
                splitter.feed(chunk, &mut take).unwrap();
            }
            splitter.finish(&mut take).unwrap();
            let expected = [("a", 1), ("b", 3), ("", 5), ("c", 6)];
            let expected =
                expected.map(|(text, n)| (text.as_bytes().to_vec(), format!("line {n}")));
            assert_eq!(found, expected, "in steps of {step}");
            let skipped = splitter.skipped();
            assert_eq!((skipped.count, skipped.first.as_slice()), (3, &[2, 4, 7][..]));

            let mut splitter = Splitter::new(Framing::Lines(0), 10, false);
            let fed = input.chunks(step).try_for_each(|chunk| splitter.feed(chunk, |_, _| Ok(())));
            assert!(fed.unwrap_err().to_string().starts_with("line 2 is longer than 10 bytes"));
        }
    }
}

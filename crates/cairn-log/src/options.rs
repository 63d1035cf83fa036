//! How a log is opened, and what opening found.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_io::{Fs, NativeFs};

use crate::error::{Error, Result};
use crate::format::{ALIGN, DATA_OFFSET, MAX_PAYLOAD_LEN, POSITIONS_END, STORE_SIZE, is_place};
use crate::gap::Gap;
use crate::open::cases::{EndCase, Ending};
use crate::place::{Lsn, Place, Seq};

/// How a log is opened. Every option may change between runs; none makes written records
/// unreadable.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) segment_size: u64,
    pub(crate) max_record_size: u64,
    pub(crate) buffer_size: usize,
    pub(crate) buffers: usize,
    pub(crate) flushes_in_flight: usize,
    pub(crate) direct_io: bool,
    pub(crate) create_at: Place,
    pub(crate) keep_cut: bool,
    pub(crate) recovery: Recovery,
}

/// What opening does with a log of which something is lost that had been durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recovery {
    /// Refuses it, and changes nothing: a person is to look.
    #[default]
    Refuse,
    /// [Repairs](crate::Repair) it first, as `cairn repair --apply` does, which reads all of it.
    /// [`OpenReport::gaps`] tells what is lost.
    Salvage,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fs: Arc::new(NativeFs),
            segment_size: 64 << 20,
            max_record_size: 64 << 20,
            buffer_size: 1 << 20,
            buffers: 4,
            flushes_in_flight: 2,
            direct_io: true,
            create_at: Place::default(),
            keep_cut: true,
            recovery: Recovery::default(),
        }
    }
}

impl Options {
    /// Size in bytes at which a segment is sealed and the next one begun; 8 KiB or more, 64 MiB
    /// unless set. A larger record gets a segment of its own size. Ignored by
    /// [`with_store`](crate::Log::with_store), where there is one segment.
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes.min(STORE_SIZE - 1);
        self
    }

    /// Where a log that is created starts: at this position, and its first record has this number.
    /// For a log that goes on with another one's numbers, when that one is lost or used up. `lsn`
    /// is a multiple of 8 below 2<sup>63</sup> - 2<sup>40</sup>, and `seq` at most `lsn`; both are
    /// 0 unless set. A log that is there keeps its own; in a [store](crate::Log::with_store) a log
    /// starts at 0.
    ///
    /// ```
    /// # fn main() -> cairn_log::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// use cairn_log::{Log, Lsn, Seq};
    ///
    /// let log = Log::options().create_at(Lsn(1 << 20), Seq(9_000)).open(dir.path().join("log"))?;
    /// assert!(log.commit(b"record")? > Lsn(1 << 20));
    /// assert_eq!(log.reader(Seq(9_000))?.count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn create_at(mut self, lsn: Lsn, seq: Seq) -> Self {
        self.create_at = Place { lsn, seq };
        self
    }

    /// Largest payload in bytes that `append` accepts, at most 2 GiB - 1; 64 MiB unless set.
    /// Reading knows no limit.
    #[must_use]
    pub fn max_record_size(mut self, bytes: u64) -> Self {
        self.max_record_size = bytes;
        self
    }

    /// Size in bytes of one buffer; 4 KiB to 1 GiB, 1 MiB unless set. A buffer is written as one
    /// group; a larger record gets one of its own size. [`buffers`](Options::buffers) times this is
    /// what may be appended before an append has to wait for a write.
    #[must_use]
    pub fn buffer_size(mut self, bytes: usize) -> Self {
        self.buffer_size = bytes;
        self
    }

    /// Number of buffers; 2 to 64, 4 unless set. Memory is used as far as they are filled, but the
    /// system must grant all of it when the log is opened: otherwise opening fails with
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    #[must_use]
    pub fn buffers(mut self, count: usize) -> Self {
        self.buffers = count;
        self
    }

    /// How many flushes may be in flight at once, each with a barrier of its own; 1 to 4, 2 unless
    /// set. What is durable when does not depend on it: the log becomes durable in order.
    ///
    /// Another flush starts beside one only for buffers that are full, because a flush that waits
    /// gathers more until then: so small commits never have more than one, and tickets, large
    /// records, and appends that nobody waits for may have several. Never more than one where
    /// commits go through the page cache, and in a store that has no
    /// [blocks](cairn_io::Store::block_size).
    #[must_use]
    pub fn flushes_in_flight(mut self, count: usize) -> Self {
        self.flushes_in_flight = count;
        self
    }

    /// Whether commits may go past the page cache, each with one write that is its own barrier; yes
    /// unless set. Where the file system cannot do that, they go through it; [`Log::backend`](crate::Log::backend)
    /// tells. What is durable when does not depend on it.
    #[must_use]
    pub fn direct_io(mut self, yes: bool) -> Self {
        self.direct_io = yes;
        self
    }

    /// What opening does with a log of which something is lost that had been durable; it refuses it
    /// unless set. In a [store](crate::Log::with_store) it always does.
    ///
    /// ```
    /// # fn main() -> cairn_log::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// use cairn_log::{Log, Recovery};
    ///
    /// let log = Log::options().recovery(Recovery::Salvage).open(dir.path().join("log"))?;
    /// for gap in &log.open_report().gaps {
    ///     eprintln!("lost: {gap}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Whether what recovery cuts off the end of a log in a directory is kept, up to 64 MiB of
    /// it, in a file beside the segments until the next [`close`](crate::Log::close); yes unless
    /// set. Nothing reads that file. [`OpenReport::kept`] names it.
    #[must_use]
    pub fn keep_cut(mut self, yes: bool) -> Self {
        self.keep_cut = yes;
        self
    }

    /// The file system to use: the real one unless set. Also the source of time and randomness.
    #[must_use]
    pub fn fs(mut self, fs: Arc<dyn Fs>) -> Self {
        self.fs = fs;
        self
    }

    /// Bytes for groups in a segment that is as long as it is to be.
    pub(crate) fn segment_room(&self) -> u64 {
        (self.segment_size - self.segment_size % ALIGN).saturating_sub(DATA_OFFSET)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |option, expected| Err(Error::InvalidOption { option, expected });
        if self.segment_size < 8 << 10 {
            return invalid("segment_size", "8 KiB or more");
        }
        if self.max_record_size > MAX_PAYLOAD_LEN {
            return invalid("max_record_size", "at most 2 GiB - 1");
        }
        if !(4 << 10..=1 << 30).contains(&self.buffer_size) {
            return invalid("buffer_size", "4 KiB to 1 GiB");
        }
        if !(2..=64).contains(&self.buffers) {
            return invalid("buffers", "2 to 64");
        }
        if !(1..=4).contains(&self.flushes_in_flight) {
            return invalid("flushes_in_flight", "1 to 4");
        }
        let Place { lsn, seq } = self.create_at;
        if !lsn.0.is_multiple_of(ALIGN) || lsn >= POSITIONS_END || !is_place(lsn, seq) {
            return invalid(
                "create_at",
                "a multiple of 8 below 2^63 - 2^40, and a number not above it",
            );
        }
        Ok(())
    }
}

/// How the log ended when it was opened or inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndState {
    /// Closed, or never written to: everything is known to be durable.
    Closed,
    /// Not closed, and every byte verifies.
    Unclosed,
    /// Not closed, and it ends in bytes that do not verify and that nothing proves to have been
    /// durable: a torn tail. Most are writes that a crash cut off. Damage to the very last write
    /// looks the same, unless something was written behind it.
    Torn {
        /// Their number, up to the last one that is not zero.
        bytes: u64,
    },
}

impl EndState {
    /// What a row of the table of ends says in one word. A log whose end is damaged counts as not
    /// closed.
    pub(crate) fn of(case: EndCase, torn_bytes: u64) -> Self {
        match case.ending() {
            Ending::Closed => EndState::Closed,
            Ending::Torn => EndState::Torn { bytes: torn_bytes },
            Ending::Unclosed | Ending::Corrupt => EndState::Unclosed,
        }
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether there was no log before.
    pub created: bool,
    /// How the log ended.
    pub end_state: EndState,
    /// The same, as the row of the table by which opening decided.
    pub end_case: EndCase,
    /// Segments of the log, after opening.
    pub segments: usize,
    /// Records in the part that had to be scanned.
    pub records_scanned: u64,
    /// Bytes of log written again, synced, into a new generation, because nothing proved them
    /// durable.
    pub bytes_carried: u64,
    /// Bytes dropped at the end: they did not verify, and nothing proves that they had been
    /// durable.
    pub bytes_cut: u64,
    /// Where these bytes are, up to 64 MiB of them: in a file beside the segments, which the next
    /// [`close`](crate::Log::close) removes. `None` if none were dropped, there was no space, or
    /// [`Options::keep_cut`] says no.
    pub kept: Option<PathBuf>,
    /// The generation in force.
    pub generation: u32,
    /// Files removed because nothing in them belonged to the log any more.
    pub removed: Vec<PathBuf>,
    /// Files in the directory that are not the log's; they were left alone.
    pub strays: Vec<PathBuf>,
    /// Where records are lost, by position, as this opening or a repair recorded it.
    pub gaps: Vec<Gap>,
}

/// Counters of one open log, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records appended.
    pub records: u64,
    /// Bytes of frames appended: payload, 12 bytes each, and up to 7 more to a multiple of 8.
    pub frame_bytes: u64,
    /// Groups begun and closed: what one flush writes is one, unless it fills several buffers.
    pub groups: u64,
    /// Bytes handed to the store, framing included.
    pub bytes_written: u64,
    /// Barriers that succeeded, rotations and cuts excluded.
    pub barriers: u64,
    /// Flushes that began while another one was in flight; see [`Options::flushes_in_flight`].
    pub flushes_beside: u64,
    /// Segments sealed.
    pub rotations: u64,
    /// Segments begun in the file of a dropped one.
    pub recycled: u64,
    /// Bytes in memory, appended and not yet handed to the store.
    pub buffered_bytes: u64,
    /// Bytes of log that were to be dropped, and are there because somebody [holds](crate::Hold)
    /// them or records before them.
    pub held_bytes: u64,
}

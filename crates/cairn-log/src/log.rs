//! The log as its users see it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Backend, Store};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::follow::Follower;
use crate::format::STORE_SIZE;
use crate::open::recover::{Recovered, open_directory, open_store};
use crate::options::{OpenReport, Options, Stats};
use crate::place::{Lsn, Place, Seq, Start};
use crate::read::piece::Pieces;
use crate::read::reader::Reader;
use crate::ring::Ring;
use crate::ticket::Ticket;
use crate::writer::append::Patience;
use crate::writer::core::Core;
use crate::writer::state::{State, Truncations};

impl Options {
    /// Opens the log in the directory `dir`, or creates it there; see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`]; [`Error::InvalidOption`] for an option outside its range;
    /// [`Error::OutOfMemory`] for buffers that the system does not grant.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Log> {
        self.check()?;
        Log::open_directory(self, dir.as_ref())
    }

    /// Opens the log in `store`, or creates it there; see [`Log::with_store`].
    ///
    /// # Errors
    /// As [`Log::with_store`]; [`Error::InvalidOption`] and [`Error::OutOfMemory`] as
    /// [`open`](Self::open).
    pub fn open_store(self, store: Arc<dyn Store>) -> Result<Log> {
        self.check()?;
        Log::open_in_store(self, store)
    }
}

/// A write-ahead log.
///
/// All methods take `&self` and may be called from any number of threads. One handle at a time has
/// a log open, in this process and in all others.
///
/// | call | returns when | survives |
/// |---|---|---|
/// | [`append`](Log::append), [`append_batch`](Log::append_batch), [`submit`](Log::submit) | the record has its place | nothing yet |
/// | [`flush`](Log::flush) | the bytes are with the operating system | a killed process |
/// | [`sync`](Log::sync), [`sync_to`](Log::sync_to), [`commit`](Log::commit), a waited [`Ticket`] | the barrier returned | power loss |
///
/// Durability comes from a call, never from `Drop`: dropping a log hands buffered bytes to the
/// operating system as well as that goes and promises nothing. If everything was durable before, it
/// leaves a mark that says so. [`close`](Log::close) promises and reports.
///
/// After a failed write or barrier the handle is poisoned: whatever was not durable is in doubt,
/// every waiter is told so, and nothing is written any more. Reading what is durable goes on. Open
/// the log again to go on writing.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use cairn_log::{Log, Lsn};
///
/// let log = Log::open(dir.path().join("log"))?;
/// let lsn = log.append(b"first")?;
/// log.append(b"second")?;
/// log.sync_to(lsn)?;
/// log.commit(b"third")?;
/// let records = log.reader(Lsn::START)?.map(|record| record.map(|r| r.into_payload()));
/// let payloads: Vec<_> = records.collect::<Result<_, _>>()?;
/// assert_eq!(payloads, [&b"first"[..], b"second", b"third"]);
/// log.close()?;
/// # Ok(())
/// # }
/// ```
pub struct Log {
    pub(crate) core: Arc<Core>,
    uuid: Uuid,
    report: OpenReport,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("uuid", &self.uuid)
            .field("path", &self.core.layout.path())
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in the directory `dir` with default options, or creates it there. The parent
    /// of `dir` must exist.
    ///
    /// Decides before it changes anything: when this fails with a kind of
    /// [`Repair`](crate::ErrorKind::Repair) or [`Busy`](crate::ErrorKind::Busy), the directory is
    /// as it was. What an earlier process left without a barrier is written again and synced before
    /// this returns, so that everything that can be read then is durable. Cost: both ends of each
    /// segment, and a scan of the last one.
    ///
    /// # Errors
    /// [`Error::Locked`] when another handle has the log; [`Error::Corrupt`], [`Error::Foreign`],
    /// [`Error::WrongLog`], [`Error::UnsupportedVersion`] for what the files are; [`Error::Io`] and
    /// [`Error::Full`] for what the system says.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(dir)
    }

    /// Options to open a log with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the log in `store`, or creates it there if the store is empty: one unbounded segment,
    /// scanned as a whole at open. The caller sees to it that nobody else uses the store.
    ///
    /// # Errors
    /// As [`Log::open`], but never [`Error::Locked`].
    pub fn with_store(store: Arc<dyn Store>, options: Options) -> Result<Self> {
        options.open_store(store)
    }

    pub(crate) fn open_directory(options: Options, dir: &Path) -> Result<Self> {
        // Before anything in the directory is changed.
        let ring = Ring::new(options.buffers, options.buffer_size)?;
        let recovered = open_directory(&options, dir)?;
        Ok(Self::new(options, ring, recovered))
    }

    pub(crate) fn open_in_store(mut options: Options, store: Arc<dyn Store>) -> Result<Self> {
        options.segment_size = STORE_SIZE;
        options.create_at = Place::default();
        let ring = Ring::new(options.buffers, options.buffer_size)?;
        let recovered = open_store(&options, store)?;
        Ok(Self::new(options, ring, recovered))
    }

    fn new(options: Options, ring: Ring, recovered: Recovered) -> Self {
        let report = recovered.report.clone();
        let core = Core::new(options, ring, recovered);
        let uuid = core.lock().active.file.superblock.uuid;
        Log { core, uuid, report }
    }

    /// Appends a record; returns where it starts. Nothing is durable on return. Records of one
    /// thread are in the order of its calls.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Full`] when the disk is: nothing was appended, and after space
    /// was freed the call can be repeated; [`Error::Displaced`] when the next segment is due and
    /// the directory or a file of the log is not where it was; [`Error::Forked`] in a forked child;
    /// [`Error::OutOfMemory`] for a record larger than a buffer; [`Error::Poisoned`],
    /// [`Error::Closed`].
    pub fn append(&self, record: &[u8]) -> Result<Lsn> {
        self.core.append(record, Patience::Wait).map(|appended| appended.lsn)
    }

    /// As [`append`](Log::append), but never waits for a write, a barrier or a rotation.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when it would have to: nothing was appended. Otherwise as
    /// [`append`](Log::append).
    pub fn try_append(&self, record: &[u8]) -> Result<Lsn> {
        self.core.append(record, Patience::Refuse).map(|appended| appended.lsn)
    }

    /// Appends several records, next to each other; after any crash all of them are there or none.
    /// Returns the positions of the first and the last one. Nothing is durable on return.
    ///
    /// # Errors
    /// As [`append`](Log::append); [`Error::TooLarge`] also when the batch takes more than 2 GiB;
    /// [`Error::EmptyBatch`].
    pub fn append_batch<R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<RangeInclusive<Lsn>> {
        // The caller's code runs before a place in the log is taken: were it to panic there, the
        // log would end.
        let records: Vec<R> = records.into_iter().collect();
        let payloads: Vec<&[u8]> = records.iter().map(AsRef::as_ref).collect();
        if payloads.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let (first, last) = self.core.append_batch(&payloads)?;
        Ok(first.lsn..=last)
    }

    /// Returns once everything appended before the call is with the operating system: it survives
    /// this process, not a power cut.
    ///
    /// # Errors
    /// [`Error::InDoubt`] when a write failed.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Returns once everything appended before the call is durable. Concurrent calls share
    /// barriers.
    ///
    /// # Errors
    /// [`Error::InDoubt`] when a write or barrier failed, now or earlier.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Returns once the record at `lsn` and everything before it is durable. Concurrent calls share
    /// barriers. Any position inside a record stands for that record.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a position at or beyond the end; [`Error::InDoubt`] as for
    /// [`sync`](Log::sync).
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.core.sync_to(lsn)
    }

    /// Appends a record and returns once it is durable.
    ///
    /// # Errors
    /// As [`append`](Log::append), with the record not in the log, and [`Error::InDoubt`] when it
    /// may be.
    pub fn commit(&self, record: &[u8]) -> Result<Lsn> {
        let appended = self.core.append(record, Patience::Wait)?;
        self.core.settled(appended)?;
        Ok(appended.lsn)
    }

    /// Appends a record and has the log make it durable, without waiting: a thread of the log's
    /// own, begun by the first call, sees to it. As long as the system refuses that thread, this
    /// returns when the record is durable, or in doubt: the ticket tells.
    ///
    /// # Errors
    /// As [`append`](Log::append): nothing was appended.
    pub fn submit(&self, record: &[u8]) -> Result<Ticket> {
        let has_committer = self.core.has_committer();
        let appended = self.core.append(record, Patience::Wait)?;
        if has_committer {
            self.core.request(appended.slot);
        } else {
            // What becomes of it, the ticket tells.
            let _ = self.core.settled(appended);
        }
        Ok(Ticket::new(self.core.clone(), appended))
    }

    /// Reads records in order from `start`, an [`Lsn`] or a [`Seq`], up to everything appended
    /// before this call, durable or not; [`Reader::durable`] restricts it. Flushes first. On a
    /// poisoned log reads what had been written before the failure.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] or [`Error::SeqOutOfRange`] when the start was dropped or is beyond
    /// the end; [`Error::NotARecord`] when nothing starts or ends there; [`Error::Corrupt`] when
    /// the way there is damaged.
    pub fn reader(&self, start: impl Into<Start>) -> Result<Reader> {
        self.read_from(start.into()).map(|(reader, _)| reader)
    }

    /// A reader at `start`, and the truncations that it knows of. Both come from one look under the
    /// lock: a cut between two looks would count as one that the reader knows, or does not.
    fn read_from(&self, start: Start) -> Result<(Reader, Truncations)> {
        // A poisoned log cannot flush, and can still be read.
        let _ = self.core.flush();
        loop {
            let guard = self.core.lock();
            let known = guard.truncations();
            let mut reader = self.core.reader_of(&guard);
            drop(guard);
            match reader.seek(start) {
                // A truncation took the file away in between: `start` may be somewhere else now.
                Err(Error::Truncated { .. }) if known != self.core.lock().truncations() => {}
                sought => return sought.map(|()| (reader, known)),
            }
        }
    }

    /// Returns records in order from `start` as they become durable, and waits for new ones.
    /// [`Follower`] says what becomes of it when the log is truncated or closed.
    ///
    /// # Errors
    /// As [`reader`](Log::reader).
    pub fn follow(&self, start: impl Into<Start>) -> Result<Follower> {
        let start = start.into();
        let (reader, known) = self.read_from(start)?;
        Ok(Follower::new(self.core.clone(), reader.durable(), start, known))
    }

    /// Drops every record before `lsn`, a position where a record starts or ends. Durable on
    /// return. Whole segments before it are deleted, or kept, up to four of them, until the next
    /// ones are written into their files or the log is closed. Positions and numbers of the other
    /// records stay.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::NotARecord`]: nothing was changed. [`Error::Io`]: records
    /// before `lsn` are dropped, but files may be left over, to be deleted at the next open.
    /// [`Error::Poisoned`]: a crash may show the log before or after.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        self.core.truncate_before(lsn)
    }

    /// Drops every record after the one that starts at `lsn`, which stays as the last one. Durable
    /// on return. The next record gets the number after it; positions that were dropped may be used
    /// again, by records that no old copy can be mistaken for: a position is unique until this
    /// drops it.
    ///
    /// # Errors
    /// As [`truncate_before`](Log::truncate_before).
    pub fn truncate_after(&self, lsn: Lsn) -> Result<()> {
        self.core.truncate_after(lsn)
    }

    /// Ends the active segment, unless it holds no record: the next record begins another one. For
    /// a log to which little is written: only whole segments give their space back when old records
    /// are [dropped](Log::truncate_before). Everything appended before the call is durable on
    /// return. In a [store](Log::with_store), where there is one segment, that is all it does.
    ///
    /// # Errors
    /// As [`sync`](Log::sync); [`Error::Full`] when there is no space for another segment: nothing
    /// has changed, and the log goes on in the one it has.
    pub fn rotate(&self) -> Result<()> {
        self.core.rotate_if_used()
    }

    /// Where the oldest record that still exists may start: records before this were dropped.
    pub fn head_lsn(&self) -> Lsn {
        self.core.lock().head.lsn
    }

    /// Exclusive end of what was appended.
    pub fn appended_lsn(&self) -> Lsn {
        self.core.end(&self.core.lock()).lsn
    }

    /// Exclusive end of what is with the operating system; at most
    /// [`appended_lsn`](Log::appended_lsn).
    pub fn flushed_lsn(&self) -> Lsn {
        self.core.lock().flushed.lsn
    }

    /// Exclusive end of what is durable; at most [`flushed_lsn`](Log::flushed_lsn).
    pub fn durable_lsn(&self) -> Lsn {
        self.core.lock().durable
    }

    /// Number the next record will get.
    pub fn next_seq(&self) -> Seq {
        self.core.end(&self.core.lock()).seq
    }

    /// Identity of the log, given when it was created.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// How commits reach the medium now.
    pub fn backend(&self) -> Backend {
        self.core.lock().active.store.backend()
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// Makes everything appended durable, notes on disk that it is, and ends writing. Tickets are
    /// settled by then; followers end once they returned everything. A segment of more than 1 MiB
    /// is sealed, so that the next open has next to nothing to scan.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when a write or barrier failed, now or earlier. [`Error::Displaced`]
    /// when the directory or a file of the log lost its name meanwhile; the log is closed all the
    /// same. [`Error::Forked`] in a forked child. Others may open the log afterwards, in any case
    /// but the last.
    pub fn close(self) -> Result<()> {
        self.core.close()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.core.abandon();
    }
}

impl Core {
    /// A reader over everything that is with the operating system, at the head.
    pub(crate) fn reader_of(&self, state: &State) -> Reader {
        let end = state.flushed;
        let State { segments, origin, cuts, index, .. } = state;
        let pieces = Pieces::new(segments.clone(), *origin, cuts, end.lsn, index.clone());
        Reader::new(self.layout.clone(), pieces, state.head, end, state.durable)
    }
}

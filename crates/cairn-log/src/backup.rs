//! Copies of a log that restore: made beside a writer, from any process.
//!
//! Nothing can be held in another process, so a copy rests on what never changes. Sealed segments
//! do not; of the last one, what precedes its end does not. A segment that a writer drops while it
//! is read may be written over: so what was copied is verified in the copy, and if it does not
//! verify, or is gone, the log is looked at anew. What was copied and verified is kept.
//!
//! The copy is a log that was closed: behind its last group stands a mark, and its state says so.
//! As long as there is no state it is refused, so none is there before the copy is whole, and when
//! an earlier copy is brought up to date, it goes before anything changes:
//!
//! 1. what is new is copied under names of its own, verified and durable,
//! 2. the state goes, durably,
//! 3. what is new gets its names, and what is no longer of the log goes; then the list of gaps, if
//!    a repair made one; durably,
//! 4. the new state gets its name, durably.
//!
//! In another order: 1. a segment of today stands beside those of yesterday, under a state that
//! accepts both, 2. the power fails, 3. the copy opens, and passes for whole.

mod target;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use cairn_io::{File, FileStore, Fs, NativeFs, Store, read_full_at, write_all_at};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER_LEN, GroupHeader, SUPERBLOCK_LEN, Seed, StateRecord, Superblock};
use crate::inspect::Inspection;
use crate::layout::directory::Directory;
use crate::place::{Lsn, Place, Seq};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;
use crate::segment::marks::Author;
use crate::segment::span::{Span, seal_before};
use target::{Purpose, Target};

/// So often a copy is begun anew because a writer dropped what was to be copied.
const ATTEMPTS_MAX: u32 = 200;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What a copy holds, and what it took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CopyReport {
    /// Identity of the log.
    pub uuid: Uuid,
    /// Where the oldest record may start.
    pub head_lsn: Lsn,
    /// Exclusive end of what was copied: every record that was acknowledged before the copy began
    /// lies below it.
    pub end_lsn: Lsn,
    /// Number of the oldest record.
    pub head_seq: Seq,
    /// Number after the last record.
    pub next_seq: Seq,
    /// Records of the copy: all from the oldest to the last one, but those that a repair recorded
    /// as lost.
    pub records: u64,
    /// Segments of the copy.
    pub segments: usize,
    /// Those of them that were copied now; the others were there from an earlier copy.
    pub copied: usize,
    /// Bytes that were copied, those included that were copied in vain.
    pub bytes_copied: u64,
    /// How often it was begun anew because a writer dropped what was to be copied.
    pub restarts: u32,
}

/// Copies the log in `from` into the directory `to`, also while another process, or this one,
/// appends to it, rotates, and drops records. Takes no lock of the log and changes nothing of it.
///
/// On return the copy is durable and verified, and is a log that was closed: it opens, and holds
/// every record that was acknowledged before the call, at its position, under its number; perhaps
/// later ones too. If `to` holds an earlier copy of the log, only segments that it lacks are
/// copied, and the last one. The copy becomes what the log is now: what the log has dropped
/// meanwhile, at either end, or lacks because it was itself put back to an earlier state, is
/// removed from it. So keep more than one. `to` is made if it is not there; its parent must exist.
/// What a [repair](crate::Repair) recorded as lost is recorded in the copy, too.
///
/// Interrupted, by a crash or an error, a first copy is no log yet: opening it fails
/// ([`CorruptionKind::State`](crate::CorruptionKind::State)). An earlier copy stays what it was
/// until everything new is there; while the names are exchanged, it opens no more. Repeated, the
/// call goes on with what was done.
///
/// `progress` is told the bytes that were copied since it was last called.
///
/// # Errors
/// [`Error::Corrupt`] and the like when the log is damaged: nothing of the copy that was there has
/// changed. [`Error::Locked`] when another copy is being made there. [`Error::Io`] of kind
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) when `to` holds anything else than a copy of
/// this log, or one that was opened and written to since; of kind
/// [`ResourceBusy`](io::ErrorKind::ResourceBusy) when the writer drops segments faster than they
/// can be copied: [hold](crate::Log::hold) them. [`Error::Full`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// use cairn_log::{Log, Lsn, backup, restore};
///
/// let (dir, copy) = (home.path().join("log"), home.path().join("copy"));
/// let log = Log::open(&dir)?;
/// let lsn = log.commit(b"acknowledged")?;
/// backup(&dir, &copy, |_bytes| ())?;
///
/// let again = home.path().join("again");
/// restore(&copy, &again, |_bytes| ())?;
/// let restored = Log::open(&again)?;
/// let first = restored.reader(Lsn::START)?.next().transpose()?.ok_or("no record")?;
/// assert_eq!((first.lsn(), first.payload()), (lsn, &b"acknowledged"[..]));
/// # Ok(())
/// # }
/// ```
pub fn backup(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    progress: impl FnMut(u64),
) -> Result<CopyReport> {
    backup_on(Arc::new(NativeFs), from, to, progress)
}

/// As [`backup`], on another file system.
///
/// # Errors
/// As there.
pub fn backup_on(
    fs: Arc<dyn Fs>,
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut progress: impl FnMut(u64),
) -> Result<CopyReport> {
    copy(&fs, from.as_ref(), to.as_ref(), Purpose::Backup, &mut progress)
}

/// Copies the log in `from`, a backup, into the directory `to`, in which it lives on: positions and
/// numbers are those of the original. `to` is made if it is not there, and otherwise is empty.
/// Interrupted, it is no log yet, and the call can be repeated.
///
/// The original may still be there. Then the two have one identity and go separate ways; files of
/// one among those of the other are told.
///
/// # Errors
/// As [`backup`]; [`Error::Io`] of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) when
/// anything is in `to`, a log above all.
pub fn restore(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    progress: impl FnMut(u64),
) -> Result<CopyReport> {
    restore_on(Arc::new(NativeFs), from, to, progress)
}

/// As [`restore`], on another file system.
///
/// # Errors
/// As there.
pub fn restore_on(
    fs: Arc<dyn Fs>,
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut progress: impl FnMut(u64),
) -> Result<CopyReport> {
    copy(&fs, from.as_ref(), to.as_ref(), Purpose::Restore, &mut progress)
}

fn copy(
    fs: &Arc<dyn Fs>,
    from: &Path,
    to: &Path,
    purpose: Purpose,
    progress: &mut dyn FnMut(u64),
) -> Result<CopyReport> {
    let nothing = || Error::io("open", from, io::ErrorKind::NotFound.into());
    let source = Arc::new(Directory::open(fs.clone(), from)?.ok_or_else(nothing)?);
    let mut look = look_at(&source)?;
    let mut target = Target::claim(fs, to, purpose, look.uuid())?;
    let mut report = CopyReport {
        uuid: look.uuid(),
        head_lsn: Lsn::START,
        end_lsn: Lsn::START,
        head_seq: Seq(0),
        next_seq: Seq(0),
        records: 0,
        segments: 0,
        copied: 0,
        bytes_copied: 0,
        restarts: 0,
    };
    let mut before: Option<String> = None;
    loop {
        let attempt = Attempt { look: &look, source: &source };
        let Some(changed) = attempt.run(&mut target, &mut report, progress)? else { break };
        // Twice the same is no writer at work.
        let text = changed.to_string();
        if before.as_ref() == Some(&text) || report.restarts >= ATTEMPTS_MAX {
            return Err(changed);
        }
        before = Some(text);
        report.restarts += 1;
        look = look_at(&source)?;
    }
    target.expect_whole(report.end_lsn)?;
    Ok(report)
}

/// The log as it is now; an error if anything is wrong with it.
fn look_at(source: &Arc<Directory>) -> Result<Inspection> {
    let look = Inspection::look_until_settled(source)?;
    match look.problems().first() {
        Some(problem) => Err(problem.clone()),
        None => Ok(look),
    }
}

/// The copying of what one look found.
struct Attempt<'a> {
    look: &'a Inspection,
    source: &'a Directory,
}

impl Attempt<'_> {
    /// Copies everything; what was missed, if something changed meanwhile.
    fn run(
        &self,
        target: &mut Target,
        report: &mut CopyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Error>> {
        let segments = &self.look.survey.segments;
        let mut copied = 0;
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1);
            if let Some(next) = next
                && is_copy(target.directory(), segment, next)?
            {
                continue;
            }
            let mut count = |bytes| {
                report.bytes_copied += bytes;
                progress(bytes);
            };
            if let Some(changed) = self.copy(segment, next, target, &mut count)? {
                return Ok(Some(changed));
            }
            copied += 1;
        }
        let names: Vec<_> = segments.iter().map(SegmentFile::name).collect();
        target.conclude(&names, &self.source.premise().gaps, &self.state())?;
        report.copied = copied;
        report.records = self.look.records();
        report.segments = names.len();
        (report.head_lsn, report.head_seq) = (self.look.head_lsn(), self.look.head_seq());
        (report.end_lsn, report.next_seq) = (self.end().lsn, self.look.next_seq());
        Ok(None)
    }

    /// Copies one segment, up to the `next` one or up to the end of the log.
    fn copy(
        &self,
        segment: &SegmentFile,
        next: Option<&SegmentFile>,
        target: &mut Target,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Error>> {
        let name = segment.name().to_string();
        let gone = || Some(Error::io("copy", &self.source.path_of_name(&name), gone()));
        let Some(file) = self.source.find(&name)? else { return Ok(gone()) };
        let end = next.map_or(self.look.end_lsn(), |next| next.superblock.base_lsn);
        let (least, len) = (segment.offset(end).0, copied_len(segment, next, end));
        let part = target.begin(&name)?;
        let copied = copy_bytes(&*file, &*part, len, progress);
        let copied = copied.map_err(|e| Error::io("copy", &self.source.path_of_name(&name), e))?;
        let gaps = self.source.gaps_of(&segment.superblock);
        // A file that was cut short ends in a gap.
        if copied < least && gaps.is_empty() {
            return Ok(gone());
        }
        if let (None, Some(mark)) = (next, self.mark()) {
            write_all_at(&*part, least, &[IoSlice::new(&mark)])
                .map_err(|e| Error::io("write to", &target.directory().path_of_name(&name), e))?;
        }
        let path = target.directory().path_of_name(&name);
        let store = Arc::new(FileStore::new(part));
        store.sync().map_err(|e| Error::io("sync", &path, e))?;
        let mut block = [0; SUPERBLOCK_LEN];
        let read = store.read_at(0, &mut block).map_err(|e| Error::io("read", &path, e))?;
        let found = Superblock::decode(&block[..read]).ok();
        if found.or(self.source.stand_in(segment.name())) != Some(segment.superblock) {
            return Ok(gone());
        }
        let span = segment.span(store, self.source.path_of_name(&name).into(), end);
        let span = Span { gaps, ..span };
        let mut walk = Walk::new(span, segment.base().lsn, segment.base().seq);
        loop {
            match walk.advance_record() {
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) => {
                    let damaged = Error::Corrupt(walk.span.corruption(damage, None));
                    return Ok(Some(walk.refused().unwrap_or(damaged)));
                }
            }
        }
        target.accept(&name)?;
        Ok(None)
    }

    /// The mark that the copy ends with, unless the log does.
    fn mark(&self) -> Option<Vec<u8>> {
        let (tail, segment) = (&self.look.tail, self.look.survey.active()?);
        let link = tail.link.filter(|_| tail.mark.is_none())?;
        let author = Author {
            generation: segment.superblock.generation,
            epoch: link.epoch,
            previous: link.chain,
        };
        let at = Place { lsn: tail.end_lsn, seq: tail.next_seq };
        Some(author.mark(at).encode(Seed::of_log(self.look.uuid())).to_vec())
    }

    /// Where the copy ends, its mark included.
    fn end(&self) -> Place {
        let mark = self.mark().map_or(0, |mark| mark.len() as u64);
        Place { lsn: self.look.end_lsn() + mark, seq: self.look.next_seq() }
    }

    /// What the copy says of itself: that it was closed there.
    fn state(&self) -> StateRecord {
        let (survey, tail) = (&self.look.survey, &self.look.tail);
        let superblock = survey.active().map(|segment| segment.superblock);
        let previous = match self.mark() {
            Some(mark) => crate::format::chain_of(&mark),
            None => tail.link.map_or(tail.at_end.chain, |link| link.chain),
        };
        let epoch = tail.link.map(|link| link.epoch).or(superblock.map(|s| s.epoch));
        let marked = if tail.link.is_some() { GROUP_HEADER_LEN as u64 } else { 0 };
        let end = self.end();
        StateRecord {
            uuid: self.look.uuid(),
            number: survey.state.map_or(1, |state| state.number.wrapping_add(1)),
            epoch: epoch.unwrap_or_default(),
            closed: true,
            generation: superblock.map_or(0, |superblock| superblock.generation),
            durable_lsn: Lsn(end.lsn.0.saturating_sub(marked)),
            lsn: end.lsn,
            seq: end.seq,
            previous,
            cutters: Default::default(),
        }
    }
}

fn gone() -> io::Error {
    let what = "it was dropped, or written over, while it was copied";
    io::Error::new(io::ErrorKind::ResourceBusy, what)
}

/// Copies the first `len` bytes; returns how many there were.
fn copy_bytes(
    from: &dyn File,
    to: &dyn File,
    len: u64,
    progress: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    while at < len {
        let wanted = piece.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        let read = read_full_at(from, at, &mut piece[..wanted])?;
        if read == 0 {
            break;
        }
        write_all_at(to, at, &[IoSlice::new(&piece[..read])])?;
        at += read as u64;
        progress(read as u64);
    }
    Ok(at)
}

/// How much of a segment's file is copied, of a log that goes on at `end`, or ends there.
fn copied_len(segment: &SegmentFile, next: Option<&SegmentFile>, end: Lsn) -> u64 {
    let least = segment.offset(end).0;
    // What a cut left behind the place of its segment says whose cut that was.
    let cut = next.is_some_and(|next| next.superblock.cut.is_some());
    if cut { segment.file_len.max(least) } else { least }
}

/// Whether the directory has `segment`, which ends where `next` starts, from an earlier copy: the
/// same superblock, as long, and with the group before `next` that this one names.
fn is_copy(directory: &Directory, segment: &SegmentFile, next: &SegmentFile) -> Result<bool> {
    let (name, end) = (segment.name().to_string(), next.superblock.base_lsn);
    let Some(first) = next.first else { return Ok(false) };
    let Some(file) = directory.find(&name)? else { return Ok(false) };
    let io = |e| Error::io("read", &directory.path_of_name(&name), e);
    let mut block = [0; SUPERBLOCK_LEN];
    let read = read_full_at(&*file, 0, &mut block).map_err(io)?;
    let as_long = file.len().map_err(io)? == copied_len(segment, Some(next), end);
    if Superblock::decode(&block[..read]) != Ok(segment.superblock) || !as_long {
        return Ok(false);
    }
    let log = Seed::of_log(segment.superblock.uuid);
    let last = match next.superblock.cut.and_then(|cut| cut.before) {
        Some(before) => {
            let mut header = [0; GROUP_HEADER_LEN];
            let read = read_full_at(&*file, segment.offset(before).0, &mut header).map_err(io)?;
            GroupHeader::decode(&header[..read], before, log)
        }
        None => {
            let path = directory.path_of_name(&name).into();
            seal_before(&segment.span(Arc::new(FileStore::new(file)), path, end))
        }
    };
    Ok(last.is_some_and(|last| last.chain(log) == first.previous))
}

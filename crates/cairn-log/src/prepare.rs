//! What is done ahead of the writer, by a thread of its own, so that a commit never waits for it: zeros where the next groups go, and the
//! next segment, in the file of a dropped one if there is one, which needs no zeros, in a new one otherwise.
//!
//! A barrier behind a write into zeros that are there has only the write to wait for. Behind a write into space that is merely reserved, or that makes
//! the file longer, it waits for the file system's bookkeeping as well, which takes about as long again.
//!
//! Invariants:
//! 1. Zeros are only written between `zeroing.start` and `zeroing.end`, and no slot is open, and none is opened, for anything at or behind that
//!    start meanwhile. Otherwise: 1. a record is written and acknowledged, 2. the zeros land on it.
//! 2. Nothing is zeroed or reserved while the active segment is cut or sealed: whoever freezes the log waits for that. Otherwise zeros land
//!    behind the seal, or in the file of a segment that is no longer active.
//! 3. The file of a dropped segment changes only once it has lost its segment's name for good. Otherwise: 1. its superblock is overwritten, 2. power
//!    fails, 3. the name is back, and what bears it is no segment: the log is not opened.
//! 4. It begins with zeros in place of its superblock and its first groups before it gets another name, and the superblock that it gets says that it was
//!    used. What else is in it verifies nowhere in its new place (L18), and is not taken for a torn tail.
//! 5. Everything here may fail without harm. Then the writer does without.
//! 6. A successor that has its name ahead says where it starts, whose generation it is, and where the log begins. So before any of that becomes wrong
//!    the name is taken away for good: before the head moves, before a generation starts, before a segment is begun at another place
//!    ([`Leading::retract_successor`] has the crashes). From the first byte of the seal on it is never taken away: 1. the seal is durable, although its
//!    write failed, 2. the name goes, 3. a sealed segment without a successor is a loss, and the log is not opened.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_io::slot::Slot;
use cairn_io::{Access, File, Fs, Store, write_all_at};

use crate::commit::{Core, Guard, Home};
use crate::error::{Error, Result};
use crate::format::{DATA_OFFSET, OPEN_SEQ, Superblock, seal_len};
use crate::leading::Leading;
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::rotation::first_room;
use crate::segment::{self, ActiveSegment, CreateError, Room, SPARE_NAME};
use crate::state::{Place, State};
use crate::sync::{Arc, thread};

/// Zeros are written this many bytes at a time at most: commits wait for the device meanwhile.
const CHUNK_MAX: u64 = 512 << 10;
const CHUNK_MIN: u64 = 128 << 10;
/// So much is zeroed ahead of a writer at most: at 1 GB/s it takes 4 ms to get through.
const AHEAD_MAX: u64 = 4 << 20;
/// So much space is reserved at a time at most, where there are to be no zeros.
const RESERVED_MAX: u64 = 16 << 20;
/// Flushes of this size or more gain nothing from zeros that cost a write of their own.
const SMALL_FLUSH: u64 = 256 << 10;
/// Flushes without zeros after a writer had to wait for some.
const OUTRUN_FLUSHES: u32 = 64;
/// What a new segment has zeroed before it gets its name.
pub(crate) const PREFILL: usize = 128 << 10;
/// Room of a slot that is opened where there are no zeros yet, or few, while they would help: so that they can be written close behind.
const UNPREPARED_ROOM: u64 = 256 << 10;
/// Zeros in which a slot is opened that goes no further, so that more can follow without a gap: what lies in a gap is written without.
const PREPARED_ROOM: u64 = 64 << 10;

/// What is prepared for the active segment.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Every block was written once up to this position, with zeros or with what was there before the file was this segment's: writing there again
    /// changes nothing but bytes.
    pub(crate) filled: u64,
    /// Zeros are being written here.
    pub(crate) zeroing: Option<Range<u64>>,
    /// Whether the last flush was one that zeros help. Until there is one, that is what is expected.
    small: bool,
    /// So many flushes do without zeros, because a writer had to wait for some: it is faster than they are.
    outrun: u32,
    /// Space is being reserved.
    reserving: bool,
    /// It failed for this segment: for lack of space, most likely.
    gave_up: bool,
    spare: Spare,
    /// The name that the successor has, or may have: who gave it failed before that was durable.
    name: Option<PathBuf>,
    /// A sealed segment's file that is longer than what it holds, and how long it is to be.
    sealed: Option<(Arc<dyn Store>, u64)>,
}

/// The file that will be the next segment.
#[derive(Debug, Default)]
pub(crate) enum Spare {
    #[default]
    None,
    Making,
    Ready(SpareFile),
    /// It is being given the next segment's name.
    Naming,
    Named(Successor),
}

/// The next segment, whole and durable under its name, while the active one is still written to.
#[derive(Clone, Debug)]
pub(crate) struct Successor {
    segment: ActiveSegment,
    spare: SpareFile,
}

/// A file without a segment's name that can become one.
#[derive(Clone, Debug)]
pub(crate) struct SpareFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) room: Room,
    /// Its length in bytes if it was a dropped segment's, otherwise 0.
    pub(crate) recycled_len: u64,
}

/// Something to be done without the lock.
enum Job {
    Zero {
        path: PathBuf,
        range: Range<u64>,
        offset: u64,
    },
    /// What a sealed segment does not need.
    Trim {
        store: Arc<dyn Store>,
        len: u64,
    },
    /// Where zeros would cost as much as they bring.
    Reserve {
        store: Arc<dyn Store>,
        range: Range<u64>,
        offset: u64,
    },
    Spare {
        path: PathBuf,
        room: Room,
    },
    /// The spare file is to be that of a dropped segment.
    Recycle {
        from: PathBuf,
        path: PathBuf,
    },
    /// The spare file is to be the next segment.
    Name {
        superblock: Superblock,
        spare: SpareFile,
    },
}

impl Prepared {
    /// For a segment whose blocks were written once up to `filled`.
    pub(crate) fn new(filled: u64) -> Self {
        Prepared {
            filled,
            zeroing: None,
            small: true,
            outrun: 0,
            reserving: false,
            gave_up: false,
            spare: Spare::None,
            name: None,
            sealed: None,
        }
    }

    /// The same for the next segment.
    pub(crate) fn start_in(&mut self, filled: u64) {
        (self.filled, self.gave_up) = (filled, false);
    }

    /// Has a sealed segment's file cut off behind what it holds.
    pub(crate) fn trim(&mut self, store: Arc<dyn Store>, len: u64) {
        self.sealed = Some((store, len));
    }

    /// Takes note of a writer that has to wait for zeros. On a disk with slow barriers zeros are as slow, and those who wait for them flush little, as if zeros
    /// would help.
    pub(crate) fn note_wait(&mut self) {
        (self.small, self.outrun) = (false, OUTRUN_FLUSHES);
    }

    /// Takes note of a flush, in order to prepare for the next.
    pub(crate) fn note_flush(&mut self, bytes: u64, durable: bool) {
        self.outrun = self.outrun.saturating_sub(1);
        self.small = durable && bytes < SMALL_FLUSH && self.outrun == 0;
    }

    /// How far behind `start` a slot may go, given that it may go `room` far; `None` when it has to wait.
    pub(crate) fn room(&self, start: u64, room: u64, wanted: u64) -> Option<u64> {
        let room = match &self.zeroing {
            Some(zeroing) if !mutation::is(Mutation::ZeroUnderWriters) => room.min(zeroing.start.saturating_sub(start)),
            _ => room,
        };
        if room < wanted {
            return None;
        }
        if !self.small || self.gave_up {
            return Some(room);
        }
        let zeros = self.filled.saturating_sub(start);
        let enough = zeros >= wanted.max(PREPARED_ROOM);
        Some(room.min(if enough { zeros } else { UNPREPARED_ROOM.max(wanted) }))
    }

    /// The spare file, if there is one; it is not spare any more. The successor has no name.
    pub(crate) fn take_spare(&mut self) -> Option<SpareFile> {
        match std::mem::take(&mut self.spare) {
            Spare::Ready(spare) => Some(spare),
            _ => None,
        }
    }

    /// Where the successor starts, if it has its name.
    pub(crate) fn successor_base(&self) -> Option<u64> {
        match &self.spare {
            Spare::Named(successor) => Some(successor.segment.file.superblock.base_lsn),
            _ => None,
        }
    }

    /// The successor, if it has its name, for the log to go on there. The name stays, whatever happens.
    pub(crate) fn take_successor(&mut self) -> Option<(ActiveSegment, Room)> {
        match std::mem::take(&mut self.spare) {
            Spare::Named(Successor { segment, spare }) => {
                self.name = None;
                Some((segment, spare.room))
            }
            other => {
                self.spare = other;
                None
            }
        }
    }

    /// Whether the active segment's file is being changed, or its end decided.
    pub(crate) fn changes_segment(&self) -> bool {
        self.zeroing.is_some() || self.reserving || matches!(self.spare, Spare::Naming)
    }

    /// Whether something could not be prepared, most likely for lack of space.
    pub(crate) fn is_short(&self) -> bool {
        self.gave_up
    }

    fn is_busy(&self) -> bool {
        self.changes_segment() || matches!(self.spare, Spare::Making)
    }
}

impl Core {
    /// Whether there is something to prepare.
    pub(crate) fn wants_preparing(&self, guard: &State) -> bool {
        guard.prepared.sealed.is_some()
            || self.next_zeros(guard).is_some()
            || self.next_space(guard).is_some()
            || self.wants_spare(guard)
            || self.next_name(guard).is_some()
    }

    fn may_prepare(&self, guard: &State) -> bool {
        matches!(self.home, Home::Directory { .. })
            // Who only reads changes nothing.
            && guard.stats.groups > 0
            && !(guard.frozen || guard.closed || guard.stopped.is_some())
            && !(guard.prepared.is_busy() || guard.prepared.gave_up)
    }

    /// Where to write zeros next.
    fn next_zeros(&self, guard: &State) -> Option<Range<u64>> {
        if !self.may_prepare(guard) || !guard.prepared.small {
            return None;
        }
        let base = guard.active.file.superblock.base_lsn;
        let (wanted, step, limit) = self.ahead(guard);
        if guard.prepared.filled >= wanted {
            return None;
        }
        let block = DATA_OFFSET;
        let free = guard.prepared.filled.max(guard.end.lsn).max(guard.open_end);
        let start = base + (free - base).next_multiple_of(block);
        let end = start.saturating_add(step).min(limit);
        let end = base + (end - base) / block * block;
        (start < end).then_some(start..end)
    }

    /// What space to reserve next.
    fn next_space(&self, guard: &State) -> Option<Range<u64>> {
        if !self.may_prepare(guard) || guard.prepared.small {
            return None;
        }
        let (_, _, limit) = self.ahead(guard);
        let start = guard.reserved;
        // Durable writes wait meanwhile: seldom, therefore, and long before.
        let len = guard.stats.bytes_written.clamp(4 * CHUNK_MIN, RESERVED_MAX);
        let wanted = guard.end.lsn.saturating_add(len).min(limit);
        (start < wanted).then(|| start..start.saturating_add(len).min(limit)).filter(|range| !range.is_empty())
    }

    /// What the next segment has in advance, so that the writer goes on there at the speed it has.
    fn spare_room(&self, guard: &State) -> Room {
        let Room { reserve, zeroed } = first_room(&self.options);
        let more = guard.stats.bytes_written.min(AHEAD_MAX).min(self.options.segment_room());
        Room { reserve: reserve.max(more), zeroed: zeroed.max(usize::try_from(more).unwrap_or(zeroed)) }
    }

    /// How far there should be something prepared, how much to prepare at a time, and where the segment ends. In proportion to what was
    /// written since the log was opened, so that a small log stays small.
    fn ahead(&self, guard: &State) -> (u64, u64, u64) {
        let base = guard.active.file.superblock.base_lsn;
        let used = guard.stats.bytes_written;
        let limit = base.saturating_add(self.options.segment_room());
        let wanted = guard.end.lsn.saturating_add(used.clamp(CHUNK_MIN, AHEAD_MAX));
        (wanted.min(limit), used.clamp(CHUNK_MIN, CHUNK_MAX), limit)
    }

    fn wants_spare(&self, guard: &State) -> bool {
        // Taking a name away makes a file spare, too.
        let none = matches!(guard.prepared.spare, Spare::None) && guard.prepared.name.is_none();
        none && self.may_prepare(guard) && self.is_half_full(guard)
    }

    fn is_half_full(&self, guard: &State) -> bool {
        guard.active.offset(guard.end.lsn) > self.options.segment_size / 2
    }

    /// Where the successor is to start, when it is to get its name now: a segment that is rotated out of in the ordinary way ends where its file is as
    /// long as it is to be. That is behind the end of the log and a seal, and stays behind whatever may be noted there before the name is taken away.
    fn next_name(&self, guard: &State) -> Option<u64> {
        if !self.may_prepare(guard) || !self.is_half_full(guard) || !matches!(guard.prepared.spare, Spare::Ready(_)) {
            return None;
        }
        let base = guard.active.file.superblock.base_lsn.saturating_add(self.options.segment_room());
        (guard.end.lsn + seal_len(guard.index.entries.len()) as u64 <= base).then_some(base)
    }

    /// Has prepared what is wanted: by the thread for it, or inline where there must be none.
    pub(crate) fn prepare(&self) {
        let Home::Directory { fs, .. } = &self.home else { return };
        if !fs.background() {
            while self.prepare_next() {}
            return;
        }
        let mut guard = self.lock();
        if guard.preparer.is_none() && !guard.closed {
            let Some(core) = self.myself.upgrade() else { return };
            // Without the thread nothing is prepared, and all goes on.
            let spawned =
                thread::Builder::new().name("cairn-prepare".into()).spawn(move || core.prepare_until_closed());
            guard.preparer = spawned.ok();
        }
        drop(guard);
        self.wanted.bump();
        self.wanted.wake_one();
    }

    fn prepare_until_closed(&self) {
        loop {
            let seen = self.wanted.load();
            while self.prepare_next() {}
            let guard = self.lock();
            if guard.closed || guard.stopped.is_some() {
                return;
            }
            drop(guard);
            self.wanted.wait(seen);
        }
    }

    /// Removes the spare file, and those that could become one. Nobody prepares any more.
    pub(crate) fn drop_spares(&self) {
        let Home::Directory { fs, dir, .. } = &self.home else { return };
        let mut guard = self.lock();
        let spare = guard.prepared.take_spare().map(|_| dir.join(SPARE_NAME));
        let name = guard.prepared.name.take();
        drop(guard);
        for path in spare.into_iter().chain(name) {
            // It is removed by the next writer otherwise.
            let _ = fs.remove(&path);
        }
        self.remove_dropped();
    }

    /// Removes the files of dropped segments that are kept to be written on; whether there were any.
    pub(crate) fn remove_dropped(&self) -> bool {
        let Home::Directory { fs, .. } = &self.home else { return false };
        let dropped = std::mem::take(&mut self.lock().dropped);
        for path in &dropped {
            // They are removed by the next writer otherwise.
            let _ = fs.remove(path);
        }
        !dropped.is_empty()
    }

    /// Does what is to be prepared now; returns whether there was anything.
    pub(crate) fn prepare_next(&self) -> bool {
        let Home::Directory { fs, dir, .. } = &self.home else {
            return false;
        };
        let mut guard = self.lock();
        let job = if let Some((store, len)) = guard.prepared.sealed.take() {
            Job::Trim { store, len }
        } else if let Some(range) = self.next_zeros(&guard) {
            guard.prepared.zeroing = Some(range.clone());
            let active = &guard.active;
            Job::Zero { path: active.file.path.clone(), offset: active.offset(range.start), range }
        } else if let Some(range) = self.next_space(&guard) {
            guard.prepared.reserving = true;
            let active = &guard.active;
            Job::Reserve { store: active.store.clone(), offset: active.offset(range.start), range }
        } else if self.wants_spare(&guard) {
            guard.prepared.spare = Spare::Making;
            let path = dir.join(SPARE_NAME);
            match guard.dropped.pop() {
                Some(from) => Job::Recycle { from, path },
                None => Job::Spare { path, room: self.spare_room(&guard) },
            }
        } else if let Some(base) = self.next_name(&guard)
            && let Some(spare) = guard.prepared.take_spare()
        {
            let base = Place { lsn: base, seq: OPEN_SEQ };
            let superblock = guard.superblock_in(&self.options, base, Some(&spare), &**fs);
            guard.prepared.spare = Spare::Naming;
            guard.prepared.name = Some(segment::path_of(dir, &superblock));
            Job::Name { superblock, spare }
        } else {
            return false;
        };
        drop(guard);
        match job {
            Job::Trim { store, len } => {
                // It may stay as it is: nothing behind a seal is looked at.
                let _ = store.truncate(len);
            }
            Job::Zero { path, range, offset } => {
                let done = write_zeros(&**fs, &path, offset, range.end - range.start);
                let mut guard = self.lock();
                guard.prepared.zeroing = None;
                match done {
                    Ok(()) => {
                        guard.prepared.filled = range.end;
                        guard.reserved = guard.reserved.max(range.end);
                    }
                    Err(_) => guard.prepared.gave_up = true,
                }
            }
            Job::Reserve { store, range, offset } => {
                let done = store.preallocate(offset, range.end - range.start);
                let mut guard = self.lock();
                guard.prepared.reserving = false;
                match done {
                    Ok(()) => guard.reserved = guard.reserved.max(range.end),
                    Err(_) => guard.prepared.gave_up = true,
                }
            }
            Job::Spare { path, room } => {
                let made = segment::make_spare(&**fs, &path, room);
                let mut guard = self.lock();
                match made {
                    Ok(file) => guard.prepared.spare = Spare::Ready(SpareFile { file, room, recycled_len: 0 }),
                    Err(_) => {
                        guard.prepared.spare = Spare::None;
                        guard.prepared.gave_up = true;
                    }
                }
            }
            Job::Recycle { from, path } => {
                let recycled = segment::recycle(&**fs, dir, &from, &path, self.options.segment_size);
                // If it cannot be, the next look finds another one, or makes a new file.
                self.lock().prepared.spare = recycled.map_or(Spare::None, Spare::Ready);
            }
            Job::Name { superblock, spare } => {
                let file = Some(spare.file.clone());
                let named = segment::create(&self.options, dir, superblock, spare.room, file, |_| Ok(()));
                let mut guard = self.lock();
                guard.prepared.spare = match named {
                    Ok(segment) => Spare::Named(Successor { segment, spare }),
                    Err(error) => {
                        guard.prepared.gave_up = true;
                        if let CreateError::Unchanged(_) = error {
                            guard.prepared.name = None;
                        }
                        Spare::None
                    }
                };
            }
        }
        self.progress.notify(usize::MAX);
        true
    }
}

impl<'a> Leading<'a> {
    /// In a frozen log: takes the successor's name away, for good; its file is spare again. Nothing has changed when that fails, and it may be tried again.
    ///
    /// What follows when a name stays: 1. the head moves, and files of dropped segments go, 2. the log goes on in the successor, the superblock of which has the
    /// old head, 3. power fails, and those files are missed. Or: 1. the segment ends elsewhere, and two more begin, 2. power fails, and the name stands in the
    /// middle of one of them. Or: 1. a new generation starts, 2. the log goes on in a successor that it superseded.
    ///
    /// It is gone for good before the file gets another superblock. Otherwise: 1. that one is written, 2. power fails, 3. the old name is back, and tells
    /// something else than it.
    pub(crate) fn retract_successor(&self, mut guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let (Home::Directory { fs, dir, .. }, Some(name)) = (&self.home, guard.prepared.name.clone()) else {
            return (guard, Ok(()));
        };
        if mutation::is(Mutation::KeepSuccessor) {
            return (guard, Ok(()));
        }
        let spare = std::mem::take(&mut guard.prepared.spare);
        let (mut guard, retracted) = self.unlocked(guard, || {
            let renamed = match fs.rename(&name, &dir.join(SPARE_NAME)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("rename", &name, e)),
                _ => Ok(()),
            };
            let haste = mutation::is(Mutation::RetractInHaste);
            let sync = || if haste { Ok(()) } else { fs.sync_dir(dir) };
            renamed.and_then(|()| sync().map_err(|e| Error::io("sync directory", dir, e)))
        });
        if retracted.is_ok() {
            guard.prepared.name = None;
            if let Spare::Named(successor) = spare {
                guard.prepared.spare = Spare::Ready(successor.spare);
            }
        }
        (guard, retracted)
    }
}

impl State {
    /// The superblock of a segment of the same generation that is to start at `base`, in the file `spare` if there is one.
    pub(crate) fn superblock_in(
        &self,
        options: &Options,
        base: Place,
        spare: Option<&SpareFile>,
        fs: &dyn Fs,
    ) -> Superblock {
        let recycled_len = spare.map_or(0, |spare| spare.recycled_len);
        let noted = if mutation::is(Mutation::ForgetRecycled) { 0 } else { recycled_len };
        Superblock { recycled_len: noted, ..self.superblock(options, self.generation(), base, fs) }
    }
}

/// Writes zeros over a range of a file, through handles of its own, and makes them durable.
///
/// Past the page cache where that can be: a barrier of the writer's would otherwise wait for them, too.
fn write_zeros(fs: &dyn Fs, path: &Path, offset: u64, len: u64) -> io::Result<()> {
    let buffered = fs.open(path, Access::ReadWrite)?;
    reserve(&*buffered, offset, len)?;
    zero(fs, path, &*buffered, offset, len)
}

/// Reserves a range of a file, where that can be done.
pub(crate) fn reserve(file: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    match file.allocate(offset, len) {
        Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(e),
        _ => Ok(()),
    }
}

/// Makes a range of a file durable zeros, through `buffered` or a direct handle of its own.
pub(crate) fn zero(fs: &dyn Fs, path: &Path, buffered: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    let memory = Slot::new(usize::try_from(len.min(CHUNK_MAX)).map_err(|_| io::ErrorKind::InvalidInput)?);
    let zeros = memory.contents().map_err(|_| io::ErrorKind::Other)?;
    let write = |file: &dyn File| {
        (offset..offset + len).step_by(zeros.len().max(1)).try_for_each(|at| {
            let rest = usize::try_from(offset + len - at).unwrap_or(usize::MAX);
            write_all_at(file, at, &[IoSlice::new(&zeros[..zeros.len().min(rest)])])
        })
    };
    if let Ok(direct) = fs.open_direct(path)
        && write(&*direct).is_ok()
    {
        return Ok(());
    }
    write(buffered)?;
    buffered.sync_data()
}

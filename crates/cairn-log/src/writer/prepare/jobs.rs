//! What is prepared ahead of the writer, done.

use std::io;
use std::ops::Range;

use cairn_io::Store;

use crate::error::{Failure, Result};
use crate::format::{OPEN_SEQ, SegmentName, Superblock};
use crate::layout::{CreateError, Layout};
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::place::{FileOffset, Lsn, Place};
use crate::segment::file::SegmentFile;
use crate::segment::space::{Room, SpareFile, keep_for_recovery, kept_bytes};
use crate::sync::{Arc, thread};
use crate::writer::core::Core;
use crate::writer::lead::Leading;
use crate::writer::prepare::plan::Step;
use crate::writer::prepare::{Spare, Successor};
use crate::writer::state::State;

/// A step with what it needs, to be run without the lock.
#[derive(Debug)]
enum Job {
    Trim { store: Arc<dyn Store>, len: u64 },
    Zero { segment: SegmentFile, range: Range<Lsn>, offset: FileOffset },
    Reserve { store: Arc<dyn Store>, range: Range<Lsn>, offset: FileOffset },
    MakeSpare { room: Room },
    Recycle { from: SegmentName },
    Name { superblock: Superblock, spare: SpareFile },
    Keep { bytes: u64 },
}

/// What became of a job.
enum Done {
    Trimmed,
    Zeroed(Range<Lsn>, io::Result<()>),
    Reserved(Range<Lsn>, io::Result<()>),
    Made(io::Result<SpareFile>),
    Recycled(Option<SpareFile>),
    Named(std::result::Result<Box<Successor>, CreateError>),
    Kept(bool),
}

impl Core {
    /// Whether a thread would find something to prepare now.
    pub(crate) fn wants_preparing(&self, state: &State) -> bool {
        self.layout.rotates()
            && state.prepared.is_free()
            && state.situation(&self.options).plan().is_some()
    }

    /// Has prepared what is wanted: by the thread for it, or by the calling thread where there
    /// must be no other. Both do the same jobs, and one thread of the two at a time does one.
    pub(crate) fn prepare(&self) {
        if !self.layout.background() {
            while self.prepare_next() {}
            return;
        }
        let mut guard = self.lock();
        if guard.preparer.is_none() && !guard.phase.is_abandoned() {
            let Some(core) = self.myself.upgrade() else { return };
            // Without the thread nothing is prepared, and all goes on.
            let spawned = thread::Builder::new()
                .name("cairn-prepare".into())
                .spawn(move || core.prepare_until_closed());
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
            if guard.phase.is_over() {
                return;
            }
            drop(guard);
            self.wanted.wait(seen);
        }
    }

    /// Removes the spare file, and those that could become one. No thread prepares any more.
    pub(crate) fn drop_spares(&self) {
        let mut guard = self.lock();
        let spare = guard.prepared.take_spare();
        let name = guard.prepared.name.take();
        drop(guard);
        if spare.is_some() {
            self.layout.discard_spare();
        }
        self.layout.discard(name.as_slice());
        self.remove_dropped();
    }

    /// Removes the files of dropped segments that are kept to be written on; whether there were
    /// any.
    pub(crate) fn remove_dropped(&self) -> bool {
        let dropped = std::mem::take(&mut self.lock().dropped);
        self.layout.discard(&dropped);
        !dropped.is_empty()
    }

    /// Does what is to be prepared now; returns whether there was anything, and no other thread was
    /// at it.
    ///
    /// One thread at a time ([`Prepared::claimed`](super::Prepared)). With two: 1. T makes the file
    /// A under the name for spare files, 2. M, which rotates meanwhile and takes nothing for
    /// granted, removes that name and makes the file B under it, 3. T writes a superblock into A
    /// and renames B, 4. the log goes on in A, which has no name, and acknowledges records there.
    pub(crate) fn prepare_next(&self) -> bool {
        if !self.layout.rotates() {
            return false;
        }
        let mut guard = self.lock();
        if !guard.prepared.is_free() {
            return false;
        }
        let Some(step) = guard.situation(&self.options).plan() else { return false };
        let Some(job) = guard.claim(step, &self.options) else { return false };
        drop(guard);
        let claim = Claim(self);
        let done = job.run(&*self.layout);
        std::mem::forget(claim);
        self.lock().take_note(done);
        self.progress.notify(usize::MAX);
        true
    }
}

/// While a job runs: if it panics, the writer stops and no thread waits for the job.
struct Claim<'a>(&'a Core);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut guard = self.0.lock();
        guard.prepared.abort();
        self.0.stop(&mut guard, Failure::Panicked, None);
        drop(guard);
        self.0.progress.notify(usize::MAX);
        self.0.settle();
    }
}

impl State {
    /// Takes what the step needs, so that the writer counts with it. `None` when it is gone.
    fn claim(&mut self, step: Step, options: &Options) -> Option<Job> {
        let active = &self.active;
        let job = match step {
            Step::Trim => {
                let (store, len) = self.prepared.sealed.take()?;
                Job::Trim { store, len }
            }
            Step::Zero(range) => {
                let (segment, offset) = (active.file, active.offset(range.start));
                self.prepared.zeroing = Some(range.clone());
                Job::Zero { segment, offset, range }
            }
            Step::Reserve(range) => {
                let (store, offset) = (active.store.clone(), active.offset(range.start));
                self.prepared.reserving = true;
                Job::Reserve { store, offset, range }
            }
            Step::MakeSpare(room) => {
                self.prepared.spare = Spare::Making;
                Job::MakeSpare { room }
            }
            Step::Recycle => {
                let from = self.dropped.pop()?;
                self.prepared.spare = Spare::Making;
                Job::Recycle { from }
            }
            Step::Name(base) => {
                let spare = self.prepared.take_spare()?;
                let base = Place { lsn: base, seq: OPEN_SEQ };
                let superblock = self.superblock_in(options, base, Some(&spare));
                self.prepared.spare = Spare::Naming;
                self.prepared.name = Some(superblock.name());
                Job::Name { superblock, spare }
            }
            Step::Keep => {
                self.prepared.lacks_kept = false;
                Job::Keep { bytes: kept_bytes(options) }
            }
        };
        self.prepared.claimed = true;
        Some(job)
    }

    /// Takes over what a job brought. Each of them may fail without harm: the writer does without.
    fn take_note(&mut self, done: Done) {
        self.prepared.claimed = false;
        let failed = match done {
            Done::Trimmed => false,
            Done::Zeroed(range, zeroed) => {
                self.prepared.zeroing = None;
                if zeroed.is_ok() {
                    self.prepared.filled = range.end;
                    self.reserved = self.reserved.max(range.end);
                }
                zeroed.is_err()
            }
            Done::Reserved(range, reserved) => {
                self.prepared.reserving = false;
                if reserved.is_ok() {
                    self.reserved = self.reserved.max(range.end);
                }
                reserved.is_err()
            }
            Done::Made(made) => {
                let failed = made.is_err();
                self.prepared.spare = made.map_or(Spare::None, Spare::Ready);
                failed
            }
            // If it cannot be recycled, the next plan finds another one, or makes a new file.
            Done::Recycled(recycled) => {
                self.prepared.spare = recycled.map_or(Spare::None, Spare::Ready);
                false
            }
            Done::Named(Ok(successor)) => {
                self.prepared.spare = Spare::Named(successor);
                false
            }
            Done::Named(Err(error)) => {
                if let CreateError::Unchanged(_) = error {
                    self.prepared.name = None;
                }
                self.prepared.spare = Spare::None;
                true
            }
            Done::Kept(kept) => {
                self.prepared.lacks_kept |= !kept;
                !kept
            }
        };
        self.prepared.gave_up |= failed;
    }
}

impl Job {
    fn run(self, layout: &dyn Layout) -> Done {
        match self {
            Job::Trim { store, len } => {
                // It may stay as it is: nothing behind a seal is looked at.
                let _ = store.truncate(len);
                Done::Trimmed
            }
            Job::Zero { segment, range, offset } => {
                let zeroed = layout.zero(&segment, offset, range.end - range.start);
                Done::Zeroed(range, zeroed)
            }
            Job::Reserve { store, range, offset } => {
                let reserved = store.preallocate(offset.0, range.end - range.start);
                Done::Reserved(range, reserved)
            }
            Job::MakeSpare { room } => Done::Made(layout.make_spare(room)),
            Job::Recycle { from } => Done::Recycled(layout.recycle(from)),
            Job::Name { superblock, spare } => {
                let named = layout.create(superblock, spare.room, Some(spare.clone()));
                Done::Named(named.map(|segment| Box::new(Successor { segment, spare })))
            }
            Job::Keep { bytes } => {
                let kept = |lock| keep_for_recovery(lock, bytes);
                Done::Kept(layout.lock_file().is_none_or(kept))
            }
        }
    }
}

impl Leading<'_> {
    /// In a frozen log: takes the successor's name away, for good; its file is spare again. If it
    /// is unknown whether it is gone for good, the writer stops: no second barrier would tell.
    ///
    /// What follows when a name stays: 1. the head moves, and files of dropped segments go, 2. the
    /// log goes on in the successor, the superblock of which has the old head, 3. power fails, and
    /// those files are missed. Or: 1. the segment ends elsewhere, and two more begin, 2. power
    /// fails, and the name stands in the middle of one of them. Or: 1. a new generation starts, 2.
    /// the log goes on in a successor that it superseded.
    ///
    /// It is gone for good before the file gets another superblock. Otherwise: 1. that one is
    /// written, 2. power fails, 3. the old name is back, and tells something else than it.
    pub(crate) fn retract_successor(&mut self) -> Result<()> {
        let core = self.core;
        let Some(name) = self.prepared.name else { return Ok(()) };
        if mutation::is(Mutation::KeepSuccessor) {
            return Ok(());
        }
        let spare = std::mem::take(&mut self.prepared.spare);
        let is_spare = match self.unlocked(|| core.layout.retract(name)) {
            Ok(is_spare) => {
                self.prepared.name = None;
                is_spare
            }
            Err(CreateError::Unchanged(error)) => {
                self.prepared.spare = spare;
                return Err(error);
            }
            Err(CreateError::Unknown(error)) => {
                return Err(self.stop(Failure::from(error), None));
            }
        };
        if let Spare::Named(successor) = spare
            && is_spare
        {
            self.prepared.spare = Spare::Ready(successor.spare);
        }
        Ok(())
    }
}

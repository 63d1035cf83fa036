//! Opening a log in a directory: look, decide, and only then act.
//!
//! | what is found | what is done |
//! |---|---|
//! | no segment | a first one is created |
//! | anything in [`Survey::problems`](crate::survey::Survey), or a corrupt end | refused; nothing is changed |
//! | a clean close | the last segment is written on, its mark first, again |
//! | an unclean end, torn or not | a new generation: what lies above the watermark is carried over, synced, and only then called durable |
//!
//! Why the carrying, when everything verifies: 1. a barrier failed, the process died of it, 2. it is started again in the same boot, 3. the page
//! cache shows the record although the disk never got it, and a new barrier says Ok, 4. the record is acknowledged, 5. the page is evicted, or power
//! fails, and it is gone (L03, L51, L53). Only bytes that this process wrote, through a descriptor it has kept since, can be made durable.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Access, File, Fs};

use crate::commit::{Home, NOTES};
use crate::error::{Error, Result};
use crate::format::{DATA_OFFSET, GROUP_HEADER_LEN, Superblock};
use crate::mutation::{self, Mutation};
use crate::options::{EndState, OpenReport, Options};
use crate::rotation::{first_room, start_generation};
use crate::segment::{self, ActiveSegment, LOCK_NAME};
use crate::state::{Opened, Place, unix_ns};
use crate::survey::{SegmentFile, Survey};
use crate::tail::{Ending, Tail};
use crate::truncation::generation_base;

/// Opens or creates the log in `dir`.
pub(crate) fn open(options: &Options, dir: &Path) -> Result<(Home, Opened, OpenReport)> {
    let fs = &*options.fs;
    // Without a lock file there may be nothing of ours here: then not even that file is left behind. With one, the first look is the one under the lock:
    // the last segment is read once.
    match fs.list(dir) {
        Ok(names) if names.iter().any(|name| name == LOCK_NAME) => {}
        Ok(_) => drop(Survey::take(fs, dir)?.check()?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => create_directory(fs, dir)?,
        Err(e) => return Err(Error::io("list", dir, e)),
    }
    let lock = take_lock(fs, dir)?;
    // Looked at anew: what was seen before may have been another writer's half-done work.
    let survey = Survey::take(fs, dir)?;
    let tail = survey.check()?;
    // A name that can be listed need not be durable: who gave it may have died before the barrier.
    if !mutation::is(Mutation::TrustListedNames) {
        fs.sync_dir(dir).map_err(|e| Error::io("sync directory", dir, e))?;
    }
    let home = Home::Directory { fs: options.fs.clone(), dir: dir.to_owned(), _lock: lock };
    let (opened, report) = match (survey.active().cloned(), tail) {
        (Some(file), Some(tail)) if tail.ending == Ending::Closed => go_on(options, survey, &file, tail)?,
        (Some(file), Some(tail)) => recover(options, dir, survey, &file, tail)?,
        _ => create_first(options, dir, survey)?,
    };
    Ok((home, opened, report))
}

impl Survey {
    /// The end of the log if nothing keeps it from being opened; `None` when there is no log yet.
    fn check(&self) -> Result<Option<Tail>> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        let Some(mut tail) = self.tail.clone() else {
            return Ok(None);
        };
        if let Ending::Corrupt(corruption) = &tail.ending {
            if !mutation::is(Mutation::CutBelowWatermark) {
                return Err(Error::Corrupt(corruption.clone()));
            }
            tail.ending = Ending::Torn { bytes: 0 };
        }
        Ok(Some(tail))
    }
}

fn create_directory(fs: &dyn Fs, dir: &Path) -> Result<()> {
    match fs.create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create directory", dir, e)),
        _ => Ok(()),
    }
}

/// Makes the name of the log's directory durable, before anything in it is. Also when the directory was there: who made it may have died, or been
/// refused, before this. Where the parent may not be looked at, whoever may made the directory, and answers for its name.
fn sync_parent(fs: &dyn Fs, dir: &Path) -> Result<()> {
    if mutation::is(Mutation::SkipParentSync) {
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs.sync_dir(parent) {
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(Error::io("sync directory", parent, e)),
        _ => Ok(()),
    }
}

fn take_lock(fs: &dyn Fs, dir: &Path) -> Result<Arc<dyn File>> {
    let path = dir.join(LOCK_NAME);
    let file = match fs.create_new(&path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => fs.open(&path, Access::ReadWrite),
        created => created,
    };
    let file = file.map_err(|e| Error::io("open", &path, e))?;
    match file.try_lock() {
        Ok(true) => Ok(file),
        Ok(false) if mutation::is(Mutation::IgnoreLock) => Ok(file),
        Ok(false) => Err(Error::Locked { path: dir.to_owned() }),
        Err(e) => Err(Error::io("lock", &path, e)),
    }
}

/// Creates the first segment of a new log.
fn create_first(options: &Options, dir: &Path, survey: Survey) -> Result<(Opened, OpenReport)> {
    let fs = &*options.fs;
    sync_parent(fs, dir)?;
    let uuid = fs.random().map_err(|e| Error::io("get randomness for", dir, e))?;
    let superblock = Superblock::first(uuid, options.segment_size, unix_ns(fs));
    let room = first_room(options);
    let active = segment::create(options, dir, superblock, room, None, |_| Ok(()))?;
    let report = OpenReport { created: true, ..report(&survey, EndState::Closed, 1) };
    let opened = Opened {
        segments: vec![active.file.clone()],
        active,
        index: Default::default(),
        cuts: Vec::new(),
        head: Place::default(),
        origin: Place::default(),
        end: Place::default(),
        reserved: room.reserve,
        filled: room.zeroed as u64,
        mark: Vec::new(),
    };
    Ok((opened, report))
}

/// Goes on behind a clean close. The mark is written again with the first group, identically: it may be in the page cache alone.
fn go_on(options: &Options, survey: Survey, file: &SegmentFile, tail: Tail) -> Result<(Opened, OpenReport)> {
    let fs = &*options.fs;
    let handle = fs.open(&file.path, Access::ReadWrite).map_err(|e| Error::io("open", &file.path, e))?;
    let store = segment::store_of(options, &file.path, handle);
    let mark = match tail.mark {
        Some(mark) => {
            segment::encode_mark(mark.lsn, mark.first_seq, mark.generation, crate::format::Seed::of_log(survey.uuid))
                .to_vec()
        }
        None => Vec::new(),
    };
    let mark = if mutation::is(Mutation::TrustMark) { Vec::new() } else { mark };
    let removed = remove_obsolete(fs, &survey)?;
    let report = OpenReport {
        records_scanned: tail.records,
        removed,
        ..report(&survey, EndState::Closed, file.superblock.generation)
    };
    let reserved = file.superblock.base_lsn + file.file_len.saturating_sub(DATA_OFFSET);
    let opened = Opened {
        active: ActiveSegment { file: file.clone(), store },
        segments: survey.segments,
        index: tail.index,
        cuts: Vec::new(),
        head: survey.head,
        origin: Place::default(),
        end: Place { lsn: tail.end_lsn, seq: tail.next_seq },
        reserved,
        filled: 0,
        mark,
    };
    Ok((opened, report))
}

/// After an unclean end: starts a new generation at the watermark, or at the segment's beginning if that is near.
fn recover(
    options: &Options,
    dir: &Path,
    mut survey: Survey,
    file: &SegmentFile,
    tail: Tail,
) -> Result<(Opened, OpenReport)> {
    let fs = &*options.fs;
    let mut end = Place { lsn: tail.end_lsn, seq: tail.next_seq };
    let watermark = Place { lsn: tail.watermark, seq: tail.watermark_seq };
    if mutation::is(Mutation::DropAboveWatermark) {
        end = watermark;
    }
    if mutation::is(Mutation::CutBelowWatermark) {
        end = file.base();
    }
    let (cut, ending) = match tail.ending {
        Ending::Torn { bytes } => (bytes, EndState::Torn { bytes }),
        _ => (0, EndState::Unclosed),
    };
    if mutation::is(Mutation::TrustWhatIsReadable) {
        let (mut opened, report) = go_on(options, survey, file, tail)?;
        opened.mark = Vec::new();
        return Ok((opened, report));
    }
    let base = generation_base(file.base(), watermark, end.lsn);
    let step = if mutation::is(Mutation::KeepGeneration) { 0 } else { 1 };
    let generation = survey.generation.checked_add(step);
    let generation =
        generation.ok_or_else(|| Error::io("start a generation in", dir, io::ErrorKind::FileTooLarge.into()))?;
    let superblock = Superblock {
        uuid: survey.uuid,
        generation,
        base_lsn: base.lsn,
        base_seq: base.seq,
        head_lsn: survey.head.lsn,
        head_seq: survey.head.seq,
        segment_size: options.segment_size,
        created_unix_ns: unix_ns(fs),
        recycled_len: 0,
    };
    let active = start_generation(options, dir, superblock, file, end)?;
    let kept = survey.segments.partition_point(|s| s.superblock.base_lsn < base.lsn);
    let superseded = survey.segments.split_off(kept).into_iter().map(|s| s.path);
    survey.obsolete.extend(superseded.filter(|path| *path != active.file.path));
    survey.segments.push(active.file.clone());
    let removed = remove_obsolete(fs, &survey)?;
    let report = OpenReport {
        records_scanned: tail.records,
        bytes_carried: end.lsn - base.lsn,
        bytes_cut: cut,
        removed,
        ..report(&survey, ending, generation)
    };
    let end = Place { lsn: end.lsn + GROUP_HEADER_LEN as u64, seq: end.seq };
    let opened = Opened {
        segments: survey.segments,
        active,
        index: Default::default(),
        cuts: Vec::new(),
        head: survey.head,
        origin: Place::default(),
        end,
        reserved: end.lsn + NOTES,
        filled: 0,
        mark: Vec::new(),
    };
    Ok((opened, report))
}

/// Removes what an interrupted cut, rotation or truncation left. Nothing in it belongs to the log any more.
fn remove_obsolete(fs: &dyn Fs, survey: &Survey) -> Result<Vec<std::path::PathBuf>> {
    if let Some(spare) = &survey.spare {
        // The writer makes it anew, over this one if need be.
        let _ = fs.remove(spare);
    }
    segment::remove(fs, &survey.dir, survey.obsolete.clone())
}

fn report(survey: &Survey, end_state: EndState, generation: u32) -> OpenReport {
    OpenReport {
        created: false,
        end_state,
        segments: survey.segments.len().max(1),
        records_scanned: 0,
        bytes_carried: 0,
        bytes_cut: 0,
        generation,
        removed: Vec::new(),
        strays: survey.strays.clone(),
    }
}

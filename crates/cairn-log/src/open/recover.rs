//! Opening a log, in a directory or in a store: look, decide, and only then act.
//!
//! | what is found | what is done |
//! |---|---|
//! | no log | a first segment is created |
//! | anything in [`Survey::problems`](crate::open::survey::Survey) | refused; nothing is changed |
//! | an end | what its row of the [table](crate::open::cases) says |
//!
//! Why the carrying, when everything verifies: 1. a barrier failed, the process died of it, 2. it
//! is started again in the same boot, 3. the page cache shows the record although the disk never
//! got it, and a new barrier says Ok, 4. the record is acknowledged, 5. the page is evicted, or
//! power fails, and it is gone (L03, L51, L53). Only bytes that this process wrote, through a
//! descriptor it has kept since, can be made durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::Store;

use crate::clock::unix_ns;
use crate::error::{Error, Result};
use crate::format::{
    CutNote, DATA_OFFSET, GROUP_HEADER_LEN, Openings, Seed, SegmentName, StateRecord, Superblock,
};
use crate::layout::directory::{Directory, LOCK_NAME};
use crate::layout::store::StoreRoom;
use crate::layout::{CreateError, Layout, Started};
use crate::mutation::{self, Mutation};
use crate::open::cases::{Act, EndCase};
use crate::open::cutters::announce_cut;
use crate::open::histories::groups_from;
use crate::open::segments::survey_directory;
use crate::open::stores::survey_store;
use crate::open::survey::{End, Survey};
use crate::open::tail::Tail;
use crate::options::{EndState, OpenReport, Options, Recovery};
use crate::place::{Epoch, FileOffset, Lsn, Place};
use crate::repair::Repair;
use crate::segment::carry::Boundary;
use crate::segment::file::{ActiveSegment, First, SegmentFile};
use crate::segment::space::{LEAST_ROOM, first_room, keep_for_recovery, kept_bytes, spend_kept};
use crate::writer::state::Opened;

/// A log that was opened.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Where it lives. No other writer opens the log as long as it is locked.
    pub(crate) layout: Arc<dyn Layout>,
    /// Where its writer starts.
    pub(crate) opened: Opened,
    pub(crate) report: OpenReport,
}

/// Opens or creates the log in `dir`.
pub(crate) fn open_directory(options: &Options, dir: &Path) -> Result<Recovered> {
    let (directory, made) = Directory::for_writer(options, dir)?;
    // Without a lock file there may be nothing of ours here: then not even that file is left
    // behind. With one, the first look is the one under the lock: the last segment is read once.
    let refuses = options.recovery == Recovery::Refuse;
    if refuses && !made && !directory.list()?.iter().any(|name| name == LOCK_NAME) {
        // Someone may have removed the lock file of a log that is open: what its writer is in the
        // middle of would be called damage.
        directory.lock_itself()?;
        survey_directory(&directory)?.check(&directory)?;
    }
    directory.lock()?;
    // Looked at anew: what was seen before may have been another writer's half-done work.
    let directory = Arc::new(directory);
    let mut survey = survey_directory(&directory)?;
    if !refuses && survey.check(&*directory).is_err() {
        Repair::of_locked(directory.clone(), |_| ())?;
        survey = survey_directory(&directory)?;
    }
    survey.check(&*directory)?;
    if survey.end.is_none() {
        directory.make_state()?;
    }
    // A name that can be listed need not be durable: the process that gave it may have died before
    // the barrier.
    if !mutation::is(Mutation::TrustListedNames) {
        directory.sync()?;
    }
    if survey.end.is_none() {
        directory.sync_parent(made)?;
    }
    let mut recovered = act(options, directory.clone(), survey)?;
    let segments: Vec<SegmentFile> = recovered.opened.segments.iter().copied().collect();
    directory.forget_gaps_but_of(&segments)?;
    recovered.report.gaps = directory.told_gaps(&segments);
    Ok(recovered)
}

/// Opens or creates the log in `store`.
pub(crate) fn open_store(options: &Options, store: Arc<dyn Store>) -> Result<Recovered> {
    let room = StoreRoom::new(store);
    let survey = survey_store(&room)?;
    survey.check(&room)?;
    act(options, Arc::new(room), survey)
}

/// Does what the survey asks for, which found nothing that keeps the log from being opened.
fn act(options: &Options, layout: Arc<dyn Layout>, mut survey: Survey) -> Result<Recovered> {
    let mut state = survey.state;
    let epoch = match state {
        Some(state) if mutation::is(Mutation::StaleEpoch) => state.epoch,
        _ => Epoch(random(options, &*layout)?.0),
    };
    let (mut opened, report) = match (survey.active().copied(), survey.end.take()) {
        (Some(file), Some(end)) if end.case.act() == Act::GoOn => {
            go_on(&*layout, survey, epoch, &file, end)?
        }
        (Some(file), Some(end)) => {
            state = announce_cut(&*layout, state, &survey.segments, epoch)?;
            carry(options, &*layout, survey, epoch, &file, end)?
        }
        _ => create(options, &*layout, &survey, epoch)?,
    };
    opened.stated = opened.state(state);
    if !mutation::is(Mutation::RecordsBeforeState) {
        layout.keep_state(&opened.stated)?;
    }
    if let Some(lock) = layout.lock_file() {
        opened.keeps_space = keep_for_recovery(lock, kept_bytes(options));
    }
    Ok(Recovered { layout, opened, report })
}

/// Randomness: eight bytes of it as a number, and all.
fn random(options: &Options, layout: &dyn Layout) -> Result<(u64, [u8; 16])> {
    let random = options.fs.random();
    let bytes = random.map_err(|e| Error::io("get randomness for", layout.path(), e))?;
    let (half, _) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
    // Zero is no opening.
    Ok((u64::from_le_bytes(*half).max(1), bytes))
}

impl Opened {
    /// What is true of the log now that it is about to be written to; `before` was true until then.
    ///
    /// The mark of an earlier process may be in the page cache alone: what it stands behind is
    /// durable, it is not.
    fn state(&self, before: Option<StateRecord>) -> StateRecord {
        let superblock = self.active.file.superblock;
        StateRecord {
            uuid: superblock.uuid,
            number: before.map_or(1, |before| before.number.wrapping_add(1)),
            epoch: self.active.epoch,
            closed: false,
            generation: superblock.generation,
            durable_lsn: Lsn(self.end.lsn.0 - self.mark.len() as u64),
            lsn: self.end.lsn,
            seq: self.end.seq,
            previous: self.chain,
            cutters: Default::default(),
        }
    }
}

/// Creates the first segment of a new log.
fn create(
    options: &Options,
    layout: &dyn Layout,
    survey: &Survey,
    epoch: Epoch,
) -> Result<(Opened, OpenReport)> {
    let fs = &*options.fs;
    let (_, uuid) = random(options, layout)?;
    let base = options.create_at;
    let superblock = Superblock {
        created_unix_ns: unix_ns(fs),
        ..Superblock::first(uuid, epoch, base, options.segment_size)
    };
    let full = first_room(options);
    let (mut active, room) = match layout.create(superblock, full, None) {
        Err(CreateError::Unchanged(Error::Full { .. })) => {
            (layout.create(superblock, LEAST_ROOM, None)?, LEAST_ROOM)
        }
        made => (made?, full),
    };
    active.file.first = Some(First { previous: Default::default(), epoch });
    let report = OpenReport { created: true, ..report(survey, EndCase::EMPTY, 0, 1) };
    // A store has nothing zeroed in advance.
    let zeroed = if layout.rotates() { room.zeroed as u64 } else { 0 };
    let opened = Opened {
        segments: [active.file].into_iter().collect(),
        active,
        index: Default::default(),
        cuts: Vec::new(),
        head: base,
        origin: Place::default(),
        end: base,
        reserved: base.lsn.saturating_add(room.reserve),
        filled: base.lsn + zeroed,
        mark: Vec::new(),
        chain: Default::default(),
        stated: StateRecord::default(),
        known: Lsn::START,
        openings: Openings::default(),
        keeps_space: true,
    };
    Ok((opened, report))
}

/// Goes on behind a clean close. The mark is written again with the first group, identically: it
/// may be in the page cache alone.
fn go_on(
    layout: &dyn Layout,
    mut survey: Survey,
    epoch: Epoch,
    file: &SegmentFile,
    End { tail, case }: End,
) -> Result<(Opened, OpenReport)> {
    let first = First { previous: tail.at_end.chain, epoch };
    let file = &SegmentFile { first: file.first.or(Some(first)), ..*file };
    if let Some(last) = survey.segments.last_mut() {
        *last = *file;
    }
    let active = ActiveSegment { epoch, ..layout.resume(file)? };
    let mark = match tail.mark {
        Some(mark) if !mutation::is(Mutation::TrustMark) => {
            mark.encode(Seed::of_log(survey.uuid)).to_vec()
        }
        _ => Vec::new(),
    };
    trim_to_successors(layout, &survey);
    let removed = remove_obsolete(layout, &survey)?;
    let report = OpenReport {
        records_scanned: tail.records,
        removed,
        ..report(&survey, case, tail.torn_bytes, file.superblock.generation)
    };
    let opened = Opened {
        active,
        segments: survey.segments.into_iter().collect(),
        index: tail.index,
        cuts: tail.cuts,
        head: survey.head,
        origin: survey.origin,
        end: Place { lsn: tail.end_lsn, seq: tail.next_seq },
        reserved: file.file_end_lsn().max(tail.end_lsn),
        filled: Lsn::START,
        mark,
        chain: tail.at_end.chain,
        stated: StateRecord::default(),
        known: survey.known,
        openings: Openings::of(tail.link.map(|link| link.epoch)),
        keeps_space: true,
    };
    Ok((opened, report))
}

/// Gives back the bytes that segments have behind the base of their successor: space that a writer
/// reserved and did not give back durably, and groups that an earlier opening carried over, up to
/// `CARRIED_WHOLE_BYTES_MAX` for each crash. The opening that carries groups over does not trim
/// them: an inspection that began before would not find groups that it had listed.
fn trim_to_successors(layout: &dyn Layout, survey: &Survey) {
    for pair in survey.segments.windows(2) {
        let (next, segment) = (pair[1].superblock, &pair[0]);
        let rotated = next.generation == segment.superblock.generation;
        let keeps = mutation::is(Mutation::KeepSuperseded) && !rotated;
        if !keeps && segment.file_end_lsn() > next.base_lsn {
            layout.trim(segment.name(), segment.offset(next.base_lsn));
        }
    }
}

/// Gives back space that nothing of the log needs, so that an opening can do its work on a full
/// disk. Every state in between is one that opens the same way.
///
/// Segments without a group keep their names. Otherwise: 1. the seal before one is on the disk,
/// although its write failed, and is not in the page cache, 2. the name goes for good, 3. power
/// fails before the new generation has its name, and a sealed segment without a successor is a
/// loss.
fn make_room(layout: &dyn Layout, survey: &Survey, file: &SegmentFile, tail: &Tail) -> Result<()> {
    if mutation::is(Mutation::KeepSuperfluous) {
        return Ok(());
    }
    if survey.spare {
        layout.discard_spare();
    }
    layout.remove(&survey.obsolete[..survey.superseded])?;
    for name in &survey.empty {
        layout.trim(*name, FileOffset(DATA_OFFSET));
    }
    trim_to_successors(layout, survey);
    if tail.seal.is_none() {
        layout.trim(file.name(), file.offset(tail.end_lsn));
    }
    Ok(())
}

/// After an unclean end: starts a new generation, with what lies above the watermark.
fn carry(
    options: &Options,
    layout: &dyn Layout,
    mut survey: Survey,
    epoch: Epoch,
    file: &SegmentFile,
    found: End,
) -> Result<(Opened, OpenReport)> {
    if mutation::is(Mutation::TrustWhatIsReadable) {
        let (opened, report) = go_on(layout, survey, epoch, file, found)?;
        return Ok((Opened { mark: Vec::new(), ..opened }, report));
    }
    let End { tail, case } = found;
    let watermark = tail.at_watermark;
    let end = end_to_carry(&tail, file);
    let seal_end = tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(tail.end_lsn);
    let reached = tail.proven_lsn.max(seal_end).max(tail.end_lsn.saturating_add(tail.torn_bytes));
    survey.known = survey.known.max(reached);
    let superblock = next_generation(options, layout, &survey, epoch, file, &tail)?;
    let kept = keep_cut(options, layout, file, &tail);
    make_room(layout, &survey, file, &tail)?;
    let start = || layout.start_generation(superblock, file, watermark, end);
    let (started, kept_cut) = start_keeping(layout, start, kept)?;
    let end = end.place;
    let name = started.active.file.name();
    let kept = survey.segments.partition_point(|s| s.superblock.base_lsn < name.base_lsn);
    let superseded = survey.segments.split_off(kept).into_iter().map(|s| s.name());
    survey.obsolete.extend(superseded.filter(|superseded| *superseded != name));
    survey.segments.push(started.active.file);
    let removed = remove_obsolete(layout, &survey)?;
    let report = OpenReport {
        records_scanned: tail.records,
        bytes_carried: started.carried_bytes,
        bytes_cut: tail.torn_bytes,
        kept: kept_cut,
        removed,
        ..report(&survey, case, tail.torn_bytes, superblock.generation)
    };
    // Where a generation starts in place, the groups before it stay where they are.
    let (index, cuts) = if layout.rotates() { Default::default() } else { (tail.index, tail.cuts) };
    let opened = Opened {
        segments: survey.segments.into_iter().collect(),
        active: started.active,
        index,
        cuts,
        head: survey.head,
        origin: survey.origin,
        end: Place { lsn: end.lsn + GROUP_HEADER_LEN as u64, seq: end.seq },
        reserved: started.reserved,
        filled: Lsn::START,
        mark: Vec::new(),
        chain: started.chain,
        stated: StateRecord::default(),
        known: survey.known,
        openings: Openings::default(),
        keeps_space: true,
    };
    Ok((opened, report))
}

/// Starts a generation. What was cut is kept where there is room for it, and not otherwise.
fn start_keeping(
    layout: &dyn Layout,
    start: impl Fn() -> std::result::Result<Started, CreateError>,
    kept: Option<PathBuf>,
) -> std::result::Result<(Started, Option<PathBuf>), CreateError> {
    match start() {
        Err(CreateError::Unchanged(Error::Full { .. })) => {
            if kept.is_some() {
                layout.discard_cuts(0);
            }
            Ok((with_kept_space(layout, start)?, None))
        }
        started => Ok((started?, kept)),
    }
}

/// Keeps what is cut off, if it is to be kept, in a file beside. A log that is never closed has a
/// few of them.
fn keep_cut(
    options: &Options,
    layout: &dyn Layout,
    file: &SegmentFile,
    tail: &Tail,
) -> Option<PathBuf> {
    const LEFT: usize = 7;
    if tail.torn_bytes == 0 || !options.keep_cut {
        return None;
    }
    layout.discard_cuts(LEFT);
    layout.keep_cut(file, tail.end_lsn, tail.end_lsn.saturating_add(tail.torn_bytes))
}

/// Up to where the log is carried: all that verifies.
fn end_to_carry(tail: &Tail, file: &SegmentFile) -> Boundary {
    match () {
        () if mutation::is(Mutation::DropAboveWatermark) => tail.at_watermark,
        () if mutation::is(Mutation::CutBelowWatermark) => {
            Boundary { place: file.base(), ..tail.at_end }
        }
        () => tail.at_end,
    }
}

/// Does what needs space; where there is none, again with what was kept for that.
fn with_kept_space<T>(
    layout: &dyn Layout,
    act: impl Fn() -> std::result::Result<T, CreateError>,
) -> std::result::Result<T, CreateError> {
    match act() {
        Err(CreateError::Unchanged(Error::Full { .. }))
            if layout.lock_file().is_some_and(spend_kept) =>
        {
            act()
        }
        done => done,
    }
}

/// Who wrote the last groups of what is cut out of `file`, or superseded with it: what an earlier
/// cut left in the segment before included.
///
/// Of all that lies above the watermark: a power cut may leave any part of that in the file.
fn last_openings(
    layout: &dyn Layout,
    cut_epoch: Epoch,
    file: &SegmentFile,
    tail: &Tail,
) -> Result<Openings> {
    if !layout.rotates() {
        return Ok(Openings::default());
    }
    let end = tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(tail.end_lsn);
    let from = tail.at_watermark.group.unwrap_or(file.superblock.base_lsn);
    let groups = groups_from(layout.open(file, end)?, from);
    let openings = [cut_epoch].into_iter().chain(groups.map(|group| group.epoch));
    Ok(match file.superblock.cut.filter(|cut| cut.before.is_some()) {
        Some(cut) if !cut.openings.are_listed() => Openings::default(),
        Some(cut) => Openings::of(openings.chain(cut.openings.iter())),
        None => Openings::of(openings),
    })
}

/// The superblock of a generation that supersedes all that were seen; it starts in `file`.
fn next_generation(
    options: &Options,
    layout: &dyn Layout,
    survey: &Survey,
    epoch: Epoch,
    file: &SegmentFile,
    tail: &Tail,
) -> Result<Superblock> {
    let step = if mutation::is(Mutation::KeepGeneration) { 0 } else { 1 };
    let exhausted = Error::Exhausted { what: "generations" };
    let generation = survey.generation.checked_add(step).ok_or(exhausted)?;
    let base = file.base();
    let cut_epoch = survey.state.map_or(file.superblock.epoch, |state| state.epoch);
    let cut = CutNote {
        before: None,
        epoch: cut_epoch,
        lsn: base.lsn,
        known: survey.known.max(base.lsn),
        openings: last_openings(layout, cut_epoch, file, tail)?,
    };
    Ok(Superblock {
        uuid: survey.uuid,
        generation,
        base_lsn: base.lsn,
        base_seq: base.seq,
        head_lsn: survey.head.lsn,
        head_seq: survey.head.seq,
        segment_size: options.segment_size,
        created_unix_ns: unix_ns(&*options.fs),
        recycled_len: 0,
        epoch,
        cut: Some(cut),
    })
}

/// Removes what an interrupted cut, rotation or truncation left. Nothing in it belongs to the log
/// any more.
fn remove_obsolete(layout: &dyn Layout, survey: &Survey) -> Result<Vec<PathBuf>> {
    if survey.spare {
        // The writer makes it anew, over this one if need be.
        layout.discard_spare();
    }
    let names: &[SegmentName] = &survey.obsolete;
    layout.remove(names)
}

fn report(survey: &Survey, end_case: EndCase, torn_bytes: u64, generation: u32) -> OpenReport {
    OpenReport {
        created: false,
        end_state: EndState::of(end_case, torn_bytes),
        end_case,
        segments: survey.segments.len().max(1),
        records_scanned: 0,
        bytes_carried: 0,
        bytes_cut: 0,
        kept: None,
        generation,
        removed: Vec::new(),
        strays: survey.strays.clone(),
        gaps: Vec::new(),
    }
}

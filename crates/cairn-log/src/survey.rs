//! What is in a log's directory: which segments are the log, which were superseded, what is not ours. Reads only.
//!
//! A segment of generation `g` that starts at `B` supersedes everything at or after `B` in lower generations. What is left, ordered
//! by position, is the log: each segment ends where the next one starts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Access, File, FileStore, Fs, Store, read_full_at};
use uuid::Uuid;

use crate::Lsn;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    DATA_OFFSET, FORMAT_VERSION, GROUP_HEADER_LEN, GroupHeader, OPEN_SEQ, STORE_SIZE, SUPERBLOCK_LEN, Seed, Superblock,
    SuperblockError, is_place, parse_segment_name, segment_name,
};
use crate::mutation::{self, Mutation};
use crate::parallel::each;
use crate::segment::{self, path_of};
use crate::state::{Place, unix_ns};
use crate::tail::{self, Ending, Tail};
use crate::walk::Span;

/// A segment whose superblock verified.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) superblock: Superblock,
    /// Number of the first record, when the superblock or something else tells it.
    pub(crate) base_seq: Option<u64>,
    /// When the segment was begun, in nanoseconds since 1970, or later: the segment before it was not written to after that.
    pub(crate) begun_unix_ns: u64,
    /// Length of the file in bytes.
    pub(crate) file_len: u64,
}

impl SegmentFile {
    pub(crate) fn new(path: PathBuf, superblock: Superblock, file_len: u64) -> Self {
        let base_seq = Some(superblock.base_seq).filter(|seq| *seq != OPEN_SEQ);
        SegmentFile { path, superblock, base_seq, begun_unix_ns: superblock.created_unix_ns, file_len }
    }

    /// Where it starts. A number that nothing tells is 0: such a log is not opened.
    pub(crate) fn base(&self) -> Place {
        Place { lsn: self.superblock.base_lsn, seq: self.base_seq.unwrap_or(0) }
    }

    /// Takes note that its first record gets this number, and that it is begun now.
    pub(crate) fn begin(&mut self, seq: u64, now_unix_ns: u64) {
        self.base_seq = Some(seq);
        self.begun_unix_ns = now_unix_ns;
    }

    /// The header of the seal with which the segment ends at `end_lsn`, if it verifies.
    fn seal(&self, fs: &dyn Fs, end_lsn: u64) -> Option<GroupHeader> {
        tail::seal_before(&self.open(fs, end_lsn).ok()?)
    }

    /// One past the last position the file has bytes for.
    fn file_end_lsn(&self) -> u64 {
        self.superblock.base_lsn.saturating_add(self.file_len.saturating_sub(DATA_OFFSET))
    }

    /// Whether the file has lost its name: a truncation dropped it, and it may hold something else by now.
    pub(crate) fn is_gone(&self, fs: &dyn Fs) -> bool {
        fs.open(&self.path, Access::Read).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// The segment's readable part up to `end_lsn`, with a descriptor of its own.
    pub(crate) fn open(&self, fs: &dyn Fs, end_lsn: u64) -> Result<Span> {
        let file = fs.open(&self.path, Access::Read).map_err(|e| Error::io("open", &self.path, e))?;
        let span = self.span(Arc::new(FileStore::new(file)), end_lsn);
        Ok(Span { may_read_ahead: fs.background(), ..span })
    }

    pub(crate) fn span(&self, store: Arc<dyn Store>, end_lsn: u64) -> Span {
        Span {
            store,
            path: self.path.clone(),
            uuid: self.superblock.uuid,
            generation: self.superblock.generation,
            base_lsn: self.superblock.base_lsn,
            base_seq: self.base().seq,
            recycled: self.superblock.recycled_len > 0,
            end_lsn,
            may_read_ahead: false,
        }
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The log, by position. Segments below the head, whose removal was interrupted, are not among them.
    pub(crate) segments: Vec<SegmentFile>,
    /// Segments that no longer belong to the log and may be removed.
    pub(crate) obsolete: Vec<PathBuf>,
    /// Everything else that lies around; never touched.
    pub(crate) strays: Vec<PathBuf>,
    /// What an earlier writer had prepared for the next segment.
    pub(crate) spare: Option<PathBuf>,
    /// What keeps the log from being opened, in order of position. Empty when nothing does.
    pub(crate) problems: Vec<Error>,
    /// The highest generation seen, superseded ones included.
    pub(crate) generation: u32,
    /// The oldest record that still exists.
    pub(crate) head: Place,
    /// How the last segment ends; `None` when there is no segment.
    pub(crate) tail: Option<Tail>,
    pub(crate) uuid: Uuid,
    pub(crate) dir: PathBuf,
}

impl Survey {
    /// Looks at the directory `dir`, which exists.
    pub(crate) fn take(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let mut names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
        names.sort();
        let mut survey = Survey { dir: dir.to_owned(), ..Survey::default() };
        let mut named = Vec::new();
        for name in names {
            let path = dir.join(&name);
            let name = name.to_string_lossy();
            if let Some((base_lsn, generation)) = parse_segment_name(&name) {
                named.push((path, base_lsn));
                survey.generation = survey.generation.max(generation);
            } else if name == segment::SPARE_NAME {
                survey.spare = Some(path);
            } else if name != segment::TEMP_NAME && name != segment::LOCK_NAME {
                survey.strays.push(path);
            }
        }
        let mut found = Vec::new();
        let read = read_each(fs, named.len(), |i| read_superblock(fs, &named[i].0));
        for ((path, base_lsn), file) in named.iter().zip(read) {
            match file {
                Ok(file) if path_of(dir, &file.superblock) == *path => found.push(file),
                Ok(_) => survey.problems.push(Error::Corrupt(damaged(path, *base_lsn, CorruptionKind::Misnamed))),
                Err(problem) => survey.problems.push(problem),
            }
        }
        survey.arrange(found);
        survey.number(fs);
        survey.find_end(fs)?;
        survey.find_gaps(fs)?;
        Ok(survey)
    }

    /// The segment with the end of the log.
    pub(crate) fn active(&self) -> Option<&SegmentFile> {
        self.segments.last()
    }

    fn arrange(&mut self, mut found: Vec<SegmentFile>) {
        found.sort_by_key(|s| (s.superblock.base_lsn, s.superblock.generation));
        if let Some(expected) = found.first().map(|s| s.superblock.uuid) {
            self.uuid = expected;
            found.retain(|s| {
                let ours = s.superblock.uuid == expected;
                if !ours {
                    let (path, found) = (s.path.clone(), s.superblock.uuid);
                    self.problems.push(Error::WrongLog { path, expected, found });
                }
                ours
            });
        }
        let bounds: Vec<(u64, u32)> = found.iter().map(|s| (s.superblock.base_lsn, s.superblock.generation)).collect();
        let superseded = |s: &Superblock| bounds.iter().any(|(base, g)| *g > s.generation && *base <= s.base_lsn);
        let (obsolete, live): (Vec<_>, Vec<_>) = found.into_iter().partition(|s| superseded(&s.superblock));
        self.obsolete = obsolete.into_iter().map(|s| s.path).collect();
        self.segments = live;
    }

    /// Finds out what the superblocks of segments that were made ahead leave open: the number of their first record, and when they were begun.
    fn number(&mut self, fs: &dyn Fs) {
        let made_ahead = |i: &usize| self.segments[*i].superblock.base_seq == OPEN_SEQ;
        let open: Vec<usize> = (0..self.segments.len()).filter(made_ahead).collect();
        let seals = read_each(fs, open.len(), |i| self.seal_before(fs, open[i]).ok_or(()));
        for (i, seal) in open.into_iter().zip(seals) {
            self.number_segment(fs, i, seal.ok());
        }
    }

    /// The seal of the segment before this one.
    fn seal_before(&self, fs: &dyn Fs, i: usize) -> Option<GroupHeader> {
        let before = i.checked_sub(1).map(|before| &self.segments[before])?;
        before.seal(fs, self.segments[i].superblock.base_lsn)
    }

    /// The seal of the segment before was durable before the first group was written, and both name that number. A segment of which both are damaged is
    /// as lost as one without a superblock. That they name two numbers is a sign of a file that is not the one it was.
    fn number_segment(&mut self, fs: &dyn Fs, i: usize, seal: Option<GroupHeader>) {
        let segment = &self.segments[i];
        let base = segment.superblock.base_lsn;
        let sealed = seal.map(|seal| seal.first_seq);
        if let (Some(_), Some(by_seal)) = (segment.base_seq, sealed)
            && segment.base_seq != Some(by_seal)
        {
            self.problems.push(Error::Corrupt(damaged(&segment.path, base, CorruptionKind::Group)));
        }
        let sealed = sealed.filter(|seq| is_place(base, *seq));
        // The next one was made while this one was written to.
        let next = self.segments.get(i + 1).map(|next| next.superblock.created_unix_ns);
        let begun = next.unwrap_or_else(|| unix_ns(fs));
        let segment = &mut self.segments[i];
        segment.base_seq = segment.base_seq.or(sealed);
        segment.begun_unix_ns = begun;
    }

    /// Whether the last segment's number is known now, and was not before: a writer began the segment meanwhile.
    fn was_begun(&mut self, fs: &dyn Fs) -> bool {
        match (self.segments.len().checked_sub(1), self.segments.last()) {
            (Some(last), Some(segment)) if segment.base_seq.is_none() => {
                if let Ok(again) = read_superblock(fs, &segment.path) {
                    self.segments[last] = again;
                }
                let seal = self.seal_before(fs, last);
                self.number_segment(fs, last, seal);
                self.segments[last].base_seq.is_some()
            }
            _ => false,
        }
    }

    /// Scans the last segment. One that never got a group was made ahead, or is the second half of a rotation that was interrupted: the log ends in the
    /// segment before.
    fn find_end(&mut self, fs: &dyn Fs) -> Result<()> {
        let mut successor = None;
        while let Some(last) = self.segments.last() {
            let tail = tail::scan(&last.open(fs, u64::MAX)?);
            self.head = self.head.max(Place { lsn: last.superblock.head_lsn, seq: last.superblock.head_seq });
            if tail.is_pristine(last.superblock.base_lsn) && self.segments.len() > 1 {
                successor = Some(last.superblock.base_lsn);
                self.obsolete.extend(self.segments.pop().map(|s| s.path));
                continue;
            }
            if self.was_begun(fs) {
                continue;
            }
            let Some(last) = self.segments.last() else { break };
            if let Some(head) = tail.head {
                self.head = self.head.max(Place { lsn: head.lsn, seq: head.seq });
            }
            let succeeds = |seal: &GroupHeader| {
                successor == seal.next_lsn() || successor.is_some() && mutation::is(Mutation::TrustEmptySuccessor)
            };
            // A writer may have rotated since the directory was listed: what there was until then is a log all the same. Who has the lock sees every
            // name in the list.
            let came = |seal: &GroupHeader| {
                let name = seal.next_lsn().map(|base| segment_name(base, last.superblock.generation));
                name.is_some_and(|name| fs.open(&self.dir.join(name), Access::Read).is_ok())
            };
            if let Some(seal) = tail.seal.as_ref().filter(|seal| !succeeds(seal) && !came(seal)) {
                // A segment is sealed only when its successor has its name: that one was lost. One that was made ahead to follow the lost one is none.
                self.problems.push(Error::Corrupt(damaged(&last.path, seal.lsn, CorruptionKind::MissingSegment)));
            }
            if self.head.lsn > tail.end_lsn && !matches!(tail.ending, Ending::Corrupt(_)) {
                // Records were dropped up to a place that the log no longer reaches: its end is lost.
                self.problems.push(Error::Corrupt(damaged(&last.path, tail.end_lsn, CorruptionKind::Group)));
            }
            self.tail = Some(tail);
            break;
        }
        // What an interrupted `truncate_before` left.
        let below = self.segments.windows(2).take_while(|pair| pair[1].superblock.base_lsn <= self.head.lsn).count();
        self.obsolete.extend(self.segments.drain(..below).map(|s| s.path));
        Ok(())
    }

    /// A file may be longer than what the segment holds: space was reserved in it, and the process died before that was given back. So its length alone does not
    /// tell that it reaches the next one. Within a generation its seal does, since one segment follows another only by rotation.
    fn find_gaps(&mut self, fs: &dyn Fs) -> Result<()> {
        let mut gaps = Vec::new();
        if let Some(first) = self.segments.first()
            && first.superblock.base_lsn > self.head.lsn
        {
            gaps.push(missing(&first.path, self.head.lsn, first.superblock.base_lsn));
        }
        for segment in self.segments.iter().filter(|s| s.base_seq.is_none()) {
            gaps.push(damaged(&segment.path, segment.superblock.base_lsn, CorruptionKind::Group));
        }
        for pair in self.segments.windows(2) {
            let next = pair[1].superblock.base_lsn;
            let mut end = pair[0].file_end_lsn();
            if end < next {
                // A writer may have made the file longer since.
                end = read_superblock(fs, &pair[0].path).map_or(end, |again| again.file_end_lsn());
            }
            if end < next {
                gaps.push(missing(&pair[0].path, end, next));
                continue;
            }
            let rotated = pair[0].superblock.generation == pair[1].superblock.generation;
            if rotated && end > next && pair[0].seal(fs, next).is_none() && !mutation::is(Mutation::TrustLength) {
                let held = tail::scan(&pair[0].open(fs, next)?);
                let held_end = held.seal.and_then(|seal| seal.next_lsn()).unwrap_or(held.end_lsn);
                if held_end < next {
                    gaps.push(missing(&pair[0].path, held_end, next));
                }
            }
        }
        self.problems.extend(gaps.into_iter().map(Error::Corrupt));
        Ok(())
    }
}

fn missing(path: &Path, lsn: u64, resumes: u64) -> Corruption {
    Corruption { resumes: Some(Lsn(resumes)), ..damaged(path, lsn, CorruptionKind::MissingSegment) }
}

fn damaged(path: &Path, lsn: u64, kind: CorruptionKind) -> Corruption {
    Corruption { path: path.to_owned(), lsn: Lsn(lsn), offset: 0, resumes: None, kind }
}

/// Reads that wait for the device at the same time.
const READS: usize = 8;
/// Fewer reads than this are not worth a thread.
const SHARE: usize = 8;

/// Does `count` short reads, several at a time: each waits for the device, and a log has as many as it has segments. The results are in order.
///
/// What fails is read again, alone: a process may have one descriptor left and not eight, and that is no damage.
fn read_each<T: Send, E: Send>(
    fs: &dyn Fs,
    count: usize,
    read: impl Fn(usize) -> std::result::Result<T, E> + Sync,
) -> Vec<std::result::Result<T, E>> {
    let helpers = if fs.background() { (count / SHARE).min(READS - 1) } else { 0 };
    let results = each(count, helpers, |i| Ok(read(i)), |_| ()).into_iter().flatten();
    results.enumerate().map(|(i, result)| if helpers > 0 { result.or_else(|_| read(i)) } else { result }).collect()
}

/// Reads who a segment is. The descriptor is closed again: a log has more segments than a process has descriptors.
fn read_superblock(fs: &dyn Fs, path: &Path) -> Result<SegmentFile> {
    let file = fs.open(path, Access::Read).map_err(|e| Error::io("open", path, e))?;
    let mut block = [0; SUPERBLOCK_LEN];
    let (read, file_len) = read_block(&*file, &mut block).map_err(|e| Error::io("read", path, e))?;
    let base_lsn = path.file_name().and_then(|n| parse_segment_name(&n.to_string_lossy())).map_or(0, |(base, _)| base);
    let superblock = Superblock::decode(&block[..read]).map_err(|e| match e {
        SuperblockError::Foreign => Error::Foreign { path: path.to_owned() },
        SuperblockError::Version(found) => {
            Error::UnsupportedVersion { path: path.to_owned(), found, supported: FORMAT_VERSION }
        }
        SuperblockError::Damaged => Error::Corrupt(damaged(path, base_lsn, CorruptionKind::Superblock)),
    })?;
    if superblock.segment_size == STORE_SIZE {
        // A whole log in a store, which cuts differently.
        return Err(Error::Foreign { path: path.to_owned() });
    }
    let mut segment = SegmentFile::new(path.to_owned(), superblock, file_len);
    if segment.base_seq.is_none() {
        let Superblock { uuid, generation, base_lsn, .. } = superblock;
        let mut header = [0; GROUP_HEADER_LEN];
        // What cannot be read says nothing, and is met again by whoever reads the group.
        let read = read_full_at(&*file, DATA_OFFSET, &mut header).unwrap_or(0);
        let first = GroupHeader::decode(&header[..read], base_lsn, Seed::of_log(uuid));
        let first = first.filter(|group| group.generation == generation && is_place(base_lsn, group.first_seq));
        segment.base_seq = first.map(|group| group.first_seq);
    }
    Ok(segment)
}

fn read_block(file: &dyn File, block: &mut [u8]) -> io::Result<(usize, u64)> {
    Ok((read_full_at(file, 0, block)?, file.len()?))
}

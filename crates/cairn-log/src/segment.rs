//! Making segments: a file that has its name is whole and durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Access, DirectStore, File, FileStore, Fs, Store};

use crate::error::{Error, Result};
use crate::format::{
    DATA_OFFSET, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, IndexEntry, SECTOR_LEN, Seed, Superblock,
    encode_index, encode_trailer, push_frame, segment_name,
};
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::prepare::{self, SpareFile};
use crate::state::Place;
use crate::survey::SegmentFile;
use crate::walk::Walk;

/// The file whose lock makes a writer the only one.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// The name a segment has until it is whole. There is never more than one; a left-over is overwritten.
pub(crate) const TEMP_NAME: &str = "next.tmp";
/// The name of the zeros that are to become the next segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";

/// The segment that is written to.
#[derive(Clone, Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) file: SegmentFile,
    pub(crate) store: Arc<dyn Store>,
}

impl ActiveSegment {
    pub(crate) fn offset(&self, lsn: u64) -> u64 {
        DATA_OFFSET + (lsn - self.file.superblock.base_lsn)
    }

    pub(crate) fn seed(&self) -> Seed {
        Seed::of_generation(self.file.superblock.uuid, self.file.superblock.generation)
    }

    /// How many zeros a write that ends at this position is to have behind it, so that the end of the log can be told from what lies there.
    pub(crate) fn zeros_behind(&self, end_lsn: u64) -> usize {
        if self.file.superblock.recycled_len == 0 {
            return 0;
        }
        let sector = SECTOR_LEN as u64;
        let end = self.offset(end_lsn) % sector;
        usize::try_from((sector - end) % sector).expect("less than a sector")
    }

    pub(crate) fn log_seed(&self) -> Seed {
        Seed::of_log(self.file.superblock.uuid)
    }
}

/// Why a segment could not be created.
#[derive(Debug)]
pub(crate) enum CreateError {
    /// It has no name yet: nothing has changed.
    Unchanged(Error),
    /// It may or may not have its name after a crash.
    Unknown(Error),
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Unchanged(error) | CreateError::Unknown(error) => error,
        }
    }
}

/// Creates a segment with what `fill` writes into it, `reserve` bytes of space, and zeros in the first `zeroed` of them.
/// Uses the file `spare`, which [`make_spare`] or [`recycle`] made, if there is one.
///
/// Superblock and contents are durable before the file gets its name, and the name is durable on return. In the other order:
/// 1. the name reaches the disk, 2. power fails, 3. the contents do not; then a segment without a superblock stands in the
///    middle of the log, and nothing can be opened (L23).
pub(crate) fn create(
    options: &Options,
    dir: &Path,
    superblock: Superblock,
    room: Room,
    spare: Option<Arc<dyn File>>,
    fill: impl FnOnce(&dyn Store) -> Result<()>,
) -> std::result::Result<ActiveSegment, CreateError> {
    let fs = &*options.fs;
    let temp = dir.join(if spare.is_some() { SPARE_NAME } else { TEMP_NAME });
    let path = path_of(dir, &superblock);
    let made = spare.is_none();
    let whole = || {
        let io = |op| {
            let temp = &temp;
            move |e| Error::io(op, temp, e)
        };
        let file = match spare {
            Some(file) => file,
            None => {
                remove_if_there(fs, &temp).map_err(io("remove"))?;
                fs.create_new(&temp).map_err(io("create"))?
            }
        };
        let store = store_of(options, &temp, file);
        if made {
            store.preallocate(0, room.end()).map_err(io("reserve space in"))?;
            store.write_at(DATA_OFFSET, &vec![0; room.zeroed]).map_err(io("write to"))?;
        }
        store.write_at(0, &superblock.encode()[..]).map_err(io("write to"))?;
        fill(&*store)?;
        if !mutation::is(Mutation::NameBeforeWhole) {
            store.sync().map_err(io("sync"))?;
        }
        Ok(store)
    };
    let store = whole().map_err(|error| {
        // Best effort: what is left is overwritten by the next attempt.
        let _ = fs.remove(&temp);
        CreateError::Unchanged(error)
    })?;
    fs.rename(&temp, &path).map_err(|e| CreateError::Unknown(Error::io("rename into place", &path, e)))?;
    fs.sync_dir(dir).map_err(|e| CreateError::Unknown(Error::io("sync directory", dir, e)))?;
    let file_len = DATA_OFFSET;
    Ok(ActiveSegment { file: SegmentFile::new(path, superblock, file_len), store })
}

/// Where the segment with this superblock is.
pub(crate) fn path_of(dir: &Path, superblock: &Superblock) -> PathBuf {
    dir.join(segment_name(superblock.base_lsn, superblock.generation))
}

/// Space of a new segment, in bytes behind the superblock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) reserve: u64,
    /// So much is to be written as zeros.
    pub(crate) zeroed: usize,
}

impl Room {
    /// Where in the file it ends.
    fn end(&self) -> u64 {
        DATA_OFFSET.saturating_add(self.reserve)
    }
}

/// Makes a file with this room that is to become a segment.
pub(crate) fn make_spare(fs: &dyn Fs, path: &Path, room: Room) -> io::Result<Arc<dyn File>> {
    remove_if_there(fs, path)?;
    let file = fs.create_new(path)?;
    let zeroed = DATA_OFFSET + room.zeroed as u64;
    let made = prepare::reserve(&*file, 0, room.end()).and_then(|()| prepare::zero(fs, path, &*file, 0, zeroed));
    if let Err(e) = made {
        let _ = fs.remove(path);
        return Err(e);
    }
    Ok(file)
}

/// What becomes zeros at the beginning of a recycled file: the superblock, and where the first group begins.
const RECYCLED_ZEROS: u64 = DATA_OFFSET + 4096;

/// Makes the file of a dropped segment, which is at `from`, one that is to become a segment. `None` when that fails or is not worth while;
/// then it is gone, or will be removed by the next writer.
pub(crate) fn recycle(fs: &dyn Fs, dir: &Path, from: &Path, path: &Path, segment_size: u64) -> Option<SpareFile> {
    let try_to = || {
        let file = fs.open(from, Access::ReadWrite)?;
        let len = file.len()?;
        // One of a record larger than a segment would stay that large for ever; a small one brings little.
        if !(segment_size / 2..=segment_size).contains(&len) {
            fs.remove(from)?;
            return Ok(None);
        }
        let recycled_len = len.max(RECYCLED_ZEROS);
        remove_if_there(fs, path)?;
        fs.rename(from, path)?;
        if !mutation::is(Mutation::RecycleUnderOldName) {
            fs.sync_dir(dir)?;
        }
        if !mutation::is(Mutation::KeepRecycledBeginning) {
            prepare::zero(fs, path, &*file, 0, RECYCLED_ZEROS)?;
        }
        let filled = recycled_len - recycled_len % DATA_OFFSET - DATA_OFFSET;
        let room = Room { reserve: recycled_len - DATA_OFFSET, zeroed: usize::try_from(filled).unwrap_or(0) };
        io::Result::Ok(Some(SpareFile { file, room, recycled_len }))
    };
    let recycled: io::Result<Option<SpareFile>> = try_to();
    recycled.unwrap_or_default()
}

pub(crate) fn remove_if_there(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A store in the open file at `path`, which writes past the page cache if it may and can.
pub(crate) fn store_of(options: &Options, path: &Path, file: Arc<dyn File>) -> Arc<dyn Store> {
    if options.direct_io
        && let Ok(direct) = options.fs.open_direct(path)
    {
        return Arc::new(DirectStore::new(file, direct));
    }
    Arc::new(FileStore::new(file))
}

const MARK_LEN: u32 = 40;
const _: () = assert!(MARK_LEN as usize == GROUP_HEADER_LEN);

/// The bytes of a group with no frames that says that everything before it is durable.
pub(crate) fn encode_mark(lsn: u64, next_seq: u64, generation: u32, log: Seed) -> [u8; GROUP_HEADER_LEN] {
    GroupHeader {
        kind: GroupKind::Mark,
        padding: 0,
        len: MARK_LEN,
        generation,
        lsn,
        durable_lsn: lsn,
        first_seq: next_seq,
    }
    .encode(log)
}

/// The bytes of a seal group from `lsn` to `end`, up to the last byte of the file.
pub(crate) fn encode_seal(superblock: &Superblock, lsn: u64, end: Place, index: &[IndexEntry]) -> Vec<u8> {
    let len = u32::try_from(end.lsn - lsn).expect("an index has an entry per 64 KiB of a segment");
    let header = GroupHeader {
        kind: GroupKind::Seal,
        padding: 0,
        len,
        generation: superblock.generation,
        lsn,
        durable_lsn: lsn,
        first_seq: end.seq,
    };
    let seed = Seed::of_generation(superblock.uuid, superblock.generation);
    let mut bytes = header.encode(Seed::of_log(superblock.uuid)).to_vec();
    push_frame(&mut bytes, FrameKind::Index, &encode_index(index, len as usize), lsn + GROUP_HEADER_LEN as u64, seed);
    bytes.extend_from_slice(&encode_trailer(len));
    bytes
}

/// Copies the groups from where `walk` stands up to `end_lsn`, each to the position it had, into another generation.
///
/// Positions and numbers stay, so what a caller was told stays true; checksums are bound to the new generation. A group that
/// `end_lsn` cuts keeps the frames before it.
pub(crate) fn carry(mut walk: Walk, end_lsn: u64, to: &Superblock, store: &dyn Store, path: &Path) -> Result<()> {
    let log = Seed::of_log(to.uuid);
    let seed = Seed::of_generation(to.uuid, to.generation);
    walk.extend_to(end_lsn);
    let mut group = Vec::new();
    let corrupt = |walk: &Walk, damage| Error::Corrupt(walk.span.corruption(damage, None));
    while let Some(header) = walk.next_group().map_err(|d| corrupt(&walk, d))? {
        group.clear();
        group.resize(GROUP_HEADER_LEN, 0);
        loop {
            match walk.next_frame() {
                Ok(Some((lsn, frame))) => push_frame(&mut group, frame.kind, frame.payload, lsn, seed),
                Ok(None) => break,
                Err(damage) => return Err(corrupt(&walk, damage)),
            }
        }
        let cut = header.next_lsn().is_none_or(|next| next > end_lsn);
        let header = GroupHeader {
            generation: to.generation,
            len: u32::try_from(group.len()).expect("no longer than the group it was read from"),
            padding: if cut { 0 } else { header.padding },
            ..header
        };
        group[..GROUP_HEADER_LEN].copy_from_slice(&header.encode(log));
        let offset = DATA_OFFSET + (header.lsn - to.base_lsn);
        store.write_at(offset, &group).map_err(|e| Error::io("write to", path, e))?;
    }
    Ok(())
}

/// Removes files that no longer belong to the log, and makes that durable. Returns those that are gone.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    if paths.is_empty() {
        return Ok(paths);
    }
    for path in &paths {
        remove_if_there(fs, path).map_err(|e| Error::io("remove", path, e))?;
    }
    fs.sync_dir(dir).map_err(|e| Error::io("sync directory", dir, e))?;
    Ok(paths)
}

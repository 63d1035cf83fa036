//! A log in one unbounded segment on any store.
//!
//! Nothing is ever overwritten with other bytes and nothing renamed here, so recovery does in place what a directory does with a new file: the
//! bytes above the watermark are written again as they are, what does not verify behind them is dropped, and a mark of the
//! next generation ends the old one. Until that mark is durable the same steps find the same bytes again; after it no frame
//! of an older generation verifies behind it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_io::Store;
use uuid::Uuid;

use crate::commit::{RESERVE, STORE_NAME};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    ALIGN, ALIGN_LEN, DATA_OFFSET, FORMAT_VERSION, FRAME_HEADER_LEN, GROUP_HEADER_LEN, GroupHeader, GroupKind,
    HeadMark, STORE_SIZE, SUPERBLOCK_LEN, Seed, Superblock, SuperblockError,
};
use crate::options::{EndState, OpenReport, Options};
use crate::segment::{ActiveSegment, encode_mark};
use crate::state::{Opened, Place, unix_ns};
use crate::survey::SegmentFile;
use crate::tail::{self, Ending, Tail};
use crate::walk::{Damage, Span, Walk};

/// Opens or creates the log in `store`.
pub(crate) fn open(options: &Options, store: &Arc<dyn Store>) -> Result<(Opened, OpenReport)> {
    let io = |op| move |e| Error::io(op, &path(), e);
    let Some(Found { superblock, origin, tail }) = find(store)? else {
        return create(options, store);
    };
    let (generation, mut bytes_cut, mut bytes_carried, mut mark) = (tail.generation, 0, 0, Vec::new());
    let mut end = Place { lsn: tail.end_lsn, seq: tail.next_seq };
    let end_state = match &tail.ending {
        Ending::Corrupt(corruption) => return Err(Error::Corrupt(corruption.clone())),
        Ending::Closed => {
            if let Some(header) = tail.mark {
                mark = encode_mark(header.lsn, header.first_seq, header.generation, Seed::of_log(superblock.uuid))
                    .to_vec();
            }
            EndState::Closed
        }
        Ending::Unclosed | Ending::Torn { .. } => {
            bytes_carried = rewrite(&**store, &tail).map_err(io("write again in"))?;
            let generation = generation.checked_add(1);
            let generation =
                generation.ok_or_else(|| io("start a generation in")(std::io::ErrorKind::FileTooLarge.into()))?;
            let bytes = encode_mark(end.lsn, end.seq, generation, Seed::of_log(superblock.uuid));
            let offset = DATA_OFFSET + end.lsn;
            store.write_at(offset, &bytes).and_then(|()| store.sync()).map_err(io("mark the end of"))?;
            end.lsn += GROUP_HEADER_LEN as u64;
            if let Ending::Torn { bytes } = tail.ending {
                bytes_cut = bytes;
                EndState::Torn { bytes }
            } else {
                EndState::Unclosed
            }
        }
    };
    let generation = if end_state == EndState::Closed { generation } else { generation + 1 };
    let head = tail.head.map_or(Place::default(), |h| Place { lsn: h.lsn, seq: h.seq });
    let report = OpenReport {
        created: false,
        end_state,
        segments: 1,
        records_scanned: tail.records,
        bytes_carried,
        bytes_cut,
        generation,
        removed: Vec::new(),
        strays: Vec::new(),
    };
    let superblock = Superblock { generation, ..superblock };
    let opened = Opened { head, origin, end, reserved: end.lsn, mark, ..opened(store, superblock, tail) };
    Ok((opened, report))
}

fn opened(store: &Arc<dyn Store>, superblock: Superblock, tail: Tail) -> Opened {
    let file = SegmentFile::new(path(), superblock, 0);
    Opened {
        segments: vec![file.clone()],
        active: ActiveSegment { file, store: store.clone() },
        index: tail.index,
        cuts: tail.cuts,
        head: Place::default(),
        origin: Place::default(),
        end: Place::default(),
        reserved: 0,
        filled: 0,
        mark: Vec::new(),
    }
}

fn path() -> PathBuf {
    STORE_NAME.into()
}

fn create(options: &Options, store: &Arc<dyn Store>) -> Result<(Opened, OpenReport)> {
    let io = |op| move |e| Error::io(op, &path(), e);
    let uuid = options.fs.random().map_err(io("get randomness for"))?;
    let superblock = Superblock::first(uuid, STORE_SIZE, unix_ns(&*options.fs));
    store.preallocate(0, RESERVE).map_err(io("reserve space in"))?;
    store.write_at(0, &superblock.encode()[..]).and_then(|()| store.sync()).map_err(io("write to"))?;
    let span = SegmentFile::new(path(), superblock, 0).span(store.clone(), u64::MAX);
    let tail = tail::scan(&span);
    let report = OpenReport {
        created: true,
        end_state: EndState::Closed,
        segments: 1,
        records_scanned: 0,
        bytes_carried: 0,
        bytes_cut: 0,
        generation: 1,
        removed: Vec::new(),
        strays: Vec::new(),
    };
    Ok((opened(store, superblock, tail), report))
}

/// The log in a store.
struct Found {
    superblock: Superblock,
    /// The first group that is there.
    origin: Place,
    tail: Tail,
}

/// Looks for the log, and whose it is; `None` when nothing was ever written. Reads only.
fn find(store: &Arc<dyn Store>) -> Result<Option<Found>> {
    if store.head() > 0 {
        return find_without_superblock(store).map(Some);
    }
    read_superblock(&**store)?.map(|superblock| look(store, superblock)).transpose()
}

/// Scans what the store has of `superblock`'s log.
fn look(store: &Arc<dyn Store>, superblock: Superblock) -> Result<Found> {
    let span = SegmentFile::new(path(), superblock, 0).span(store.clone(), u64::MAX);
    let first = first_group(&**store, &span)?;
    let origin = first.map_or(Place::default(), |g| Place { lsn: g.lsn, seq: g.first_seq });
    let mut tail = tail::scan_from(&span, first);
    if let Some(lost) = lost_after_drop(&**store, &span, origin, &tail)
        && !matches!(tail.ending, Ending::Corrupt(_))
    {
        tail.ending = Ending::Corrupt(lost);
    }
    Ok(Found { superblock, origin, tail })
}

/// The superblock; `None` when nothing was ever written.
fn read_superblock(store: &dyn Store) -> Result<Option<Superblock>> {
    let io = |e| Error::io("read", &path(), e);
    let mut block = [0; SUPERBLOCK_LEN];
    let read = store.read_at(0, &mut block).map_err(io)?;
    match Superblock::decode(&block[..read]) {
        // A segment of a directory: its end is not where a store's would be, and the directory's next writer would not see what is cut here.
        Ok(superblock) if superblock.segment_size != STORE_SIZE || superblock.base_lsn != 0 => {
            Err(Error::Foreign { path: path() })
        }
        Ok(superblock) => Ok(Some(superblock)),
        // A creation that was interrupted leaves zeros: all that a superblock holds is in one sector.
        Err(SuperblockError::Foreign) if is_zero(store).map_err(io)? => Ok(None),
        Err(SuperblockError::Foreign) => Err(Error::Foreign { path: path() }),
        Err(SuperblockError::Version(found)) => {
            Err(Error::UnsupportedVersion { path: path(), found, supported: FORMAT_VERSION })
        }
        Err(SuperblockError::Damaged) => Err(Error::Corrupt(Corruption {
            path: path(),
            lsn: crate::Lsn(0),
            offset: 0,
            resumes: None,
            kind: CorruptionKind::Superblock,
        })),
    }
}

fn is_zero(store: &dyn Store) -> std::io::Result<bool> {
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let read = store.read_at(at, &mut chunk)?;
        if read == 0 {
            return Ok(true);
        }
        if chunk[..read].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
}

/// Looks for a log whose superblock is gone: a head group names it, whose writing preceded the drop of the store's beginning.
///
/// A record may hold the head group of another log, made for just this place: all that it needs to verify is in it. So before anything is cut, the log
/// whose groups come first is the log, and every other one's head groups must lie inside of it. Without this: 1. such a record lies before the log's
/// own head group, 2. the other log is opened, 3. it ends in that record, and everything behind is cut as a torn tail.
fn find_without_superblock(store: &Arc<dyn Store>) -> Result<Found> {
    let io = |e| Error::io("read", &path(), e);
    let foreign = || Error::Foreign { path: path() };
    // Only the identity is needed: positions count from zero for ever, and generations are in the groups.
    let identity = |uuid| Superblock { uuid, ..Superblock::first([0; 16], STORE_SIZE, 0) };
    let uuid = search(&**store, HEAD_GROUP_LEN, named_by).map_err(io)?.ok_or_else(foreign)?;
    let found = look(store, identity(uuid))?;
    if matches!(found.tail.ending, Ending::Closed | Ending::Unclosed) {
        return Ok(found);
    }
    // Every log that is named, and where for the last time.
    let mut named = BTreeMap::new();
    let note = |bytes: &[u8], lsn| {
        named.insert(named_by(bytes, lsn)?, lsn);
        None::<Uuid>
    };
    search(&**store, HEAD_GROUP_LEN, note).map_err(io)?;
    let seeds: Vec<(Uuid, Seed)> = named.keys().map(|uuid| (*uuid, Seed::of_log(*uuid))).collect();
    let whose = |bytes: &[u8], lsn| {
        let owner = seeds.iter().find(|(_, seed)| GroupHeader::decode(bytes, lsn, *seed).is_some())?;
        Some(owner.0)
    };
    let owner = search(&**store, GROUP_HEADER_LEN, whose).map_err(io)?.ok_or_else(foreign)?;
    let found = if owner == uuid { found } else { look(store, identity(owner))? };
    let outside = named.iter().find(|(other, last)| **other != owner && **last >= found.tail.end_lsn);
    match (&found.tail.ending, outside) {
        (Ending::Corrupt(_), _) | (_, None) => Ok(found),
        (_, Some((other, _))) => Err(Error::WrongLog { path: path(), expected: owner, found: *other }),
    }
}

/// Bytes of a head group.
const HEAD_GROUP_LEN: usize = GROUP_HEADER_LEN + (FRAME_HEADER_LEN + HeadMark::LEN).next_multiple_of(8);

/// The log that the head group at `lsn` names, if its header verifies under just that name.
fn named_by(bytes: &[u8], lsn: u64) -> Option<Uuid> {
    let mark = HeadMark::decode(&bytes[GROUP_HEADER_LEN + FRAME_HEADER_LEN..][..HeadMark::LEN])?;
    let uuid = Uuid::from_bytes(mark.uuid);
    let header = GroupHeader::decode(bytes, lsn, Seed::of_log(uuid))?;
    (header.kind == GroupKind::Head).then_some(uuid)
}

/// Shows every place of a store where a group may start, with `len` bytes or more from there, until `found` says something.
fn search<T>(
    store: &dyn Store,
    len: usize,
    mut found: impl FnMut(&[u8], u64) -> Option<T>,
) -> std::io::Result<Option<T>> {
    let mut chunk = vec![0; 1 << 20];
    let mut at = store.head().max(DATA_OFFSET).next_multiple_of(ALIGN);
    loop {
        let read = store.read_at(at, &mut chunk)?;
        let Some(last) = read.checked_sub(len) else {
            return Ok(None);
        };
        for i in (0..=last).step_by(ALIGN_LEN) {
            let (bytes, lsn) = (&chunk[i..read], at - DATA_OFFSET + i as u64);
            if GroupHeader::is_claimed(bytes, lsn)
                && let Some(found) = found(bytes, lsn)
            {
                return Ok(Some(found));
            }
        }
        at += (last / ALIGN_LEN * ALIGN_LEN + ALIGN_LEN) as u64;
    }
}

/// The first group that is still there, when the beginning was dropped.
fn first_group(store: &dyn Store, span: &Span) -> Result<Option<GroupHeader>> {
    let head = store.head();
    if head == 0 {
        return Ok(None);
    }
    let found = Walk::new(span.clone(), 0, 0).find_group(head.saturating_sub(DATA_OFFSET));
    found.map(Some).ok_or_else(|| Error::Foreign { path: path() })
}

/// What must have been durable before the store's beginning was dropped, and is not there.
///
/// The drop followed the barrier of a head group and went no further than the group in which that head lies. So a head group verifies, and the newest
/// one names a place at or behind the first group, whatever the watermarks say. Without this: 1. a head group is the last one, 2. a bit of its frame
/// flips, and its header still names the log, 3. it lies at the watermark and not below, so it is cut as a torn tail, 4. nothing names the log any more.
fn lost_after_drop(store: &dyn Store, span: &Span, origin: Place, tail: &Tail) -> Option<Corruption> {
    let (lsn, resumes) = match tail.head {
        _ if store.head() == 0 => return None,
        Some(head) if head.lsn >= origin.lsn => return None,
        Some(head) => (head.lsn, Some(origin.lsn)),
        None => (tail.end_lsn, None),
    };
    Some(span.corruption(Damage { lsn, kind: CorruptionKind::Group }, resumes))
}

/// Writes the bytes between the watermark and the end again, as they are, drops everything behind them, and makes both durable.
fn rewrite(store: &dyn Store, tail: &Tail) -> std::io::Result<u64> {
    let mut chunk = vec![0; 1 << 20];
    let (mut at, end) = (DATA_OFFSET + tail.watermark, DATA_OFFSET + tail.end_lsn);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
        let read = store.read_at(at, &mut chunk[..want])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        store.write_at(at, &chunk[..read])?;
        at += read as u64;
    }
    store.sync()?;
    store.truncate(end)?;
    store.sync()?;
    Ok(tail.end_lsn - tail.watermark)
}

const _: () = assert!(DATA_OFFSET.is_multiple_of(8));

//! Looking at a store: whose log is in it, and how it ends. Reads only.

use std::collections::BTreeMap;

use cairn_io::Store;
use uuid::Uuid;

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    ALIGN, ALIGN_LEN, DATA_OFFSET, FORMAT_VERSION, FRAME_HEADER_LEN, GROUP_HEADER_LEN, GroupHeader,
    GroupKind, HeadMark, SECTOR_LEN, STORE_SIZE, SUPERBLOCK_LEN, Seed, Superblock, SuperblockError,
};
use crate::layout::Layout;
use crate::layout::store::StoreRoom;
use crate::open::cases::{Before, Ending, Head, Successor};
use crate::open::survey::{End, Survey};
use crate::open::tail::{Around, Tail, scan_store};
use crate::place::{Epoch, Lsn, Place, Seq};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;
use crate::segment::span::Span;

/// Looks at a store. The survey is without an end when nothing was ever written.
pub(crate) fn survey_store(room: &StoreRoom) -> Result<Survey> {
    let found = if room.store().head() > 0 {
        Some(find_without_superblock(room)?)
    } else {
        read_superblock(room)?.map(|superblock| look(room, superblock)).transpose()?
    };
    let Some(Found { superblock, origin, end }) = found else { return Ok(Survey::default()) };
    end.case.note(end.tail.seen.medium);
    let generation = end.tail.generation;
    let file = SegmentFile::new(Superblock { generation, ..superblock }, 0);
    Ok(Survey {
        segments: vec![file],
        generation,
        head: end.tail.head.map_or(Place::default(), |h| Place { lsn: h.lsn, seq: h.seq }),
        origin,
        uuid: superblock.uuid,
        end: Some(end),
        ..Survey::default()
    })
}

/// The log in a store.
struct Found {
    superblock: Superblock,
    /// The first group that is there.
    origin: Place,
    end: End,
}

/// Scans what the store has of `superblock`'s log.
fn look(room: &StoreRoom, superblock: Superblock) -> Result<Found> {
    let span = room.open(&SegmentFile::new(superblock, 0), Lsn::MAX)?;
    let store = &**room.store();
    let first = first_group(room, &span)?;
    let origin = first.map_or(Place::default(), |g| Place { lsn: g.lsn, seq: g.first_seq });
    let tail = scan_store(&span, first)?;
    let head = head_column(store, origin, &tail);
    let around = Around { before: Before::Nothing, successor: Successor::Nothing, head };
    let case = tail.case(around);
    Ok(Found { superblock, origin, end: End { tail, case } })
}

/// Whether what must have been durable before the store's beginning was dropped is there.
///
/// The drop followed the barrier of a head group and went no further than the group in which that
/// head lies. So a head group verifies, and the newest one names a place at or behind the first
/// group, whatever the watermarks say. Without this: 1. a head group is the last one, 2. a bit of
/// its frame flips, and its header still names the log, 3. it lies at the watermark and not below,
/// so it is cut as a torn tail, 4. nothing names the log any more.
fn head_column(store: &dyn Store, origin: Place, tail: &Tail) -> Head {
    let named = tail.head.map(|head| head.lsn);
    match named {
        Some(head) if head > tail.end_lsn => Head::Beyond,
        _ if store.head() == 0 => Head::Within,
        Some(head) if head >= origin.lsn => Head::Within,
        _ => Head::Unknown,
    }
}

/// The superblock; `None` when nothing was ever written.
fn read_superblock(room: &StoreRoom) -> Result<Option<Superblock>> {
    let (store, path) = (&**room.store(), || room.path().to_owned());
    let io = |e| Error::io("read", &path(), e);
    let mut block = [0; SUPERBLOCK_LEN];
    let read = store.read_at(0, &mut block).map_err(io)?;
    match Superblock::decode(&block[..read]) {
        // A segment of a directory: its end is not where a store's would be, and the directory's
        // next writer would not see what is cut here.
        Ok(superblock)
            if superblock.segment_size != STORE_SIZE || superblock.base_lsn != Lsn::START =>
        {
            Err(Error::Foreign { path: path() })
        }
        Ok(superblock) => Ok(Some(superblock)),
        // A creation that was interrupted leaves zeros: all that a superblock holds is in one
        // sector.
        Err(SuperblockError::Foreign) if is_zero(store).map_err(io)? => Ok(None),
        Err(SuperblockError::Foreign) => Err(Error::Foreign { path: path() }),
        Err(SuperblockError::Version(found)) => {
            Err(Error::UnsupportedVersion { path: path(), found, supported: FORMAT_VERSION })
        }
        Err(SuperblockError::Damaged) => Err(Error::Corrupt(Corruption {
            path: path(),
            lsn: Lsn(0),
            offset: 0,
            resumes: None,
            kind: CorruptionKind::Superblock,
            lost: None,
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

/// Looks for a log whose superblock is gone: a head group names it, whose writing preceded the drop
/// of the store's beginning.
///
/// A record may hold the head group of another log, made for just this place: all that it needs to
/// verify is in it. So before anything is cut, the log whose groups come first is the log, and
/// every other one's head groups must lie inside of it. Without this: 1. such a record lies before
/// the log's own head group, 2. the other log is opened, 3. it ends in that record, and everything
/// behind is cut as a torn tail.
fn find_without_superblock(room: &StoreRoom) -> Result<Found> {
    let (store, path) = (&**room.store(), || room.path().to_owned());
    let io = |e| Error::io("read", &path(), e);
    let foreign = || Error::Foreign { path: path() };
    // Only the identity is needed: positions count from zero for ever, and generations are in the
    // groups.
    let unknown = Superblock::first([0; 16], Epoch::default(), Place::default(), STORE_SIZE);
    let identity = |uuid| Superblock { uuid, ..unknown };
    let uuid = search(store, HEAD_GROUP_LEN, named_by).map_err(io)?.ok_or_else(foreign)?;
    let found = look(room, identity(uuid))?;
    if matches!(found.end.case.ending(), Ending::Closed | Ending::Unclosed) {
        return Ok(found);
    }
    // Every log that is named, and where for the last time.
    let mut named = BTreeMap::new();
    let note = |bytes: &[u8], lsn| {
        named.insert(named_by(bytes, lsn)?, lsn);
        None::<Uuid>
    };
    search(store, HEAD_GROUP_LEN, note).map_err(io)?;
    let seeds: Vec<(Uuid, Seed)> = named.keys().map(|uuid| (*uuid, Seed::of_log(*uuid))).collect();
    let whose = |bytes: &[u8], lsn| {
        let owner =
            seeds.iter().find(|(_, seed)| GroupHeader::decode(bytes, lsn, *seed).is_some())?;
        Some(owner.0)
    };
    let owner = search(store, GROUP_HEADER_LEN, whose).map_err(io)?.ok_or_else(foreign)?;
    let found = if owner == uuid { found } else { look(room, identity(owner))? };
    let outside =
        named.iter().find(|(other, last)| **other != owner && **last >= found.end.tail.end_lsn);
    match (found.end.case.ending(), outside) {
        (Ending::Corrupt, _) | (_, None) => Ok(found),
        (_, Some((other, _))) => {
            Err(Error::WrongLog { path: path(), expected: owner, found: *other })
        }
    }
}

/// Bytes of a head group.
const HEAD_GROUP_LEN: usize =
    GROUP_HEADER_LEN + (FRAME_HEADER_LEN + HeadMark::LEN).next_multiple_of(8);

/// The log that the head group at `lsn` names, if its header verifies under just that name.
fn named_by(bytes: &[u8], lsn: Lsn) -> Option<Uuid> {
    let mark = HeadMark::decode(&bytes[GROUP_HEADER_LEN + FRAME_HEADER_LEN..][..HeadMark::LEN])?;
    let uuid = Uuid::from_bytes(mark.uuid);
    let header = GroupHeader::decode(bytes, lsn, Seed::of_log(uuid))?;
    (header.kind == GroupKind::Head).then_some(uuid)
}

/// Bytes that a search reads at once.
const SEARCH_BYTES: usize = 1 << 20;

/// Shows every place of a store where a group may start, with `len` bytes or more from there, until
/// `found` says something. No group verifies across a sector that cannot be read: the search goes
/// on behind it.
fn search<T>(
    store: &dyn Store,
    len: usize,
    mut found: impl FnMut(&[u8], Lsn) -> Option<T>,
) -> std::io::Result<Option<T>> {
    let mut chunk = vec![0; SEARCH_BYTES];
    let mut want = chunk.len();
    let mut at = store.head().max(DATA_OFFSET).next_multiple_of(ALIGN);
    let end = store.len()?;
    while at < end {
        let Ok(read) = store.read_at(at, &mut chunk[..want]) else {
            if want > SECTOR_LEN {
                want = (want / 2).max(SECTOR_LEN);
            } else {
                at = (at + 1).next_multiple_of(SECTOR_LEN as u64);
            }
            continue;
        };
        want = (want * 2).min(chunk.len());
        let Some(last) = read.checked_sub(len) else {
            return Ok(None);
        };
        for i in (0..=last).step_by(ALIGN_LEN) {
            let (bytes, lsn) = (&chunk[i..read], Lsn(at - DATA_OFFSET + i as u64));
            if GroupHeader::is_claimed(bytes, lsn)
                && let Some(found) = found(bytes, lsn)
            {
                return Ok(Some(found));
            }
        }
        at += (last / ALIGN_LEN * ALIGN_LEN + ALIGN_LEN) as u64;
    }
    Ok(None)
}

/// The first group that is still there, when the beginning was dropped.
fn first_group(room: &StoreRoom, span: &Span) -> Result<Option<GroupHeader>> {
    let head = room.store().head();
    if head == 0 {
        return Ok(None);
    }
    let found = Walk::new(span.clone(), Lsn::START, Seq(0))
        .find_group(Lsn(head.saturating_sub(DATA_OFFSET)));
    found.map(Some).ok_or_else(|| Error::Foreign { path: room.path().to_owned() })
}

//! Opening: the locks, the creation of the file, and the way to recovery.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cairn_io::{
    Access, Dir, DirectStore, File, FileStore, Fs, Store, expect_same_file, open_dir, parent_dir,
    place_file,
};
use uuid::Uuid;

use crate::commit::Core;
use crate::error::{Error, Result};
use crate::format::{
    BLOCK_LEN, CommitNumber, Epoch, Header, HeaderName, PAYLOAD, PayloadOffset, SLOT_LEN,
    SlotNumber, body_checksum,
};
use crate::home::{Beside, Home, lock_itself};
use crate::medium::Medium;
use crate::mutation::{self, Mutation};
use crate::options::{OpenReport, Options};
use crate::recovery::{adopt, is_foreign, survey};
use crate::sync::Arc;

/// Stands in errors for the path of a stack in a store.
const STORE_NAME: &str = "the store";

/// Opens the stack in the file `path`, or creates it.
///
/// Opening locks a file beside it: a stack that is being created has no file yet, and on Windows a
/// locked file cannot be read. A symbolic link is followed once, now.
pub(crate) fn open(options: Options, path: &Path) -> Result<(Core, OpenReport)> {
    let io = |op| move |e| Error::io(op, path, e);
    let whole = options.fs.resolve(path).map_err(io("open"))?;
    let dir = parent_dir(&whole).and_then(|dir| open_dir(&options.fs, dir)).map_err(io("open"))?;
    let name = whole.file_name().unwrap_or_default();
    let found = match dir.open(name, Access::Read) {
        // Before a lock file is created beside a file that is not a stack, that may not be written
        // to, or that somebody has open.
        Ok(file) if is_foreign(&*file).map_err(io("read from"))? => {
            return Err(Error::Foreign { path: path.to_owned() });
        }
        Ok(file) => {
            drop(dir.open(name, Access::ReadWrite).map_err(io("open"))?);
            lock_itself(&*file, path)?;
            Some(file)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(io("open")(e)),
    };
    let beside = Beside::lock(&*dir, name, path)?;
    let (file, created) = match dir.open(name, Access::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create(&*options.fs, &*dir, name, path)?;
            (dir.open(name, Access::ReadWrite).map_err(io("open"))?, true)
        }
        opened => (opened.map_err(io("open"))?, false),
    };
    let itself = match found {
        Some(found) => found,
        None => {
            let created = dir.open(name, Access::Read).map_err(io("open"))?;
            lock_itself(&*created, path)?;
            created
        }
    };
    // Its name may have changed hands since it was first looked at.
    expect_same_file(&*itself, &*file).map_err(io("open"))?;
    let home = Home::new(dir, name.to_owned(), path.to_owned(), itself, beside)?;
    // The process that created the stack may have been killed before the name was durable (L05).
    if !created && !mutation::is(Mutation::TrustListedName) {
        home.dir.sync().map_err(io("sync the directory of"))?;
    }
    let store = store_of(&options, &home, file);
    start(store, path.to_owned(), created, Some(home), options)
}

/// Opens the stack in `store`, or creates it there.
pub(crate) fn open_store(options: Options, store: Arc<dyn Store>) -> Result<(Core, OpenReport)> {
    let path = PathBuf::from(STORE_NAME);
    let created = is_blank(&*store).map_err(|e| Error::io("read from", &path, e))?;
    if created {
        create_in(&*store, new_slots(&*options.fs, &path)?)
            .map_err(|e| Error::io("create", &path, e))?;
    }
    start(store, path, created, None, options)
}

/// Opens the stack that is in the store.
fn start(
    store: Arc<dyn Store>,
    path: PathBuf,
    created: bool,
    home: Option<Home>,
    options: Options,
) -> Result<(Core, OpenReport)> {
    let medium = Arc::new(Medium::new(store, path, options.reserve));
    let found = survey(&medium)?;
    let dropped_torn_commit = found.is_torn();
    medium.leave_hole(PayloadOffset(found.newest.header.len));
    // What a copy of the file writes from here on carries another number.
    let epoch = draw_epoch(&*options.fs, &medium.path)?;
    let (disk, durable, bytes_rewritten) = adopt(&medium, found, epoch)?;
    let report = OpenReport { created, dropped_torn_commit, bytes_rewritten };
    Ok((Core::new(options, disk, durable, home), report))
}

/// A store in the open file of a stack. It writes past the page cache if the options allow it and
/// the file system can.
fn store_of(options: &Options, home: &Home, file: Arc<dyn File>) -> Arc<dyn Store> {
    if options.direct_io
        && let Ok(direct) = home.dir.open_direct(&home.name, &*file)
    {
        return Arc::new(DirectStore::new(file, direct));
    }
    Arc::new(FileStore::new(file))
}

/// Makes an empty stack. The file gets its name when it is whole and durable (L23), and only if the
/// name is free.
fn create(fs: &dyn Fs, dir: &dyn Dir, name: &OsStr, path: &Path) -> Result<()> {
    let contents = new_slots(fs, path)?.concat();
    place_file(dir, name, path, &contents, 0).map_err(|e| Error::io("create", path, e.source))
}

/// Whether a store was never written to, or a crash cut off the creation of a stack in it.
fn is_blank(store: &dyn Store) -> io::Result<bool> {
    let len = store.len()?;
    if len > PAYLOAD.0 {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    store.read_at(0, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Makes an empty stack in a store, which has no name to give late: first the length → barrier,
/// then both headers → barrier. Each header is within one sector, and the rest of its block stays
/// zeros. So a crash leaves a blank store, or one that is long enough and has a valid header.
fn create_in(store: &dyn Store, slots: [Vec<u8>; 2]) -> io::Result<()> {
    store.write_at(PAYLOAD.0 - 1, &[0])?;
    store.sync()?;
    for (number, slot) in SlotNumber::BOTH.into_iter().zip(slots) {
        store.write_at(number.offset().0, &slot[..BLOCK_LEN])?;
    }
    store.sync()
}

/// The slots of a new, empty stack.
fn new_slots(fs: &dyn Fs, path: &Path) -> Result<[Vec<u8>; 2]> {
    let io = |op| move |e| Error::io(op, path, e);
    let random = fs.random().map_err(io("make an identity for"))?;
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_unix_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let epoch = draw_epoch(fs, path)?;
    let mut previous = HeaderName::NONE;
    Ok([0, 1].map(|number| {
        let header = empty_header(uuid, CommitNumber(number), epoch, created_unix_ns, previous);
        let mut slot = header.encode(&[]);
        previous = header.name_in(&slot);
        slot.resize(usize::try_from(SLOT_LEN).unwrap_or(usize::MAX), 0);
        slot
    }))
}

/// The random number of an opening.
pub(crate) fn draw_epoch(fs: &dyn Fs, path: &Path) -> Result<Epoch> {
    let random = fs.random().map_err(|e| Error::io("make an identity for", path, e))?;
    let half = random.first_chunk().copied().unwrap_or_default();
    Ok(Epoch(u64::from_le_bytes(half)))
}

/// The header of a commit that changes nothing in an empty stack.
fn empty_header(
    uuid: Uuid,
    sequence: CommitNumber,
    epoch: Epoch,
    created_unix_ns: u64,
    previous: HeaderName,
) -> Header {
    Header {
        uuid,
        sequence,
        base_len: 0,
        len: 0,
        body_offset: sequence.slot().body_offset(),
        body_len: 0,
        body_crc: body_checksum(uuid, epoch, sequence, &[]),
        flags: 0,
        created_unix_ns,
        epoch,
        previous,
    }
}

//! The file: locked, created, found.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cairn_io::{Access, DirectStore, File, FileStore, Fs, Store, replace_file};
use uuid::Uuid;

use crate::commit::Core;
use crate::disk::Medium;
use crate::error::{Error, Result};
use crate::format::{BLOCK_LEN, Header, PAYLOAD, SLOT_LEN, body_checksum};
use crate::mutation::{self, Mutation};
use crate::options::{OpenReport, Options};
use crate::recovery::{adopt, is_foreign, survey};
use crate::sync::Arc;

/// What stands for the path of a stack that has none.
const STORE_NAME: &str = "the store";

/// Opens the stack in the file `path`, or creates it.
///
/// The lock is taken on a file beside it, because a stack that is being created has no file yet, and because some systems lock
/// bytes against reading; and, where that does not happen, on the file itself, which may have several names.
pub(crate) fn open(options: Options, path: &Path) -> Result<(Core, OpenReport)> {
    let fs = options.fs.clone();
    let io = |op| move |e| Error::io(op, path, e);
    match fs.open(path, Access::Read) {
        // Before anything is created beside it.
        Ok(file) if is_foreign(&*file).map_err(io("read from"))? => {
            return Err(Error::Foreign { path: path.to_owned() });
        }
        Ok(_) => drop(fs.open(path, Access::ReadWrite).map_err(io("open"))?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("open")(e)),
    }
    let mut locks = vec![lock(&*fs, path)?];
    let (file, created) = match fs.open(path, Access::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create(&*fs, path)?;
            (fs.open(path, Access::ReadWrite).map_err(io("open"))?, true)
        }
        opened => (opened.map_err(io("open"))?, false),
    };
    if !cfg!(windows) {
        // Through a handle of its own: closing the stack gives it up, while readers may still hold the other one.
        let handle = fs.open(path, Access::Read).map_err(io("open"))?;
        if !handle.try_lock().map_err(io("lock"))? && !mutation::is(Mutation::IgnoreLock) {
            return Err(Error::Locked { path: path.to_owned() });
        }
        locks.push(handle);
    }
    // Whoever created it may have been killed before its name was durable (L05).
    if !created && !mutation::is(Mutation::TrustListedName) {
        fs.sync_dir(directory(path)).map_err(io("sync the directory of"))?;
    }
    start(store_of(&options, path, file), path.to_owned(), created, locks, options)
}

/// Opens the stack in `store`, or creates it there.
pub(crate) fn open_store(options: Options, store: Arc<dyn Store>) -> Result<(Core, OpenReport)> {
    let path = PathBuf::from(STORE_NAME);
    let created = is_blank(&*store).map_err(|e| Error::io("read from", &path, e))?;
    if created {
        create_in(&*store, new_slots(&*options.fs, &path)?).map_err(|e| Error::io("create", &path, e))?;
    }
    start(store, path, created, Vec::new(), options)
}

/// Opens the stack that is there.
fn start(
    store: Arc<dyn Store>,
    path: PathBuf,
    created: bool,
    locks: Vec<Arc<dyn File>>,
    options: Options,
) -> Result<(Core, OpenReport)> {
    let medium = Arc::new(Medium::new(store, path, 0, options.reserve));
    let found = survey(&medium)?;
    let dropped_torn_commit = found.torn;
    medium.leave_hole(found.newest.header.len);
    let (disk, durable, bytes_rewritten) = adopt(&medium, found)?;
    let report = OpenReport { created, dropped_torn_commit, bytes_rewritten };
    Ok((Core::new(options, disk, durable, locks), report))
}

/// A store in the open file at `path`, which writes past the page cache if it may and can.
fn store_of(options: &Options, path: &Path, file: Arc<dyn File>) -> Arc<dyn Store> {
    if options.direct_io
        && let Ok(direct) = options.fs.open_direct(path)
    {
        return Arc::new(DirectStore::new(file, direct));
    }
    Arc::new(FileStore::new(file))
}

/// The directory that holds the name.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The name of the file that is locked.
fn lock_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn lock(fs: &dyn Fs, path: &Path) -> Result<Arc<dyn File>> {
    let beside = lock_path(path);
    let io = |op| {
        let beside = beside.clone();
        move |e| Error::io(op, &beside, e)
    };
    let file = match fs.open(&beside, Access::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match fs.create_new(&beside) {
            // Somebody else was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs.open(&beside, Access::ReadWrite).map_err(io("open"))?
            }
            created => created.map_err(io("create"))?,
        },
        opened => opened.map_err(io("open"))?,
    };
    match file.try_lock().map_err(io("lock"))? || mutation::is(Mutation::IgnoreLock) {
        true => Ok(file),
        false => Err(Error::Locked { path: path.to_owned() }),
    }
}

/// Makes an empty stack: it has its name once it is whole and durable (L23).
fn create(fs: &dyn Fs, path: &Path) -> Result<()> {
    let contents = new_slots(fs, path)?.concat();
    replace_file(fs, path, &contents).map_err(|e| Error::io("create", path, e.source))
}

/// Whether nothing was ever written to a store, or creating a stack there was cut off.
fn is_blank(store: &dyn Store) -> io::Result<bool> {
    let len = store.len()?;
    if len > PAYLOAD {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    store.read_at(0, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Makes an empty stack where no name can be given late: first the length, then the headers. Each of these lies in one sector, the rest is zeros before and
/// after. So a crash leaves a store that is blank, or one with a valid header and no shorter than it has to be.
fn create_in(store: &dyn Store, slots: [Vec<u8>; 2]) -> io::Result<()> {
    store.write_at(PAYLOAD - 1, &[0])?;
    store.sync()?;
    for (offset, slot) in [0, SLOT_LEN].into_iter().zip(slots) {
        store.write_at(offset, &slot[..BLOCK_LEN])?;
    }
    store.sync()
}

/// The slots of a stack that is empty and new.
fn new_slots(fs: &dyn Fs, path: &Path) -> Result<[Vec<u8>; 2]> {
    let io = |op| move |e| Error::io(op, path, e);
    let random = fs.random().map_err(io("make an identity for"))?;
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_unix_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Ok([0, 1].map(|sequence| empty_slot(uuid, sequence, created_unix_ns)))
}

/// A slot with a commit that changes nothing in an empty stack.
fn empty_slot(uuid: Uuid, sequence: u64, created_unix_ns: u64) -> Vec<u8> {
    let mut slot = Header {
        uuid,
        sequence,
        base_len: 0,
        len: 0,
        body_offset: Header::slot_body_offset(sequence),
        body_len: 0,
        body_crc: body_checksum(uuid, sequence, &[]),
        flags: 0,
        created_unix_ns,
    }
    .encode(&[]);
    slot.resize(usize::try_from(SLOT_LEN).unwrap_or(usize::MAX), 0);
    slot
}

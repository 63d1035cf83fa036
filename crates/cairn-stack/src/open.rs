//! The file: locked, created, found.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cairn_io::{Access, File, FileStore, Fs, replace_file};
use uuid::Uuid;

use crate::commit::Core;
use crate::disk::Medium;
use crate::error::{Error, Result};
use crate::format::{Header, SLOT_LEN, body_checksum};
use crate::mutation::{self, Mutation};
use crate::options::{OpenReport, Options};
use crate::recovery::{adopt, is_foreign, survey};
use crate::sync::Arc;

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
    let ahead = options.reserve;
    let medium = Arc::new(Medium::new(Arc::new(FileStore::new(file)), path.to_owned(), 0, ahead));
    let found = survey(&medium)?;
    let dropped_torn_commit = found.torn;
    medium.leave_hole(found.newest.header.len);
    let (disk, durable, bytes_rewritten) = adopt(&medium, found)?;
    let report = OpenReport { created, dropped_torn_commit, bytes_rewritten };
    Ok((Core::new(options, disk, durable, locks), report))
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
    let io = |op| move |e| Error::io(op, path, e);
    let random = fs.random().map_err(io("make an identity for"))?;
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_unix_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let contents = [0, 1].map(|sequence| empty_slot(uuid, sequence, created_unix_ns)).concat();
    replace_file(fs, path, &contents).map_err(|e| Error::io("create", path, e.source))
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

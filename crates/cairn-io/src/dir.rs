//! An open directory: names are relative to it, wherever it is.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{Access, File};

/// What something is, under whatever name: two handles, or a name and a handle, with equal ids are
/// of one file.
///
/// An id is unique among what exists. After the last name and the last handle are gone, it may be
/// given to something else: compare with a file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device, or volume.
    pub device: u64,
    /// The file on it.
    pub inode: u64,
}

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// What a file system says of something beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which it is.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Names that lead to it; 0 when the last one was removed. Of a directory the file system's own
    /// count, which is 0 only once it is removed.
    pub links: u64,
}

/// A directory that is held open. Names are single ones, without separators, and mean what they
/// mean in this directory, wherever it is moved and whatever the process's working directory is.
///
/// All methods may be called concurrently. What is durable when, and the kinds of errors, are those
/// of [`Fs`](crate::Fs); a name with a separator, `.` and `..` are
/// [`InvalidInput`](io::ErrorKind::InvalidInput).
///
/// # Errors
/// Every method returns the operating system's error as it is, as those of [`Fs`](crate::Fs) do.
pub trait Dir: Debug + Send + Sync {
    /// Opens an existing regular file. Never creates one, and never waits: anything else than a
    /// regular file (a pipe, a device, a directory) is refused with
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) or an error of its own.
    ///
    /// A symbolic link is followed to be read. To be written it is refused: what it leads to is not
    /// this directory's.
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for writes that go past the page cache and are durable when they
    /// return: on `Ok` of [`write_at`](File::write_at), these bytes, and the length as far as the
    /// write grew it, are on stable storage; of what else was written or changed the `Ok` says
    /// nothing. After an error it is unknown which of the write's bytes are, and no later barrier
    /// tells.
    ///
    /// Such a handle takes whole blocks only ([`File::block_size`]) and does not read. Handles for
    /// the page cache and this one are of one file: each reads, or overwrites, what the other
    /// wrote. But two writes, one through each, that are under way *at the same time* and touch the
    /// same page may lose either, though both return `Ok`: keep them apart, as
    /// [`DirectStore`](crate::DirectStore) does.
    ///
    /// `file` is a handle of the file that is meant. If the name leads to another one by now, this
    /// fails with [`NotFound`](io::ErrorKind::NotFound).
    ///
    /// Fails with [`Unsupported`](io::ErrorKind::Unsupported), as it does by default, where the
    /// file cannot be written so. A file system may also refuse no earlier than at the first write,
    /// with [`InvalidInput`](io::ErrorKind::InvalidInput) or `Unsupported`, and then has written
    /// nothing.
    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        let _ = (name, file);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Creates a file that did not exist and opens it for reading and writing.
    /// Fails with [`AlreadyExists`](io::ErrorKind::AlreadyExists) otherwise.
    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in this directory, if that name is free. Fails with
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) otherwise, whatever has the name, and has
    /// changed nothing.
    ///
    /// Where the system has no such call, the file gets the new name, and then loses the old one: a
    /// crash may leave both. Where it cannot have two, the name is looked at before the change.
    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()>;

    /// Renames a file, replacing an existing file at `to` atomically.
    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()>;

    /// Removes a file's name. Open handles stay usable.
    fn remove(&self, name: &OsStr) -> io::Result<()>;

    /// The names in the directory, in no order, without `.` and `..`.
    fn list(&self) -> io::Result<Vec<OsString>>;

    /// Makes every creation, rename and removal in this directory that returned before this call
    /// durable.
    fn sync(&self) -> io::Result<()>;

    /// What has this name, itself: a symbolic link is not followed.
    fn stat(&self, name: &OsStr) -> io::Result<Stat>;

    /// Whether the directory can still be found where it was opened: it has the name it had, in the
    /// directory it was in. `true` where nothing can be said, as when the caller may no longer look
    /// there. That a directory above was moved is not seen.
    fn is_in_place(&self) -> io::Result<bool>;

    /// Takes the exclusive lock of the directory without waiting, as [`File::try_lock`] does that
    /// of a file. Fails with [`Unsupported`](io::ErrorKind::Unsupported) where directories have
    /// none.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives the lock back, also for processes that were forked meanwhile.
    fn unlock(&self) -> io::Result<()>;
}

/// Fails with [`NotFound`](io::ErrorKind::NotFound) unless both handles are of one file.
///
/// # Errors
/// Besides, those of [`File::stat`].
pub fn expect_same_file(found: &dyn File, expected: &dyn File) -> io::Result<()> {
    match found.stat()?.id == expected.stat()?.id {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name now")),
    }
}

/// A name in a directory as a path, if it is a single name.
pub(crate) fn single_name(name: &OsStr) -> io::Result<&Path> {
    let path = Path::new(name);
    match path.file_name() == Some(name) && path.parent() == Some(Path::new("")) {
        true => Ok(path),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The directory that holds the name at the end of `path`: `.` for a bare name.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a path that does not end with a name.
pub fn parent_dir(path: &Path) -> io::Result<&Path> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(_)) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        (Some(dir), Some(_)) => Ok(dir),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

//! Replacing a small file as a whole.
//!
//! The order is the old one (write a temporary file, sync it, rename it, sync the directory), and
//! every step is needed:
//!
//! 1. without the sync of the file, the rename may reach the disk first: an empty or torn file
//!    under the final name;
//! 2. without the sync of the directory, the rename may be undone by a crash after success was
//!    reported.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::by_path::in_parent;
use crate::dir::Dir;
use crate::fs::{File, Fs, retry, write_all_at};

/// What is at the final path after a failed [`replace_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceState {
    /// The old contents (or no file, as before), now and after any crash. Retrying is safe.
    Old,
    /// The new contents, as a whole, are visible now; a crash may bring the old ones back, as a
    /// whole. Whether retrying helps depends on why the directory could not be synced.
    NewUntilCrash,
    /// Old or new, each as a whole: the rename failed, and not every file system says whether it
    /// took place. Read the file to know what is visible now; a crash may show the other.
    OldOrNew,
}

/// A [`replace_file`] that failed, with what that means for the file.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplaceError {
    /// What is at the path now, and after a crash.
    pub state: ReplaceState,
    /// The file that was to be replaced.
    pub path: PathBuf,
    /// What was tried, as a verb phrase.
    pub op: &'static str,
    /// The file system's error.
    pub source: io::Error,
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            ReplaceState::Old => "its contents are the old ones",
            ReplaceState::NewUntilCrash => {
                "its contents are the new ones, but may not survive a crash"
            }
            ReplaceState::OldOrNew => "its contents are the old or the new ones",
        };
        let path = self.path.display();
        write!(f, "cannot replace {path}: {} failed; {state}", self.op)
    }
}

impl std::error::Error for ReplaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Replaces the file at `path` by one that holds `contents`, or creates it. On `Ok` the new
/// contents are durable; after a crash at any point the file holds the old contents or the new
/// ones, never a mixture or a part.
///
/// The temporary file is `path` with `.tmp` appended, in the same directory; one left by a crash is
/// removed by the next call, whatever it holds. Calls for the same path must not overlap. The new
/// file is a new inode: permissions and links of the old one are not carried over.
///
/// # Errors
/// [`ReplaceError::state`] says what the file holds:
///
/// | what failed | now | after a crash |
/// |---|---|---|
/// | creating, writing or syncing the temporary file | old | old |
/// | renaming | old, on local file systems; new, on a network file system whose answer was lost | old or new |
/// | syncing the directory | new | old or new |
///
/// # Examples
/// ```
/// use cairn_io::{NativeFs, replace_file};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("settings");
/// replace_file(&NativeFs, &path, b"one")?;
/// replace_file(&NativeFs, &path, b"two")?;
/// assert_eq!(std::fs::read(&path)?, b"two");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn replace_file(fs: &dyn Fs, path: &Path, contents: &[u8]) -> Result<(), ReplaceError> {
    let replaced = in_parent(fs, path, |dir, name| {
        place(dir, name, path, contents, contents.len() as u64, &|temp| dir.replace(temp, name))
    });
    replaced.map_err(|source| ReplaceError {
        state: ReplaceState::Old,
        path: path.to_owned(),
        op: "finding the directory",
        source,
    })?
}

/// Creates the file `name` in `dir`, with `contents` and zeros behind them up to `len` bytes; a
/// `len` below the length of `contents` adds none. The zeros are sparse where the file system can.
/// `path` is what errors call the file.
///
/// As [`replace_file`], but a name that is taken keeps what it has: the source of the error is
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists).
///
/// # Errors
/// As [`replace_file`].
pub fn place_file(
    dir: &dyn Dir,
    name: &OsStr,
    path: &Path,
    contents: &[u8],
    len: u64,
) -> Result<(), ReplaceError> {
    place(dir, name, path, contents, len, &|temp| dir.rename(temp, name))
}

fn place(
    dir: &dyn Dir,
    name: &OsStr,
    path: &Path,
    contents: &[u8],
    len: u64,
    rename: &dyn Fn(&OsStr) -> io::Result<()>,
) -> Result<(), ReplaceError> {
    let fail =
        |state, op| move |source| ReplaceError { state, path: path.to_path_buf(), op, source };
    let before = |op| fail(ReplaceState::Old, op);
    let temp = temp_name(name);
    let file = create_over(dir, &temp).map_err(before("creating the temporary file"))?;
    let written = write_all_at(&*file, 0, &[IoSlice::new(contents)])
        .and_then(|()| match len > contents.len() as u64 {
            true => retry(|| file.set_len(len)),
            false => Ok(()),
        })
        .map_err(before("writing the temporary file"))
        .and_then(|()| file.sync_data().map_err(before("syncing the temporary file")));
    drop(file);
    if let Err(e) = written {
        // Frees the space it took. When this fails too, the next call does it.
        let _ = dir.remove(&temp);
        return Err(e);
    }
    rename(&temp).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            let _ = dir.remove(&temp);
            fail(ReplaceState::Old, "giving it a name that is taken")(e)
        }
        _ => fail(ReplaceState::OldOrNew, "renaming the temporary file")(e),
    })?;
    dir.sync().map_err(fail(ReplaceState::NewUntilCrash, "syncing the directory"))
}

fn temp_name(name: &OsStr) -> OsString {
    let mut name = name.to_os_string();
    name.push(".tmp");
    name
}

/// Removes and creates, instead of cutting: the old file may have other links.
fn create_over(dir: &dyn Dir, name: &OsStr) -> io::Result<Arc<dyn File>> {
    match dir.create_new(name) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            dir.remove(name)?;
            dir.create_new(name)
        }
        created => created,
    }
}

//! An open directory, by descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{File as StdFile, TryLockError};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::barrier::explain_barrier;
use super::file::NativeFile;
use super::stat::stat_of;
use crate::dir::{Dir, FileId, Kind, Stat, single_name};
use crate::fs::{Access, File};

/// What a handle for direct writes is given besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    None,
    #[cfg(feature = "io-uring")]
    Own,
}

#[derive(Debug)]
pub(super) struct NativeDir {
    fd: StdFile,
    place: Option<Place>,
    #[cfg_attr(not(feature = "io-uring"), allow(dead_code, reason = "without rings, one kind"))]
    ring: Ring,
}

/// Where the directory was when it was opened, as can be seen from inside: neither the working
/// directory nor the root of the process, nor what it may search by now, has a say in it.
#[derive(Debug)]
struct Place {
    /// The directory above.
    parent: FileId,
    /// `../NAME`
    from_inside: PathBuf,
}

impl NativeDir {
    pub(super) fn open(path: &Path, ring: Ring) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        let mut dir = NativeDir { fd: StdFile::from(fd), place: None, ring };
        dir.place = dir.find_place(path);
        Ok(dir)
    }

    /// `None` if it has no name that can be found, like a root.
    fn find_place(&self, path: &Path) -> Option<Place> {
        let whole = std::fs::canonicalize(path).ok()?;
        let from_inside = Path::new("..").join(whole.file_name()?);
        let parent = self.stat_path(Path::new("..")).ok()?.id;
        let found = self.stat_path(&from_inside).ok()?.id;
        (found == self.stat_self().ok()?.id).then_some(Place { parent, from_inside })
    }

    fn stat_self(&self) -> io::Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(&self.fd)?))
    }

    fn stat_path(&self, path: &Path) -> io::Result<Stat> {
        let stat = rustix::fs::statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat_of(&stat?))
    }

    fn open_file(&self, name: &Path, flags: OFlags) -> io::Result<NativeFile> {
        // Without `NONBLOCK`, a pipe that nobody writes to is waited for.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(0o666);
        let opened = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, mode));
        let file = match opened {
            // `ELOOP` of a link that was not to be followed; `EMLINK`, says FreeBSD.
            Err(Errno::LOOP | Errno::MLINK) if flags.contains(OFlags::NOFOLLOW) => {
                return Err(refused("it is a symbolic link, which is not written through"));
            }
            // Of a pipe without a reader, of a socket, of a device that is not there.
            Err(Errno::NXIO | Errno::NODEV) => return Err(refused(NOT_REGULAR)),
            opened => NativeFile(StdFile::from(opened?)),
        };
        match file.stat()?.kind {
            Kind::File => Ok(file),
            Kind::Dir => Err(io::ErrorKind::IsADirectory.into()),
            Kind::Link | Kind::Other => Err(refused(NOT_REGULAR)),
        }
    }
}

const NOT_REGULAR: &str = "it is not a regular file";

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Dir for NativeDir {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR | OFlags::NOFOLLOW,
        };
        Ok(Arc::new(self.open_file(single_name(name)?, flags)?))
    }

    /// Linux alone has one call that says what is needed. Apple's `F_NOCACHE` is a hint without a
    /// barrier, and is left out on purpose.
    #[cfg(target_os = "linux")]
    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        // rustix's `OFlags::DSYNC` is `O_SYNC` on Linux, which waits for timestamps, too: for a
        // journal commit, on most file systems.
        let dsync = OFlags::from_bits_retain(libc::O_DSYNC.cast_unsigned());
        let flags = OFlags::WRONLY | OFlags::DIRECT | dsync | OFlags::NOFOLLOW;
        let opened = self.open_file(single_name(name)?, flags).map_err(|e| {
            match Errno::from_io_error(&e) {
                Some(Errno::INVAL) => io::ErrorKind::Unsupported.into(),
                _ => e,
            }
        })?;
        crate::dir::expect_same_file(&opened, file)?;
        let direct = super::direct::DirectFile::new(opened)?;
        #[cfg(feature = "io-uring")]
        if self.ring == Ring::Own {
            return Ok(Arc::new(direct.with_rings(super::rings::Rings::new().ok())));
        }
        Ok(Arc::new(direct))
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        Ok(Arc::new(self.open_file(single_name(name)?, flags)?))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let (from, to) = (single_name(from)?, single_name(to)?);
        match rename_noreplace(&self.fd, from, to) {
            // Neither the system nor the file system need know it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
        match rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
            Ok(()) => Ok(rustix::fs::unlinkat(&self.fd, from, AtFlags::empty())?),
            // No second names, or none for this file.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => {
                match self.stat_path(to) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
                    }
                    Err(e) => Err(e),
                }
            }
            Err(e) => Err(e.into()),
        }
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, single_name(from)?, &self.fd, single_name(to)?)?)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, single_name(name)?, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// `sync_all`, not `sync_data`: what a directory holds *is* metadata.
    fn sync(&self) -> io::Result<()> {
        self.fd.sync_all().map_err(explain_barrier)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.stat_path(single_name(name)?)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        if self.stat_self()?.links == 0 {
            return Ok(false);
        }
        let Some(Place { parent, from_inside }) = &self.place else { return Ok(true) };
        let found = self.stat_path(Path::new("..")).and_then(|above| {
            Ok(above.id == *parent && self.stat_path(from_inside)?.id == self.stat_self()?.id)
        });
        match found {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // Whoever gave its rights away cannot look, which is no news of the directory.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(true),
            found => found,
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.fd.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            // NFS locks what is open for writing, which a directory cannot be.
            Err(TryLockError::Error(e)) => match Errno::from_io_error(&e) {
                Some(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP) => {
                    Err(io::ErrorKind::Unsupported.into())
                }
                _ => Err(e),
            },
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.fd.unlock()
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_noreplace(dir: &StdFile, from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_noreplace(_: &StdFile, _: &Path, _: &Path) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

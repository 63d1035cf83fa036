//! A FUSE file system with one file, the image of a block device.
//!
//! One thread serves all requests, in the order in which they come. All but flushes are answered
//! before the next one is read.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

use super::device::unmount_patiently;

const FILE_NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// What holds the bytes of the device.
pub(crate) trait Medium: Send + Sync + 'static {
    /// In bytes. Never changes.
    fn device_len(&self) -> u64;

    /// Fills `buf` with what is at `offset`; all of it lies inside.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`, which lie inside, to the device's cache.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written before. Calls `done` when that is so, which may be later, and
    /// on another thread.
    fn flush(&self, done: impl FnOnce() + Send + 'static);
}

/// The file while it is served. Dropping ends that. The library unmounts too, but gives up where
/// somebody else uses the file for another moment.
pub(crate) struct Served {
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
}

impl Served {
    /// Serves a medium at `mount_point`.
    pub(crate) fn new(medium: Arc<impl Medium>, mount_point: &Path) -> Result<Self> {
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("cairn-lab".into()), MountOption::RW];
        let session = Session::new(Server(medium), mount_point, &config)
            .and_then(Session::spawn)
            .context("cannot mount with FUSE")?;
        Ok(Served { session: Some(session), mount_point: mount_point.into() })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.mount_point.join(FILE_NAME)
    }

    /// Ends serving.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        unmount_patiently(&self.mount_point)?;
        session.join().context("the FUSE session failed")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Server<M>(Arc<M>);

impl<M: Medium> Server<M> {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0),
            FILE => (FileType::RegularFile, self.0.device_len()),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

impl<M: Medium> Filesystem for Server<M> {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(FILE) {
            Some(attr) if parent == INodeNo::ROOT && name == FILE_NAME => {
                reply.entry(&TTL, &attr, Generation(0))
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let rest = self.0.device_len().saturating_sub(offset);
        let mut bytes = vec![0; u64::from(size).min(rest) as usize];
        match self.0.read(offset, &mut bytes) {
            Ok(()) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.flush(|| reply.ok());
    }

    /// Closing a file makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Discards and zeroed ranges are refused: file systems do without.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

//! A FUSE file system with one file, the image of a block device, that remembers in which order it was written and flushed.
//!
//! One thread serves all requests, and a request is answered before the next one is read. So the order of `Recorder::ops` is the order of a device:
//! what was recorded before a flush had been reported as done, or could have been, when the flush came.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    WriteFlags,
};

use super::device::unmount_patiently;
use super::image::Image;
use super::trace::{Op, Trace};

const FILE_NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// The file while it is served. Dropping ends that.
pub(crate) struct Recorder {
    recording: Arc<Mutex<Recording>>,
    base: Image,
    served: Served,
}

struct Recording {
    content: Image,
    ops: Vec<Op>,
}

impl Recorder {
    /// Serves an image at `mount_point`.
    pub(crate) fn serve(base: Image, mount_point: &Path) -> Result<Self> {
        let recording = Arc::new(Mutex::new(Recording { content: base.clone(), ops: Vec::new() }));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("cairn-lab".into()), MountOption::RW];
        let session = Session::new(Server(recording.clone()), mount_point, &config)
            .and_then(Session::spawn)
            .context("cannot mount with FUSE")?;
        let served = Served { session: Some(session), mount_point: mount_point.into() };
        Ok(Recorder { recording, base, served })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.served.mount_point.join(FILE_NAME)
    }

    /// Operations recorded by now. What is acknowledged *before* this call must survive a cut at or after this count.
    pub(crate) fn op_count(&self) -> usize {
        lock(&self.recording).ops.len()
    }

    /// Ends serving.
    pub(crate) fn finish(mut self) -> Result<Trace> {
        self.served.end()?;
        let ops = std::mem::take(&mut lock(&self.recording).ops);
        Ok(Trace { base: self.base, ops })
    }
}

/// A session that ends when dropped. The library unmounts too, but gives up where somebody else uses the file for another moment.
struct Served {
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
}

impl Served {
    fn end(&mut self) -> Result<()> {
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

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Server(Arc<Mutex<Recording>>);

impl Server {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0),
            FILE => (FileType::RegularFile, lock(&self.0).content.len()),
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

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(FILE) {
            Some(attr) if parent == INodeNo::ROOT && name == FILE_NAME => reply.entry(&TTL, &attr, Generation(0)),
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
        let recording = lock(&self.0);
        let rest = recording.content.len().saturating_sub(offset);
        let mut bytes = vec![0; (u64::from(size)).min(rest) as usize];
        recording.content.read(offset, &mut bytes);
        drop(recording);
        reply.data(&bytes);
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
        let mut recording = lock(&self.0);
        recording.content.write(offset, data);
        recording.ops.push(Op::Write { offset, bytes: data.into() });
        drop(recording);
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).ops.push(Op::Flush);
        reply.ok();
    }

    /// Closing a file makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Discards and zeroed ranges are refused: file systems do without.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

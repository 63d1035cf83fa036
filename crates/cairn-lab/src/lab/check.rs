//! One state of a device: mounted, recovered by its file system and by the log, and compared with
//! what was promised.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cairn_log::{Error, Log, Options, Reader};
use tempfile::TempDir;

use super::backend;
use super::device::{Loop, Mounted};
use super::history::{Found, History, identify};
use crate::cli::{Backend, FileSystem};

/// Where the log is in its file system.
pub(crate) const LOG: &str = "log";

/// What became of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything promised is there.
    Sound,
    /// The log broke its promise.
    Violation(String),
    /// The file system does not mount.
    Unmountable(String),
    /// The file system mounts and then says that it is damaged itself.
    Damaged(String),
}

/// A block device in memory, to put states on, and places to mount.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) fs: FileSystem,
    pub(crate) backend: Option<Backend>,
    pub(crate) image: File,
    device: Loop,
    // Last, so that it is removed when nothing uses it any more.
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new(fs: FileSystem, backend: Option<Backend>, scratch: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cairn-lab-").tempdir_in(scratch)?;
        for name in ["mount", "fuse"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let path = folder.path().join("image");
        let image = File::options().read(true).write(true).create_new(true).open(&path)?;
        image.set_len(fs.device_len())?;
        Ok(Bench { fs, backend, image, device: Loop::cached(&path)?, folder })
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    pub(crate) fn fuse_mount_point(&self) -> PathBuf {
        self.folder.path().join("fuse")
    }

    /// A name for a file next to the image.
    pub(crate) fn spare_file(&self) -> PathBuf {
        self.folder.path().join("spare")
    }

    /// Checks the state that the image is in, and changes the image. `goes_on`: also append, close
    /// and open again.
    pub(crate) fn check(&self, history: &History, cut_at: usize, goes_on: bool) -> Result<Verdict> {
        self.device.forget_cache()?;
        let mount_point = self.mount_point();
        let mounted = match Mounted::new(self.fs, &self.device, &mount_point) {
            Ok(mounted) => mounted,
            Err(errno) => return Ok(Verdict::Unmountable(errno.to_string())),
        };
        let verdict = self.judge(&mount_point.join(LOG), history, cut_at, goes_on);
        mounted.unmount()?;
        verdict
    }

    fn judge(
        &self,
        dir: &Path,
        history: &History,
        cut_at: usize,
        goes_on: bool,
    ) -> Result<Verdict> {
        let options = backend::options(self.backend, None)?;
        let seen = match look(&options, dir, history.salt(), goes_on) {
            Ok(seen) => seen,
            Err(error) => {
                let own = error.chain().any(FileSystem::is_own_damage);
                let message = format!("{error:#}");
                return Ok(if own {
                    Verdict::Damaged(message)
                } else {
                    Verdict::Violation(message)
                });
            }
        };
        backend::ensure_used(seen.backend, self.backend)?;
        Ok(match history.check(cut_at, &seen.found) {
            Err(complaint) => Verdict::Violation(complaint),
            Ok(()) if seen.again.is_some_and(|again| again != seen.found) => {
                Verdict::Violation("opened twice, found two things".into())
            }
            Ok(()) => Verdict::Sound,
        })
    }
}

/// What a log showed of itself.
struct Seen {
    found: Vec<Found>,
    /// After something more was committed, without that.
    again: Option<Vec<Found>>,
    backend: cairn_io::Backend,
}

/// What the log holds; also after something more was committed, if `goes_on`.
fn look(options: &Options, dir: &Path, salt: u64, goes_on: bool) -> Result<Seen> {
    let log = open(options, dir)?;
    let found = records_of(log.reader(log.head_lsn())?, salt)?;
    if !goes_on {
        return Ok(Seen { found, again: None, backend: log.backend() });
    }
    let lsn = log.commit(b"after the cut")?;
    let backend = log.backend();
    log.close().context("cannot close")?;
    let log = open(options, dir).context("for the second time")?;
    let mut again = records_of(log.reader(log.head_lsn())?, salt)?;
    let last = again.pop().context("the record committed after the cut is gone")?;
    anyhow::ensure!(
        last.lsn == lsn.0 && last.id.is_none(),
        "another record is where one was committed after the cut: {last:?}"
    );
    Ok(Seen { found, again: Some(again), backend })
}

fn open(options: &Options, dir: &Path) -> Result<Log> {
    for _ in 0..500 {
        match options.clone().open(dir) {
            // A command that another thread is just starting shares the lock for a moment.
            Err(Error::Locked { .. }) => thread::sleep(Duration::from_millis(1)),
            result => return result.context("cannot open the log"),
        }
    }
    options.clone().open(dir).context("cannot open the log")
}

/// Everything a reader returns.
pub(crate) fn records_of(mut reader: Reader, salt: u64) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().context("cannot read the log")? {
        found.push(Found {
            lsn: record.lsn().0,
            seq: record.seq().0,
            id: identify(salt, record.payload()),
        });
    }
    Ok(found)
}

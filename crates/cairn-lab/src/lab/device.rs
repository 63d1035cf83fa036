//! Loop devices, mounts, and commands, each of them cleaned up when dropped.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cli::FileSystem;

/// Runs a command to its end; its output, or what it said about its failure.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A block device whose bytes are a file's.
#[derive(Debug)]
pub(crate) struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Through the page cache of the file, which is memory anyway.
    pub(crate) fn cached(file: &Path) -> Result<Self> {
        Self::attach(file, "off")
    }

    /// With every request handed to the file as it comes.
    pub(crate) fn direct(file: &Path) -> Result<Self> {
        let device = Self::attach(file, "on")?;
        let name = device.path().file_name().unwrap_or_default().to_string_lossy();
        let dio = std::fs::read_to_string(format!("/sys/block/{name}/loop/dio"))?;
        // With a page cache in between, writes would be recorded when the cache likes.
        ensure!(dio.trim() == "1", "the loop device does not use direct I/O");
        Ok(device)
    }

    fn attach(file: &Path, direct_io: &str) -> Result<Self> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", &format!("--direct-io={direct_io}")]).arg(file);
        Ok(Loop { device: succeed(&mut command)?.into() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    /// Forgets what the kernel remembers of the device. It does so by itself when the last user
    /// closes it; where udev runs it may look at the device at any time, and so be that last user.
    pub(crate) fn forget_cache(&self) -> Result<()> {
        if Path::new("/run/udev/control").exists() {
            succeed(Command::new("blockdev").arg("--flushbufs").arg(&self.device))?;
        }
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = succeed(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mounted<'a> {
    at: Option<&'a Path>,
}

impl<'a> Mounted<'a> {
    pub(crate) fn new(fs: FileSystem, device: &Loop, at: &'a Path) -> Result<Self, Errno> {
        let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
        mount(device.path(), at, fs.name(), flags, None::<&CStr>)?;
        Ok(Mounted { at: Some(at) })
    }

    pub(crate) fn unmount(mut self) -> Result<()> {
        match self.at.take() {
            Some(at) => unmount_patiently(at),
            None => Ok(()),
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let _ = unmount_patiently(at);
        }
    }
}

/// Unmounts. Another thread may just be starting a command, which for a moment has all of our files
/// open; where somebody stays, the name goes at once, and the rest with the last user.
pub(crate) fn unmount_patiently(at: &Path) -> Result<()> {
    for _ in 0..2000 {
        match unmount(at, UnmountFlags::empty()) {
            Err(Errno::BUSY) => thread::sleep(Duration::from_millis(1)),
            result => return result.with_context(|| format!("cannot unmount {}", at.display())),
        }
    }
    unmount(at, UnmountFlags::DETACH)?;
    bail!("{} stays busy", at.display())
}

//! A command on a file system whose device takes long to flush.
//!
//! Only the time is real: what the device holds goes to a sparse file that is never synced, for
//! nothing of it is to survive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::campaign::interruption;
use super::device::{Loop, Mounted};
use super::served::{Medium, Served};
use crate::cli::SlowDisk;

/// In the command's words, the mount point.
const PLACE: &str = "{}";
/// What a command has from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the command succeeded. When this returns, however it does, nothing of the disk is left.
pub(crate) fn run(disk: &SlowDisk) -> Result<bool> {
    run_until(disk, &*interruption()?)
}

fn run_until(disk: &SlowDisk, interrupted: &AtomicBool) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("cairn-lab-").tempdir_in(&disk.scratch)?;
    let [image, fuse, mount_point] =
        ["image", "fuse", "mount"].map(|name| folder.path().join(name));
    std::fs::create_dir(&fuse)?;
    std::fs::create_dir(&mount_point)?;
    let file = File::options().read(true).write(true).create_new(true).open(&image)?;
    file.set_len(disk.size.as_u64())?;
    disk.fs.make(&image)?;

    let medium = SlowFile { file, len: disk.size.as_u64(), flush_latency: disk.flush_latency };
    let mut served = Served::new(Arc::new(medium), &fuse)?;
    let device = Loop::direct(&served.file())?;
    let mounted =
        Mounted::new(disk.fs, &device, &mount_point).context("cannot mount the file system")?;
    let status = run_at(&mount_point, &disk.command, interrupted)?;
    mounted.unmount()?;
    drop(device);
    served.end()?;
    if !status.success() {
        eprintln!("cairn-lab: the command failed: {status}");
    }
    Ok(status.success())
}

/// A file whose flushes do nothing, and take their time for it.
struct SlowFile {
    file: File,
    len: u64,
    flush_latency: Duration,
}

impl Medium for SlowFile {
    fn device_len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Nobody else waits meanwhile, as far as it is up to the device.
    fn flush(&self, done: impl FnOnce() + Send + 'static) {
        let latency = self.flush_latency;
        thread::spawn(move || {
            thread::sleep(latency);
            done();
        });
    }
}

/// Runs the command to its end, or ends it when the user wants to.
fn run_at(mount_point: &Path, words: &[String], interrupted: &AtomicBool) -> Result<ExitStatus> {
    ensure!(
        words.iter().any(|word| word.contains(PLACE)),
        "the command does not say where the disk comes in: no {PLACE}"
    );
    let place = mount_point.to_str().context("--scratch is not UTF-8")?;
    let mut words = words.iter().map(|word| word.replace(PLACE, place));
    let program = words.next().context("no command")?;
    let mut command = Command::new(&program);
    // In a group of its own, which can be ended as a whole: whoever is left over keeps the disk
    // mounted.
    command.args(words).stdin(Stdio::null()).process_group(0);
    let group = Group(command.spawn().with_context(|| format!("cannot run {program}"))?);
    while !group.has_ended() {
        if interrupted.load(Ordering::Relaxed) {
            group.signal(Signal::TERM);
            let asked = Instant::now();
            while !group.has_ended() && asked.elapsed() < GRACE {
                thread::sleep(LOOK_EVERY);
            }
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    group.end()
}

/// The command and what it started.
struct Group(Child);

impl Group {
    /// Leaves its exit status where it is, so that the number of the group is not given to another
    /// one.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(Pid::from_child(&self.0)), options), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }

    /// Ends all of them, also those that the command left behind.
    fn end(mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        Ok(self.0.wait()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::cli::FileSystem;
    use crate::lab::needs;

    fn slow_file(flush_latency: Duration) -> SlowFile {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        SlowFile { file, len: 8192, flush_latency }
    }

    #[test]
    fn a_flush_takes_its_time() {
        // No less; how much more is the machine's affair.
        let latency = Duration::from_millis(20);
        let (done, is_done) = mpsc::channel();
        let started = Instant::now();
        slow_file(latency).flush(move || done.send(()).unwrap());
        is_done.recv().unwrap();
        assert!(started.elapsed() >= latency);
    }

    #[test]
    fn a_flush_holds_up_nobody() {
        let slow = slow_file(Duration::from_secs(60));
        let (done, is_done) = mpsc::channel();
        for _ in 0..2 {
            let done = done.clone();
            slow.flush(move || done.send(()).unwrap());
        }
        slow.write(4000, &[7; 200]).unwrap();
        let mut bytes = [1; 200];
        slow.read(4001, &mut bytes).unwrap();
        assert_eq!((bytes[198], bytes[199]), (7, 0));
        assert_eq!(is_done.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    /// Runs a shell script with a disk; what became of it, and what it wrote to the file that it
    /// knows as $0. Nothing of the disk is left. `None` where there cannot be one.
    fn run_script(script: &str, interrupted: bool) -> Option<(Result<bool>, String)> {
        let scratch = tempfile::tempdir().unwrap();
        if let Some(missing) = needs::missing(&[FileSystem::Ext4], scratch.path()) {
            eprintln!("SKIPPED: {missing}");
            return None;
        }
        let told = tempfile::NamedTempFile::new().unwrap();
        let words = ["sh", "-c", script, told.path().to_str().unwrap()].map(String::from);
        let result = run_words(scratch.path(), words.into(), interrupted);
        Some((result, std::fs::read_to_string(told.path()).unwrap()))
    }

    fn run_words(scratch: &Path, command: Vec<String>, interrupted: bool) -> Result<bool> {
        let disk = SlowDisk {
            fs: FileSystem::Ext4,
            flush_latency: Duration::from_millis(1),
            size: bytesize::ByteSize::mib(64),
            scratch: scratch.into(),
            command,
        };
        let result = run_until(&disk, &AtomicBool::new(interrupted));
        assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "files are left");
        let scratch = scratch.to_str().unwrap();
        assert!(
            !std::fs::read_to_string("/proc/mounts").unwrap().contains(scratch),
            "mounts are left"
        );
        // The kernel detaches a loop device with its last user, who may be anybody that looks at
        // new disks.
        while loop_files().contains(scratch) {
            thread::sleep(LOOK_EVERY);
        }
        result
    }

    fn loop_files() -> String {
        let devices = std::fs::read_dir("/sys/block").unwrap();
        let file = |device: std::fs::DirEntry| {
            std::fs::read_to_string(device.path().join("loop/backing_file")).ok()
        };
        devices.filter_map(|device| file(device.unwrap())).collect()
    }

    #[test]
    fn a_command_has_a_disk_and_leaves_nothing() {
        let script = "echo x > {}/a && sync {}/a && grep {} /proc/mounts > $0";
        let Some((result, told)) = run_script(script, false) else { return };
        assert!(result.unwrap());
        assert!(told.starts_with("/dev/loop") && told.contains(" ext4 "), "{told}");
    }

    #[test]
    fn nothing_is_left_of_a_command_that_fails_or_of_what_it_leaves_behind() {
        let Some((result, told)) =
            run_script("(cd {} && exec sleep 60) & echo $! > $0; exit 3", false)
        else {
            return;
        };
        assert!(!result.unwrap());
        assert!(!Path::new("/proc").join(told.trim()).join("cwd").is_dir(), "it still runs");
        let scratch = tempfile::tempdir().unwrap();
        run_words(scratch.path(), vec!["/no such program".into(), "{}".into()], false).unwrap_err();
        run_words(scratch.path(), vec!["true".into()], false).unwrap_err();
    }

    #[test]
    fn a_command_ends_when_the_user_wants_to() {
        let Some((result, _)) = run_script("cd {} && exec sleep 60", true) else { return };
        assert!(!result.unwrap());
    }
}

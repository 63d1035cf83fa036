//! What the laboratory needs of the machine it runs on.

use std::env;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::FileSystem;

/// The first thing that is missing, in one line.
pub(crate) fn missing(file_systems: &[FileSystem], scratch: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root, and mounting needs it".into());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
            return Some(format!("cannot open {device}: {error}"));
        }
    }
    if !scratch.is_dir() {
        return Some(format!(
            "no directory {} to hold images in; see --scratch",
            scratch.display()
        ));
    }
    let tools =
        file_systems.iter().map(|fs| (fs.maker(), fs.package())).chain([("losetup", "mount")]);
    for (tool, package) in tools {
        if find(tool).is_none() {
            return Some(format!("no {tool} here; it is in the package {package}"));
        }
    }
    let unknown = file_systems.iter().find(|fs| !is_known(**fs));
    unknown.map(|fs| format!("the kernel does not know {}", fs.name()))
}

/// Whether the kernel has the file system, after loading its module if there is one.
fn is_known(fs: FileSystem) -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .split_whitespace()
            .any(|w| w == fs.name())
    };
    listed() || (Command::new("modprobe").arg("-q").arg(fs.name()).status().is_ok() && listed())
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file())
}

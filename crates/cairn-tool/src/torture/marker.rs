//! Which directories are torture's to use.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::report::UsageError;

/// The file that tells a log left by torture from somebody's data. Holds the evidence when
/// something was lost.
pub(super) const MARKER_NAME: &str = "TORTURE";
const MARKER: &str = "The log in this directory was made by `cairn torture`, which may use it \
                      again. Nothing in it is of use.\n";

/// Makes sure that `dir` is torture's to use, and keeps another one out while the file that is
/// returned stays open.
pub(super) fn take_directory(dir: &Path) -> anyhow::Result<File> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error)
                .with_context(|| format!("cannot create directory {}", dir.display()));
        }
        _ => {}
    }
    let refuse = |why: &str| {
        UsageError(format!("{} {why}: name a new directory; nothing was changed", dir.display()))
    };
    let path = dir.join(MARKER_NAME);
    if std::fs::read_dir(dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .next()
        .is_none()
    {
        std::fs::write(&path, MARKER)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refuse("is not empty and was not left by an earlier torture").into());
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    if text != MARKER.as_bytes() {
        let is_evidence = text.starts_with(MARKER.as_bytes());
        return Err(refuse(if is_evidence {
            "holds the evidence of a loss"
        } else {
            "has a TORTURE of its own"
        })
        .into());
    }
    let marker = File::options()
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match marker.try_lock() {
        Ok(()) => Ok(marker),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("{} is being tortured already", dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

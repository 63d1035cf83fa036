//! Looking at a log that somebody may be writing to.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use cairnlog::{EndState, Error, Inspection};

/// How often a look is repeated, and the pause before each: long enough for a write that is under
/// way to end.
const LOOKS_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at the log in `dir`; fails when there is none.
///
/// A group that is just being written looks like a torn tail. One is therefore believed only when
/// it stays as it is for a while.
pub(crate) fn inspect(dir: &Path) -> anyhow::Result<Inspection> {
    let mut log = open(dir)?;
    for _ in 1..LOOKS_MAX {
        let EndState::Torn { .. } = log.end_state() else { break };
        let end = (log.end_state(), log.end_lsn());
        std::thread::sleep(PAUSE);
        log = open(dir)?;
        if (log.end_state(), log.end_lsn()) == end {
            break;
        }
    }
    Ok(log)
}

fn open(dir: &Path) -> anyhow::Result<Inspection> {
    Inspection::open(dir).map_err(|error| missing(dir, error))
}

/// An error of looking at a log, in words for the case that there is none.
pub(crate) fn missing(dir: &Path, error: Error) -> anyhow::Error {
    match error {
        Error::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            anyhow!(
                "there is no log in {}; check the path, or create one with `cairn append`",
                dir.display()
            )
        }
        error => error.into(),
    }
}

/// Disk space that the files in `dir` take, in bytes; 0 if they cannot be looked at.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| taken_by(&file)).sum()
}

/// Disk space that one file takes, in bytes; 0 if it cannot be looked at.
pub(crate) fn file_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |file| taken_by(&file))
}

#[cfg(unix)]
fn taken_by(file: &std::fs::Metadata) -> u64 {
    // The system counts in blocks of 512 bytes, whatever those of the file system are.
    std::os::unix::fs::MetadataExt::blocks(file).saturating_mul(512)
}

#[cfg(not(unix))]
fn taken_by(file: &std::fs::Metadata) -> u64 {
    file.len()
}

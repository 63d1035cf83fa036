//! Opening a stack, and naming files beside it.

use std::fs;
use std::path::{Path, PathBuf};

use cairnlog::stack::{Error, Stack};

use crate::report::note;

/// Opens a stack, and says so when it had not been closed.
pub(super) fn open(path: &Path) -> anyhow::Result<Stack> {
    let stack = Stack::open(path)?;
    let report = stack.open_report();
    if report.dropped_torn_commit {
        let cut = "its newest commit was unfinished, never acknowledged, and was dropped";
        note(&format!("{} had not been closed: {cut}", path.display()));
    }
    Ok(stack)
}

/// Opens a stack that has to be there.
pub(super) fn open_existing(path: &Path) -> anyhow::Result<Stack> {
    fs::metadata(path).map_err(|source| Error::Io {
        op: "open",
        path: path.to_owned(),
        source: source.into(),
    })?;
    open(path)
}

/// A file beside the stack's, with more at the end of its name.
pub(super) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

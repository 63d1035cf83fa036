//! A directory of a command's own inside somebody else's.

use std::path::Path;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::report::UsageError;

/// Makes an empty directory in `dir`, named `PREFIX-` and some letters. It is removed with all that
/// is in it when the value is dropped, or by [`remove`], which reports.
pub(crate) fn create(dir: &Path, prefix: &str) -> anyhow::Result<TempDir> {
    if !dir.exists() {
        bail!("there is no directory {}; create it, or name another one", dir.display());
    }
    if !dir.is_dir() {
        return Err(UsageError(format!("{} is not a directory", dir.display())).into());
    }
    let made = tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir_in(dir);
    made.with_context(|| {
        format!("cannot make a directory in {}; it is needed for a moment", dir.display())
    })
}

pub(crate) fn remove(scratch: TempDir) -> anyhow::Result<()> {
    let path = scratch.path().to_owned();
    scratch.close().with_context(|| format!("cannot remove {}; remove it by hand", path.display()))
}

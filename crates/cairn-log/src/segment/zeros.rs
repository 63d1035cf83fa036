//! Zeros ahead of the writer.

use std::io::{self, IoSlice};

use cairn_commit::slot::Slot;
use cairn_io::{File, write_all_at};

/// Zeros are written this many bytes at a time at most: commits wait for the device meanwhile.
pub(crate) const ZEROS_BYTES_MAX: u64 = 512 << 10;

/// Makes a range of a file durable zeros: past the page cache through `direct`, if that works, else
/// through `buffered`.
///
/// A barrier of the writer would otherwise wait for these writes, too.
pub(crate) fn zero(
    direct: Option<&dyn File>,
    buffered: &dyn File,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    let memory = Slot::try_new(
        usize::try_from(len.min(ZEROS_BYTES_MAX)).map_err(|_| io::ErrorKind::InvalidInput)?,
    )?;
    let zeros = memory.contents().map_err(|_| io::ErrorKind::Other)?;
    let write = |file: &dyn File| {
        (offset..offset + len).step_by(zeros.len().max(1)).try_for_each(|at| {
            let rest = usize::try_from(offset + len - at).unwrap_or(usize::MAX);
            write_all_at(file, at, &[IoSlice::new(&zeros[..zeros.len().min(rest)])])
        })
    };
    if direct.is_some_and(|direct| write(direct).is_ok()) {
        return Ok(());
    }
    write(buffered)?;
    buffered.sync_data()
}

//! The wall clock, as the file system tells it.

use std::time::UNIX_EPOCH;

use cairn_io::Fs;

pub(crate) fn unix_ns(fs: &dyn Fs) -> u64 {
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

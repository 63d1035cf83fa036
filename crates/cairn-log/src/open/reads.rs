//! Many short reads at the same time.

use crate::layout::Layout as _;
use crate::layout::directory::Directory;
use crate::read::parallel::each;

/// Reads that wait for the device at the same time.
const READS: usize = 8;

/// Fewer reads than this are not worth a thread.
const SHARE: usize = 8;

/// Does `count` short reads, several at a time: each waits for the device, and a log has as many as
/// it has segments. The results are in order.
///
/// What fails is read again, alone: a process may have one descriptor left and not eight, and that
/// is no damage.
pub(crate) fn read_each<T: Send, E: Send>(
    directory: &Directory,
    count: usize,
    read: impl Fn(usize) -> std::result::Result<T, E> + Sync,
) -> Vec<std::result::Result<T, E>> {
    let helpers = if directory.background() { (count / SHARE).min(READS - 1) } else { 0 };
    let results = each(count, helpers, |i| Ok(read(i)), |_| ()).into_iter().flatten();
    results
        .enumerate()
        .map(|(i, result)| if helpers > 0 { result.or_else(|_| read(i)) } else { result })
        .collect()
}

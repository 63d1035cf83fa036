//! What recovery cut off, in files beside the log: for who wants to see what it was, until the
//! log is closed. Nothing reads them.

use std::io::{self, IoSlice};
use std::path::PathBuf;

use cairn_io::{read_full_at, write_all_at};

use super::Directory;
use crate::format::SegmentName;
use crate::place::Lsn;
use crate::segment::file::SegmentFile;

const SUFFIX: &str = ".torn";

/// Bytes copied at a time.
const CHUNK: u64 = 256 << 10;

/// So many bytes are kept at most: the beginning of what was cut.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// Whether a file has the name of something that was cut.
pub(crate) fn is_cut(name: &str) -> bool {
    let named = |base: &str| SegmentName::parse(&format!("{base}.cairn"));
    name.strip_suffix(SUFFIX).and_then(named).is_some()
}

impl Directory {
    /// Copies what a segment holds between two places into a file whose name tells the first of
    /// them, and the generation that was cut; durable on return, its name too.
    ///
    /// The segment gives up that part only then. In the other order: 1. the segment is cut off, 2.
    /// power fails before the copy has its name, 3. what was cut is nowhere.
    pub(super) fn copy_cut(
        &self,
        segment: &SegmentFile,
        from: Lsn,
        to: Lsn,
    ) -> io::Result<PathBuf> {
        let name = SegmentName { base_lsn: from, ..segment.name() }.to_string();
        let name = name.replace(".cairn", SUFFIX);
        let source = self.read(segment.name())?;
        self.remove_if_there(&name)?;
        let file = self.dir.create_new(name.as_ref())?;
        let (start, len) = (segment.offset(from).0, (to - from).min(KEPT_BYTES_MAX));
        let copy = || {
            let mut at = 0;
            while at < len {
                // What is a hole stays one.
                at = at.max(source.data_from(start + at)?.saturating_sub(start)).min(len);
                let part = usize::try_from(CHUNK.min(len - at)).unwrap_or_default();
                let mut bytes = vec![0; part];
                let read = read_full_at(&*source, start + at, &mut bytes)?;
                write_all_at(&*file, at, &[IoSlice::new(&bytes[..read])])?;
                at += CHUNK;
            }
            file.set_len(len)?;
            file.sync_data()
        };
        match copy().and_then(|()| self.sync_names()) {
            Ok(()) => Ok(self.at(&name)),
            Err(error) => {
                let _ = self.remove_if_there(&name);
                Err(error)
            }
        }
    }

    /// Removes all but the newest ones. Their positions rise, or their generations do.
    pub(super) fn remove_cuts(&self, left: usize) {
        let Ok(names) = self.list() else { return };
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let mut cuts: Vec<String> = names.filter(|name| is_cut(name)).collect();
        cuts.sort_by_key(|name| name.rsplit('-').next().map(str::to_owned));
        cuts.truncate(cuts.len().saturating_sub(left));
        for name in cuts {
            let _ = self.remove_if_there(&name);
        }
    }
}

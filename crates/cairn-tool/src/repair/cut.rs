//! `cairn repair --cut`: a log that ends in front of its first loss.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cairnlog::{Gap, Inspection, Log, Repair, Seq};

use crate::report::LostError;

/// The first loss, by position, whether this repair found it or an earlier one.
pub(super) fn first_loss(repair: &Repair) -> Option<Gap> {
    repair.gaps().iter().chain(repair.known_gaps()).min_by_key(|gap| gap.from).copied()
}

/// Refuses where nothing would be left, as far as that can be seen before the repair.
pub(super) fn check(dir: &Path, loss: &Gap) -> anyhow::Result<()> {
    match Inspection::open(dir) {
        Ok(look) if loss.first_seq <= look.head_seq() => {
            Err(nothing_left("nothing was changed").into())
        }
        _ => Ok(()),
    }
}

fn nothing_left(done: &str) -> LostError {
    LostError(format!("no record precedes the first loss: --cut would leave nothing; {done}"))
}

/// Ends a log that opens in front of `loss`; returns copies of the files that this changes.
///
/// The copies first, durably. In the other order: 1. the cut is made, 2. the power fails, 3. what
/// verified behind the loss is gone.
pub(super) fn cut(dir: &Path, loss: &Gap) -> anyhow::Result<Vec<PathBuf>> {
    let look = Inspection::open(dir)?;
    if loss.first_seq <= look.head_seq() {
        return Err(nothing_left("the log opens, and is not cut").into());
    }
    let segments = look.segments();
    let holds = segments.iter().rposition(|segment| segment.base_lsn <= loss.from).unwrap_or(0);
    let mut copies = Vec::new();
    for segment in &segments[holds..] {
        let copy = free_name(&segment.path)?;
        keep(&segment.path, &copy)
            .with_context(|| format!("keep {} as {}", segment.path.display(), copy.display()))?;
        copies.push(copy);
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("make names durable in {}", dir.display()))?;
    let log = Log::open(dir).inspect_err(|_| {
        // Somebody has it open: nothing was cut, so nothing has to be kept.
        for copy in &copies {
            let _ = fs::remove_file(copy);
        }
    })?;
    let before = Seq(loss.first_seq.0.saturating_sub(1));
    let last = log.reader(before)?.next_record()?.map(|record| record.lsn());
    if let Some(last) = last {
        log.truncate_after(last)?;
    }
    log.close()?;
    Ok(copies)
}

/// The name of a copy that nothing has yet.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    for n in 1u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".kept-{n}"));
        if !fs::exists(&name)? {
            return Ok(name.into());
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A second name where the file system has them: no log writes on in such a file, or cuts it.
/// Otherwise a copy.
fn keep(path: &Path, copy: &Path) -> io::Result<()> {
    if fs::hard_link(path, copy).is_ok() {
        return Ok(());
    }
    fs::copy(path, copy)?;
    File::open(copy)?.sync_all()
}

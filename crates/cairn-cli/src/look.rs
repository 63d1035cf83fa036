//! Looking at a log that somebody may be writing to.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use cairnlog::{EndState, Error, Inspection};

/// How often a look is repeated, and the pause before each: long enough for a write that is under way to end.
const LOOKS_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at the log in `dir`; fails when there is none.
///
/// A look that takes place while a group is being written can meet bytes that are not there yet, with later ones that are. What
/// looks damaged or torn is therefore believed only when a second look finds the same: by then the bytes would have come.
pub(crate) fn inspect(dir: &Path) -> anyhow::Result<Inspection> {
    let mut log = open(dir)?;
    for _ in 1..LOOKS_MAX {
        if log.problems().is_empty() && !matches!(log.end_state(), EndState::Torn { .. }) {
            break;
        }
        std::thread::sleep(PAUSE);
        let again = open(dir)?;
        let same = findings(&log) == findings(&again);
        log = again;
        if same {
            break;
        }
    }
    Ok(log)
}

fn open(dir: &Path) -> anyhow::Result<Inspection> {
    Inspection::open(dir).map_err(|error| match error {
        Error::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            anyhow!("there is no log in {}; check the path, or create one with `cairn append`", dir.display())
        }
        error => error.into(),
    })
}

fn findings(log: &Inspection) -> (EndState, cairnlog::Lsn, Vec<String>) {
    (log.end_state(), log.end_lsn(), log.problems().iter().map(ToString::to_string).collect())
}

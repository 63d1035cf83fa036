//! Doing what a plan says.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::layout::Layout;
use crate::layout::directory::{Directory, GAPS_NAME};
use crate::repair::files::half_renamed;
use crate::repair::plan::{Kept, Repair};

impl Repair {
    /// Makes the plan again, with the log locked, and carries it out. Everything is durable on
    /// return. Returns what was done.
    ///
    /// A crash at any point leaves a log that is refused as before, or the repaired one; the same
    /// repair can be made again.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked) when a writer has the log open; otherwise as
    /// [`plan`](Repair::plan), and [`Error::Io`](crate::Error::Io) and
    /// [`Error::Full`](crate::Error::Full) when something cannot be written.
    pub fn apply(self, progress: impl FnMut(u64)) -> Result<Repair> {
        self.directory.lock()?;
        let done = Repair::of_locked(self.directory.clone(), progress);
        self.directory.unlock();
        done
    }

    /// The same for a directory that is locked.
    pub(crate) fn of_locked(
        directory: Arc<Directory>,
        progress: impl FnMut(u64),
    ) -> Result<Repair> {
        let repair = Repair::of(directory, progress)?;
        if repair.is_needed() {
            repair.carry_out()?;
        }
        Ok(repair)
    }

    /// The list of gaps before the names and the state: until those are as they are to be, the log
    /// is refused, with a list or without. In the other order: 1. the log opens again, 2. power
    /// fails, 3. it has damage that a repair knew, and opens without telling it.
    fn carry_out(&self) -> Result<()> {
        let directory = &*self.directory;
        let (list, others): (Vec<_>, Vec<_>) =
            self.kept.iter().partition(|kept| kept.path.ends_with(GAPS_NAME));
        for kept in list {
            rename(directory, &kept.path, &kept.to)?;
        }
        if self.lists {
            directory.write_gaps(&self.premise.gaps)?;
        }
        // Two segments may have each other's name: each first gets one that nothing has.
        let is_segment = |kept: &&Kept| kept.to.extension().is_some_and(|e| e == "cairn");
        let (segments, aside): (Vec<_>, Vec<_>) = others.into_iter().partition(is_segment);
        for kept in aside {
            rename(directory, &kept.path, &kept.to)?;
        }
        for (own, name) in &self.premise.misnamed {
            let between = half_renamed(*own);
            if *name != between {
                directory.rename_file(name, &between)?;
            }
        }
        directory.sync()?;
        for own in self.premise.misnamed.keys() {
            directory.rename_file(&half_renamed(*own), &own.to_string())?;
        }
        if !segments.is_empty() {
            directory.sync()?;
        }
        if self.premise.stated.is_some() {
            directory.make_state()?;
            directory.sync()?;
        }
        Ok(())
    }
}

fn rename(directory: &Directory, from: &Path, to: &Path) -> Result<()> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (name(from), name(to)) {
        (Some(from), Some(to)) => directory.rename_file(&from, &to),
        _ => Ok(()),
    }
}

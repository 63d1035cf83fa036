//! Keeping records that somebody still needs.

use std::fmt;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::place::{Lsn, Place, Seq, Start};
use crate::sync::Arc;
use crate::writer::core::Core;

/// Keeps the records of a log from a place on, as long as it lives: [`Log::hold`].
///
/// Dropping it drops no record: what truncations asked for meanwhile is done by the next one.
#[must_use = "what is held is let go when this is dropped"]
pub struct Hold {
    core: Arc<Core>,
    place: Place,
}

impl Log {
    /// Keeps every record at or behind `from` as long as the returned guard lives, for a follower,
    /// a backup or an archive that still needs them. [`truncate_before`](Log::truncate_before) and
    /// [`retain`](Log::retain) drop what precedes `from`, and no more; what they were asked for
    /// beyond that is dropped by the next of these calls after the guard is gone. Files of dropped
    /// segments are written on only when they are dropped. It keeps nobody from appending, and is
    /// not remembered when the log is opened again.
    ///
    /// [`truncate_after`](Log::truncate_after) is not held back: it takes records away that never
    /// were to be. How many bytes are there only because they are held is in
    /// [`stats`](Log::stats).
    ///
    /// # Errors
    /// As [`reader`](Log::reader); [`Error::OutOfRange`] also for what a truncation is about to
    /// drop.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use cairn_log::{Log, Lsn};
    ///
    /// let log = Log::open(dir.path().join("log"))?;
    /// let first = log.commit(b"first")?;
    /// let second = log.commit(b"second")?;
    /// let hold = log.hold(first)?;
    /// log.truncate_before(second)?;
    /// assert_eq!(log.head_lsn(), Lsn::START);
    /// assert!(log.stats().held_bytes > 0);
    /// drop(hold);
    /// log.truncate_before(second)?;
    /// assert_eq!(log.head_lsn(), second);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold(&self, from: impl Into<Start>) -> Result<Hold> {
        self.core.check_process()?;
        let mut reader = self.reader(from)?;
        let place = match reader.next_record()? {
            Some(record) => Place { lsn: record.lsn(), seq: record.seq() },
            None => reader.place(),
        };
        let mut guard = self.core.lock();
        // Dropped since it was looked for.
        let gone = place.seq < guard.head.seq || !guard.holds.take(place);
        match gone {
            true => {
                let (first, end) = (guard.head.lsn, self.core.end(&guard).lsn);
                Err(Error::OutOfRange { lsn: place.lsn, first, end })
            }
            false => Ok(Hold { core: self.core.clone(), place }),
        }
    }
}

impl Hold {
    /// The first position that is held.
    pub fn lsn(&self) -> Lsn {
        self.place.lsn
    }

    /// Number of the first record that is held.
    pub fn seq(&self) -> Seq {
        self.place.seq
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child another thread may have had the lock.
        if self.core.check_process().is_ok() {
            self.core.lock().holds.release(self.place);
        }
    }
}

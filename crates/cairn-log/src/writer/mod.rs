//! The writer: how a record gets from `append` to the disk, and which thread waits for which.
//!
//! ```text
//!  append -> place -> encode -> publish                         one atomic operation each, no lock
//!  commit -> wait or lead -> close -> write -> barrier -> cover by one thread for all who wait
//! ```
//!
//! Group commit is greedy. A thread that finds no leader at the [gate](cairn_commit::gate) leads one
//! flush in its own thread and takes everything published with it. Threads that come meanwhile
//! wait, and one of them leads the next flush. A second flush beside the first would split what one
//! can carry. A full slot can collect no more: a leader that writes full slots takes no others, and
//! hands over the lead before its write.
//!
//! Invariants, besides those of the [ring](crate::ring):
//! 1. `durable <= flushed <= end`, all exclusive, each on a group boundary.
//! 2. The leader alone begins I/O and changes positions. Two exceptions: appends take places in the
//!    open slot, and the thread that holds the lock may close it and open the next. No lock is held
//!    during I/O. Flushes of full slots may be in flight while no thread leads; everything else
//!    that writes to the log, or decides what is in it, waits until none is.
//! 3. In the [phase](phase) `Frozen` no slot is open while positions are being decided: rotation,
//!    both truncations, close.
//! 4. After a failure nothing above `durable` is ever acknowledged by this handle. Two exceptions:
//!    when only a *write* failed, a barrier of this handle can still cover what was written before
//!    it; and a flush that was in flight before the failure can still land. No position at or above
//!    the failure is handed out again.
//! 5. Flushes take effect in LSN order. One that finishes early changes no watermark, gate or
//!    counter until every earlier flush has succeeded. A group carries the watermark that was known
//!    when its flush began, so it never says that something in flight is durable. The worst that a
//!    crash leaves of two flushes: 1. *n* and *n + 1* are in flight, 2. *n + 1* is on the disk, its
//!    groups verify, and no caller was told of them, 3. power fails before *n* is. Recovery finds a
//!    hole at *n*, above every watermark: a torn tail, with groups behind it that were never
//!    acknowledged. One write of several groups can leave the same. Recovery cuts at *n*, and no
//!    later generation accepts what lies behind.

pub(crate) mod age;
pub(crate) mod append;
mod close;
pub(crate) mod core;
mod durable;
mod flush;
pub(crate) mod history;
pub(crate) mod holds;
mod lead;
pub(crate) mod phase;
mod prepare;
mod requests;
mod rotate;
pub(crate) mod state;

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests;
mod truncate;

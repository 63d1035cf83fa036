//! What was done to a machine, in order.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Change, Disk, Outcome};
use crate::faults::Call;

/// One operation of a [`Trace`]. Calls that changed nothing (reads, and calls that failed without
/// effect) are not recorded.
#[derive(Clone, Debug)]
pub struct Op {
    pub(crate) change: Change,
    pub(crate) path: Arc<Path>,
}

impl Op {
    /// The system call behind it; `None` for what a test did to the machine from outside
    /// ([`SimFs::write_file`](crate::SimFs::write_file),
    /// [`SimFs::flip_bit`](crate::SimFs::flip_bit), [`SimFs::evict`](crate::SimFs::evict)).
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        match self.change {
            Change::Create { .. } => Some(Call::Create),
            Change::CreateDir { .. } => Some(Call::CreateDir),
            Change::Rename { .. } => Some(Call::Rename),
            Change::Remove { .. } => Some(Call::Remove),
            Change::Link { .. } | Change::Symlink { .. } => None,
            Change::SyncDir { .. } => Some(Call::SyncDir),
            Change::Write { .. } => Some(Call::Write),
            Change::WriteDirect { .. } | Change::DirectDone { .. } => Some(Call::WriteDirect),
            Change::SetLen { .. } => Some(Call::SetLen),
            Change::Allocate { .. } => Some(Call::Allocate),
            Change::SyncData { .. } => Some(Call::Sync),
            Change::Evict | Change::Plant { .. } | Change::FlipBit { .. } => None,
        }
    }

    /// The file or directory; of a rename, the new name; of a file, the name under which it was
    /// opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Offset and length of a write or an allocation.
    ///
    /// A direct write that returned `Ok` is two operations with the same range, so that there is a
    /// point between them at which it is under way; the second one is [`durable`](Self::durable).
    #[must_use]
    pub fn range(&self) -> Option<(u64, u64)> {
        match &self.change {
            Change::Write { offset, bytes, .. } | Change::WriteDirect { offset, bytes, .. } => {
                Some((*offset, bytes.len() as u64))
            }
            Change::Allocate { offset, len, .. } | Change::DirectDone { offset, len, .. } => {
                Some((*offset, *len))
            }
            _ => None,
        }
    }

    /// For the end of a direct write: offset and length of what is durable from here on.
    #[must_use]
    pub fn durable(&self) -> Option<(u64, u64)> {
        match self.change {
            Change::DirectDone { offset, len, .. } => Some((offset, len)),
            _ => None,
        }
    }

    /// For a barrier: the number of operations that had been done when it was called and that it
    /// therefore covers. `None` for everything else and for a barrier that failed or was ignored.
    #[must_use]
    pub fn covers(&self) -> Option<usize> {
        match self.change {
            Change::SyncData { covers, outcome: Outcome::Done, .. }
            | Change::SyncDir { covers, outcome: Outcome::Done, .. } => {
                usize::try_from(covers).ok()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let outcome = |outcome: &Outcome| match outcome {
            Outcome::Done => "",
            Outcome::Failed => " (failed)",
            Outcome::Ignored => " (ignored)",
        };
        match &self.change {
            Change::Create { .. } => write!(f, "create {path}"),
            Change::CreateDir { .. } => write!(f, "create_dir {path}"),
            Change::Rename { from, .. } => write!(f, "rename {} to {path}", from.display()),
            Change::Link { .. } => write!(f, "(test) link {path}"),
            Change::Symlink { target, .. } => {
                write!(f, "(test) symlink {path} to {}", target.display())
            }
            Change::Remove { .. } => write!(f, "remove {path}"),
            Change::SyncDir { outcome: o, .. } => write!(f, "sync_dir {path}{}", outcome(o)),
            Change::Write { offset, bytes, .. } => {
                write!(f, "write {path} {offset}..{}", offset + bytes.len() as u64)
            }
            Change::WriteDirect { offset, bytes, outcome: o, .. } => {
                let state = if *o == Outcome::Done { " (under way)" } else { outcome(o) };
                write!(f, "write_direct {path} {offset}..{}{state}", offset + bytes.len() as u64)
            }
            Change::DirectDone { offset, len, .. } => {
                write!(f, "write_direct {path} {offset}..{} (done)", offset + len)
            }
            Change::SetLen { len, .. } => write!(f, "set_len {path} {len}"),
            Change::Allocate { offset, len, .. } => {
                write!(f, "allocate {path} {offset}..{}", offset + len)
            }
            Change::SyncData { outcome: o, .. } => write!(f, "sync_data {path}{}", outcome(o)),
            Change::Evict => write!(f, "evict"),
            Change::Plant { content, .. } => {
                write!(f, "(test) write_file {path}, {} bytes", content.len())
            }
            Change::FlipBit { offset, mask, .. } => {
                write!(f, "(test) flip_bit {path} {offset} mask {mask:#04x}")
            }
        }
    }
}

/// Everything that was done to a [`SimFs`](crate::SimFs), in order, with the disk it began with.
/// Point `n` of a trace is the moment after its first `n` operations: `0..=len()`.
#[derive(Clone, Debug)]
pub struct Trace {
    pub(crate) initial: Disk,
    pub(crate) ops: Arc<[Op]>,
    pub(crate) seed: u64,
    /// Milliseconds of simulated time at the end.
    pub(crate) clock: u64,
}

impl Trace {
    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations in order; the op at index `i` lies between points `i` and `i + 1`.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The machine right after the first `point` operations, nothing lost.
    pub(crate) fn disk_at(&self, point: usize) -> Disk {
        assert!(point <= self.len(), "point {point} of a trace of {} operations", self.len());
        let mut disk = self.initial.clone();
        for (i, op) in self.ops[..point].iter().enumerate() {
            disk.apply(i as u64 + 1, &op.change);
        }
        disk
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, op) in self.ops.iter().enumerate() {
            writeln!(f, "{i:5} {op}")?;
        }
        Ok(())
    }
}

//! What a subject is: something that keeps records, opened in a directory.
//!
//! The traits are small on purpose. A [`Subject`] is opened once per process and shared; each
//! thread gets a [`Writer`] of its own, made in that thread. What a subject cannot do it does not
//! list in its [`Entry`], and nobody asks for it. Structures that are not logs (a stack, a heap)
//! have traits and modes of their own, in [`structures`](crate::structures), where they become
//! subjects.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cell::Mode;

/// How a subject is opened.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// An empty directory, or one that the same subject wrote before.
    pub(crate) dir: PathBuf,
    /// Payload size in bytes.
    pub(crate) size: usize,
    /// Segment size in bytes, for subjects that have segments.
    pub(crate) segment_bytes: u64,
    /// Bytes of segments to keep, for subjects with retention.
    pub(crate) keep_bytes: u64,
    /// To be slept after every barrier; zero for subjects that cannot.
    pub(crate) barrier_latency: Duration,
    /// What is going to be done with it.
    pub(crate) mode: Mode,
    /// Records, or free blocks, that were prepared; 0 unless [`fresh`](Self::fresh) is `false`.
    pub(crate) expected_records: u64,
    /// Whether the cell's payload is written now (`true`) or an existing one is opened.
    pub(crate) fresh: bool,
}

/// An opened subject, shared by all threads of a measurement.
pub(crate) trait Subject: Send + Sync {
    /// A handle to write with, made in the thread that uses it; `thread` counts from 0.
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>>;

    /// Hands everything appended to the operating system. For subjects whose `append` does that
    /// already: nothing.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Shows every record to `seen`, in order, in the strongest way that still verifies what the
    /// subject verifies.
    fn replay(&self, _seen: &mut Seen) -> Result<()> {
        bail!("cannot replay")
    }

    /// One thread's stream of commits that are waited for later.
    fn pipeline(&self) -> Result<Box<dyn Pipeline + '_>> {
        bail!("has no tickets")
    }

    /// Barriers issued since it was opened, when it counts them itself.
    fn barriers(&self) -> Option<u64> {
        None
    }

    /// Segments sealed since it was opened, when it has segments and counts them.
    fn rotations(&self) -> Option<u64> {
        None
    }

    /// What its sealed segments hold, when it can tell.
    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    /// A handle of a thread that works beside those that are measured.
    fn disturber(&self) -> Result<Box<dyn Writer + '_>> {
        bail!("has nothing going on beside")
    }

    /// Leaves so many free blocks behind.
    fn fragment(&self, _blocks: u64) -> Result<()> {
        bail!("has no blocks")
    }

    /// Whether it keeps nothing of what it is given, so that no disk fills up.
    fn keeps_nothing(&self) -> bool {
        false
    }

    /// What it is really doing, for the report: a backend that was chosen at run time.
    fn note(&self) -> Option<String> {
        None
    }

    /// Ends cleanly, in whatever way the subject has.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What sealed segments hold and take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Records in them.
    pub(crate) records: u64,
    /// Bytes that the file system has allocated for them.
    pub(crate) disk_bytes: u64,
}

/// One thread's handle.
pub(crate) trait Writer {
    /// Makes one record durable.
    fn commit(&mut self, record: &[u8]) -> Result<()>;

    /// Makes several records durable with one barrier at the end.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let Some((last, rest)) = records.split_last() else {
            return Ok(());
        };
        for record in rest {
            self.append(record)?;
        }
        self.commit(last)
    }

    /// Appends one record without waiting for any barrier.
    fn append(&mut self, record: &[u8]) -> Result<()>;
}

/// A stream of commits whose durability is waited for in order.
pub(crate) trait Pipeline {
    /// Takes a record on its way.
    fn submit(&mut self, record: &[u8]) -> Result<()>;

    /// Returns once the oldest record that was submitted and not waited for is durable.
    fn wait_oldest(&mut self) -> Result<()>;
}

/// What a replay showed; keeps the compiler from leaving the reading out.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of payload.
    pub(crate) bytes: u64,
}

impl Seen {
    /// Takes note of one record.
    #[inline]
    pub(crate) fn record(&mut self, payload: &[u8]) {
        std::hint::black_box(payload);
        self.records += 1;
        self.bytes += payload.len() as u64;
    }
}

/// Which side a subject is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// Cairn.
    Ours,
    /// A crate from the registry.
    Peer,
    /// A hand-written loop: no recovery, no rotation; shows the limit.
    Raw,
}

impl Side {
    /// For the list.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Peer => "peer",
            Side::Raw => "loop",
        }
    }
}

/// What a subject can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ability {
    /// Commit one record and wait.
    Durable,
    /// Several appends, one barrier.
    Batch,
    /// Several commits of one thread in flight.
    Tickets,
    /// Append without a barrier.
    NoSync,
    /// Read everything back.
    Replay,
    /// Open what was written, by a process that closed or by one that did not.
    Open,
    /// Keep the last segments only, for a long time.
    Soak,
    /// Push onto a stack.
    StackPush,
    /// Overwrite bytes of a stack.
    StackSet,
    /// Read bytes of a stack, while others push or not.
    StackGet,
    /// Open a stack.
    StackOpen,
    /// Allocate blocks of a heap and free them.
    HeapPair,
    /// Open a heap with many free blocks.
    HeapOpen,
}

/// A subject by name, before it is opened.
pub(crate) struct Entry {
    /// As on the command line and in the tables.
    pub(crate) name: &'static str,
    /// Which side it is on.
    pub(crate) side: Side,
    /// The package whose version is reported.
    pub(crate) package: Option<&'static str>,
    /// One line: how it is used.
    pub(crate) about: &'static str,
    /// What it can do.
    pub(crate) abilities: &'static [Ability],
    /// Whether a latency can be injected behind its barriers.
    pub(crate) slowable: bool,
    /// Opens it.
    pub(crate) open: fn(&Setup) -> Result<Box<dyn Subject>>,
}

impl Entry {
    /// Whether the subject can be asked for `mode`.
    pub(crate) fn can(&self, mode: Mode) -> bool {
        self.abilities.contains(&mode.ability())
    }

    /// The mode whose acknowledgements [`prove`](crate::prove) looks at; `None` when nothing it
    /// does is durable.
    pub(crate) fn provable(&self) -> Option<Mode> {
        [Mode::Durable, Mode::StackPush, Mode::HeapPair].into_iter().find(|mode| self.can(*mode))
    }

    /// Version of its package, from the lock file this build was made with.
    pub(crate) fn version(&self) -> Option<&'static str> {
        const LOCK: &str = include_str!("../../../Cargo.lock");
        // `sled@0.34` where a package is there in two versions.
        let (name, prefix) = self.package.map(|p| p.split_once('@').unwrap_or((p, "")))?;
        let name = format!("name = \"{name}\"");
        let versions = LOCK.split(&name).skip(1).filter_map(|rest| rest.split('"').nth(1));
        versions.into_iter().find(|version| version.starts_with(prefix))
    }
}

//! What the threads of a life do, as data.

use std::fmt;
use std::str::FromStr;

use crate::acts::Act;

/// Where the log lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Directory,
    Store,
    Segmented,
}

/// How the log is opened; the same in every life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub home: Home,
    pub segment: u64,
    pub buffer: usize,
    pub buffers: usize,
    pub flights: usize,
    pub direct: bool,
    /// The file system lets the log begin no threads.
    pub inline: bool,
}

/// One call. Lengths are in bytes, numbers count records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open(Setup),
    Append(usize),
    TryAppend(usize),
    Commit(usize),
    /// `n` records of so many bytes, one batch.
    Batch(usize, usize),
    /// Submits and keeps the ticket.
    Submit(usize),
    /// Submits and waits for the ticket as a task does.
    Await(usize),
    /// Submits, and commits one more record in the callback.
    Callback(usize),
    /// Waits for the tickets that were kept.
    Wait,
    Sync,
    Flush,
    /// Of the record appended last by this thread.
    SyncTo,
    /// Drops what lies before the `n`-th last durable record.
    Before(usize),
    /// Drops what lies after the `n`-th last durable record.
    After(usize),
    /// Keeps so many bytes.
    Retain(u64),
    /// Keeps what is younger than so many minutes, and the newest records.
    RetainAge(u64, u64),
    /// Ends the active segment.
    Rotate,
    /// Names positions that are none: inside of a record, and beyond the end.
    Misplace,
    /// Reads everything.
    Read,
    /// Opens a reader and keeps it.
    OpenReader,
    /// Reads on with a reader that was kept.
    ReadOn(usize),
    /// Follows: at most `n` records, without waiting.
    Follow(usize),
    /// Follows until the log is closed, as a thread or as a task.
    FollowToTheEnd(bool),
    /// A second process looks at the log, or tries to open it.
    Inspect,
    Intrude,
    Pause(u64),
    /// What others do around the log.
    Act(Act),
    Close,
    Drop,
}

impl Call {
    /// The kind, as coverage counts it.
    pub fn kind(self) -> &'static str {
        match self {
            Call::Open(_) => "open",
            Call::Append(_) => "append",
            Call::TryAppend(_) => "try_append",
            Call::Commit(_) => "commit",
            Call::Batch(..) => "batch",
            Call::Submit(_) => "submit",
            Call::Await(_) => "await",
            Call::Callback(_) => "callback",
            Call::Wait => "wait",
            Call::Sync => "sync",
            Call::Flush => "flush",
            Call::SyncTo => "sync_to",
            Call::Before(_) => "truncate_before",
            Call::After(_) => "truncate_after",
            Call::Retain(_) => "retain",
            Call::RetainAge(..) => "retain_age",
            Call::Rotate => "rotate",
            Call::Act(act) => act.kind(),
            Call::Misplace => "misplace",
            Call::Read => "read",
            Call::OpenReader => "open_reader",
            Call::ReadOn(_) => "read_on",
            Call::Follow(_) => "follow",
            Call::FollowToTheEnd(_) => "follow_to_the_end",
            Call::Inspect => "inspect",
            Call::Intrude => "intrude",
            Call::Pause(_) => "pause",
            Call::Close => "close",
            Call::Drop => "drop",
        }
    }

    fn numbers(self) -> Vec<u64> {
        match self {
            Call::Open(setup) => vec![
                setup.home as u64,
                setup.segment,
                setup.buffer as u64,
                setup.buffers as u64,
                setup.flights as u64,
                u64::from(setup.direct),
                u64::from(setup.inline),
            ],
            Call::Act(act) => act.numbers(),
            Call::RetainAge(minutes, floor) => vec![minutes, floor],
            Call::Batch(count, len) => vec![count as u64, len as u64],
            Call::Append(n)
            | Call::TryAppend(n)
            | Call::Commit(n)
            | Call::Submit(n)
            | Call::Await(n)
            | Call::Callback(n)
            | Call::Before(n)
            | Call::After(n)
            | Call::ReadOn(n)
            | Call::Follow(n) => vec![n as u64],
            Call::FollowToTheEnd(task) => vec![u64::from(task)],
            Call::Retain(n) | Call::Pause(n) => vec![n],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.numbers().iter().try_for_each(|number| write!(f, " {number}"))
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{text:?}: {e}"))?;
        let n = |i: usize| numbers.get(i).copied().unwrap_or_default();
        let size = |i: usize| n(i) as usize;
        let home = [Home::Directory, Home::Store, Home::Segmented];
        Ok(match kind {
            "open" => Call::Open(Setup {
                home: *home.get(size(0)).ok_or("no such home")?,
                segment: n(1),
                buffer: size(2),
                buffers: size(3),
                flights: size(4),
                direct: n(5) == 1,
                inline: n(6) == 1,
            }),
            "append" => Call::Append(size(0)),
            "try_append" => Call::TryAppend(size(0)),
            "commit" => Call::Commit(size(0)),
            "batch" => Call::Batch(size(0), size(1)),
            "submit" => Call::Submit(size(0)),
            "await" => Call::Await(size(0)),
            "callback" => Call::Callback(size(0)),
            "wait" => Call::Wait,
            "sync" => Call::Sync,
            "flush" => Call::Flush,
            "sync_to" => Call::SyncTo,
            "truncate_before" => Call::Before(size(0)),
            "truncate_after" => Call::After(size(0)),
            "retain" => Call::Retain(n(0)),
            "retain_age" => Call::RetainAge(n(0), n(1)),
            "rotate" => Call::Rotate,
            "misplace" => Call::Misplace,
            "read" => Call::Read,
            "open_reader" => Call::OpenReader,
            "read_on" => Call::ReadOn(size(0)),
            "follow" => Call::Follow(size(0)),
            "follow_to_the_end" => Call::FollowToTheEnd(n(0) == 1),
            "inspect" => Call::Inspect,
            "intrude" => Call::Intrude,
            "pause" => Call::Pause(n(0)),
            "close" => Call::Close,
            "drop" => Call::Drop,
            _ => Call::Act(Act::parse(kind, n).ok_or_else(|| format!("{text:?} is no call"))?),
        })
    }
}

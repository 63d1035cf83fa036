//! System calls that fail: which, when, and how.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A kind of system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// `Fs::open_dir`
    OpenDir,
    /// `Dir::open` and `Dir::open_direct`
    Open,
    /// `Dir::create_new`
    Create,
    /// `Fs::create_dir`
    CreateDir,
    /// `Dir::rename` and `Dir::replace`
    Rename,
    /// `Dir::remove`
    Remove,
    /// `Dir::list`
    List,
    /// `Dir::sync`
    SyncDir,
    /// `Dir::stat`, `Dir::is_in_place` and `File::stat`
    Stat,
    /// `Fs::random`
    Random,
    /// `File::read_at`
    Read,
    /// `File::write_at`, but for handles of `Dir::open_direct`
    Write,
    /// `File::write_at` through a handle of `Dir::open_direct`
    WriteDirect,
    /// `File::len`
    Len,
    /// `File::set_len`
    SetLen,
    /// `File::allocate`
    Allocate,
    /// `File::sync_data`
    Sync,
    /// `File::data_from`
    DataFrom,
    /// `File::try_lock` and `Dir::try_lock`
    Lock,
}

impl Call {
    /// Every kind, for tests that go through all of them.
    pub const ALL: [Call; 19] = [
        Call::OpenDir,
        Call::Open,
        Call::Create,
        Call::CreateDir,
        Call::Rename,
        Call::Remove,
        Call::List,
        Call::SyncDir,
        Call::Stat,
        Call::Random,
        Call::Read,
        Call::Write,
        Call::WriteDirect,
        Call::Len,
        Call::SetLen,
        Call::Allocate,
        Call::Sync,
        Call::DataFrom,
        Call::Lock,
    ];
}

impl Call {
    /// Its name as traces and schedules show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::OpenDir => "open_dir",
            Call::Open => "open",
            Call::Create => "create",
            Call::CreateDir => "create_dir",
            Call::Rename => "rename",
            Call::Remove => "remove",
            Call::List => "list",
            Call::SyncDir => "sync_dir",
            Call::Stat => "stat",
            Call::Random => "random",
            Call::Read => "read",
            Call::Write => "write",
            Call::WriteDirect => "write_direct",
            Call::Len => "len",
            Call::SetLen => "set_len",
            Call::Allocate => "allocate",
            Call::Sync => "sync_data",
            Call::DataFrom => "data_from",
            Call::Lock => "lock file",
        }
    }

    /// Whether it can change something.
    pub(crate) fn changes(self) -> bool {
        !matches!(
            self,
            Call::OpenDir
                | Call::Open
                | Call::List
                | Call::Stat
                | Call::Random
                | Call::Read
                | Call::Len
                | Call::DataFrom
        )
    }
}

/// An error a system call can be made to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Errno {
    /// The device failed.
    Eio,
    /// No space left; [`io::ErrorKind::StorageFull`].
    Enospc,
    /// A signal came first; [`io::ErrorKind::Interrupted`]. Callers try again.
    Eintr,
    /// The call does not exist here; [`io::ErrorKind::Unsupported`].
    Enotsup,
    /// Too many open files.
    Emfile,
    /// Any other kind.
    Kind(io::ErrorKind),
    /// Any other error, by the system's number for it.
    Os(i32),
}

impl Errno {
    /// The error as the system would return it.
    #[must_use]
    pub fn error(self) -> io::Error {
        match self {
            Self::Eio if cfg!(unix) => io::Error::from_raw_os_error(5),
            Self::Eio => io::Error::other("input/output error"),
            Self::Enospc if cfg!(unix) => io::Error::from_raw_os_error(28),
            Self::Enospc => io::ErrorKind::StorageFull.into(),
            Self::Eintr => io::ErrorKind::Interrupted.into(),
            Self::Enotsup => io::ErrorKind::Unsupported.into(),
            Self::Emfile if cfg!(unix) => io::Error::from_raw_os_error(24),
            Self::Emfile => io::Error::other("too many open files"),
            Self::Kind(kind) => kind.into(),
            Self::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// The kinds that have a name in the text of a schedule.
const KINDS: [io::ErrorKind; 4] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::ReadOnlyFilesystem,
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eio => f.write_str("EIO"),
            Self::Enospc => f.write_str("ENOSPC"),
            Self::Eintr => f.write_str("EINTR"),
            Self::Enotsup => f.write_str("ENOTSUP"),
            Self::Emfile => f.write_str("EMFILE"),
            Self::Kind(kind) => write!(f, "{kind:?}"),
            Self::Os(number) => write!(f, "errno {number}"),
        }
    }
}

impl FromStr for Errno {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = [Self::Eio, Self::Enospc, Self::Eintr, Self::Enotsup, Self::Emfile];
        if let Some(number) = text.strip_prefix("errno ").and_then(|number| number.parse().ok()) {
            return Ok(Self::Os(number));
        }
        let mut all = named.into_iter().chain(KINDS.map(Self::Kind));
        all.find(|errno| errno.to_string() == text).ok_or_else(|| format!("{text:?} is no errno"))
    }
}

/// What happens to a call that a [`FaultPlan`] singled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails. A write, set_len, allocate or a change of names has done nothing; a failed
    /// [`Call::Sync`] marks the file's pages clean, and a failed [`Call::WriteDirect`] leaves its
    /// sectors in doubt, unless the error is one of those with which a system refuses it
    /// ([`Errno::Eintr`], [`Errno::Enotsup`], [`io::ErrorKind::InvalidInput`]): see
    /// [the crate's fault model](crate).
    Fail(Errno),
    /// A read or write returns `Ok` after at most this many bytes. Of a direct write that was cut
    /// inside a sector, that sector is in doubt.
    Short(usize),
    /// As [`Short`](Fault::Short); the next call of the same kind fails.
    ShortThenFail(usize, Errno),
    /// A write fails although this many bytes were written. Every other call fails although it was
    /// carried out: the caller cannot know. A sync reported as failed has persisted everything; of
    /// a direct write, so many bytes' whole sectors are durable, and the others in doubt.
    FailAfter(usize, Errno),
    /// The call returns `Ok` without having done anything: a lying device, or the barrier somebody
    /// forgot. A direct write has written, and nothing is durable. Makes sense for [`Call::Sync`],
    /// [`Call::SyncDir`] and [`Call::WriteDirect`]; other calls are carried out as usual.
    Ignore,
}

#[derive(Clone, Debug)]
struct Rule {
    /// `None`: any call.
    call: Option<Call>,
    /// Indices counted since the plan was set.
    calls: Range<u64>,
    fault: Fault,
}

/// Which system calls fail. Calls are counted from 0 from the moment the plan is given to
/// [`SimFs::set_faults`](crate::SimFs::set_faults); when several rules meet, the one added first
/// wins.
///
/// ```
/// use cairn_sim::{Call, Errno, Fault, FaultPlan, SimFs};
/// use cairn_io::Fs;
///
/// let sim = SimFs::new();
/// sim.set_faults(FaultPlan::new().fail(Call::Write, 1, Errno::Eio));
/// let file = sim.create_new("/f".as_ref()).unwrap();
/// assert!(file.write_at(0, &[std::io::IoSlice::new(b"a")]).is_ok());
/// assert!(file.write_at(1, &[std::io::IoSlice::new(b"b")]).is_err());
/// assert!(file.write_at(1, &[std::io::IoSlice::new(b"b")]).is_ok());
/// assert_eq!(sim.counters().faults, 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    rules: Vec<Rule>,
    unreadable: Vec<(PathBuf, Range<u64>)>,
    capacity: Option<u64>,
    max_open: Option<u64>,
    seen: [u64; Call::ALL.len()],
    seen_any: u64,
}

impl FaultPlan {
    /// Nothing fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The `nth` call of this kind fails, the next ones do not.
    #[must_use]
    pub fn fail(self, call: Call, nth: u64, error: Errno) -> Self {
        self.on(call, nth..nth.saturating_add(1), Fault::Fail(error))
    }

    /// The `nth` call of any kind fails.
    #[must_use]
    pub fn fail_any(mut self, nth: u64, error: Errno) -> Self {
        let calls = nth..nth.saturating_add(1);
        self.rules.push(Rule { call: None, calls, fault: Fault::Fail(error) });
        self
    }

    /// The `nth` call of this kind and all later ones fail.
    #[must_use]
    pub fn fail_from(self, call: Call, nth: u64, error: Errno) -> Self {
        self.on(call, nth..u64::MAX, Fault::Fail(error))
    }

    /// Any fault for the calls of this kind with these indices.
    #[must_use]
    pub fn on(mut self, call: Call, calls: Range<u64>, fault: Fault) -> Self {
        self.rules.push(Rule { call: Some(call), calls, fault });
        self
    }

    /// Every `sync_data` returns `Ok` and does nothing, and direct writes are no more durable than
    /// others: the mutation that every durability test must catch.
    #[must_use]
    pub fn ignore_barriers(self) -> Self {
        self.on(Call::Sync, 0..u64::MAX, Fault::Ignore).on(
            Call::WriteDirect,
            0..u64::MAX,
            Fault::Ignore,
        )
    }

    /// Every `sync_dir` returns `Ok` and does nothing.
    #[must_use]
    pub fn ignore_dir_syncs(self) -> Self {
        self.on(Call::SyncDir, 0..u64::MAX, Fault::Ignore)
    }

    /// Space for all files together, in bytes, rounded down to blocks of 4096. Space is taken by
    /// the first write or [`allocate`](cairn_io::File::allocate) of a block (`set_len` takes none)
    /// and given back by cutting a file, and by removing its last name once no handle is open. A
    /// write that meets the end is short; one that finds no block at all fails with
    /// [`Errno::Enospc`].
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// More open files than this fail with [`Errno::Emfile`].
    #[must_use]
    pub fn max_open(mut self, handles: u64) -> Self {
        self.max_open = Some(handles);
        self
    }

    /// Reads that touch any of these bytes of the file with this name (at the time of the read)
    /// fail with [`Errno::Eio`].
    #[must_use]
    pub fn unreadable(mut self, path: impl AsRef<Path>, bytes: Range<u64>) -> Self {
        self.unreadable.push((path.as_ref().to_owned(), bytes));
        self
    }

    /// Counts a call and says what is to happen to it.
    pub(crate) fn next(&mut self, call: Call) -> Option<Fault> {
        let nth = self.seen[call as usize];
        let nth_any = self.seen_any;
        self.seen[call as usize] += 1;
        self.seen_any += 1;
        let hit = |rule: &Rule| match rule.call {
            Some(kind) => kind == call && rule.calls.contains(&nth),
            None => rule.calls.contains(&nth_any),
        };
        let fault = self.rules.iter().find(|rule| hit(rule))?.fault;
        if let Fault::ShortThenFail(_, error) = fault {
            let calls = nth + 1..nth + 2;
            self.rules.insert(0, Rule { call: Some(call), calls, fault: Fault::Fail(error) });
        }
        Some(fault)
    }

    pub(crate) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(crate) fn capacity_limit(&self) -> Option<u64> {
        self.capacity
    }

    pub(crate) fn open_limit(&self) -> Option<u64> {
        self.max_open
    }

    pub(crate) fn unreadable_ranges(&self) -> &[(PathBuf, Range<u64>)] {
        &self.unreadable
    }
}

//! [`SimFs`]: the handle that code under test and its tests hold.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_io::{Dir, Fs};

use crate::content::Content;
use crate::dir::SimDir;
use crate::disk::{Change, Disk, Node, Outcome};
use crate::faults::{Call, Fault, FaultPlan};
use crate::machine::{Counters, Hold, Machine, ProcessId, Shared};
use crate::names::{NodeId, shown};
use crate::options::SimOptions;
use crate::schedule;

/// Simulated time starts here: 2024-01-01T00:00:00Z, in milliseconds.
const EPOCH_MS: u64 = 1_704_067_200_000;

/// A simulated machine with one file system, as one of its processes sees it. Clones are the same
/// process.
///
/// Relative paths start at the root, `/`, which exists. Everything is in memory and deterministic:
/// the same calls give the same trace, the same times and the same random numbers. What may survive
/// a crash is described [at the crate](crate).
#[derive(Clone)]
pub struct SimFs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: ProcessId,
    /// Where relative paths begin; `None` for the working directory of the process.
    pub(crate) base: Option<NodeId>,
    /// Whether it says that callers begin no threads, in a world too.
    pub(crate) inline: bool,
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.shared.lock().ops.len();
        f.debug_struct("SimFs")
            .field("process", &self.process)
            .field("point", &point)
            .finish_non_exhaustive()
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

/// Building machines and ending processes.
impl SimFs {
    /// An empty machine with default options.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(SimOptions::default())
    }

    /// An empty machine.
    #[must_use]
    pub fn with_options(options: SimOptions) -> Self {
        Self::over(Disk::new(options.sector_size, options.failed_sync), options.seed, EPOCH_MS)
    }

    /// Where relative paths begin.
    pub(crate) fn base(&self, machine: &Machine) -> NodeId {
        self.base.unwrap_or_else(|| machine.working_directory(self.process))
    }

    pub(crate) fn over(disk: Disk, seed: u64, clock: u64) -> Self {
        let machine = Machine::new(disk, seed, clock);
        Self { shared: Shared::new(machine), process: 1, base: None, inline: false }
    }

    /// Another process on the same machine: same files and page cache, own death.
    #[must_use]
    pub fn second_process(&self) -> Self {
        let process = self.shared.lock().start_process();
        Self { process, base: None, ..self.clone() }
    }

    /// Ends this process: every later call of this handle and of files opened through it fails, its
    /// locks are free.
    pub fn kill(&self) {
        self.shared.lock().kill(self.process);
    }

    /// Ends this process as soon as the trace has `point` operations: operation `point` is not
    /// carried out.
    pub fn kill_at(&self, point: usize) {
        self.shared.lock().doom(self.process, point);
    }

    /// Whether this process has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.shared.lock().is_dead(self.process)
    }

    /// Ends this process and starts another on the same machine, with the page cache as it is: what
    /// was written is still read, what was not synced is still not synced, and what a failed
    /// barrier lost is still to be lost. The fault plan is cleared.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut machine = self.shared.lock();
        machine.kill(self.process);
        machine.faults = FaultPlan::default();
        let process = machine.start_process();
        Self { process, base: None, ..self.clone() }
    }

    /// Lets the page cache go of clean pages. After a failed barrier, reads now show what
    /// [`FailedSync`](crate::FailedSync) left on the disk.
    pub fn evict(&self) {
        self.shared.lock().commit(&Path::new("/").into(), Change::Evict);
    }

    /// The system fails to write a file's dirty pages back on its own account: they are clean and
    /// in doubt now, and whoever has the file open hears of it at the next barrier, once for each
    /// handle.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn fail_write_back(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut machine = self.shared.lock();
        let (node, _) = machine.disk.lookup_file(self.base(&machine), path.as_ref())?;
        let covers = machine.point();
        let change = Change::SyncData { node, covers, outcome: Outcome::Failed };
        machine.commit(&shown(path.as_ref()), change);
        Ok(())
    }

    /// Replaces the fault plan; calls are counted from here.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.shared.lock().faults = plan;
    }

    /// Stops all calls of this kind, of all threads, until the returned guard is dropped. A barrier
    /// that is held covers only what had returned before it was called.
    pub fn hold(&self, call: Call) -> Hold {
        Hold::new(self.shared.clone(), call)
    }

    /// Stops the next call of this kind, of whatever thread, until the returned guard is dropped.
    /// Later ones pass it by.
    pub fn hold_next(&self, call: Call) -> Hold {
        Hold::next(self.shared.clone(), call)
    }
}

/// Looking at a machine from outside. Nothing here is counted, fails by plan, or cares whether the
/// process is dead.
impl SimFs {
    /// The operations so far. A test that notes this number when it gets an acknowledgement can ask
    /// in every crash state whether the acknowledgement was before or after the cut.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.shared.lock().ops.len()
    }

    /// What was done, failed calls included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters.clone()
    }

    /// The bytes of a file as processes see them.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let machine = self.shared.lock();
        Ok(machine.disk.lookup_file(self.base(&machine), path.as_ref())?.1.live.to_vec())
    }

    /// Puts a file with these bytes on the disk, durably at once, its name included; replaces what
    /// was there.
    ///
    /// # Errors
    /// When its directory does not exist, or the name is one of a directory.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let path = path.as_ref();
        let mut machine = self.shared.lock();
        let (dir, names, name) = machine.disk.lookup_parent(self.base(&machine), path)?;
        if names.live.get(name).is_some_and(|&node| machine.disk.dir(node).is_some()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let content = Content::from_bytes(bytes.as_ref());
        machine.commit(&shown(path), Change::Plant { dir, name: name.to_owned(), content });
        Ok(())
    }

    /// Damages the medium: inverts bit `bit % 8` of the byte at `offset`, durably.
    ///
    /// # Errors
    /// When there is no such file, or it is not that long.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> io::Result<()> {
        let mut machine = self.shared.lock();
        let (node, file) = machine.disk.lookup_file(self.base(&machine), path.as_ref())?;
        if offset >= file.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        machine
            .commit(&shown(path.as_ref()), Change::FlipBit { node, offset, mask: 1 << (bit % 8) });
        Ok(())
    }

    /// All files with their lengths, in order of path.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        self.shared.lock().disk.walk(&mut |path, _, node| {
            if let Node::File(file) = node {
                files.push((path.to_owned(), file.live.len()));
            }
        });
        files
    }

    /// Files with bytes or a length, and directories with names, that no successful barrier has
    /// covered.
    #[must_use]
    pub fn dirty(&self) -> Vec<PathBuf> {
        let machine = self.shared.lock();
        let mut dirty = Vec::new();
        if machine.disk.dir(crate::disk::ROOT).is_some_and(|root| !root.is_settled()) {
            dirty.push(PathBuf::from("/"));
        }
        machine.disk.walk(&mut |path, _, node| {
            let is_dirty = match node {
                Node::File(file) => file.is_dirty(),
                Node::Dir(dir) => !dir.is_settled(),
                Node::Link(_) => false,
            };
            if is_dirty {
                dirty.push(path.to_owned());
            }
        });
        dirty
    }

    /// A hash of all names, lengths and bytes that processes see: equal before and after means
    /// nothing was changed.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.shared.lock().disk.fingerprint()
    }
}

/// `Err` for a fault that keeps a call other than a write or a barrier from being carried out.
pub(crate) fn refused(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Fail(error)) => Err(error.error()),
        _ => Ok(()),
    }
}

/// `Err` for a fault that hides that a call was carried out.
pub(crate) fn hidden(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::FailAfter(_, error)) => Err(error.error()),
        _ => Ok(()),
    }
}

impl Fs for SimFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::OpenDir)?;
        refused(fault)?;
        hidden(fault)?;
        let (node, _) = machine.disk.lookup_dir(self.base(&machine), path)?;
        machine.check_open_limit()?;
        Ok(SimDir::open(&self.shared, &mut machine, self.process, node, path))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let machine = self.shared.lock();
        let base = self.base(&machine);
        match machine.disk.lookup_itself(base, path) {
            Ok(node) if machine.disk.link(node).is_some() => {
                machine.disk.path_of(machine.disk.lookup(base, path)?)
            }
            _ => Ok(path.to_owned()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::CreateDir)?;
        refused(fault)?;
        // The root has no name in a directory and always exists.
        let (dir, names, name) = match machine.disk.lookup_parent(self.base(&machine), path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            found => found?,
        };
        if names.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.commit(&shown(path), Change::CreateDir { dir, name: name.to_owned() });
        hidden(fault)
    }

    /// Whether a world decides for the calling thread: it schedules the threads that the caller
    /// begins. Elsewhere no: the trace would depend on which thread came first.
    fn background(&self) -> bool {
        !self.inline && schedule::is_simulated()
    }

    fn now(&self) -> SystemTime {
        let elapsed = schedule::elapsed_ms();
        let mut machine = self.shared.lock();
        machine.look_at_clock(elapsed);
        SystemTime::UNIX_EPOCH + Duration::from_millis(machine.clock)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Random)?;
        match fault {
            Some(Fault::Fail(error) | Fault::FailAfter(_, error)) => Err(error.error()),
            _ => {
                let mut bytes = [0; 16];
                machine.rng.fill(&mut bytes);
                Ok(bytes)
            }
        }
    }
}

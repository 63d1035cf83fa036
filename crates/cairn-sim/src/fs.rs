//! [`SimFs`]: the handle that code under test and its tests hold.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_io::{Access, File, Fs};

use crate::choice::Choices;
use crate::content::Content;
use crate::disk::{Change, Disk, Node, Outcome};
use crate::file::{Mode, SimFile};
use crate::machine::{Counters, Hold, Machine, ProcessId, Shared};
use crate::trace::{Trace, shown};
use crate::{Call, Chooser, Fault, FaultPlan, SimOptions};

/// Simulated time starts here: 2024-01-01T00:00:00Z, in milliseconds.
const EPOCH_MS: u64 = 1_704_067_200_000;

/// A simulated machine with one file system, as one of its processes sees it. Clones are the same process.
///
/// Relative paths start at the root, `/`, which exists. Everything is in memory and deterministic: the same
/// calls give the same trace, the same times and the same random numbers. What may survive a crash is described
/// [at the crate](crate).
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
    process: ProcessId,
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.shared.lock().ops.len();
        f.debug_struct("SimFs").field("process", &self.process).field("point", &point).finish_non_exhaustive()
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

    pub(crate) fn over(disk: Disk, seed: u64, clock: u64) -> Self {
        Self { shared: Shared::new(Machine::new(disk, seed, clock)), process: 1 }
    }

    /// Another process on the same machine: same files and page cache, own death.
    #[must_use]
    pub fn second_process(&self) -> Self {
        let process = self.shared.lock().start_process();
        Self { shared: self.shared.clone(), process }
    }

    /// Ends this process: every later call of this handle and of files opened through it fails, its locks are
    /// free.
    pub fn kill(&self) {
        self.shared.lock().kill(self.process);
    }

    /// Ends this process as soon as the trace has `point` operations: operation `point` is not carried out.
    pub fn kill_at(&self, point: usize) {
        self.shared.lock().doom(self.process, point);
    }

    /// Whether this process has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.shared.lock().is_dead(self.process)
    }

    /// Ends this process and starts another on the same machine, with the page cache as it is: what was written
    /// is still read, what was not synced is still not synced, and what a failed barrier lost is still to be
    /// lost. The fault plan is cleared.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut machine = self.shared.lock();
        machine.kill(self.process);
        machine.faults = FaultPlan::default();
        let process = machine.start_process();
        Self { shared: self.shared.clone(), process }
    }

    /// Cuts the power now: all processes end, and a new machine starts from one of the possible disk states.
    #[must_use]
    pub fn power_cut(&self, chooser: &mut Chooser) -> Self {
        let mut machine = self.shared.lock();
        (1..=machine.processes).for_each(|process| machine.kill(process));
        let choices = Choices::new(&machine.disk, chooser.model);
        let (picks, salt) = chooser.pick(&choices, machine.point());
        let disk = choices.build(&picks, salt);
        drop(machine);
        let trace = self.trace();
        trace.revive(disk, trace.len())
    }

    /// Lets the page cache go of clean pages. After a failed barrier, reads now show what
    /// [`FailedSync`](crate::FailedSync) left on the disk.
    pub fn evict(&self) {
        self.shared.lock().commit(&Path::new("/").into(), Change::Evict);
    }

    /// The system fails to write a file's dirty pages back on its own account: they are clean and in doubt now,
    /// and whoever has the file open hears of it at the next barrier, once for each handle.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn fail_write_back(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut machine = self.shared.lock();
        let (node, _) = machine.disk.lookup_file(path.as_ref())?;
        let covers = machine.point();
        let change = Change::SyncData { node, covers, outcome: Outcome::Failed };
        machine.commit(&shown(path.as_ref()), change);
        Ok(())
    }

    /// Replaces the fault plan; calls are counted from here.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.shared.lock().faults = plan;
    }

    /// Stops all calls of this kind, of all threads, until the returned guard is dropped. A barrier that is
    /// held covers only what had returned before it was called.
    pub fn hold(&self, call: Call) -> Hold {
        Hold::new(self.shared.clone(), call)
    }

    /// Stops the next call of this kind, of whatever thread, until the returned guard is dropped. Later ones pass it by.
    pub fn hold_next(&self, call: Call) -> Hold {
        Hold::next(self.shared.clone(), call)
    }
}

/// Looking at a machine from outside. Nothing here is counted, fails by plan, or cares whether the process is
/// dead.
impl SimFs {
    /// The operations so far. A test that notes this number when it gets an acknowledgement can ask
    /// in every crash state whether the acknowledgement was before or after the cut.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.shared.lock().ops.len()
    }

    /// Everything done to this machine since it started.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let machine = self.shared.lock();
        Trace {
            initial: machine.initial.clone(),
            ops: machine.ops.as_slice().into(),
            seed: machine.seed,
            clock: machine.clock,
        }
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
        Ok(machine.disk.lookup_file(path.as_ref())?.1.live.to_vec())
    }

    /// Puts a file with these bytes on the disk, durably at once, its name included; replaces what was there.
    ///
    /// # Errors
    /// When its directory does not exist, or the name is one of a directory.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let path = path.as_ref();
        let mut machine = self.shared.lock();
        let (dir, names, name) = machine.disk.lookup_parent(path)?;
        if names.live.get(name).is_some_and(|&node| machine.disk.file(node).is_none()) {
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
        let (node, file) = machine.disk.lookup_file(path.as_ref())?;
        if offset >= file.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        machine.commit(&shown(path.as_ref()), Change::FlipBit { node, offset, mask: 1 << (bit % 8) });
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

    /// Files with bytes or a length, and directories with names, that no successful barrier has covered.
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
            };
            if is_dirty {
                dirty.push(path.to_owned());
            }
        });
        dirty
    }

    /// A hash of all names, lengths and bytes that processes see: equal before and after means nothing was
    /// changed.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.shared.lock().disk.fingerprint()
    }
}

/// `Err` for a fault that keeps a call other than a write or a barrier from being carried out.
fn refused(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Fail(error)) => Err(error.error()),
        _ => Ok(()),
    }
}

/// `Err` for a fault that hides that a call was carried out.
fn hidden(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::FailAfter(_, error)) => Err(error.error()),
        _ => Ok(()),
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Open)?;
        refused(fault)?;
        hidden(fault)?;
        let (node, _) = machine.disk.lookup_file(path)?;
        machine.check_open_limit()?;
        let mode = match access {
            Access::Read => Mode::Read,
            Access::ReadWrite => Mode::ReadWrite,
        };
        Ok(SimFile::open(&self.shared, &mut machine, self.process, node, shown(path), mode))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Open)?;
        refused(fault)?;
        hidden(fault)?;
        let (node, _) = machine.disk.lookup_file(path)?;
        machine.check_open_limit()?;
        Ok(SimFile::open(&self.shared, &mut machine, self.process, node, shown(path), Mode::Direct))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Create)?;
        refused(fault)?;
        let (dir, names, name) = machine.disk.lookup_parent(path)?;
        if names.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.check_open_limit()?;
        let path = shown(path);
        let node = machine.disk.nodes.len();
        machine.commit(&path, Change::Create { dir, name: name.to_owned() });
        hidden(fault)?;
        Ok(SimFile::open(&self.shared, &mut machine, self.process, node, path, Mode::ReadWrite))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::CreateDir)?;
        refused(fault)?;
        // The root has no name in a directory and always exists.
        let (dir, names, name) = match machine.disk.lookup_parent(path) {
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

    fn rename(&self, from: &Path, to_path: &Path) -> io::Result<()> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Rename)?;
        refused(fault)?;
        let (dir, names, from_name) = machine.disk.lookup_parent(from)?;
        let (to_dir, _, to_name) = machine.disk.lookup_parent(to_path)?;
        if dir != to_dir {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "both names of a rename are in one directory"));
        }
        let node = *names.live.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(&target) = names.live.get(to_name).filter(|&&target| target != node) {
            match (machine.disk.file(node).is_some(), machine.disk.file(target).is_some()) {
                (true, true) => {}
                (true, false) => return Err(io::ErrorKind::IsADirectory.into()),
                (false, true) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, false) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            }
        }
        let (from, to) = (from_name.to_owned(), to_name.to_owned());
        machine.commit(&shown(to_path), Change::Rename { dir, from, to });
        hidden(fault)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut machine, fault) = self.shared.enter(self.process, Call::Remove)?;
        refused(fault)?;
        let (dir, _, name) = machine.disk.lookup_parent(path)?;
        machine.disk.lookup_file(path)?;
        machine.commit(&shown(path), Change::Remove { dir, name: name.to_owned() });
        hidden(fault)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let (machine, fault) = self.shared.enter(self.process, Call::List)?;
        refused(fault)?;
        hidden(fault)?;
        let (_, dir) = machine.disk.lookup_dir(dir)?;
        Ok(dir.live.keys().cloned().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let covers = self.shared.lock().point();
        std::thread::yield_now();
        let (mut machine, fault) = self.shared.enter(self.process, Call::SyncDir)?;
        let path = shown(dir);
        let (dir, _) = machine.disk.lookup_dir(dir)?;
        let outcome = match fault {
            Some(Fault::Fail(_)) => Outcome::Failed,
            Some(Fault::Ignore) => Outcome::Ignored,
            _ => Outcome::Done,
        };
        machine.commit(&path, Change::SyncDir { dir, covers, outcome });
        refused(fault)?;
        hidden(fault)
    }

    /// No: the trace would depend on which thread came first.
    fn background(&self) -> bool {
        false
    }

    fn now(&self) -> SystemTime {
        let mut machine = self.shared.lock();
        machine.clock = machine.clock.saturating_add(1);
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

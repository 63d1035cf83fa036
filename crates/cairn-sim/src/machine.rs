//! The state behind all handles of one simulated machine: disk and page cache, processes, locks,
//! faults, counters.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cairn_io::sync::seam;

use crate::disk::{Change, Disk, ROOT};
use crate::faults::{Call, Fault, FaultPlan};
use crate::names::NodeId;
use crate::rng::Rng;
use crate::schedule;
use crate::trace::Op;

/// What was done to a machine, failed calls included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    calls: [u64; Call::ALL.len()],
    /// Bytes that reads returned.
    pub bytes_read: u64,
    /// Bytes that writes took.
    pub bytes_written: u64,
    /// Files open now.
    pub open_files: u64,
    /// Most files that were ever open at once.
    pub open_files_max: u64,
    /// Faults of the [`FaultPlan`] that came true.
    pub faults: u64,
}

impl Counters {
    /// Calls of one kind.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize]
    }

    /// Calls of every kind.
    #[must_use]
    pub fn calls_total(&self) -> u64 {
        self.calls.iter().sum()
    }
}

/// Number of a process; of a handle.
pub(crate) type ProcessId = u64;
pub(crate) type HandleId = u64;

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) initial: Disk,
    pub(crate) ops: Vec<Op>,
    pub(crate) faults: FaultPlan,
    pub(crate) counters: Counters,
    pub(crate) rng: Rng,
    pub(crate) seed: u64,
    /// Milliseconds since the simulated epoch; every look advances it.
    pub(crate) clock: u64,
    /// Simulated milliseconds that had passed in the world at the last look.
    world_ms: u64,
    /// The open file that has the lock, by file.
    locks: BTreeMap<NodeId, HandleId>,
    /// Which processes have an open file: the one that opened it, and what it forked since.
    holders: BTreeMap<HandleId, BTreeSet<ProcessId>>,
    /// Where relative paths begin, for processes that have left the root.
    working: BTreeMap<ProcessId, NodeId>,
    /// Open handles by file.
    open: BTreeMap<NodeId, u64>,
    next_handle: HandleId,
    pub(crate) processes: ProcessId,
    dead: BTreeSet<ProcessId>,
    /// The process dies when the trace has this many operations.
    doomed: BTreeMap<ProcessId, usize>,
    holds: Vec<Held>,
    /// Calls that are waiting for a hold to end, by kind.
    waiting: Vec<Call>,
}

impl Machine {
    pub(crate) fn new(disk: Disk, seed: u64, clock: u64) -> Self {
        Self {
            initial: disk.clone(),
            disk,
            ops: Vec::new(),
            faults: FaultPlan::default(),
            counters: Counters::default(),
            rng: Rng::new(seed),
            seed,
            clock,
            world_ms: 0,
            locks: BTreeMap::new(),
            holders: BTreeMap::new(),
            working: BTreeMap::new(),
            open: BTreeMap::new(),
            next_handle: 0,
            processes: 1,
            dead: BTreeSet::new(),
            doomed: BTreeMap::new(),
            holds: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Operations so far: the point of the trace we are at.
    pub(crate) fn point(&self) -> u64 {
        self.ops.len() as u64
    }

    /// Carries a change out and records it.
    pub(crate) fn commit(&mut self, path: &Arc<Path>, change: Change) {
        self.disk.apply(self.point() + 1, &change);
        self.ops.push(Op { change, path: path.clone() });
    }

    pub(crate) fn start_process(&mut self) -> ProcessId {
        self.processes += 1;
        self.processes
    }

    pub(crate) fn doom(&mut self, process: ProcessId, point: usize) {
        self.doomed.insert(process, point);
    }

    pub(crate) fn is_dead(&self, process: ProcessId) -> bool {
        self.dead.contains(&process)
            || self.doomed.get(&process).is_some_and(|&point| self.ops.len() >= point)
    }

    pub(crate) fn kill(&mut self, process: ProcessId) {
        self.dead.insert(process);
        self.holders.values_mut().for_each(|processes| {
            processes.remove(&process);
        });
        self.release_locks();
    }

    /// A copy of a process: it has the open files of the other one.
    pub(crate) fn fork(&mut self, process: ProcessId) -> ProcessId {
        let child = self.start_process();
        for processes in self.holders.values_mut().filter(|all| all.contains(&process)) {
            processes.insert(child);
        }
        if let Some(&dir) = self.working.get(&process) {
            self.working.insert(child, dir);
        }
        child
    }

    /// Locks of open files that no process has any more are free.
    fn release_locks(&mut self) {
        self.holders.retain(|_, processes| !processes.is_empty());
        let holders = &self.holders;
        self.locks.retain(|_, handle| holders.contains_key(handle));
    }

    pub(crate) fn try_lock(&mut self, node: NodeId, handle: HandleId) -> bool {
        let is_held = self.locks.get(&node).is_some_and(|&owner| {
            let processes = self.holders.get(&owner);
            owner != handle && processes.is_some_and(|all| all.iter().any(|&p| !self.is_dead(p)))
        });
        if !is_held {
            self.locks.insert(node, handle);
        }
        !is_held
    }

    /// For every process that has the open file.
    pub(crate) fn unlock(&mut self, node: NodeId, handle: HandleId) {
        if self.locks.get(&node) == Some(&handle) {
            self.locks.remove(&node);
        }
    }

    pub(crate) fn working_directory(&self, process: ProcessId) -> NodeId {
        self.working.get(&process).copied().unwrap_or(ROOT)
    }

    pub(crate) fn change_directory(&mut self, process: ProcessId, dir: NodeId) {
        self.working.insert(process, dir);
    }

    /// A look at the clock takes time, and so does what happened in the world since the last one.
    pub(crate) fn look_at_clock(&mut self, world_ms: u64) {
        let passed = world_ms.saturating_sub(self.world_ms);
        self.world_ms = self.world_ms.max(world_ms);
        self.clock = self.clock.saturating_add(passed + 1);
    }

    pub(crate) fn opened(&mut self, node: NodeId, process: ProcessId) -> HandleId {
        *self.open.entry(node).or_default() += 1;
        self.counters.open_files += 1;
        self.counters.open_files_max = self.counters.open_files_max.max(self.counters.open_files);
        self.next_handle += 1;
        self.holders.insert(self.next_handle, BTreeSet::from([process]));
        self.next_handle
    }

    /// A process lets go of an open file; those that it forked may still have it.
    pub(crate) fn closed(&mut self, node: NodeId, handle: HandleId, process: ProcessId) {
        if let Some(processes) = self.holders.get_mut(&handle) {
            processes.remove(&process);
        }
        self.release_locks();
        if let Some(count) = self.open.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&node);
            }
        }
        self.counters.open_files -= 1;
    }

    /// Fails when one more open file would be too many.
    pub(crate) fn check_open_limit(&mut self) -> io::Result<()> {
        match self.faults.open_limit() {
            Some(limit) if self.counters.open_files >= limit => {
                self.counters.faults += 1;
                Err(crate::faults::Errno::Emfile.error())
            }
            _ => Ok(()),
        }
    }

    /// Blocks that are free under the plan's capacity; `None` when space is unlimited.
    pub(crate) fn free_pages(&self) -> Option<u64> {
        let limit = self.faults.capacity_limit()? / crate::content::PAGE as u64;
        let mut nodes: BTreeSet<NodeId> = self.open.keys().copied().collect();
        self.disk.walk(&mut |_, node, _| {
            nodes.insert(node);
        });
        let used: u64 = nodes
            .iter()
            .filter_map(|&node| self.disk.file(node))
            .map(|file| file.live.pages_used())
            .sum();
        Some(limit.saturating_sub(used))
    }
}

/// A machine and the condition that changes when a hold ends.
#[derive(Debug)]
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    released: Condvar,
}

impl Shared {
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        Arc::new(Self { machine: Mutex::new(machine), released: Condvar::new() })
    }

    /// A panicking test thread leaves no half-done change: every change is one call of
    /// [`Disk::apply`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a system call: a step of the calling thread, if a world decides for it. Counts the
    /// call, waits while its kind is held, and says which fault befalls it.
    pub(crate) fn enter(
        &self,
        process: ProcessId,
        call: Call,
    ) -> io::Result<(Entered<'_>, Option<Fault>)> {
        let befalls = schedule::begin_call(call);
        let mut machine = self.lock();
        alive(&machine, process)?;
        machine.counters.calls[call as usize] += 1;
        let fault = machine.faults.next(call).or(befalls);
        if fault.is_some() {
            machine.counters.faults += 1;
        }
        let number = machine.counters.calls[call as usize];
        let held = |machine: &Machine| machine.holds.iter().any(|held| held.concerns(call, number));
        if held(&machine) {
            machine.waiting.push(call);
            self.tell_holders();
            while held(&machine) {
                machine = self.wait_for_holders(machine);
            }
            if let Some(i) = machine.waiting.iter().position(|&waiting| waiting == call) {
                machine.waiting.swap_remove(i);
            }
            alive(&machine, process)?;
        }
        Ok((Entered { shared: self, machine: Some(machine), call }, fault))
    }

    /// Something about held calls has changed.
    fn tell_holders(&self) {
        self.released.notify_all();
        if let Some(simulation) = seam::simulation() {
            simulation.wake(self.place(), usize::MAX);
        }
    }

    fn wait_for_holders<'a>(&'a self, machine: MutexGuard<'a, Machine>) -> MutexGuard<'a, Machine> {
        let Some(simulation) = seam::simulation() else {
            return self.released.wait(machine).unwrap_or_else(PoisonError::into_inner);
        };
        drop(machine);
        simulation.wait(self.place(), "a held call", None);
        self.lock()
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(&self.released).addr()
    }
}

/// A system call under way: nothing else happens to the machine meanwhile. When it ends, time has
/// gone on, and other threads of a world may run before the caller does.
pub(crate) struct Entered<'a> {
    shared: &'a Shared,
    /// `None` while it ends or pauses.
    machine: Option<MutexGuard<'a, Machine>>,
    call: Call,
}

impl Entered<'_> {
    /// Lets other threads of a world go on in the middle of the call.
    pub(crate) fn pause(&mut self) {
        self.machine = None;
        seam::step(self.call.name());
        self.machine = Some(self.shared.lock());
    }
}

impl Deref for Entered<'_> {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        self.machine.as_deref().expect("a call that is under way has the machine")
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Machine {
        self.machine.as_deref_mut().expect("a call that is under way has the machine")
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.machine = None;
        if self.call.changes() {
            schedule::end_call(self.call);
        }
    }
}

/// Lets other threads in where no world decides; a call of a world is a step as it is.
pub(crate) fn yield_natively() {
    if !schedule::is_simulated() {
        std::thread::yield_now();
    }
}

pub(crate) fn alive(machine: &Machine, process: ProcessId) -> io::Result<()> {
    if machine.is_dead(process) {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the simulated process was killed"));
    }
    Ok(())
}

/// What is stuck: all calls of a kind, or the one with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    call: Call,
    number: Option<u64>,
}

impl Held {
    fn concerns(self, call: Call, number: u64) -> bool {
        self.call == call && self.number.is_none_or(|only| only == number)
    }
}

/// Calls of one kind are stuck until this is dropped; see [`SimFs::hold`](crate::SimFs::hold).
#[derive(Debug)]
#[must_use = "the calls go on when this is dropped"]
pub struct Hold {
    shared: Arc<Shared>,
    held: Held,
}

impl Hold {
    pub(crate) fn new(shared: Arc<Shared>, call: Call) -> Self {
        Self::of(shared, Held { call, number: None })
    }

    /// Of the next call alone.
    pub(crate) fn next(shared: Arc<Shared>, call: Call) -> Self {
        let number = shared.lock().counters.calls[call as usize] + 1;
        Self::of(shared, Held { call, number: Some(number) })
    }

    fn of(shared: Arc<Shared>, held: Held) -> Self {
        shared.lock().holds.push(held);
        Self { shared, held }
    }

    /// How many calls are stuck now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.iter().filter(|&&waiting| waiting == self.held.call).count()
    }

    /// Returns when at least `count` calls are stuck.
    pub fn wait_for(&self, count: usize) {
        let mut machine = self.shared.lock();
        while machine.waiting.iter().filter(|&&waiting| waiting == self.held.call).count() < count {
            machine = self.shared.wait_for_holders(machine);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut machine = self.shared.lock();
        if let Some(i) = machine.holds.iter().position(|&held| held == self.held) {
            machine.holds.swap_remove(i);
        }
        drop(machine);
        self.shared.tell_holders();
    }
}

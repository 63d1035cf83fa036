//! Any sequence of transactions on a heap of any policy, with process deaths, power cuts and
//! failing system calls in between, against a model that knows only what callers were told.
//!
//! What was acknowledged is there after whatever happened, what was refused is not, and what is in
//! doubt is there as a whole or not at all; the check finds nothing wrong, no byte is lost, and no
//! handle is given out twice. One of the policies answers at random, rightly and wrongly: what it
//! makes the heap refuse changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use cairn_heap::{
    Block, Error, ErrorKind, FreeRuns, Heap, Linear, Place, Policy, PolicyId, ROOTS, SizeClass,
    Slab, Transaction, USER_AREA_LEN,
};
use cairn_sim::{
    Call, Chooser, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SectorSize, SimFs,
    SimOptions, Torn,
};
use cairn_stack::{Options, Stack};

const PATH: &str = "/heap";
/// No more bytes live.
const LIVE_MAX: usize = 200_000;

#[derive(Arbitrary, Debug)]
struct Input {
    policy: u8,
    persisted: bool,
    large_sectors: bool,
    seed: u64,
    reserve_kib: u8,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Transaction(Vec<Change>),
    /// The closure ends with an error.
    GivenUp(Vec<Change>),
    /// A handle whose block is gone is used.
    Stale {
        nth: u8,
    },
    Look,
    CloseAndOpen,
    DropAndOpen,
    Kill {
        evict: bool,
    },
    PowerCut {
        seed: u64,
        garbage: bool,
        ordered: bool,
    },
    /// The process dies some system calls later, in the middle of something.
    Doom(u8),
    Fail {
        call: u8,
        nth: u8,
        kind: u8,
    },
    Evict,
}

/// Which block, positions and lengths wrap around.
#[derive(Arbitrary, Clone, Debug)]
enum Change {
    Alloc { len: u16, filled: bool },
    Large(u8),
    Free { nth: u8 },
    Realloc { nth: u8, len: u16 },
    Write { nth: u8, at: u16, len: u16 },
    Zero { nth: u8, at: u16, len: u16 },
    Root { slot: u8, nth: u8 },
    User { at: u8, len: u8 },
}

/// What a heap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    blocks: BTreeMap<u128, Vec<u8>>,
    roots: BTreeMap<usize, u128>,
    user: Vec<u8>,
}

impl State {
    fn empty() -> Self {
        State { blocks: BTreeMap::new(), roots: BTreeMap::new(), user: vec![0; USER_AREA_LEN] }
    }

    /// What a heap holds, and the proof that nothing else is in it.
    fn of(heap: &Heap) -> Result<Self, Error> {
        let report = heap.check()?;
        assert!(report.is_sound() && report.lost_bytes == 0, "{report:?}");
        let mut state = State { user: heap.user_area()?.to_vec(), ..State::empty() };
        for block in heap.blocks()? {
            assert!(state.blocks.insert(block.to_raw(), heap.read(block)?).is_none());
        }
        for slot in 0..ROOTS {
            let root = heap.root(slot)?;
            if !root.is_empty() {
                state.roots.insert(slot, root.to_raw());
            }
        }
        Ok(state)
    }

    fn live(&self) -> usize {
        self.blocks.values().map(Vec::len).sum()
    }

    fn pick(&self, nth: u8) -> Option<u128> {
        self.blocks.keys().nth(usize::from(nth) % self.blocks.len().max(1)).copied()
    }
}

/// Answers at random: in every free run and around it, aligned or not, too short and too long.
#[derive(Debug)]
struct Wild(AtomicU64);

impl Wild {
    fn below(&self, bound: u64) -> u64 {
        let step = |n: u64| Some(n.wrapping_mul(6364136223846793005).wrapping_add(1));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        (before.unwrap_or_default() >> 33) % bound
    }

    /// Near `right` as a rule.
    fn near(&self, right: u64) -> u64 {
        match self.below(8) {
            0 => right.wrapping_sub(self.below(64)),
            1 => right + self.below(64),
            2..5 => right + 16 * self.below(20),
            _ => right,
        }
    }
}

impl Policy for Wild {
    fn id(&self) -> PolicyId {
        PolicyId::Custom { number: u32::MAX, parameter: 0 }
    }

    fn run_len(&self, shortest: u64) -> u64 {
        self.near(shortest)
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> cairn_heap::Result<Place> {
        let list = free.next_list(self.below(192) as usize);
        let runs = list.map(|list| free.runs(list).collect::<cairn_heap::Result<Vec<_>>>());
        let runs = runs.transpose()?.unwrap_or_default();
        if runs.is_empty() || self.below(3) == 0 {
            return SizeClass.place(run_len, free);
        }
        let mut run = runs[self.below(runs.len() as u64) as usize];
        let start = self.near(run.start);
        if self.below(16) == 0 {
            (run.start, run.len) = (self.near(run.start), self.near(run.len));
        }
        let gap = self.near(0);
        Ok(if self.below(4) == 0 { Place::AtEnd { gap } } else { Place::Within { run, start } })
    }
}

struct Run {
    sim: SimFs,
    options: Options,
    policy: Arc<dyn Policy>,
    /// Its answers may be wrong.
    wild: bool,
    heap: Option<Heap>,
    /// What is there.
    state: State,
    /// What may be there instead, until the heap is opened again.
    other: Option<State>,
    /// Every handle that was given out, and acknowledged.
    handles: BTreeSet<u128>,
    faulty: bool,
    counter: u8,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    crate::trace(&input);
    let sector = if input.large_sectors { SectorSize::Bytes4096 } else { SectorSize::Bytes512 };
    let failed = if input.persisted { FailedSync::Persisted } else { FailedSync::Old };
    let sim = SimFs::with_options(
        SimOptions::new().seed(input.seed).sector_size(sector).failed_sync(failed),
    );
    let options = Stack::options().reserve(u64::from(input.reserve_kib % 32) << 10);
    let wild = input.policy >= 128;
    let policy: Arc<dyn Policy> = match input.policy % 4 {
        _ if wild => Arc::new(Wild(AtomicU64::new(input.seed))),
        0 => Arc::new(SizeClass),
        1 => Arc::new(Slab { block_size: 64 }),
        2 => Arc::new(Linear),
        _ => Arc::new(Slab { block_size: 8 }),
    };
    let mut run = Run {
        sim,
        options,
        policy,
        wild,
        heap: None,
        state: State::empty(),
        other: None,
        handles: BTreeSet::new(),
        faulty: false,
        counter: 0,
    };
    run.open();
    for operation in input.operations.iter().take(48) {
        run.step(operation);
    }
    run.heap = None;
    run.open();
    // A heap that is emptied is an empty one.
    let heap = run.heap.take().expect("it is open");
    let emptied: Result<(), Error> = heap.transaction(|tx| {
        (0..ROOTS).try_for_each(|slot| tx.set_root(slot, Block::EMPTY))?;
        run.state
            .blocks
            .keys()
            .try_for_each(|raw| tx.block(*raw).and_then(|block| tx.dealloc(block)))
    });
    emptied.expect("frees everything");
    let report = heap.check().expect("it can be read");
    assert!(report.is_sound() && report.len == report.header_bytes, "{report:?}");
    heap.close().expect("closes when nothing fails");
}

impl Run {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        (0..len).map(|i| (i as u8).wrapping_mul(31) ^ self.counter | 1).collect()
    }

    /// Does a change to a heap and to the model of it.
    fn change(
        &mut self,
        change: &Change,
        tx: &mut Transaction<'_, '_>,
        state: &mut State,
    ) -> Result<(), Error> {
        let room = LIVE_MAX.saturating_sub(state.live());
        let part = |bytes: &[u8], at: u16, len: u16| {
            let at = usize::from(at) % bytes.len();
            at..at + usize::from(len).min(bytes.len() - at)
        };
        match *change {
            Change::Alloc { len, filled } => {
                self.alloc(tx, state, usize::from(len % 4096).min(room), filled)?
            }
            Change::Large(kib) => {
                self.alloc(tx, state, (usize::from(kib) << 10).min(room), false)?
            }
            Change::Free { nth } => {
                let Some(raw) = state.pick(nth) else { return Ok(()) };
                for slot in
                    state.roots.iter().filter(|(_, root)| **root == raw).map(|(slot, _)| *slot)
                {
                    tx.set_root(slot, Block::EMPTY)?;
                }
                let block = tx.block(raw)?;
                tx.dealloc(block)?;
                state.roots.retain(|_, root| *root != raw);
                state.blocks.remove(&raw);
            }
            Change::Realloc { nth, len } => {
                let Some(raw) = state.pick(nth) else { return Ok(()) };
                let len = usize::from(len % 4096).min(room);
                let block = tx.block(raw)?;
                let new = tx.realloc(block, len as u64)?;
                let mut bytes = state.blocks.remove(&raw).expect("it was picked");
                bytes.resize(len, 0);
                state
                    .roots
                    .values_mut()
                    .filter(|root| **root == raw)
                    .for_each(|root| *root = new.to_raw());
                state.roots.retain(|_, root| *root != 0);
                if len > 0 {
                    assert!(state.blocks.insert(new.to_raw(), bytes).is_none());
                }
            }
            Change::Write { nth, at, len } => {
                let Some(raw) = state.pick(nth) else { return Ok(()) };
                let old = state.blocks.get_mut(&raw).expect("it was picked");
                let range = part(old, at, len);
                let new = self.bytes(range.len());
                let block = tx.block(raw)?;
                tx.write(block.subslice(range.start as u64..range.end as u64)?, &new)?;
                old[range].copy_from_slice(&new);
                assert_eq!(tx.read(block)?, *old);
            }
            Change::Zero { nth, at, len } => {
                let Some(raw) = state.pick(nth) else { return Ok(()) };
                let old = state.blocks.get_mut(&raw).expect("it was picked");
                let range = part(old, at, len);
                let block = tx.block(raw)?;
                tx.zero(block.subslice(range.start as u64..range.end as u64)?)?;
                old[range].fill(0);
            }
            Change::Root { slot, nth } => {
                let Some(raw) = state.pick(nth) else { return Ok(()) };
                let slot = usize::from(slot) % ROOTS;
                let block = tx.block(raw)?;
                tx.set_root(slot, block)?;
                state.roots.insert(slot, raw);
            }
            Change::User { at, len } => {
                let range = part(&state.user, at.into(), len.into());
                let new = self.bytes(range.len());
                tx.set_user_area(range.start, &new)?;
                state.user[range].copy_from_slice(&new);
            }
        }
        Ok(())
    }

    fn alloc(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        state: &mut State,
        len: usize,
        filled: bool,
    ) -> Result<(), Error> {
        let bytes = if filled { self.bytes(len) } else { vec![0; len] };
        let block = if filled { tx.alloc_with(&bytes)? } else { tx.alloc(len as u64)? };
        assert_eq!(block.len(), len as u64);
        if len > 0 {
            assert!(state.blocks.insert(block.to_raw(), bytes).is_none());
        }
        Ok(())
    }

    fn try_open(&self) -> Result<(Heap, State), Error> {
        let stack = self.options.clone().fs(Arc::new(self.sim.clone())).open(PATH)?;
        let heap = Heap::open_with_key(stack, self.policy.clone(), 1 << 50)?;
        let found = State::of(&heap)?;
        Ok((heap, found))
    }

    /// Opens the heap, which must succeed when nothing fails.
    fn open(&mut self) {
        self.heap = None;
        if self.faulty {
            // Whatever it does, it loses nothing.
            drop(self.try_open());
            self.healthy();
        }
        let (heap, found) = self.try_open().expect("opens when nothing fails");
        if found != self.state {
            let other =
                self.other.take().unwrap_or_else(|| panic!("{found:?}, and not {:?}", self.state));
            assert!(found == other, "{found:?}, neither as before nor as after");
            self.became(other);
        }
        self.other = None;
        self.heap = Some(heap);
    }

    /// Ends faults, and the process with them.
    fn healthy(&mut self) {
        if self.faulty {
            let next = self.sim.restart();
            self.heap = None;
            self.sim = next;
            self.faulty = false;
        }
    }

    fn became(&mut self, after: State) {
        for raw in after.blocks.keys().filter(|raw| !self.state.blocks.contains_key(raw)) {
            assert!(self.handles.insert(*raw), "a handle was given out twice");
        }
        self.state = after;
    }

    /// A transaction that was to lead to `after` returned.
    fn returned(&mut self, result: Result<(), Error>, after: State) {
        let error = match result {
            Ok(()) => return self.became(after),
            Err(error) => error,
        };
        if self.wild && matches!(error, Error::Policy { .. } | Error::TooLarge { .. }) {
            assert!(error.changed_nothing());
            return;
        }
        assert!(self.faulty, "nothing fails, and still: {error:?}");
        assert!(matches!(error, Error::Stack(_)), "the system failed, not the heap: {error:?}");
        if !error.changed_nothing() {
            self.other = Some(after);
        }
        if error.kind() == ErrorKind::Reopen {
            self.open();
        }
    }

    fn step(&mut self, operation: &Operation) {
        let heap = self.heap.take().expect("it is open");
        match operation {
            Operation::Transaction(changes) => {
                let mut after = self.state.clone();
                let result = heap.transaction(|tx| {
                    changes
                        .iter()
                        .take(8)
                        .try_for_each(|change| self.change(change, tx, &mut after))
                });
                self.heap = Some(heap);
                self.returned(result, after);
            }
            Operation::GivenUp(changes) => {
                let mut after = self.state.clone();
                let result: Result<(), Error> = heap.transaction(|tx| {
                    changes
                        .iter()
                        .take(8)
                        .try_for_each(|change| self.change(change, tx, &mut after))?;
                    Err(Error::NoRoot { slot: usize::MAX, count: 0 })
                });
                self.heap = Some(heap);
                let error = result.expect_err("the closure's");
                assert!(error.changed_nothing());
                if !matches!(error, Error::NoRoot { .. }) {
                    let state = self.state.clone();
                    self.returned(Err(error), state);
                }
            }
            Operation::Stale { nth } => {
                let gone =
                    self.handles.iter().filter(|raw| !self.state.blocks.contains_key(raw)).copied();
                let gone: Vec<u128> = gone.collect();
                if let Some(raw) = gone.get(usize::from(*nth) % gone.len().max(1)) {
                    match heap.block(*raw) {
                        Err(Error::InvalidBlock { .. }) => {}
                        Err(Error::Stack(_)) if self.faulty => {}
                        other => panic!("a stale handle: {other:?}"),
                    }
                }
                self.heap = Some(heap);
            }
            Operation::Look => {
                match State::of(&heap) {
                    Ok(found) => {
                        assert_eq!(found, self.state, "a live heap shows what was acknowledged")
                    }
                    Err(error) => assert!(self.faulty, "nothing fails, and still: {error:?}"),
                }
                self.heap = Some(heap);
            }
            Operation::CloseAndOpen => {
                if let Err(error) = heap.close() {
                    assert!(self.faulty, "nothing fails, and still: {error:?}");
                }
                self.open();
            }
            Operation::DropAndOpen => {
                drop(heap);
                self.open();
            }
            Operation::Kill { evict } => {
                drop(heap);
                self.faulty = true;
                self.healthy();
                if *evict {
                    self.sim.evict();
                }
                self.open();
            }
            Operation::PowerCut { seed, garbage, ordered } => {
                let torn = if *garbage { Torn::Garbage } else { Torn::Versions };
                let order = if *ordered { MetadataOrder::Ordered } else { MetadataOrder::Free };
                let after = self
                    .sim
                    .power_cut(&mut Chooser::seeded(*seed).torn(torn).metadata_order(order));
                drop(heap);
                self.sim = after;
                self.faulty = false;
                self.open();
            }
            Operation::Doom(calls) => {
                self.heap = Some(heap);
                self.sim.kill_at(self.sim.op_count() + usize::from(*calls));
                self.faulty = true;
            }
            Operation::Fail { call, nth, kind } => {
                self.heap = Some(heap);
                let call = Call::ALL[usize::from(*call) % Call::ALL.len()];
                let nth = u64::from(*nth % 32);
                let fault = match kind % 6 {
                    0 => Fault::Fail(Errno::Eio),
                    1 => Fault::Fail(Errno::Enospc),
                    2 => Fault::Fail(Errno::Eintr),
                    3 => Fault::FailAfter(0, Errno::Eio),
                    4 => Fault::Short(usize::from(*kind)),
                    _ => Fault::ShortThenFail(usize::from(*kind) * 8, Errno::Enospc),
                };
                self.sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
                self.faulty = true;
            }
            Operation::Evict => {
                self.heap = Some(heap);
                self.sim.evict();
            }
        }
    }
}

//! Any sequence of operations on a stack, with process deaths, power cuts and failing system calls
//! in between, against a model that knows only what callers were told.
//!
//! What was acknowledged is there after whatever happened, what was refused is not, and what is in
//! doubt is there as a whole or not at all.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use cairn_sim::{
    Call, Chooser, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SectorSize, SimFs,
    SimOptions, Torn,
};
use cairn_stack::{Error, ErrorKind, Options, Stack, Transaction};

const PATH: &str = "/stack";
/// No stack is longer.
const LEN_MAX: usize = 200_000;

#[derive(Arbitrary, Debug)]
struct Input {
    persisted: bool,
    large_sectors: bool,
    seed: u64,
    reserve_kib: u8,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    One(Change),
    Transaction(Vec<Change>),
    /// The closure ends with an error.
    GivenUp(Vec<Change>),
    Read,
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

/// Positions and lengths wrap around.
#[derive(Arbitrary, Clone, Debug)]
enum Change {
    Push(u16),
    LargePush(u8),
    Extend(u16),
    Pop(u16),
    Discard(u16),
    Set { at: u16, len: u16 },
    Zero { at: u16, len: u16 },
    Resize(u16),
    CompareAndSet { at: u16, len: u8, equal: bool },
}

/// A change with everything said.
enum Exact {
    Push(Vec<u8>),
    Extend(usize),
    Pop(usize),
    Discard(usize),
    Set(usize, Vec<u8>),
    Zero(usize, usize),
    Resize(usize),
    CompareAndSet(usize, Vec<u8>, Vec<u8>),
}

/// What both a stack and a transaction can do.
macro_rules! apply {
    ($on:expr, $change:expr, $model:expr) => {{
        let len = $model.len();
        match $change {
            Exact::Push(bytes) => {
                $on.push(bytes).map(|at| assert_eq!(at, len as u64))?;
                $model.extend_from_slice(bytes);
            }
            Exact::Extend(zeros) => {
                $on.extend(*zeros as u64).map(|at| assert_eq!(at, len as u64))?;
                $model.resize(len + zeros, 0);
            }
            Exact::Pop(bytes) => {
                let popped = $on.pop(*bytes as u64)?;
                assert_eq!(popped, $model.split_off(len - bytes));
            }
            Exact::Discard(bytes) => {
                $on.discard(*bytes as u64)?;
                $model.truncate(len - bytes);
            }
            Exact::Set(at, bytes) => {
                $on.set(*at as u64, bytes)?;
                $model[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Exact::Zero(at, zeros) => {
                $on.zero(*at as u64..(at + zeros) as u64)?;
                $model[*at..at + zeros].fill(0);
            }
            Exact::Resize(new) => {
                $on.resize(*new as u64)?;
                $model.resize(*new, 0);
            }
            Exact::CompareAndSet(at, expected, new) => {
                let equal = $model[*at..at + new.len()] == expected[..];
                assert_eq!($on.compare_and_set(*at as u64, expected, new)?, equal);
                if equal {
                    $model[*at..at + new.len()].copy_from_slice(new);
                }
            }
        }
        Ok::<(), Error>(())
    }};
}

impl Exact {
    fn on_stack(&self, stack: &Stack, model: &mut Vec<u8>) -> Result<(), Error> {
        apply!(stack, self, model)
    }

    fn on_transaction(&self, tx: &mut Transaction<'_>, model: &mut Vec<u8>) -> Result<(), Error> {
        apply!(tx, self, model)
    }

    fn on_model(&self, model: &mut Vec<u8>) {
        let len = model.len();
        match self {
            Exact::Push(bytes) => model.extend_from_slice(bytes),
            Exact::Extend(zeros) => model.resize(len + zeros, 0),
            Exact::Pop(bytes) | Exact::Discard(bytes) => model.truncate(len - bytes),
            Exact::Set(at, bytes) => model[*at..at + bytes.len()].copy_from_slice(bytes),
            Exact::Zero(at, zeros) => model[*at..at + zeros].fill(0),
            Exact::Resize(new) => model.resize(*new, 0),
            Exact::CompareAndSet(at, expected, new) => {
                if model[*at..at + new.len()] == expected[..] {
                    model[*at..at + new.len()].copy_from_slice(new);
                }
            }
        }
    }
}

struct Run {
    sim: SimFs,
    options: Options,
    stack: Option<Stack>,
    /// What is there.
    model: Vec<u8>,
    /// What may be there instead, until the stack is opened again.
    other: Option<Vec<u8>>,
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
    let mut run = Run {
        sim,
        options,
        stack: None,
        model: Vec::new(),
        other: None,
        faulty: false,
        counter: 0,
    };
    run.open();
    for operation in input.operations.iter().take(64) {
        run.step(operation);
    }
    run.stack = None;
    run.open();
    run.stack.take().expect("it is open").close().expect("closes when nothing fails");
    run.open();
}

impl Run {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        (0..len).map(|i| (i as u8).wrapping_mul(31) ^ self.counter | 1).collect()
    }

    /// The change as it is on a stack like `model`.
    fn exact(&mut self, change: &Change, model: &[u8]) -> Exact {
        let len = model.len();
        let grow = |wanted: usize| wanted.min(LEN_MAX - len.min(LEN_MAX));
        let shrink = |wanted: usize| wanted % (len + 1);
        let range = |at: u16, wanted: usize| {
            let at = usize::from(at) * 7 % (len + 1);
            (at, wanted.min(len - at))
        };
        match *change {
            Change::Push(bytes) => Exact::Push(self.bytes(grow(usize::from(bytes) % 9000))),
            Change::LargePush(kib) => Exact::Push(self.bytes(grow(usize::from(kib) << 10))),
            Change::Extend(zeros) => Exact::Extend(grow(usize::from(zeros) % 9000)),
            Change::Pop(bytes) => Exact::Pop(shrink(bytes.into())),
            Change::Discard(bytes) => Exact::Discard(shrink(usize::from(bytes) * 5)),
            Change::Set { at, len } => {
                let (at, len) = range(at, len.into());
                Exact::Set(at, self.bytes(len))
            }
            Change::Zero { at, len } => {
                let (at, len) = range(at, len.into());
                Exact::Zero(at, len)
            }
            Change::Resize(len) => Exact::Resize(usize::from(len) * 3),
            Change::CompareAndSet { at, len, equal } => {
                let (at, len) = range(at, len.into());
                let expected = if equal { model[at..at + len].to_vec() } else { vec![0; len] };
                Exact::CompareAndSet(at, expected, self.bytes(len))
            }
        }
    }

    fn exacts(&mut self, changes: &[Change]) -> (Vec<Exact>, Vec<u8>) {
        let mut model = self.model.clone();
        let mut exacts = Vec::new();
        for change in changes.iter().take(12) {
            let exact = self.exact(change, &model);
            exact.on_model(&mut model);
            exacts.push(exact);
        }
        (exacts, model)
    }

    fn try_open(&self) -> Result<(Stack, Vec<u8>), Error> {
        let stack = self.options.clone().fs(Arc::new(self.sim.clone())).open(PATH)?;
        let found = stack.peek(0)?;
        Ok((stack, found))
    }

    /// Opens the stack, which must succeed when nothing fails.
    fn open(&mut self) {
        self.stack = None;
        if self.faulty {
            // Whatever it does, it loses nothing.
            drop(self.try_open());
            self.healthy();
        }
        let (stack, found) = self.try_open().expect("opens when nothing fails");
        if found != self.model {
            let other =
                self.other.take().unwrap_or_else(|| panic!("{} bytes, and others", found.len()));
            assert!(found == other, "{} bytes, neither as before nor as after", found.len());
            self.model = other;
        }
        self.other = None;
        self.stack = Some(stack);
    }

    /// Ends faults, and the process with them.
    fn healthy(&mut self) {
        if self.faulty {
            let next = self.sim.restart();
            self.stack = None;
            self.sim = next;
            self.faulty = false;
        }
    }

    /// An operation that was to lead to `after` returned.
    fn returned(&mut self, result: Result<(), Error>, after: Vec<u8>) {
        let error = match result {
            Ok(()) => {
                self.model = after;
                return;
            }
            Err(error) => error,
        };
        assert!(self.faulty, "nothing fails, and still: {error:?}");
        if !error.changed_nothing() {
            self.other = Some(after);
        }
        if error.kind() == ErrorKind::Reopen {
            self.open();
        }
    }

    fn step(&mut self, operation: &Operation) {
        let stack = self.stack.take().expect("it is open");
        match operation {
            Operation::One(change) => {
                let model = self.model.clone();
                let exact = self.exact(change, &model);
                let (mut after, mut told) = (model.clone(), model);
                exact.on_model(&mut after);
                let result = exact.on_stack(&stack, &mut told);
                self.stack = Some(stack);
                self.returned(result, after);
            }
            Operation::Transaction(changes) => {
                let (exacts, after) = self.exacts(changes);
                let mut told = self.model.clone();
                let result = stack.transaction(|tx| {
                    exacts.iter().try_for_each(|exact| exact.on_transaction(tx, &mut told))?;
                    assert_eq!(tx.peek(0)?, told);
                    Ok(())
                });
                self.stack = Some(stack);
                self.returned(result, after);
            }
            Operation::GivenUp(changes) => {
                let (exacts, _) = self.exacts(changes);
                let mut told = self.model.clone();
                let result: Result<(), Error> = stack.transaction(|tx| {
                    exacts.iter().try_for_each(|exact| exact.on_transaction(tx, &mut told))?;
                    Err(Error::Closed)
                });
                self.stack = Some(stack);
                let error = result.expect_err("the closure's");
                assert!(error.changed_nothing());
                if !matches!(error, Error::Closed) {
                    let model = self.model.clone();
                    self.returned(Err(error), model);
                }
            }
            Operation::Read => {
                match stack.peek(0) {
                    Ok(found) => {
                        assert_eq!(found, self.model, "a live stack shows what was acknowledged")
                    }
                    Err(error) => assert!(self.faulty, "nothing fails, and still: {error:?}"),
                }
                self.stack = Some(stack);
            }
            Operation::CloseAndOpen => {
                if let Err(error) = stack.close() {
                    assert!(self.faulty, "nothing fails, and still: {error:?}");
                }
                self.open();
            }
            Operation::DropAndOpen => {
                drop(stack);
                self.open();
            }
            Operation::Kill { evict } => {
                self.stack = Some(stack);
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
                drop(stack);
                self.sim = after;
                self.faulty = false;
                self.open();
            }
            Operation::Doom(calls) => {
                self.stack = Some(stack);
                self.sim.kill_at(self.sim.op_count() + usize::from(*calls));
                self.faulty = true;
            }
            Operation::Fail { call, nth, kind } => {
                self.stack = Some(stack);
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
                self.stack = Some(stack);
                self.sim.evict();
            }
        }
    }
}

//! A stack and what it must hold: a driver runs operations on both, and notes when each was
//! acknowledged.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use cairn_io::FileStore;
use cairn_sim::SimFs;
use cairn_stack::{Durability, Error, Inspection, Options, Stack, Transaction};

use crate::rows::{OF_A_STORE, Rows};

pub(crate) const PATH: &str = "/stack";

/// A small generator of numbers, so that a seed means the same for ever.
#[derive(Clone)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Never zero, and different everywhere: what is torn or misplaced shows.
        let salt = self.below(1 << 30);
        (0..len)
            .map(|i| ((i.wrapping_mul(31) ^ (i >> 8).wrapping_mul(17) ^ salt) % 255) as u8 + 1)
            .collect()
    }

    /// A range of at least `least` bytes, if there are so many, and at most `longest`.
    fn range(&mut self, len: usize, least: usize, longest: usize) -> Range<usize> {
        let least = least.min(len);
        let size = least + self.below(longest.min(len) - least + 1);
        let start = self.below(len - size + 1);
        start..start + size
    }
}

/// One change, on the stack and on the model alike.
#[derive(Clone)]
pub(crate) enum Change {
    Push(Vec<u8>),
    Extend(usize),
    Pop(usize),
    Discard(usize),
    Set(usize, Vec<u8>),
    Zero(Range<usize>),
    Resize(usize),
    CompareAndSet(usize, Vec<u8>),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Push(bytes) => write!(f, "push {}", bytes.len()),
            Change::Extend(zeros) => write!(f, "extend {zeros}"),
            Change::Pop(bytes) => write!(f, "pop {bytes}"),
            Change::Discard(bytes) => write!(f, "discard {bytes}"),
            Change::Set(at, bytes) => write!(f, "set {at}..{}", at + bytes.len()),
            Change::Zero(range) => write!(f, "zero {range:?}"),
            Change::Resize(len) => write!(f, "resize {len}"),
            Change::CompareAndSet(at, bytes) => {
                write!(f, "compare and set {at}..{}", at + bytes.len())
            }
        }
    }
}

impl Change {
    pub(crate) fn on_model(&self, model: &mut Vec<u8>) {
        match self {
            Change::Push(bytes) => model.extend_from_slice(bytes),
            Change::Extend(zeros) => model.resize(model.len() + zeros, 0),
            Change::Pop(bytes) | Change::Discard(bytes) => model.truncate(model.len() - bytes),
            Change::Set(at, bytes) | Change::CompareAndSet(at, bytes) => {
                model[*at..*at + bytes.len()].copy_from_slice(bytes)
            }
            Change::Zero(range) => model[range.clone()].fill(0),
            Change::Resize(len) => model.resize(*len, 0),
        }
    }

    pub(crate) fn on_stack(&self, stack: &Stack, model: &[u8]) -> Result<(), Error> {
        match self {
            Change::Push(bytes) => assert_eq!(stack.push(bytes)?, model.len() as u64),
            Change::Extend(zeros) => assert_eq!(stack.extend(*zeros as u64)?, model.len() as u64),
            Change::Pop(bytes) => {
                assert_eq!(stack.pop(*bytes as u64)?, model[model.len() - bytes..])
            }
            Change::Discard(bytes) => stack.discard(*bytes as u64)?,
            Change::Set(at, bytes) => stack.set(*at as u64, bytes)?,
            Change::Zero(range) => stack.zero(range.start as u64..range.end as u64)?,
            Change::Resize(len) => stack.resize(*len as u64)?,
            Change::CompareAndSet(at, bytes) => {
                let expected = &model[*at..*at + bytes.len()];
                assert!(stack.compare_and_set(*at as u64, expected, bytes)?);
            }
        }
        Ok(())
    }

    fn in_transaction(&self, tx: &mut Transaction<'_>, model: &[u8]) -> Result<(), Error> {
        match self {
            Change::Push(bytes) => assert_eq!(tx.push(bytes)?, model.len() as u64),
            Change::Extend(zeros) => assert_eq!(tx.extend(*zeros as u64)?, model.len() as u64),
            Change::Pop(bytes) => assert_eq!(tx.pop(*bytes as u64)?, model[model.len() - bytes..]),
            Change::Discard(bytes) => tx.discard(*bytes as u64)?,
            Change::Set(at, bytes) => tx.set(*at as u64, bytes)?,
            Change::Zero(range) => tx.zero(range.start as u64..range.end as u64)?,
            Change::Resize(len) => tx.resize(*len as u64)?,
            Change::CompareAndSet(at, bytes) => {
                let expected = &model[*at..*at + bytes.len()];
                assert!(tx.compare_and_set(*at as u64, expected, bytes)?);
            }
        }
        assert_eq!(tx.peek(0)?.len(), {
            let mut after = model.to_vec();
            self.on_model(&mut after);
            after.len()
        });
        Ok(())
    }
}

/// How large changes are.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes of the smallest change.
    pub(crate) least: usize,
    pub(crate) small: usize,
    pub(crate) large: usize,
    /// The stack is shrunk when it is longer.
    pub(crate) longest: usize,
    /// Changes in place cover whole sectors, zeros are never appended alone, and each change is a
    /// commit. So the bytes that are written to a sector between two barriers have no gap, which
    /// [`Torn::Garbage`](cairn_sim::Torn::Garbage) would fill.
    pub(crate) whole_sectors: bool,
}

pub(crate) const SIZES: Sizes =
    Sizes { least: 1, small: 300, large: 6000, longest: 20_000, whole_sectors: false };

/// A change that is possible on `model`.
pub(crate) fn any_change(dice: &mut Dice, model: &[u8], sizes: Sizes) -> Change {
    let len = model.len();
    let size = match dice.below(10) {
        0..7 => sizes.least + dice.below(sizes.small),
        _ => sizes.least + dice.below(sizes.large),
    };
    if len > sizes.longest {
        return Change::Discard(1 + dice.below(len));
    }
    if len == 0 {
        return Change::Push(dice.bytes(size));
    }
    let change = match dice.below(100) {
        0..30 => Change::Push(dice.bytes(size)),
        30..36 => Change::Extend(size),
        36..50 => Change::Pop(1 + dice.below(len.min(size))),
        50..58 => Change::Discard(1 + dice.below(len.min(size))),
        58..78 => {
            let range = dice.range(len, sizes.least, size);
            Change::Set(range.start, dice.bytes(range.len()))
        }
        78..86 => Change::Zero(dice.range(len, sizes.least, size)),
        86..92 => Change::Resize(len.saturating_add(size).saturating_sub(dice.below(2 * size))),
        _ => {
            let range = dice.range(len, sizes.least, size);
            Change::CompareAndSet(range.start, dice.bytes(range.len()))
        }
    };
    if sizes.whole_sectors { of_whole_sectors(change, model) } else { change }
}

/// Something like `change` that [`Sizes::whole_sectors`] allows.
fn of_whole_sectors(change: Change, model: &[u8]) -> Change {
    let sectors = |start: usize, end: usize| {
        let (start, end) = (start / 512 * 512, end.next_multiple_of(512));
        start..if end > model.len() { model.len() / 512 * 512 } else { end }
    };
    let change = match change {
        Change::Set(at, bytes) | Change::CompareAndSet(at, bytes) => {
            let range = sectors(at, at + bytes.len());
            Change::Set(range.start, bytes.iter().copied().cycle().take(range.len()).collect())
        }
        Change::Zero(range) => Change::Zero(sectors(range.start, range.end)),
        Change::Resize(len) if len < model.len() => Change::Resize(len),
        Change::Extend(zeros) => Change::Push(vec![7; zeros]),
        Change::Resize(len) => Change::Push(vec![8; 1 + len - model.len()]),
        change => change,
    };
    match &change {
        Change::Set(_, bytes) if bytes.is_empty() => Change::Discard(1),
        Change::Zero(range) if range.is_empty() => Change::Push(vec![9; 9]),
        _ => change,
    }
}

/// A stack on a simulated machine, and every state it had.
pub(crate) struct Driver {
    pub(crate) sim: SimFs,
    pub(crate) options: Options,
    pub(crate) stack: Option<Stack>,
    pub(crate) model: Vec<u8>,
    /// Each state with the number of operations of the machine after which the change that led to
    /// it had returned. The first is the empty stack.
    history: Vec<(usize, Rc<Vec<u8>>)>,
    /// From this point on, at least that state had to survive.
    durable: Vec<(usize, usize)>,
    explicit: bool,
    /// Whether the stack is in a store, and the file only that store's.
    pub(crate) in_store: bool,
    /// The rows of the recovery table that looks at states after crashes met.
    pub(crate) rows: Rows,
}

impl Driver {
    pub(crate) fn new(sim: SimFs, options: Options, durability: Durability) -> Self {
        let explicit = durability == Durability::Explicit;
        let options = options.durability(durability);
        let history = vec![(0, Rc::new(Vec::new()))];
        Driver {
            sim,
            options,
            stack: None,
            model: Vec::new(),
            history,
            durable: Vec::new(),
            explicit,
            in_store: false,
            rows: Rows::default(),
        }
    }

    /// Opens what is on a machine, with the driver's options or others.
    pub(crate) fn open_on(&self, sim: &SimFs, options: &Options) -> Result<Stack, Error> {
        let options = options.clone().fs(Arc::new(sim.clone()));
        if !self.in_store {
            return options.open(PATH);
        }
        let path = std::path::Path::new(PATH);
        let store = FileStore::open(sim, path).map_err(|source| Error::Io {
            op: "open",
            path: path.to_owned(),
            source: Arc::new(source),
        })?;
        options.open_store(Arc::new(store))
    }

    pub(crate) fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("it is open")
    }

    pub(crate) fn open(&mut self) -> Result<(), Error> {
        let stack = self.open_on(&self.sim, &self.options)?;
        assert_eq!(stack.peek(0)?, self.model, "a stack opens as it was");
        self.stack = Some(stack);
        self.acknowledge();
        Ok(())
    }

    /// The present state is durable.
    fn acknowledge(&mut self) {
        self.durable.push((self.sim.op_count(), self.history.len() - 1));
    }

    pub(crate) fn returned(&mut self) {
        self.history.push((self.sim.op_count(), Rc::new(self.model.clone())));
        if !self.explicit {
            self.acknowledge();
        }
    }

    pub(crate) fn change(&mut self, change: &Change) -> Result<(), Error> {
        change.on_stack(self.stack(), &self.model)?;
        change.on_model(&mut self.model);
        self.returned();
        Ok(())
    }

    pub(crate) fn transaction(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut model = self.model.clone();
        self.stack().transaction(|tx| {
            for change in changes {
                change.in_transaction(tx, &model)?;
                change.on_model(&mut model);
            }
            assert_eq!(tx.peek(0)?, model);
            Ok::<_, Error>(())
        })?;
        self.model = model;
        self.returned();
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.stack().sync()?;
        self.acknowledge();
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.stack.take().expect("it is open").close()?;
        self.acknowledge();
        Ok(())
    }

    /// The process ends; what was not synced is gone or not, and the stack is opened again.
    pub(crate) fn die(&mut self) {
        self.sim.kill();
        drop(self.stack.take());
        self.sim = self.sim.restart();
    }

    /// Opens after a death, and takes what is found for the model, if it is possible.
    pub(crate) fn open_whatever_is_there(&mut self) -> Result<(), String> {
        let stack = self.open_on(&self.sim, &self.options).map_err(|e| chain(&e))?;
        let found = stack.peek(0).map_err(|e| chain(&e))?;
        let point = self.sim.op_count();
        self.accepts(point, &found)?;
        self.model = found;
        self.stack = Some(stack);
        self.history.push((point, Rc::new(self.model.clone())));
        self.acknowledge();
        Ok(())
    }

    /// Notes that an operation is in doubt: the state after it is possible from now on.
    pub(crate) fn doubt(&mut self, after: Vec<u8>) {
        self.history.push((self.sim.op_count(), Rc::new(after)));
    }

    /// Whether a stack that holds `found` may be there after a crash at `point`.
    pub(crate) fn accepts(&self, point: usize, found: &[u8]) -> Result<(), String> {
        let first =
            self.durable.iter().rev().find(|(at, _)| *at <= point).map_or(0, |(_, state)| *state);
        let returned = self.history.iter().take_while(|(at, _)| *at <= point).count();
        // One operation may have been under way.
        let possible = &self.history[first..(returned + 1).min(self.history.len())];
        if possible.iter().any(|(_, state)| **state == found) {
            return Ok(());
        }
        let nearest = possible
            .iter()
            .map(|(_, state)| differences(state, found))
            .collect::<Vec<_>>()
            .join("; or ");
        Err(format!(
            "a stack of {} bytes is none of {} possible states: {nearest}",
            found.len(),
            possible.len()
        ))
    }
}

fn differences(expected: &[u8], found: &[u8]) -> String {
    let wrong = expected.iter().zip(found).filter(|(a, b)| a != b).count();
    let first = expected.iter().zip(found).position(|(a, b)| a != b);
    format!("{} bytes, {wrong} of them others, from {first:?}", expected.len())
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Opens what a crash left and compares it; whether a stack had to be there depends on what had
/// been acknowledged. A look before must show the same.
pub(crate) fn check_state(driver: &Driver, point: usize, sim: &SimFs) -> Result<(), String> {
    let seen = look(driver, sim)?;
    let stack = driver
        .open_on(sim, &driver.options)
        .map_err(|e| format!("does not open: {}", chain(&e)))?;
    let found = stack.peek(0).map_err(|e| format!("does not read: {}", chain(&e)))?;
    if seen.is_some_and(|seen| seen != found) {
        return Err("opening finds what looking does not".into());
    }
    driver.accepts(point, &found)
}

/// What a look shows; `None` when there is no stack.
fn look(driver: &Driver, sim: &SimFs) -> Result<Option<Vec<u8>>, String> {
    let said = |e: Error| format!("cannot be looked at: {}", chain(&e));
    let look = match Inspection::open_on(sim, PATH) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        // A store whose creation was cut off is blank. A file has its name once it is whole.
        Err(Error::Foreign { .. }) if driver.in_store => {
            driver.rows.met(OF_A_STORE[0]);
            return Ok(None);
        }
        look => look.map_err(said)?,
    };
    driver.rows.met(look.found());
    let mut bytes = vec![0; usize::try_from(look.len()).map_err(|e| e.to_string())?];
    look.get_into(0, &mut bytes).map_err(said)?;
    Ok(Some(bytes))
}

/// Changes a stack that a crash left, closes it, and opens it again.
pub(crate) fn check_goes_on(driver: &Driver, sim: &SimFs, seed: u64) -> Result<(), String> {
    let said = |e: Error| chain(&e);
    let options = driver.options.clone().durability(Durability::Operation);
    let open = |sim: &SimFs| driver.open_on(sim, &options).map_err(said);
    let sim = sim.restart();
    let stack = open(&sim)?;
    let mut model = stack.peek(0).map_err(said)?;
    let mut dice = Dice(seed);
    for _ in 0..4 {
        let change = any_change(&mut dice, &model, SIZES);
        change.on_stack(&stack, &model).map_err(said)?;
        change.on_model(&mut model);
    }
    if seed.is_multiple_of(2) {
        stack.close().map_err(said)?;
    } else {
        drop(stack);
    }
    let sim = sim.power_cut(&mut cairn_sim::Chooser::seeded(seed));
    let found = open(&sim)?.peek(0).map_err(said)?;
    if found == model { Ok(()) } else { Err("goes on wrongly".into()) }
}

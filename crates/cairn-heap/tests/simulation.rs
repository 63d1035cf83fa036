//! guards: L01 L02 L03 L28 L30 L31 L32 L34
//!
//! The heap in simulated worlds: owners allocate, grow, move and free blocks in threads whose order
//! a seed decides, and the power goes at any moment. Every change first reads all roots, so that
//! each state is known; after a crash the heap must be in one of them, and nothing else lives. One
//! owner alone also makes single calls.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests say what they found")]
#![allow(clippy::cast_possible_truncation, reason = "the heaps are small")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_heap::{Block, Error, Heap, Linear, SizeClass, Slab, Transaction};
use cairn_sim::{
    Broken, Dice, Faults, History, Script, SimFs, Simulation, Workload, World, call, fail, met,
};
use cairn_stack::{ErrorKind, Inspection, Stack};
use cairn_trial::people::{Act, Opened, Street, Surrounded};
use cairn_trial::properties::{self as must, NO_ERROR, TRUTH};

const PATH: &str = "/data/heap";
const OWNERS: usize = 6;
const NOTHING_LOST: &str = "a block is lost, or lives twice";
const READERS: &str = "a reader sees what its owner wrote";
const GONE: &str = "a handle whose block is gone is refused";

/// One call: which owner, how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// A new block with other bytes takes the place of the old one.
    Replace(usize, usize),
    Resize(usize, usize),
    /// A new block of zeros takes the place of the old one.
    Blank(usize, usize),
    /// Resizes, and does not care whether that was possible.
    Shrug(usize, usize),
    Write(usize),
    Free(usize),
    /// Changes, and then gives up.
    GiveUp(usize, usize),
    /// An allocation, and a reallocation, that is no part of a transaction.
    Alloc(usize),
    Realloc(usize, usize),
    /// Uses a handle whose block is gone, and lets an owner's handle outlive its block.
    Stale(usize),
    Dangle(usize),
    Check,
    /// What others do around the heap.
    Act(Act),
    Close,
}

impl Call {
    fn kind(self) -> &'static str {
        match self {
            Call::Replace(..) => "replace",
            Call::Resize(..) => "resize",
            Call::Blank(..) => "blank",
            Call::Shrug(..) => "shrug",
            Call::Write(_) => "write",
            Call::Free(_) => "free",
            Call::GiveUp(..) => "give_up",
            Call::Alloc(_) => "alloc",
            Call::Realloc(..) => "realloc",
            Call::Stale(_) => "stale",
            Call::Dangle(_) => "dangle",
            Call::Check => "check",
            Call::Act(act) => act.kind(),
            Call::Close => "close",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match *self {
            Call::Write(n) | Call::Free(n) | Call::Alloc(n) | Call::Stale(n) | Call::Dangle(n) => {
                write!(f, " {n}")
            }
            Call::Replace(owner, bytes)
            | Call::Resize(owner, bytes)
            | Call::Realloc(owner, bytes)
            | Call::Blank(owner, bytes)
            | Call::Shrug(owner, bytes)
            | Call::GiveUp(owner, bytes) => write!(f, " {owner} {bytes}"),
            Call::Act(act) => act.numbers().iter().try_for_each(|n| write!(f, " {n}")),
            Call::Check | Call::Close => Ok(()),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let n = |i: usize| numbers.get(i).copied().unwrap_or_default();
        Ok(match kind {
            "replace" => Call::Replace(n(0), n(1)),
            "resize" => Call::Resize(n(0), n(1)),
            "blank" => Call::Blank(n(0), n(1)),
            "shrug" => Call::Shrug(n(0), n(1)),
            "write" => Call::Write(n(0)),
            "free" => Call::Free(n(0)),
            "give_up" => Call::GiveUp(n(0), n(1)),
            "alloc" => Call::Alloc(n(0)),
            "realloc" => Call::Realloc(n(0), n(1)),
            "stale" => Call::Stale(n(0)),
            "dangle" => Call::Dangle(n(0)),
            "check" => Call::Check,
            "close" => Call::Close,
            _ => {
                let act = Act::parse(kind, |i| n(i) as u64);
                Call::Act(act.ok_or_else(|| format!("{text:?} is no call"))?)
            }
        })
    }
}

/// What each owner's block holds; owners without a block are not there. Blocks that nobody owns
/// come behind them, by handle.
type Contents = BTreeMap<u128, Vec<u8>>;

/// With the policy of this number, and three owners at once or one.
struct Heaps {
    policy: usize,
    alone: bool,
}

impl Workload for Heaps {
    type Call = Call;
    type Told = Surrounded<History<Contents>>;

    fn name(&self) -> String {
        "heap".to_owned()
    }

    fn script(&self, dice: &mut Dice, life: usize) -> Script<Call> {
        let count = if life == 0 { 14 } else { 4 };
        let mut script = Script::new();
        let bytes =
            |dice: &mut Dice| if dice.chance(1, 5) { dice.below(2000) } else { dice.below(90) };
        let names: &[&str] = if self.alone { &["one"] } else { &["one", "two", "three"] };
        for &name in names {
            let change = |dice: &mut Dice| match dice.below(15) {
                13 => Call::Blank(dice.below(OWNERS), bytes(dice)),
                14 => Call::Shrug(dice.below(OWNERS), bytes(dice)),
                11 if self.alone => Call::Alloc(bytes(dice)),
                12 if self.alone => Call::Realloc(dice.below(OWNERS), bytes(dice)),
                9 | 10 => Call::Stale(dice.below(8)),
                11 => Call::Dangle(dice.below(OWNERS)),
                0..3 => Call::Replace(dice.below(OWNERS), bytes(dice)),
                3..5 => Call::Resize(dice.below(OWNERS), bytes(dice)),
                5..7 => Call::Write(dice.below(OWNERS)),
                7 => Call::Free(dice.below(OWNERS)),
                8 => Call::GiveUp(dice.below(OWNERS), bytes(dice)),
                _ => Call::Check,
            };
            script = script.part(name, (0..count).map(|_| change(dice)).collect());
        }
        let end = if dice.chance(1, 2) { vec![Call::Close] } else { Vec::new() };
        script = script.part("main", end);
        // Of a single call that is in doubt nobody knows the handle.
        if !self.alone && dice.chance(1, 3) {
            let act = |_| Call::Act(Act::while_open(dice));
            script = script.part("operator", (0..2).map(act).collect());
        }
        if life > 0 && dice.chance(1, 3) {
            script = script.part("before", vec![Call::Act(Act::while_closed(dice))]);
        }
        script
    }

    fn live(
        &self,
        world: &World,
        script: &Script<Call>,
        told: Self::Told,
    ) -> Result<Self::Told, Broken> {
        live(world, script, told, self.policy)
    }
}

fn lock<T>(told: &Mutex<T>) -> MutexGuard<'_, T> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(fs: &SimFs, path: &Path, policy: usize) -> Result<Heap, Error> {
    let stack = Stack::options().reserve(4 << 10).fs(Arc::new(fs.clone())).open(path)?;
    match policy {
        0 => Heap::open_with_key(stack, Slab { block_size: 64 }, 1 << 40),
        1 => Heap::open_with_key(stack, Linear, 1 << 40),
        _ => Heap::open_with_key(stack, SizeClass, 1 << 40),
    }
}

/// Everything that lives, read from outside of a transaction.
fn contents(heap: &Heap) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    let mut owned = Vec::new();
    for owner in 0..OWNERS {
        let root = heap.root(owner)?;
        if !root.is_empty() {
            contents.insert(owner as u128, heap.read(root)?);
            owned.push(root.to_raw());
        }
    }
    for block in heap.blocks()? {
        if !owned.contains(&block.to_raw()) {
            contents.insert(block.to_raw(), heap.read(block)?);
        }
    }
    Ok(contents)
}

/// Tries to open the heap's file as another process.
fn attempt(process: &SimFs, path: &Path) -> Opened {
    match open(process, path, 2) {
        Err(Error::Stack(cairn_stack::Error::Locked { .. })) => Opened::Locked,
        Err(error) => Opened::Refused(format!("{error:?}")),
        Ok(_) => Opened::Open,
    }
}

/// Opens a heap of which the file is not as it was. It is refused with an error that says so, and
/// nothing is changed; or it can be opened, and everything must be there, but for what a cut of the
/// file leaves no trace of. Says if it can.
fn after_harm(fs: &SimFs, policy: usize, street: &Street, act: Act) -> Result<bool, Broken> {
    let says_so = |error: &Error| error.kind() == ErrorKind::Repair;
    let opened = || open(fs, PATH.as_ref(), policy).and_then(|heap| heap.check().map(drop));
    let open = || call("open harmed", || format!("open after {act:?}"), opened);
    if !must::refused(fs, PATH, says_so, open)? {
        met("harm: opened");
        return Ok(true);
    }
    met("harm: refused");
    let look = Inspection::open_on(fs, PATH);
    let looked = look.and_then(|look| look.get_into(0, &mut vec![0; look.len() as usize]));
    if looked.is_ok() {
        return Err(Broken::new(TRUTH, format!("a look finds nothing after {act:?}")));
    }
    street.undo();
    Ok(false)
}

/// A look at the file, without the lock, changes nothing and says how much there is.
fn look(fs: &SimFs) -> Result<Option<u64>, Broken> {
    match must::untouched(fs, || Inspection::open_on(fs, PATH))? {
        Ok(look) => Ok(Some(look.len())),
        Err(_) if fs.read_file(PATH).is_err() || fs.counters().faults > 0 => Ok(None),
        Err(error) => Err(Broken::new(TRUTH, format!("cannot be looked at: {error:?}"))),
    }
}

/// What lives is what is reached, and the arena is sound.
fn nothing_lost(heap: &Heap, fs: &SimFs, reached: usize) -> Result<(), Broken> {
    let looked = heap.check().and_then(|report| Ok((report, heap.blocks()?.count())));
    let (report, live) = match looked {
        Ok(looked) => looked,
        // A read that was made to fail says nothing of the blocks.
        Err(Error::Stack(cairn_stack::Error::Io { .. })) if fs.counters().faults > 0 => {
            return Ok(());
        }
        Err(error) => return Err(Broken::new(NOTHING_LOST, format!("{error:?}"))),
    };
    if !report.is_sound() || report.lost_bytes > 0 || live != reached {
        let text = format!("{live} blocks live, {reached} are reached: {report:?}");
        return Err(Broken::new(NOTHING_LOST, text));
    }
    Ok(())
}

/// How many bytes a heap may take whose arena has so many.
fn space(arena: u64) -> u64 {
    (128 << 10) + 4 * arena + (64 << 10)
}

#[derive(Clone)]
struct Hands {
    heap: Arc<Heap>,
    /// Handles whose blocks are gone, or never came to be.
    gone: Arc<Mutex<Vec<Block>>>,
    told: Arc<Mutex<History<Contents>>>,
    fs: SimFs,
    street: Arc<Street>,
}

fn live(
    world: &World,
    script: &Script<Call>,
    around: Surrounded<History<Contents>>,
    policy: usize,
) -> Result<Surrounded<History<Contents>>, Broken> {
    let fs = world.fs();
    let (street, gone) = Street::new(&fs, PATH, &around);
    if gone {
        // Its name may come back with a power cut: nothing is begun in its place.
        met("the file was removed");
        return Ok(around);
    }
    let mut told = around.told;
    if let Some(&Call::Act(act)) = script.calls("before").first()
        && street.harm(act)
    {
        // The newest commit alone, if the heap was not closed: its header looks torn.
        if after_harm(&fs, policy, &street, act)? && matches!(act, Act::Cut(_)) {
            told.doubt();
        }
    }
    let seen = look(&fs)?;
    let opened = call("open", || "open".to_owned(), || open(&fs, PATH.as_ref(), policy));
    let opened = opened.and_then(|heap| Ok((contents(&heap)?, heap)));
    let Some((found, heap)) = must::usable(&fs, opened)? else {
        return Ok(street.surround(told));
    };
    if let Some(bytes) = seen.filter(|&bytes| bytes > 0 && bytes != heap.stack().len()) {
        let text = format!("seen: {bytes} bytes, opened: {}", heap.stack().len());
        return Err(Broken::new(TRUTH, text));
    }
    nothing_lost(&heap, &fs, found.len())?;
    told.check(&found)?;
    street.survived();
    told.opened(found, fs.op_count());
    let begun = fs.read_file(PATH).map_or(0, |bytes| bytes.len() as u64);
    let hands = Hands {
        heap: Arc::new(heap),
        gone: Arc::default(),
        told: Arc::new(Mutex::new(told)),
        fs: fs.clone(),
        street: Arc::new(street),
    };
    let mut threads = Vec::new();
    for part in script.parts.iter().filter(|part| !["main", "before"].contains(&&*part.name)) {
        let (hands, calls) = (hands.clone(), part.calls.clone());
        threads.push(world.spawn(part.name.clone(), move || run(&hands, &calls)));
    }
    for thread in threads {
        let _ = thread.join();
    }
    let Hands { heap, told, street, .. } = hands;
    let heap = Arc::try_unwrap(heap).expect("all threads have ended");
    if !street.failing() {
        let space = begun.max(space(heap.stack().len()));
        let held = heap.stack().stats().buffered_bytes;
        must::bounded(&fs, PATH, space, (held, 0), must::OPEN_MAX)?;
    }
    if script.calls("main").first() == Some(&Call::Close) {
        match call("close", || "close".to_owned(), || heap.close()) {
            Err(error) if !street.failing() => {
                return Err(Broken::new(NO_ERROR, format!("close: {error:?}")));
            }
            _ => {}
        }
    } else {
        drop(heap);
    }
    must::all_closed(&fs)?;
    let told = lock(&told).clone();
    Ok(street.surround(told))
}

fn run(hands: &Hands, calls: &[Call]) {
    for &what in calls {
        let done = call(what.kind(), || what.to_string(), || act(hands, what));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) if !hands.street.failing() => {
                fail(Broken::new(NO_ERROR, format!("{what}: {error:?}")));
                return;
            }
            Ok(Err(_)) => return,
            Err(broken) => {
                fail(broken);
                return;
            }
        }
    }
}

fn act(hands: &Hands, what: Call) -> Result<Result<(), Error>, Broken> {
    match what {
        Call::Check => match hands.heap.check() {
            Ok(report) if report.is_sound() && report.lost_bytes == 0 => Ok(Ok(())),
            Ok(report) => Err(Broken::new(NOTHING_LOST, format!("{report:?}"))),
            Err(error) => Ok(Err(error)),
        },
        Call::Close => Ok(Ok(())),
        Call::Act(act) => hands.street.operate(act, attempt).map(Ok),
        Call::Alloc(_) | Call::Realloc(..) => Ok(alone(hands, what)),
        Call::Stale(nth) => stale(hands, nth),
        Call::Dangle(owner) => dangle(hands, owner),
        change => transact(hands, change),
    }
}

/// A single call. There is one owner, so nothing else happens meanwhile.
fn alone(hands: &Hands, what: Call) -> Result<(), Error> {
    let Hands { heap, gone, told, fs, .. } = hands;
    let begun = fs.op_count();
    let mut all = lock(told).newest().clone();
    match what {
        Call::Alloc(bytes) => {
            let bytes = vec![lock(told).len() as u8 | 1; bytes.max(1)];
            let block = heap.alloc_with(&bytes)?;
            all.insert(block.to_raw(), bytes);
        }
        Call::Realloc(owner, bytes) => {
            let old = heap.root(owner)?;
            let Some(content) = all.get_mut(&(owner as u128)) else { return Ok(()) };
            content.resize(bytes.max(1), 0);
            if heap.realloc(old, bytes.max(1) as u64)? != old {
                lock(gone).push(old);
            }
        }
        _ => return Ok(()),
    }
    let mut told = lock(told);
    let number = told.applied(all, begun);
    told.durable(number, fs.op_count());
    Ok(())
}

/// A handle whose block is gone reads nothing and frees nothing.
fn stale(hands: &Hands, nth: usize) -> Result<Result<(), Error>, Broken> {
    let Hands { heap, gone, .. } = hands;
    let block = {
        let gone = lock(gone);
        if gone.is_empty() {
            return Ok(Ok(()));
        }
        gone[gone.len() - 1 - nth % gone.len()]
    };
    if heap.read(block).is_ok() {
        return Err(Broken::new(GONE, format!("{block:?} is read")));
    }
    let mut freed = false;
    let done = heap.transaction(|tx| {
        freed = tx.dealloc(block).is_ok();
        Err::<(), Error>(Error::Stack(cairn_stack::Error::Closed))
    });
    match done {
        _ if freed => Err(Broken::new(GONE, format!("{block:?} is freed once more"))),
        Err(Error::Stack(cairn_stack::Error::Closed)) => Ok(Ok(())),
        done => Ok(done),
    }
}

/// An owner's block is freed, and the root that leads to it stays: that is refused.
fn dangle(hands: &Hands, owner: usize) -> Result<Result<(), Error>, Broken> {
    let mut any = false;
    let done = hands.heap.transaction(|tx| {
        let root = tx.root(owner)?;
        any = !root.is_empty();
        if any { tx.dealloc(root) } else { Ok(()) }
    });
    match done {
        Ok(()) if any => Err(Broken::new(GONE, format!("root {owner} leads to a freed block"))),
        Err(Error::Rooted { .. }) => Ok(Ok(())),
        done => Ok(done),
    }
}

/// Makes a change, as a transaction that first reads everything.
fn transact(hands: &Hands, what: Call) -> Result<Result<(), Error>, Broken> {
    let Hands { heap, gone, told, fs, .. } = hands;
    let (mut number, mut odd) = (None, None);
    let mut handles = Handles::default();
    let done = heap.transaction(|tx| {
        // What nobody owns is out of reach here.
        let loose = |(&key, bytes): (&u128, &Vec<u8>)| (key, bytes.clone());
        let mut all: Contents = lock(told).newest().range(OWNERS as u128..).map(loose).collect();
        for owner in 0..OWNERS {
            let root = tx.root(owner)?;
            if !root.is_empty() {
                all.insert(owner as u128, tx.read(root)?);
            }
        }
        if !lock(told).knows(&all) {
            odd = Some(format!("{all:?}"));
        }
        // Not held while the transaction works: other threads would wait for it outside of the
        // world.
        let mark = lock(told).len() as u8 | 1;
        change(tx, what, &mut all, mark, &mut handles)?;
        if matches!(what, Call::GiveUp(..)) {
            return Err(Error::Stack(cairn_stack::Error::Closed));
        }
        number = Some(lock(told).applied(all, fs.op_count()));
        Ok(())
    });
    if let Some(odd) = odd {
        return Err(Broken::new(READERS, odd));
    }
    lock(gone).extend(if done.is_ok() { handles.freed } else { handles.made });
    let mut told = lock(told);
    match (number, &done) {
        (Some(number), Ok(())) => told.durable(number, fs.op_count()),
        (Some(number), Err(error))
            if !matches!(error, Error::Stack(cairn_stack::Error::InDoubt { .. })) =>
        {
            told.refused(number);
        }
        _ => {}
    }
    match done {
        Err(Error::Stack(cairn_stack::Error::Closed)) if matches!(what, Call::GiveUp(..)) => {
            Ok(Ok(()))
        }
        done => Ok(done),
    }
}

/// The handles that a transaction makes and frees.
#[derive(Default)]
struct Handles {
    made: Vec<Block>,
    freed: Vec<Block>,
}

/// What a call changes, in the heap and in what is expected of it.
fn change(
    tx: &mut Transaction<'_, '_>,
    what: Call,
    all: &mut Contents,
    mark: u8,
    handles: &mut Handles,
) -> Result<(), Error> {
    match what {
        Call::Replace(owner, bytes) | Call::GiveUp(owner, bytes) | Call::Blank(owner, bytes) => {
            let blank = matches!(what, Call::Blank(..));
            let bytes = vec![if blank { 0 } else { mark }; bytes.max(1)];
            let old = tx.root(owner)?;
            let new = match blank {
                true => tx.alloc(bytes.len() as u64)?,
                false => tx.alloc_with(&bytes)?,
            };
            handles.made.push(new);
            tx.set_root(owner, new)?;
            if !old.is_empty() {
                tx.dealloc(old)?;
                handles.freed.push(old);
            }
            all.insert(owner as u128, bytes);
        }
        Call::Resize(owner, bytes) => {
            let old = tx.root(owner)?;
            if let Some(content) = all.get_mut(&(owner as u128)) {
                // The root follows its block.
                if tx.realloc(old, bytes.max(1) as u64)? != old {
                    handles.freed.push(old);
                }
                content.resize(bytes.max(1), 0);
            }
        }
        Call::Shrug(owner, bytes) => {
            let old = tx.root(owner)?;
            if let Some(content) = all.get_mut(&(owner as u128))
                && let Ok(new) = tx.realloc(old, bytes.max(1) as u64)
            {
                handles.freed.extend((new != old).then_some(old));
                content.resize(bytes.max(1), 0);
            }
        }
        Call::Write(owner) => {
            let root = tx.root(owner)?;
            if let Some(content) = all.get_mut(&(owner as u128)) {
                content.fill(mark);
                tx.write(root, &*content)?;
            }
        }
        Call::Free(owner) => {
            let root = tx.root(owner)?;
            if all.remove(&(owner as u128)).is_some() {
                // A root that was never set leads to no block.
                let none = tx.root(OWNERS)?;
                tx.set_root(owner, none)?;
                tx.dealloc(root)?;
                handles.freed.push(root);
            }
        }
        _ => {}
    }
    Ok(())
}

fn of(policy: usize, alone: bool) -> Simulation<Heaps> {
    Simulation::new(Heaps { policy, alone })
}

#[test]
fn threads_and_power_cuts() {
    for policy in 0..3 {
        println!("{}", of(policy, false).budget(20).run().unwrap());
    }
}

#[test]
fn one_owner_and_power_cuts() {
    for policy in 0..3 {
        println!("{}", of(policy, true).budget(20).run().unwrap());
    }
}

#[test]
fn failing_calls_threads_and_power_cuts() {
    for policy in 0..3 {
        let simulation = of(policy, false).budget(20).faults(Faults::Seeded);
        println!("{}", simulation.run().unwrap());
    }
}

/// The catalogue of deliberate bugs, against seeds alone: the workloads know of none of them.
mod mutations {
    use cairn_heap::Mutation::{self, *};
    use cairn_sim::{Simulation, Sought, seek_bugs};

    use super::{Faults, Heaps, of};

    /// Runs of each simulation within which a bug is found.
    const RUNS: u64 = 300;

    /// Bugs that show when bytes are damaged, stray, or of a copy (CountOn), where a policy answers
    /// wrongly, or, LeakGap, leaves gaps, which none of Cairn's does: no simulation does that.
    /// CommitHalf shows when a read fails within an operation whose failure its caller ignores,
    /// which took 3,951 runs. `tests/it/mutations.rs` catches them.
    const NOT_SOUGHT: [Mutation; 17] = [
        CommitHalf,
        CountOn,
        TrustLinks,
        LeakGap,
        BelieveRunLength,
        BelieveFree,
        BelieveRange,
        BelieveAlignment,
        BelieveGap,
        OpenBelievesTheEnd,
        GrowBelievesTheEnd,
        CheckBelievesTheEnd,
        CheckSkipsLists,
        CheckSkipsRoots,
        CheckSkipsCounters,
        CheckSkipsTags,
        CheckSkipsNeighbours,
    ];

    /// The simulations that look for a bug, the one that is most likely to find it first.
    fn simulations(bug: Mutation) -> Vec<(&'static str, Simulation<Heaps>)> {
        let mut simulations = [
            ("three owners", of(2, false)),
            ("one owner", of(2, true)),
            ("failing calls", of(2, false).faults(Faults::Seeded)),
        ];
        let likely = match bug {
            FreeFirst | FillLater => "one owner",
            _ => "three owners",
        };
        simulations.sort_by_key(|(name, _)| *name != likely);
        let all = simulations.into_iter();
        all.map(|(name, simulation)| (name, simulation.runs(RUNS).steer(false))).collect()
    }

    /// Seeks every other bug, so that two threads share the work.
    fn seek(half: usize) {
        let sought = Mutation::ALL.iter().filter(|bug| !NOT_SOUGHT.contains(bug));
        let Sought { found, missed } =
            seek_bugs(sought.skip(half).step_by(2).copied(), simulations, |bug, look| {
                bug.during(look)
            });
        println!("{}", found.join("\n"));
        assert!(missed.is_empty(), "not found: {missed:?}");
    }

    #[test]
    fn seeds_find_one_half_of_the_catalogue() {
        seek(0);
    }

    #[test]
    fn seeds_find_the_other_half() {
        seek(1);
    }
}

//! guards: L01 L02 L03 L08 L27 L28 L29 L30 L34 L35 L54
//!
//! The stack in simulated worlds: one seed decides what threads do, in which order they run, which
//! calls are slow or fail, and when the power goes. Every change is a transaction that first reads
//! the whole stack, so that each state is known, and after a crash the stack must be in one of
//! them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests say what they found")]
#![allow(clippy::cast_possible_truncation, reason = "the stacks are small")]

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_io::sync::thread;
use cairn_sim::{
    Broken, Dice, Faults, History, Script, SimFs, Simulation, Workload, World, call, fail, met,
};
use cairn_stack::{CASES, Durability, Error, ErrorKind, Inspection, Stack};
use cairn_trial::people::{Act, Opened, Street, Surrounded};
use cairn_trial::properties::{self as must, NO_ERROR, TRUTH};

const PATH: &str = "/data/stack";
/// Rows of the recovery table that only a store leaves, if its creation is cut off.
const OF_A_STORE: [&str; 2] =
    ["neither slot holds a header", "the newest commit is whole, the other slot holds no header"];
const READERS: &str = "a reader sees one state that was reached";
const ALONE: &str = "one handle has the stack";

/// One call. Numbers are bytes, but for the seeds of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Explicit durability, direct writes.
    Open(bool, bool),
    Push(usize),
    Pop(usize),
    Set(usize, usize),
    Zero(usize, usize),
    Resize(usize),
    /// Pops so much, sets, pushes so much: one transaction.
    Many(usize, usize),
    /// A transaction that gives up.
    GiveUp,
    /// A transaction that only reads.
    Look,
    Sync,
    Read,
    Inspect,
    /// A second process tries to open the stack.
    Intrude,
    Pause(u64),
    /// What others do around the stack.
    Act(Act),
    Close,
}

impl Call {
    fn kind(self) -> &'static str {
        match self {
            Call::Open(..) => "open",
            Call::Push(_) => "push",
            Call::Pop(_) => "pop",
            Call::Set(..) => "set",
            Call::Zero(..) => "zero",
            Call::Resize(_) => "resize",
            Call::Many(..) => "many",
            Call::GiveUp => "give_up",
            Call::Look => "look",
            Call::Intrude => "intrude",
            Call::Sync => "sync",
            Call::Read => "read",
            Call::Inspect => "inspect",
            Call::Pause(_) => "pause",
            Call::Act(act) => act.kind(),
            Call::Close => "close",
        }
    }

    /// Changes `content` as this call changes the stack; says what a transaction has to do for it.
    fn apply(self, content: &mut Vec<u8>, mark: u8) -> Vec<Edit> {
        let len = content.len();
        let edits = match self {
            Call::Push(bytes) => vec![Edit::Push(bytes)],
            Call::Pop(bytes) => vec![Edit::Pop(bytes.min(len))],
            Call::Set(at, bytes) if len > 0 => vec![set(at, bytes, len)],
            Call::Zero(at, bytes) if len > 0 => {
                let at = at % len;
                vec![Edit::Zero(at, bytes.min(len - at))]
            }
            Call::Resize(bytes) => vec![Edit::Resize(bytes)],
            Call::Many(pop, push) => {
                let pop = pop.min(len);
                let left = len - pop;
                let middle = (left > 0).then(|| set(pop, push / 2, left));
                let edits = [Some(Edit::Pop(pop)), middle, Some(Edit::Push(push))];
                edits.into_iter().flatten().collect()
            }
            _ => Vec::new(),
        };
        for edit in &edits {
            match *edit {
                Edit::Push(bytes) => content.extend(std::iter::repeat_n(mark, bytes)),
                Edit::Pop(bytes) => content.truncate(content.len() - bytes),
                Edit::Set(at, bytes) => content[at..at + bytes].fill(mark ^ 2),
                Edit::Zero(at, bytes) => content[at..at + bytes].fill(0),
                Edit::Resize(bytes) => content.resize(bytes, 0),
            }
        }
        edits
    }
}

fn set(at: usize, bytes: usize, len: usize) -> Edit {
    let at = at % len;
    Edit::Set(at, bytes.min(len - at))
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Push(usize),
    Pop(usize),
    Set(usize, usize),
    Zero(usize, usize),
    Resize(usize),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match *self {
            Call::Open(explicit, direct) => {
                write!(f, " {} {}", u8::from(explicit), u8::from(direct))
            }
            Call::Push(n) | Call::Pop(n) | Call::Resize(n) => write!(f, " {n}"),
            Call::Set(at, n) | Call::Zero(at, n) | Call::Many(at, n) => write!(f, " {at} {n}"),
            Call::Pause(micros) => write!(f, " {micros}"),
            Call::Act(act) => act.numbers().iter().try_for_each(|n| write!(f, " {n}")),
            _ => Ok(()),
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
            "open" => Call::Open(n(0) == 1, n(1) == 1),
            "push" => Call::Push(n(0)),
            "pop" => Call::Pop(n(0)),
            "set" => Call::Set(n(0), n(1)),
            "zero" => Call::Zero(n(0), n(1)),
            "resize" => Call::Resize(n(0)),
            "many" => Call::Many(n(0), n(1)),
            "give_up" => Call::GiveUp,
            "look" => Call::Look,
            "intrude" => Call::Intrude,
            "sync" => Call::Sync,
            "read" => Call::Read,
            "inspect" => Call::Inspect,
            "pause" => Call::Pause(n(0) as u64),
            "close" => Call::Close,
            _ => {
                let act = Act::parse(kind, |i| n(i) as u64);
                Call::Act(act.ok_or_else(|| format!("{text:?} is no call"))?)
            }
        })
    }
}

/// Which scripts are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Three writers and a reader.
    Threads,
    /// One writer.
    Plain,
    /// One writer whose transactions do not fit a slot of the file.
    Large,
    /// One writer that writes the same bytes again and again.
    Again,
}

struct Stacks(Style);

impl Style {
    /// What a change writes that makes the state with this number.
    fn mark(self, number: usize) -> u8 {
        if self == Style::Again { 7 } else { number as u8 | 1 }
    }
}

fn bytes(style: Style, dice: &mut Dice) -> usize {
    match dice.below(8) {
        0..4 if style == Style::Large => 60_000 + dice.below(140_000),
        0 => dice.below(3000),
        1 => 512 - dice.below(20),
        _ => dice.below(120),
    }
}

fn change(style: Style, dice: &mut Dice) -> Call {
    let bytes = |dice: &mut Dice| bytes(style, dice);
    if style == Style::Again {
        return *dice.pick(&[
            Call::Push(4500),
            Call::Push(2000),
            Call::Many(0, 4500),
            Call::Many(0, 4500),
            Call::Pop(4500),
        ]);
    }
    match dice.below(15) {
        0..4 => Call::Push(bytes(dice)),
        4 | 5 => Call::Pop(bytes(dice)),
        6 | 7 => Call::Set(dice.below(4000), bytes(dice)),
        8 => Call::Zero(dice.below(4000), bytes(dice)),
        9 => Call::Resize(bytes(dice)),
        10..12 => Call::Many(bytes(dice), bytes(dice)),
        12 => Call::Sync,
        13 => Call::Look,
        _ => Call::GiveUp,
    }
}

fn look(dice: &mut Dice) -> Call {
    match dice.below(8) {
        0 | 1 => Call::Read,
        2 | 3 => Call::Look,
        4 => Call::Inspect,
        5 => Call::Intrude,
        _ => Call::Pause(1 << dice.below(12)),
    }
}

/// What an operator and other processes do while the stack is used.
fn operator(dice: &mut Dice) -> Vec<Call> {
    let act =
        |dice: &mut Dice| [Call::Pause(1 << dice.below(12)), Call::Act(Act::while_open(dice))];
    (0..1 + dice.below(3)).flat_map(|_| act(dice)).collect()
}

impl Workload for Stacks {
    type Call = Call;
    type Told = Surrounded<History<Vec<u8>>>;

    fn name(&self) -> String {
        format!("stack, {:?}", self.0)
    }

    fn script(&self, dice: &mut Dice, life: usize) -> Script<Call> {
        let count = match self.0 {
            Style::Again => 3,
            _ if life == 0 => 20,
            _ => 4,
        };
        let open = Call::Open(dice.chance(1, 3), dice.chance(1, 2));
        let mut script = Script::new().part("stack", vec![open]);
        let style = self.0;
        let changes = |dice: &mut Dice| (0..count).map(|_| change(style, dice)).collect();
        script = script.part("writer", changes(dice));
        if style == Style::Threads {
            script = script.part("other", changes(dice)).part("third", changes(dice));
            script = script.part("reader", (0..count).map(|_| look(dice)).collect());
        }
        let end = if dice.chance(1, 2) { vec![Call::Close] } else { Vec::new() };
        script = script.part("main", end);
        if [Style::Threads, Style::Plain].contains(&self.0) {
            if dice.chance(1, 3) {
                script = script.part("operator", operator(dice));
            }
            if life > 0 && dice.chance(1, 3) {
                script = script.part("before", vec![Call::Act(Act::while_closed(dice))]);
            }
        }
        script
    }

    fn live(
        &self,
        world: &World,
        script: &Script<Call>,
        told: Self::Told,
    ) -> Result<Self::Told, Broken> {
        live(self.0, world, script, told)
    }

    fn can_meet(&self) -> Vec<String> {
        let rows = CASES.iter().filter(|case| case.never().is_none()).map(|case| case.label());
        rows.filter(|row| !OF_A_STORE.contains(row)).map(|row| format!("recovery: {row}")).collect()
    }
}

/// What the threads of a life share.
#[derive(Clone)]
struct Hands {
    stack: Arc<Stack>,
    told: Arc<Mutex<History<Vec<u8>>>>,
    /// Number of the newest change whose call returned. A `sync` owes nothing to one that runs: its
    /// closure is over and told, while the stack has yet to take what it did.
    returned: Arc<AtomicUsize>,
    fs: SimFs,
    street: Arc<Street>,
    /// Bytes of the file when it had been opened.
    begun: u64,
    style: Style,
    /// Operations are durable when they return.
    operations: bool,
}

fn live(
    style: Style,
    world: &World,
    script: &Script<Call>,
    around: Surrounded<History<Vec<u8>>>,
) -> Result<Surrounded<History<Vec<u8>>>, Broken> {
    let fs = world.fs();
    let (street, gone) = Street::new(&fs, PATH, &around);
    if gone {
        // Its name may come back with a power cut: nothing is begun in its place.
        met("the file was removed");
        return Ok(around);
    }
    let mut told = around.told;
    let (explicit, direct) = match script.calls("stack").first() {
        Some(&Call::Open(explicit, direct)) => (explicit, direct),
        _ => (false, false),
    };
    let durability = if explicit { Durability::Explicit } else { Durability::Operation };
    let options = Stack::options().durability(durability).direct_io(direct).reserve(8 << 10);
    let options = options.buffer_size(BUFFER);
    let options = options.fs(Arc::new(fs.clone()));
    if let Some(&Call::Act(act)) = script.calls("before").first()
        && street.harm(act)
    {
        // The newest commit alone, if the stack was not closed: its header looks torn.
        if after_harm(&fs, &options, &street, act)? && matches!(act, Act::Cut(_)) {
            told.doubt();
        }
    }
    let seen = inspected(&fs)?;
    let opened = call("open", || "open".to_owned(), || options.open(PATH));
    let opened = opened.and_then(|stack| Ok((stack.peek(0)?, stack)));
    let Some((content, stack)) = must::usable(&fs, opened)? else {
        return Ok(street.surround(told));
    };
    told.check(&content)?;
    street.survived();
    if let Some(seen) = seen.filter(|seen| *seen != content) {
        let text = format!("seen: {} bytes, opened: {} bytes", seen.len(), content.len());
        return Err(Broken::new(TRUTH, text));
    }
    told.opened(content, fs.op_count());
    let hands = Hands {
        stack: Arc::new(stack),
        told: Arc::new(Mutex::new(told)),
        returned: Arc::new(AtomicUsize::new(0)),
        fs: fs.clone(),
        street: Arc::new(street),
        begun: fs.read_file(PATH).map_or(0, |bytes| bytes.len() as u64),
        style,
        operations: !explicit,
    };
    let mut threads = Vec::new();
    for part in
        script.parts.iter().filter(|part| !["stack", "main", "before"].contains(&&*part.name))
    {
        let (hands, calls) = (hands.clone(), part.calls.clone());
        threads.push(world.spawn(part.name.clone(), move || run(&hands, &calls)));
    }
    for thread in threads {
        let _ = thread.join();
    }
    end(hands, script.calls("main").first() == Some(&Call::Close))
}

/// Opens a stack of which the file is not as it was. It is refused with an error that says so, and
/// nothing is changed; or it can be opened, and everything must be there, but for what a cut of the
/// file leaves no trace of. Says if it can.
fn after_harm(
    fs: &SimFs,
    options: &cairn_stack::Options,
    street: &Street,
    act: Act,
) -> Result<bool, Broken> {
    let says_so = |error: &Error| error.kind() == ErrorKind::Repair;
    let open =
        || call("open harmed", || format!("open after {act:?}"), || options.clone().open(PATH));
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

/// Bytes that may wait in memory where durability is explicit.
const BUFFER: u64 = 4 << 10;

/// How many bytes a stack may take that held so many at most: the slots, what is reserved, and
/// behind the payload a body that fits no slot.
fn space(highest: u64) -> u64 {
    (128 << 10) + 4 * highest + (64 << 10)
}

fn end(hands: Hands, close: bool) -> Result<Surrounded<History<Vec<u8>>>, Broken> {
    let Hands { stack, told, fs, street, begun, operations, .. } = hands;
    let highest = lock(&told).states().map(|content| content.len() as u64).max().unwrap_or(0);
    if !street.failing() {
        let held = (stack.stats().buffered_bytes, if operations { 0 } else { BUFFER });
        must::bounded(&fs, PATH, begun.max(space(highest)), held, must::OPEN_MAX)?;
    }
    let stack = Arc::try_unwrap(stack).expect("all threads have ended");
    let newest = lock(&told).last();
    if close {
        match call("close", || "close".to_owned(), || stack.close()) {
            Ok(()) => {
                let mut told = lock(&told);
                told.durable(newest, fs.op_count());
                let closed = told.newest().clone();
                told.opened(closed, fs.op_count());
            }
            Err(_) if street.failing() => {}
            Err(error) => return Err(Broken::new(NO_ERROR, format!("close: {error:?}"))),
        }
    } else {
        drop(stack);
    }
    must::all_closed(&fs)?;
    let told = lock(&told).clone();
    Ok(street.surround(told))
}

/// What a look at the file shows, without the lock; `None` when there is no stack yet.
fn inspected(fs: &SimFs) -> Result<Option<Vec<u8>>, Broken> {
    let look = match must::untouched(fs, || Inspection::open_on(fs, PATH))? {
        Ok(look) => look,
        Err(_) if fs.read_file(PATH).is_err() || fs.counters().faults > 0 => return Ok(None),
        Err(error) => return Err(Broken::new(TRUTH, format!("cannot be looked at: {error:?}"))),
    };
    met(format!("recovery: {}", look.found()));
    let mut content = vec![0; look.len() as usize];
    match must::untouched(fs, || look.get_into(0, &mut content))? {
        Ok(()) => Ok(Some(content)),
        Err(_) if fs.counters().faults > 0 => Ok(None),
        Err(error) => Err(Broken::new(TRUTH, format!("cannot be read: {error:?}"))),
    }
}

fn lock<T>(told: &Mutex<T>) -> MutexGuard<'_, T> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread of a life.
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
    let Hands { stack, told, returned, fs, operations, .. } = hands;
    match what {
        Call::Sync => {
            let newest = returned.load(Ordering::SeqCst);
            let done = stack.sync();
            if done.is_ok() && !*operations {
                lock(told).durable(newest, fs.op_count());
            }
            Ok(done)
        }
        Call::Read => match stack.peek(0) {
            Ok(content) => {
                let mut told = lock(told);
                // Readers are shown what is durable, unless durability is explicit.
                let known = match operations {
                    true => told.shown(&content, fs.op_count()),
                    false => told.knows(&content),
                };
                let text = || Broken::new(READERS, format!("{} bytes", content.len()));
                if known { Ok(Ok(())) } else { Err(text()) }
            }
            Err(error) => Ok(Err(error)),
        },
        Call::Look => look_closely(hands),
        Call::Intrude => {
            let _turn = hands.street.turn();
            // Where the file was removed, another process begins a stack in its place.
            if hands.street.failing() {
                return Ok(Ok(()));
            }
            match attempt(&fs.second_process(), PATH.as_ref()) {
                Opened::Locked => Ok(Ok(())),
                Opened::Refused(_) if hands.street.failing() => Ok(Ok(())),
                other => Err(Broken::new(ALONE, format!("{other:?}"))),
            }
        }
        Call::Inspect => {
            let _turn = hands.street.turn();
            Ok(Inspection::open_on(&fs.second_process(), PATH).map(drop))
        }
        Call::Act(act) => hands.street.operate(act, attempt).map(Ok),
        Call::Pause(micros) => {
            thread::sleep(Duration::from_micros(micros));
            Ok(Ok(()))
        }
        Call::Open(..) | Call::Close => Ok(Ok(())),
        change => transact(hands, change),
    }
}

/// Tries to open the stack as another process.
fn attempt(process: &SimFs, path: &Path) -> Opened {
    match Stack::options().fs(Arc::new(process.clone())).open(path) {
        Err(Error::Locked { .. }) => Opened::Locked,
        Err(error) => Opened::Refused(format!("{error:?}")),
        Ok(_) => Opened::Open,
    }
}

/// Reads everything in a transaction: what it has seen is durable when it returns.
fn look_closely(hands: &Hands) -> Result<Result<(), Error>, Broken> {
    let Hands { stack, told, fs, operations, .. } = hands;
    let mut seen = None;
    let done = stack.transaction(|tx| {
        let content = tx.peek(0)?;
        let told = lock(told);
        seen = Some((told.last(), *told.newest() == content));
        Ok::<_, Error>(())
    });
    // A change that is being refused may be in the model still.
    if hands.street.failing() {
        return Ok(done);
    }
    match (done, seen) {
        (Ok(()), Some((_, false))) => Err(Broken::new(READERS, "a transaction reads another one")),
        (Ok(()), Some((number, true))) => {
            if *operations {
                lock(told).durable(number, fs.op_count());
            }
            Ok(Ok(()))
        }
        (done, _) => Ok(done),
    }
}

/// Makes a change of the whole stack, as a transaction.
fn transact(hands: &Hands, what: Call) -> Result<Result<(), Error>, Broken> {
    let Hands { stack, told, returned, fs, style, operations, .. } = hands;
    let (mut number, mut odd) = (None, false);
    let done = stack.transaction(|tx| {
        let mut content = tx.peek(0)?;
        odd = !lock(told).knows(&content);
        let mark = style.mark(lock(told).len());
        for edit in what.apply(&mut content, mark) {
            match edit {
                Edit::Push(bytes) => drop(tx.push(vec![mark; bytes])?),
                Edit::Pop(bytes) => drop(tx.pop(bytes as u64)?),
                Edit::Set(at, bytes) => tx.set(at as u64, vec![mark ^ 2; bytes])?,
                Edit::Zero(at, bytes) => tx.zero(at as u64..(at + bytes) as u64)?,
                Edit::Resize(bytes) => tx.resize(bytes as u64)?,
            }
        }
        if what == Call::GiveUp {
            tx.push([7; 100])?;
            return Err(Error::Closed);
        }
        number = Some(lock(told).applied(content, fs.op_count()));
        Ok(())
    });
    if odd && done.is_ok() {
        return Err(Broken::new(READERS, format!("{what} finds what never was")));
    }
    if let (Some(number), Ok(())) = (number, &done) {
        returned.fetch_max(number, Ordering::SeqCst);
    }
    let mut told = lock(told);
    match (number, &done) {
        (Some(number), Ok(())) if *operations => told.durable(number, fs.op_count()),
        (Some(number), Err(error)) if !matches!(error, Error::InDoubt { .. }) => {
            told.refused(number);
        }
        _ => {}
    }
    let gave_up = what == Call::GiveUp && matches!(done, Err(Error::Closed));
    Ok(if gave_up { Ok(()) } else { done })
}

fn explore(simulation: Simulation<Stacks>) {
    println!("{}", simulation.budget(40).run().unwrap());
}

fn of(style: Style) -> Simulation<Stacks> {
    Simulation::new(Stacks(style))
}

#[test]
fn threads_and_power_cuts() {
    explore(of(Style::Threads));
}

#[test]
fn one_writer_and_many_cuts() {
    explore(of(Style::Plain).cuts(30));
}

#[test]
fn changes_that_fit_no_slot() {
    explore(of(Style::Large));
}

#[test]
fn failing_writes_of_what_fits_no_slot() {
    explore(of(Style::Large).faults(Faults::Writes));
}

#[test]
fn the_same_bytes_again() {
    explore(of(Style::Again).later_cuts(4));
}

#[test]
fn failing_calls_threads_and_power_cuts() {
    explore(of(Style::Threads).faults(Faults::Seeded));
}

#[test]
fn failing_barriers_deaths_and_power_cuts() {
    explore(of(Style::Plain).faults(Faults::Barriers));
}

/// The catalogue of deliberate bugs, against seeds alone: the workloads know of none of them.
mod mutations {
    use cairn_sim::{Sought, seek_bugs};
    use cairn_stack::Mutation;

    use super::{Faults, Simulation, Stacks, Style, of};

    /// Runs of each simulation within which a bug is found.
    const RUNS: u64 = 300;

    /// The simulations that look for a bug, the one that is most likely to find it first.
    fn simulations(bug: Mutation) -> Vec<(&'static str, Simulation<Stacks>)> {
        let mut simulations: [(&str, Simulation<Stacks>); 7] = [
            ("threads", of(Style::Threads)),
            ("failing barriers", of(Style::Plain).faults(Faults::Barriers)),
            ("the same bytes again", of(Style::Again).later_cuts(4)),
            ("failing calls", of(Style::Threads).faults(Faults::Seeded)),
            ("one writer", of(Style::Plain).cuts(30)),
            ("large", of(Style::Large)),
            ("large, failing writes", of(Style::Large).faults(Faults::Writes)),
        ];
        let likely = match bug {
            Mutation::SkipSettle | Mutation::ApplyTooLate => "large",
            Mutation::TrustPageCache | Mutation::TrustListedName => "failing barriers",
            Mutation::TrustLength => "the same bytes again",
            Mutation::LeaveOtherSlot => "one writer",
            Mutation::IgnoreFailedWrite => "large, failing writes",
            _ => "threads",
        };
        simulations.sort_by_key(|(name, _)| *name != likely);
        let all = simulations.into_iter();
        all.map(|(name, simulation)| (name, simulation.runs(RUNS).steer(false))).collect()
    }

    /// What only a fork, a file that is moved, a reader that outlives the stack, a full disk, or a
    /// part of a copy shows: `surroundings.rs`, `faults.rs` and `histories.rs` catch these.
    const NOT_SOUGHT: [Mutation; 5] = [
        Mutation::IgnoreFork,
        Mutation::KeepLock,
        Mutation::TrustName,
        Mutation::KeepRefusedSpace,
        Mutation::IgnorePredecessor,
    ];

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

    /// Threads show nothing while the power stays, and one thread nothing when it fails.
    #[test]
    fn an_answer_from_memory_needs_a_schedule_and_a_crash_to_show() {
        let of = |style| of(style).runs(100).steer(false);
        Mutation::AnswerFromMemory.during(|| {
            let without = [of(Style::Threads).cuts(0), of(Style::Plain)];
            let found = without.iter().find_map(|simulation| simulation.first_failure());
            assert_eq!(found, None);
            let (run, broken) = of(Style::Threads).first_failure().expect("it shows with both");
            println!("AnswerFromMemory: run {run}: {}", broken.property);
        });
    }
}

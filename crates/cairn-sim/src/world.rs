//! A world: threads whose schedule a seed decides, over a simulated machine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use cairn_io::sync::seam::{Simulation as _, message};
use cairn_io::sync::thread as threads;
use cairn_io::sync::{Condvar, Mutex};

use crate::dice::Dice;
use crate::fs::SimFs;
use crate::options::SimOptions;
use crate::schedule::{self, Broken, Decider, Faults, Scheduler, Turn};

/// What is decided for a world: its machine and who decides.
#[derive(Debug)]
struct Inside {
    scheduler: Rc<Scheduler>,
    fs: SimFs,
    met: RefCell<BTreeMap<String, u64>>,
    /// What each thread is in the middle of, by number.
    doing: RefCell<BTreeMap<usize, &'static str>>,
    /// `None` when nobody listens.
    story: Option<RefCell<Vec<Line>>>,
}

thread_local! {
    /// The world that runs in this thread of the system.
    static CURRENT: RefCell<Option<Rc<Inside>>> = const { RefCell::new(None) };
}

fn current() -> Option<Rc<Inside>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Ends the world that the calling thread is in: a property does not hold. Every thread of the
/// world unwinds, the calling one at its next step.
///
/// # Panics
/// When no world decides for the calling thread.
pub fn fail(broken: Broken) {
    match current() {
        Some(inside) => inside.scheduler.fail(broken),
        None => panic!("{broken}"),
    }
}

/// Counts that something was met, for the [report](crate::Explored) and for the choice of seeds.
pub fn met(what: impl Into<String>) {
    if let Some(inside) = current() {
        *inside.met.borrow_mut().entry(what.into()).or_default() += 1;
    }
}

/// Adds a line to the story that is told of a failing run.
pub fn say(text: impl FnOnce() -> String) {
    let Some(inside) = current() else { return };
    if let Some(story) = &inside.story {
        let line = Line {
            point: inside.fs.op_count(),
            thread: inside.scheduler.name_of_running(),
            text: text(),
        };
        story.borrow_mut().push(line);
    }
}

/// Makes a call of the program under test: counts its kind, counts which other kinds it overlaps,
/// and has the story tell of its beginning and its end.
pub fn call<R: fmt::Debug>(
    kind: &'static str,
    text: impl FnOnce() -> String,
    body: impl FnOnce() -> R,
) -> R {
    let Some(inside) = current() else { return body() };
    let thread = inside.scheduler.running();
    let mut shown = None;
    say(|| {
        let text = text();
        shown = Some(text.clone());
        format!("{text} ...")
    });
    met(kind);
    for (_, other) in inside.doing.borrow().iter().filter(|(other, _)| **other != thread) {
        let (first, second) = if kind <= *other { (kind, *other) } else { (*other, kind) };
        met(format!("{first} beside {second}"));
    }
    let outer = inside.doing.borrow_mut().insert(thread, kind);
    let result = body();
    match outer {
        Some(outer) => inside.doing.borrow_mut().insert(thread, outer),
        None => inside.doing.borrow_mut().remove(&thread),
    };
    say(|| {
        let mut result = format!("{result:?}");
        if let Some((cut, _)) = result.char_indices().nth(200) {
            result.truncate(cut);
        }
        format!("{} = {result}", shown.unwrap_or_default())
    });
    result
}

/// One line of the story of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Operations of the machine's trace that were done by then.
    pub point: usize,
    /// Name of the thread that speaks.
    pub thread: String,
    /// What it says.
    pub text: String,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    pub(crate) seed: u64,
    pub(crate) machine: Option<SimFs>,
    pub(crate) faults: Faults,
    pub(crate) turns: Option<Vec<Turn>>,
    pub(crate) steps_max: u64,
    pub(crate) story: bool,
}

impl WorldOptions {
    /// A world over an empty machine, in which no call fails.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            machine: None,
            faults: Faults::None,
            turns: None,
            steps_max: 2_000_000,
            story: false,
        }
    }

    /// Over this machine instead of an empty one.
    #[must_use]
    pub fn machine(mut self, machine: SimFs) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Whether calls fail.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Decides as an earlier run did, not as the seed says.
    #[must_use]
    pub fn turns(mut self, turns: Vec<Turn>) -> Self {
        self.turns = Some(turns);
        self
    }

    /// A world with more steps than this hangs.
    #[must_use]
    pub fn steps_max(mut self, steps: u64) -> Self {
        self.steps_max = steps;
        self
    }

    /// Keeps the lines of [`say`] and [`call`].
    #[must_use]
    pub fn story(mut self, told: bool) -> Self {
        self.story = told;
        self
    }

    /// Runs `body` as the first thread of a world, until it and all threads that were begun have
    /// ended.
    pub fn run<T: 'static>(self, body: impl FnOnce(&World) -> T + 'static) -> Ran<T> {
        let decider = match &self.turns {
            Some(turns) => Decider::repeated(turns),
            None => Decider::seeded(self.seed, self.faults),
        };
        let fs =
            self.machine.unwrap_or_else(|| SimFs::with_options(SimOptions::new().seed(self.seed)));
        let scheduler = Scheduler::new(decider, self.steps_max);
        let inside = Rc::new(Inside {
            scheduler: scheduler.clone(),
            fs: fs.clone(),
            met: RefCell::default(),
            doing: RefCell::default(),
            story: self.story.then(RefCell::default),
        });
        let outcome = Rc::new(RefCell::new(None));
        let told = outcome.clone();
        let world = World { fs, dice: RefCell::new(Dice::part(self.seed, 1)) };
        let root = move || {
            let result = catch_unwind(AssertUnwindSafe(|| body(&world)));
            let panic = result.as_ref().err().map(|payload| message(&**payload));
            *told.borrow_mut() = result.ok();
            panic
        };
        let begun = scheduler.spawn(Some("main".to_owned()), Box::new(root));
        let outer = CURRENT.replace(Some(inside.clone()));
        let broken = match begun {
            Ok(_) => schedule::run(&scheduler),
            Err(error) => Some(Broken::new("a world can begin", error.to_string())),
        };
        CURRENT.set(outer);
        let result = match (broken, outcome.take()) {
            (None, Some(result)) => Ok(result),
            (None, None) => Err(Broken::new("no thread panics", "main ended early")),
            (Some(broken), _) => Err(broken),
        };
        Ran {
            result,
            steps: scheduler.steps(),
            turns: scheduler.turns(),
            met: inside.met.take(),
            story: inside.story.as_ref().map(RefCell::take).unwrap_or_default(),
        }
    }
}

/// A run of a world that is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ran<T> {
    /// What the first thread returned, or what was broken.
    pub result: Result<T, Broken>,
    /// Steps that were taken.
    pub steps: u64,
    /// What was decided; see [`WorldOptions::turns`].
    pub turns: Vec<Turn>,
    /// What was met, and how often.
    pub met: BTreeMap<String, u64>,
    /// What was said, if it was to be kept.
    pub story: Vec<Line>,
}

/// A simulated machine, and threads whose schedule a seed decides; see [`run`].
#[derive(Debug)]
pub struct World {
    fs: SimFs,
    dice: RefCell<Dice>,
}

impl World {
    /// The machine, as its first process sees it.
    #[must_use]
    pub fn fs(&self) -> SimFs {
        self.fs.clone()
    }

    /// Begins a thread with a name.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> threads::JoinHandle<T> {
        let begun = threads::Builder::new().name(name.into()).spawn(body);
        begun.expect("a world can begin threads")
    }

    /// A random number below `bound`.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        self.dice.borrow_mut().below(bound)
    }
}

/// Runs `body` in a world whose schedule `seed` decides: `body` is its first thread. Returns when
/// it and all threads that were begun have ended.
///
/// # Errors
/// [`Broken`] when a call hangs, a thread panics, or [`fail`] was called.
pub fn run<T: 'static>(seed: u64, body: impl FnOnce(&World) -> T + 'static) -> Result<T, Broken> {
    WorldOptions::new(seed).run(body).result
}

/// Waits for a future, as a thread of the world.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        signal.wait();
    }
}

/// What wakes a thread that waits for a future.
#[derive(Debug, Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

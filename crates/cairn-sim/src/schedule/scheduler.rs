//! Runs the threads of a world, one at a time, each on a stack of its own.
//!
//! A thread runs until a step at which the [`Decider`] has another one go on, or until it waits. If
//! all threads wait for each other, the world ends: a call hangs. When a world ends before its
//! threads do, they stay where they are, and what they hold is leaked: to unwind them would run
//! code at moments at which it cannot run.
//!
//! Time is simulated: steps and calls take some, and when every thread sleeps or is delayed, time
//! goes on to the first of them.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use cairn_io::sync::fiber::{self, Fiber};
use cairn_io::sync::seam::{Body, Simulation};

use super::broken::Broken;
use super::decider::Decider;
use super::turn::Turn;
use crate::faults::{Call, Fault};

/// What a step takes, and what it takes to look at the clock.
const STEP: Duration = Duration::from_nanos(20);
const LOOK: Duration = Duration::from_nanos(500);
/// What a thread that has nothing to do waits before it looks again, while others are delayed.
const IDLE: Duration = Duration::from_micros(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Waits for a place, at most until then.
    Waiting {
        place: usize,
        until: Option<Duration>,
    },
    Asleep(Duration),
    Ended,
}

#[derive(Debug)]
struct Actor {
    name: Option<String>,
    /// `None` while it runs, and when it has ended.
    fiber: Option<Fiber>,
    state: State,
    /// What it does or waits for.
    what: &'static str,
    steps: u64,
    /// Whether its last wait ended because it was woken.
    woken: bool,
}

/// Where threads wait that join another one: no address of anything.
fn joining(thread: usize) -> usize {
    thread + 1
}

#[derive(Debug)]
struct Inner {
    actors: Vec<Actor>,
    current: usize,
    /// Who goes on next, if that is decided.
    next: Option<usize>,
    /// Memory of a list of threads.
    list: Vec<u32>,
    decider: Decider,
    now: Duration,
    steps: u64,
    steps_max: u64,
    /// Why the world has ended before its threads.
    broken: Option<Broken>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Scheduler {
    inner: RefCell<Inner>,
    myself: Weak<Self>,
}

/// What a thread does after a step.
enum Act {
    GoOn,
    Suspend,
}

impl Scheduler {
    pub(crate) fn new(decider: Decider, steps_max: u64) -> Rc<Self> {
        Rc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            inner: RefCell::new(Inner {
                actors: Vec::new(),
                current: 0,
                next: None,
                list: Vec::new(),
                decider,
                now: Duration::ZERO,
                steps: 0,
                steps_max,
                broken: None,
            }),
        })
    }

    /// Runs until every thread has ended. Returns what was broken.
    pub(crate) fn run(&self) -> Option<Broken> {
        loop {
            let Some(next) = self.inner.borrow_mut().pick() else { break };
            let fiber = {
                let mut inner = self.inner.borrow_mut();
                inner.current = next;
                inner.actors[next].fiber.take()
            };
            let Some(mut fiber) = fiber else { continue };
            let ended = fiber.resume();
            let mut inner = self.inner.borrow_mut();
            if ended {
                inner.actors[next].state = State::Ended;
                inner.actors[next].steps += 1;
                inner.wake(joining(next), usize::MAX);
                if next == 0 {
                    inner.actors[0].what = "ended";
                }
            } else {
                inner.actors[next].fiber = Some(fiber);
            }
        }
        self.inner.borrow_mut().broken.take()
    }

    /// Ends the world: a property does not hold.
    pub(crate) fn fail(&self, broken: Broken) {
        let mut inner = self.inner.borrow_mut();
        inner.fail(broken);
    }

    pub(crate) fn steps(&self) -> u64 {
        self.inner.borrow().steps
    }

    pub(crate) fn turns(&self) -> Vec<Turn> {
        self.inner.borrow().decider.turns.clone()
    }

    /// The name of the running thread.
    pub(crate) fn name_of_running(&self) -> String {
        let inner = self.inner.borrow();
        let name = inner.actors.get(inner.current).and_then(|actor| actor.name.clone());
        name.unwrap_or_else(|| format!("thread {}", inner.current))
    }

    /// The number of the running thread.
    pub(crate) fn running(&self) -> usize {
        self.inner.borrow().current
    }

    /// Begins a file system call: a step, perhaps a delay; says which fault befalls the call.
    pub(crate) fn begin_call(&self, call: Call) -> Option<Fault> {
        self.after(|inner| inner.step(call.name(), true));
        self.delay(call);
        let mut inner = self.inner.borrow_mut();
        let (thread, step) = inner.key();
        inner.decider.fault(thread, step, call)
    }

    /// Ends a file system call that has changed something: it takes its time, perhaps more.
    pub(crate) fn end_call(&self, call: Call) {
        self.inner.borrow_mut().now += took(call);
        self.after(|inner| inner.step(call.name(), true));
        self.delay(call);
    }

    fn delay(&self, call: Call) {
        let act = {
            let mut inner = self.inner.borrow_mut();
            // A key of its own: the thread may also have been preempted at its last step.
            let current = inner.current;
            inner.actors[current].steps += 1;
            let (thread, step) = inner.key();
            inner.decider.delay(thread, step).map(|time| {
                let until = inner.now + time;
                inner.actors[current].what = call.name();
                inner.actors[current].state = State::Asleep(until);
            })
        };
        if act.is_some() {
            self.after(|_| Act::Suspend);
        }
    }

    /// Does what is due after a step.
    fn after(&self, step: impl FnOnce(&mut Inner) -> Act) {
        let act = step(&mut self.inner.borrow_mut());
        if let Act::Suspend = act {
            fiber::suspend();
        }
    }

    /// Waits in state `state`; says whether the thread was woken.
    fn block(&self, state: State, what: &'static str) -> bool {
        self.after(|inner| inner.block(state, what));
        let inner = self.inner.borrow();
        inner.actors[inner.current].woken
    }
}

/// Simulated time of a call; of the order that a solid-state disk takes.
fn took(call: Call) -> Duration {
    Duration::from_micros(match call {
        Call::Sync | Call::SyncDir => 400,
        Call::WriteDirect => 100,
        Call::Write | Call::Allocate | Call::SetLen => 10,
        Call::Create | Call::Rename | Call::Remove | Call::CreateDir => 20,
        _ => 2,
    })
}

impl Inner {
    fn key(&self) -> (u32, u64) {
        let actor = &self.actors[self.current];
        (u32::try_from(self.current).expect("few threads"), actor.steps)
    }

    /// Threads that may run, but for the one given; in the memory of the last list that was
    /// [put back](Self::choose).
    fn ready_but(&mut self, without: Option<usize>) -> Vec<u32> {
        let mut ready = std::mem::take(&mut self.list);
        ready.clear();
        let numbered = (0u32..).zip(&self.actors);
        let numbered = numbered
            .filter(|(i, actor)| actor.state == State::Ready && Some(*i as usize) != without);
        ready.extend(numbered.map(|(i, _)| i));
        ready
    }

    /// One of `ready`, `None` if it is empty, while the running thread waits.
    fn choose(&mut self, ready: Vec<u32>) -> Option<usize> {
        let (thread, step) = self.key();
        let next = (!ready.is_empty()).then(|| self.decider.next(thread, step, &ready) as usize);
        self.list = ready;
        next
    }

    /// Counts a step; says whether the world is over, and the thread stays where it is.
    fn count(&mut self) -> bool {
        let current = self.current;
        self.now += STEP;
        self.steps += 1;
        self.actors[current].steps += 1;
        if self.steps > self.steps_max {
            let text = format!("no end after {} steps\n{}", self.steps, self.who_waits());
            self.fail(Broken::new("no call hangs", text));
        }
        self.broken.is_some()
    }

    fn step(&mut self, what: &'static str, call: bool) -> Act {
        if self.count() {
            return Act::Suspend;
        }
        // A thread that unwinds from a panic goes on alone: others would see it panicking, too.
        if std::thread::panicking() {
            return Act::GoOn;
        }
        let current = self.current;
        let (thread, step) = self.key();
        self.actors[current].what = what;
        let Inner { decider, actors, .. } = self;
        let actors = &*actors;
        let others = || {
            let numbered = (0u32..).zip(actors);
            let ready = numbered
                .filter(move |(i, actor)| actor.state == State::Ready && *i as usize != current);
            ready.map(|(i, _)| i)
        };
        match decider.preempt(thread, step, call, others) {
            Some(to) => {
                self.next = Some(to as usize);
                Act::Suspend
            }
            None => Act::GoOn,
        }
    }

    fn block(&mut self, state: State, what: &'static str) -> Act {
        let current = self.current;
        self.count();
        let actor = &mut self.actors[current];
        actor.state = state;
        actor.what = what;
        actor.woken = false;
        Act::Suspend
    }

    /// The running thread lets others go on, if there are any.
    fn give_way(&mut self, what: &'static str) -> Act {
        if self.count() {
            return Act::Suspend;
        }
        let current = self.current;
        self.actors[current].what = what;
        let others = self.ready_but(Some(current));
        self.next = self.choose(others);
        if self.next.is_some() {
            return Act::Suspend;
        }
        // Those who are delayed are waited for.
        self.now += IDLE;
        self.wake_sleepers();
        let others = self.ready_but(Some(current));
        let alone = others.is_empty();
        self.list = others;
        if alone { Act::GoOn } else { Act::Suspend }
    }

    fn wake(&mut self, place: usize, count: usize) {
        let waiting = self.actors.iter_mut().filter(
            |actor| matches!(actor.state, State::Waiting { place: other, .. } if other == place),
        );
        for actor in waiting.take(count) {
            actor.state = State::Ready;
            actor.woken = true;
        }
    }

    /// Makes those ready whose time has come.
    fn wake_sleepers(&mut self) {
        let now = self.now;
        for actor in &mut self.actors {
            let due = match actor.state {
                State::Asleep(until) | State::Waiting { until: Some(until), .. } => until <= now,
                _ => false,
            };
            if due {
                actor.state = State::Ready;
            }
        }
    }

    fn first_to_wake(&self) -> Option<Duration> {
        let until = |actor: &Actor| match actor.state {
            State::Asleep(until) | State::Waiting { until: Some(until), .. } => Some(until),
            _ => None,
        };
        self.actors.iter().filter_map(until).min()
    }

    /// The thread that goes on; `None` when all have ended, or the world has.
    fn pick(&mut self) -> Option<usize> {
        while self.broken.is_none() {
            self.wake_sleepers();
            let next = self.next.take();
            if let Some(next) = next.filter(|&next| self.actors[next].state == State::Ready) {
                return Some(next);
            }
            let ready = self.ready_but(None);
            if let Some(next) = self.choose(ready) {
                return Some(next);
            }
            if let Some(time) = self.first_to_wake() {
                self.now = time;
                continue;
            }
            if self.actors.iter().all(|actor| actor.state == State::Ended) {
                return None;
            }
            let text = self.who_waits();
            let broken = match self.actors[0].state {
                State::Ended => Broken::new("no thread is left waiting", text),
                _ => Broken::new("no call hangs", text),
            };
            self.fail(broken);
        }
        None
    }

    fn fail(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    fn who_waits(&self) -> String {
        let mut text = String::new();
        for (i, actor) in self.actors.iter().enumerate() {
            let name = actor.name.as_deref().unwrap_or("unnamed");
            let what = actor.what;
            let line = match actor.state {
                State::Ready => format!("thread {i} ({name}) is in {what}\n"),
                State::Waiting { place, .. } => match self.actors.get(place.wrapping_sub(1)) {
                    Some(other) => {
                        let other = other.name.as_deref().unwrap_or("unnamed");
                        format!("thread {i} ({name}) waits for the end of {other}\n")
                    }
                    None => format!("thread {i} ({name}) waits for {what}\n"),
                },
                State::Asleep(_) => format!("thread {i} ({name}) sleeps in {what}\n"),
                State::Ended => continue,
            };
            text.push_str(&line);
        }
        text
    }
}

impl Simulation for Scheduler {
    fn step(&self, what: &'static str) {
        self.after(|inner| inner.step(what, false));
    }

    fn yield_now(&self, what: &'static str) {
        self.after(|inner| inner.give_way(what));
    }

    fn wait(&self, place: usize, what: &'static str, limit: Option<Duration>) -> bool {
        let until = limit.map(|limit| self.inner.borrow().now.saturating_add(limit));
        self.block(State::Waiting { place, until }, what)
    }

    fn wake(&self, place: usize, count: usize) {
        self.inner.borrow_mut().wake(place, count);
    }

    fn spawn(&self, name: Option<String>, body: Body) -> io::Result<u64> {
        let number = self.inner.borrow().actors.len();
        let told = name.clone();
        let myself = self.myself.clone();
        let fiber = Fiber::new(move || {
            if let (Some(message), Some(scheduler)) = (body(), myself.upgrade()) {
                let name = told.as_deref().unwrap_or("unnamed");
                scheduler.fail(Broken::new("no thread panics", format!("{name}: {message}")));
            }
        })?;
        let mut inner = self.inner.borrow_mut();
        inner.actors.push(Actor {
            name,
            fiber: Some(fiber),
            state: State::Ready,
            what: "its beginning",
            steps: 0,
            woken: false,
        });
        drop(inner);
        if number > 0 {
            self.step("spawn");
        }
        Ok(number as u64)
    }

    fn has_ended(&self, thread: u64) -> bool {
        self.step("look");
        let inner = self.inner.borrow();
        let actor = usize::try_from(thread).ok().and_then(|thread| inner.actors.get(thread));
        actor.is_none_or(|actor| actor.state == State::Ended)
    }

    fn join(&self, thread: u64) {
        self.step("join");
        let Ok(thread) = usize::try_from(thread) else { return };
        loop {
            {
                let inner = self.inner.borrow();
                let Some(actor) = inner.actors.get(thread) else { return };
                if actor.state == State::Ended {
                    return;
                }
            }
            self.block(
                State::Waiting { place: joining(thread), until: None },
                "the end of a thread",
            );
        }
    }

    fn current(&self) -> (u64, Option<String>) {
        let inner = self.inner.borrow();
        (inner.current as u64, inner.actors[inner.current].name.clone())
    }

    fn elapsed(&self) -> Duration {
        let mut inner = self.inner.borrow_mut();
        inner.now += LOOK;
        inner.now
    }

    fn sleep(&self, duration: Duration) {
        let until = self.inner.borrow().now.saturating_add(duration);
        self.block(State::Asleep(until), "sleep");
    }
}

//! Who decides at a step: a seed, or the turns of an earlier run.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use super::turn::{Decision, Turn};
use crate::faults::{Call, Errno, Fault};
use crate::rng::{Rng, derive};

/// Turns that are kept. A run with more can be repeated from its seed only.
const TURNS_MAX: usize = 100_000;

/// How calls fail in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Faults {
    /// They do not.
    #[default]
    None,
    /// As the seed says: in most runs none, in some one, a few, or all of a kind from some moment
    /// on.
    Seeded,
    /// In most runs one of the first barriers fails, and no other call.
    Barriers,
    /// In most runs one of the first writes through the page cache fails, and no other call.
    Writes,
}

/// How the calls of one run fail.
#[derive(Clone, Copy, Debug)]
enum Style {
    None,
    /// The call with this number, counted over all kinds.
    Once(u64),
    /// The call of a kind with this number, counted over that kind.
    OnceOf(u64, Call),
    /// One of so many.
    Rate(u64),
    /// All of a kind from this number of calls on.
    From(u64, Option<Call>),
    /// The barrier with this number.
    Barrier(u64),
}

#[derive(Debug)]
enum Mode {
    Seeded {
        rng: Rng,
        /// Steps between two switches, on average.
        interval: usize,
        /// Threads switch at file system calls and when they wait, nowhere else.
        calls_only: bool,
        left: u64,
        /// One call of so many is delayed; 0 for none.
        delays: usize,
        style: Style,
        calls: u64,
    },
    Repeated(BTreeMap<(u32, u64), Vec<Decision>>),
}

/// Decides, and keeps what it decided.
#[derive(Debug)]
pub(crate) struct Decider {
    mode: Mode,
    pub(crate) turns: Vec<Turn>,
}

const DENIED: Errno = Errno::Kind(ErrorKind::PermissionDenied);
const QUOTA: Errno = Errno::Kind(ErrorKind::QuotaExceeded);

/// The errors that a call of a kind can return, but for those of a caller that made a mistake.
fn errors(call: Call) -> &'static [Errno] {
    match call {
        Call::Open | Call::OpenDir => &[Errno::Eio, Errno::Emfile, DENIED],
        Call::Create | Call::CreateDir => {
            &[Errno::Eio, Errno::Enospc, Errno::Emfile, DENIED, QUOTA]
        }
        Call::Rename => &[Errno::Eio, Errno::Enospc, DENIED],
        Call::Remove => &[Errno::Eio, DENIED],
        Call::SetLen => &[Errno::Eio, Errno::Enospc, QUOTA],
        Call::Allocate => &[Errno::Eio, Errno::Enospc, Errno::Enotsup, QUOTA],
        Call::Read | Call::WriteDirect => &[Errno::Eio, Errno::Eintr],
        Call::Write => &[Errno::Eio, Errno::Enospc, Errno::Eintr, QUOTA],
        Call::Sync | Call::SyncDir => &[Errno::Eio, Errno::Enospc, QUOTA],
        Call::List => &[Errno::Eio, Errno::Emfile],
        Call::Random | Call::Len | Call::Stat | Call::DataFrom | Call::Lock => &[Errno::Eio],
    }
}

impl Decider {
    pub(crate) fn seeded(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng::new(derive(seed, 0x7475_726e));
        let interval = [1, 2, 4, 10, 40, 200][rng.below(6)];
        let calls_only = rng.chance(8);
        let left = 1 + rng.below(2 * interval) as u64;
        let delays = [0, 0, 3, 10, 40][rng.below(5)];
        let style = match (faults, rng.below(8)) {
            (Faults::None, _) | (Faults::Seeded, 0..4) | (_, 0) => Style::None,
            (Faults::Barriers, _) => Style::Barrier(rng.below(16) as u64),
            (Faults::Writes, _) => Style::OnceOf(rng.below(32) as u64, Call::Write),
            (_, 4) => Style::Once(rng.below(150) as u64),
            (_, 5) => Style::OnceOf(rng.below(24) as u64, Call::ALL[rng.below(Call::ALL.len())]),
            (_, 6) => Style::Rate([10, 40, 100][rng.below(3)]),
            _ => {
                let all = rng.chance(4);
                let kind = Call::ALL[rng.below(Call::ALL.len())];
                Style::From(rng.below(120) as u64, (!all).then_some(kind))
            }
        };
        let mode = Mode::Seeded { rng, interval, calls_only, left, delays, style, calls: 0 };
        Self { mode, turns: Vec::new() }
    }

    pub(crate) fn repeated(turns: &[Turn]) -> Self {
        let mut by_step: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for turn in turns {
            by_step.entry((turn.thread, turn.step)).or_default().push(turn.what);
        }
        Self { mode: Mode::Repeated(by_step), turns: Vec::new() }
    }

    fn keep(&mut self, thread: u32, step: u64, what: Decision) {
        if self.turns.len() < TURNS_MAX {
            self.turns.push(Turn { thread, step, what });
        }
    }

    /// Whether another thread goes on at this step of `thread`, and which.
    pub(crate) fn preempt<I: Iterator<Item = u32>>(
        &mut self,
        thread: u32,
        step: u64,
        call: bool,
        ready: impl Fn() -> I,
    ) -> Option<u32> {
        let to = match &mut self.mode {
            Mode::Seeded { calls_only: true, .. } if !call => return None,
            Mode::Seeded { left, .. } if *left > 1 => {
                *left -= 1;
                return None;
            }
            Mode::Seeded { rng, interval, left, .. } => {
                *left = 1 + rng.below(2 * *interval) as u64;
                let which = rng.below(ready().count());
                ready().nth(which)?
            }
            Mode::Repeated(turns) => {
                let to = turns.get(&(thread, step))?.iter().find_map(|what| match what {
                    Decision::Switch(to) => Some(*to),
                    _ => None,
                })?;
                ready().find(|ready| *ready == to)?
            }
        };
        self.keep(thread, step, Decision::Switch(to));
        Some(to)
    }

    /// Which of `ready`, in order of number and not empty, goes on when `thread` waits.
    pub(crate) fn next(&mut self, thread: u32, step: u64, ready: &[u32]) -> u32 {
        let default = *ready.iter().find(|&&other| other > thread).unwrap_or(&ready[0]);
        let to = match &mut self.mode {
            Mode::Seeded { rng, .. } => ready[rng.below(ready.len())],
            Mode::Repeated(turns) => {
                let told = turns.get(&(thread, step)).and_then(|list| {
                    list.iter().find_map(|what| match what {
                        Decision::Switch(to) => Some(*to),
                        _ => None,
                    })
                });
                told.filter(|to| ready.contains(to)).unwrap_or(default)
            }
        };
        if to != default {
            self.keep(thread, step, Decision::Switch(to));
        }
        to
    }

    /// For how long a call is delayed.
    pub(crate) fn delay(&mut self, thread: u32, step: u64) -> Option<Duration> {
        let time = match &mut self.mode {
            Mode::Seeded { delays: 0, .. } => return None,
            Mode::Seeded { rng, delays, .. } => {
                if rng.below(*delays) != 0 {
                    return None;
                }
                Duration::from_micros(50 << rng.below(10))
            }
            Mode::Repeated(turns) => {
                turns.get(&(thread, step))?.iter().find_map(|what| match what {
                    Decision::Delay(time) => Some(*time),
                    _ => None,
                })?
            }
        };
        self.keep(thread, step, Decision::Delay(time));
        Some(time)
    }

    /// What befalls a call.
    pub(crate) fn fault(&mut self, thread: u32, step: u64, call: Call) -> Option<Fault> {
        let fault = match &mut self.mode {
            Mode::Seeded { style: Style::None, .. } => return None,
            Mode::Seeded { rng, style, calls, .. } => {
                let barrier = matches!(call, Call::Sync | Call::SyncDir | Call::WriteDirect);
                let counts = match *style {
                    Style::Barrier(_) => barrier,
                    Style::OnceOf(_, kind) => kind == call,
                    _ => true,
                };
                if !counts {
                    return None;
                }
                let number = *calls;
                *calls += 1;
                let hit = match *style {
                    Style::None => false,
                    Style::Once(nth) | Style::OnceOf(nth, _) | Style::Barrier(nth) => number == nth,
                    Style::Rate(of) => (rng.next() >> 16).is_multiple_of(of),
                    Style::From(nth, kind) => number >= nth && kind.is_none_or(|kind| kind == call),
                };
                if !hit {
                    return None;
                }
                draw(rng, call)
            }
            Mode::Repeated(turns) => {
                turns.get(&(thread, step))?.iter().find_map(|what| match what {
                    Decision::Fault(fault) => Some(*fault),
                    _ => None,
                })?
            }
        };
        self.keep(thread, step, Decision::Fault(fault));
        Some(fault)
    }
}

fn draw(rng: &mut Rng, call: Call) -> Fault {
    let errors = errors(call);
    let error = errors[rng.below(errors.len())];
    let bytes = [0, 1, 100, 512, 4096][rng.below(5)];
    match (call, rng.below(4)) {
        (Call::Read, 0) => Fault::Short(bytes.max(1)),
        (Call::Write, 0) => Fault::Short(bytes.max(1)),
        // A signal that came first has kept the call from doing anything.
        (_, 2) if error != Errno::Eintr => Fault::FailAfter(bytes, error),
        _ => Fault::Fail(error),
    }
}
